"""Responses that are bytes already: what many callers are told alike is encoded once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Encoded:
    """A message as it goes out."""

    data: bytes


def passing_encoded(serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """`serialize`, but what is encoded already passes as it is."""

    def passing(message: Any) -> bytes:
        return message.data if type(message) is Encoded else serialize(message)

    return passing
