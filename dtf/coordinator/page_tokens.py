"""Opaque tokens of pages: they carry where to go on, and are refused when they are not ours.

The check is against mistakes (a token of another list or with another filter), not an attack:
what a token names, its holder may list anyway.
"""

import base64
import binascii
import hashlib
import json

from dtf.core.run.commands import FieldViolation, InvalidRequest

_CHECK_BYTES = 6


def encode(listing: str, scope: str, key: str | int) -> str:
    """A token for going on after `key` in a listing within a scope (its filters)."""
    body = json.dumps(key).encode()
    return base64.urlsafe_b64encode(_check(listing, scope, body) + body).decode()


def decode(listing: str, scope: str, token: str) -> str | int | None:
    """The key of a token; None for the first page. Raises InvalidRequest."""
    if not token:
        return None
    try:
        raw = base64.urlsafe_b64decode(token.encode())
    except (binascii.Error, ValueError):
        raw = b""
    body = raw[_CHECK_BYTES:]
    if not body or raw[:_CHECK_BYTES] != _check(listing, scope, body):
        raise _fault("is not a token of this list with these filters; begin again without one")
    key = json.loads(body)
    if not isinstance(key, str | int):
        raise _fault("is not a token of this list")
    return key


def page_size(asked: int, default: int, most: int) -> int:
    """The size of a page. Raises InvalidRequest."""
    if asked > most:
        raise InvalidRequest(
            f"page_size is {asked}; at most {most} are allowed",
            violations=[FieldViolation("page_size", f"is {asked}; at most {most} are allowed")],
        )
    return asked or default


def _check(listing: str, scope: str, body: bytes) -> bytes:
    text = f"{listing}\0{scope}\0".encode() + body
    return hashlib.blake2b(text, digest_size=_CHECK_BYTES).digest()


def _fault(description: str) -> InvalidRequest:
    return InvalidRequest(f"page_token {description}", violations=[FieldViolation("page_token", description)])
