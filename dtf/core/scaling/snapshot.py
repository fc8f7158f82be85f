"""A projection or a ledger as bytes, and back. What was written by another schema is not read."""

from typing import TypeVar

import msgspec

SCHEMA_VERSION = 3
"""Raised whenever a field of what is stored changes its meaning; the fold then begins anew."""

T = TypeVar("T")


def encode(value: object) -> bytes:
    """`value`, a dataclass of this package, with the version of its schema."""
    return msgspec.msgpack.encode((SCHEMA_VERSION, value))


def decode(data: bytes, kind: type[T]) -> T | None:
    """What `encode` wrote; None if it is of another schema or damaged."""
    try:
        version, value = msgspec.msgpack.decode(data, type=tuple[int, msgspec.Raw])
        if version != SCHEMA_VERSION:
            return None
        return msgspec.msgpack.decode(value, type=kind)
    except msgspec.MsgspecError:
        return None
