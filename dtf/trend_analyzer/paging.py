"""Pages: sizes within their bounds, and tokens that name the last entry given."""

import base64
import binascii
import json

from dtf.core.run.commands import FieldViolation, InvalidRequest

MOST_PAGE_BYTES = 4 * 2**20
"""A page ends before it grows beyond this: receivers take 16 MiB, and large messages hold up small ones."""


def page_size(asked: int, *, default: int, most: int, field: str = "page_size") -> int:
    """The size of the page. Raises InvalidRequest when it is beyond `most`."""
    if asked > most:
        fault = FieldViolation(field, f"{asked} is above {most}")
        raise InvalidRequest(f"{field} is {asked}, expected at most {most}", violations=[fault])
    return asked or default


def make_token(parts: tuple[str, ...]) -> str:
    """A token for the page behind the entry that `parts` name."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def read_token(token: str, count: int) -> tuple[str, ...]:
    """The parts of a token; empty strings for an empty token. Raises InvalidRequest."""
    if not token:
        return ("",) * count
    try:
        parts = json.loads(base64.urlsafe_b64decode(token.encode()))
        if not isinstance(parts, list) or len(parts) != count or not all(isinstance(p, str) for p in parts):
            raise ValueError("not a list of names")
    except (ValueError, binascii.Error) as error:
        fault = FieldViolation("page_token", "not a token that this service gave")
        raise InvalidRequest(
            f"page_token {token!r} is not one this service gave", violations=[fault]
        ) from error
    return tuple(parts)
