"""States as they are kept: plain JSON, with a digest of each part, so that what was changed or cut is told by its name.

Engines trust what they restore: a number that does not fit the others would be found values later, as an
IndexError or not at all. So each part carries a digest, and a state is either the one that was given or refused.
It may have been through any JSON: 1.0 may come back as 1, and the order of keys is free.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec

STATE_VERSION = 2
_EXACT = 2**53
"""Whole numbers below this are the same as doubles."""
_MOST_DEPTH = 12


class StreamState(msgspec.Struct, forbid_unknown_fields=True):
    """Of a Stream."""

    version: int
    last: int | float | None
    changes: dict[str, Any]
    anomalies: dict[str, Any] | None
    digests: dict[str, str]


class DetectorState(msgspec.Struct, forbid_unknown_fields=True):
    """Of an AnomalyDetector."""

    version: int
    last: int | float | None
    detector: dict[str, Any]
    digests: dict[str, str]


State = TypeVar("State", StreamState, DetectorState)


def seal(**parts: Any) -> dict[str, Any]:
    """The state of these parts: JSON without NaN, with a digest of each."""
    plain = {name: _plain(part) for name, part in parts.items()}
    return {"version": STATE_VERSION, **plain, "digests": _digests(plain)}


def open_sealed(state: object, kind: type[State]) -> State:
    """The parts of a sealed state. Raises ValueError, which says what is wrong, for one that `seal` did not give."""
    if not isinstance(state, Mapping):
        raise ValueError(f"wanted what state() gave, not {type(state).__name__}")
    version = state.get("version")
    if version != STATE_VERSION:
        raise ValueError(
            f"the state has version {version!r:.40}, this code reads {STATE_VERSION}: append the series' values anew"
        )
    try:
        opened = msgspec.convert({**state, "version": STATE_VERSION}, kind)
        parts = {name: part for name, part in msgspec.structs.asdict(opened).items() if name not in _ABOUT}
        found = _digests(parts)
        said = opened.digests
        wrong = [name for name in sorted(found.keys() | said.keys()) if found.get(name) != said.get(name)]
    except (msgspec.ValidationError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"the state is damaged: {error!s:.200}; restore an older one or start anew"
        ) from None
    if wrong:
        named = ", ".join(f"{name!r:.60}" for name in wrong[:5]) + (" …" if len(wrong) > 5 else "")
        raise ValueError(
            f"the state is damaged: not as state() gave it: {named}; restore an older one or start anew"
        )
    return msgspec.convert({"version": STATE_VERSION, "digests": said, **_thawed(parts)}, kind)


_ABOUT = ("version", "digests")


def _digests(parts: Mapping[str, Any]) -> dict[str, str]:
    digests: dict[str, str] = {}
    for name, part in _named(parts):
        try:
            digests[name] = _digest(part)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name:.60}: {error}") from None
    return digests


def _named(parts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each part, or each part of it where it has some."""
    for name, part in parts.items():
        if isinstance(part, dict) and part:
            yield from ((f"{name}.{inner}", value) for inner, value in part.items())
        else:
            yield name, part


def _digest(part: Any) -> str:
    text = json.dumps(_canonical(part), sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.blake2s(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _canonical(value: Any, depth: int = 0) -> Any:
    """The value with one way to write each number. Raises ValueError or TypeError for what is not plain."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if abs(value) < _EXACT else float(value)
        case float():
            if not math.isfinite(value):
                raise ValueError(f"{value} is no number of JSON")
            return int(value) if value.is_integer() and abs(value) < _EXACT else value
        case list() | tuple() if depth < _MOST_DEPTH:
            return [_canonical(each, depth + 1) for each in value]
        case dict() if depth < _MOST_DEPTH:
            return {_key(key): _canonical(each, depth + 1) for key, each in value.items()}
        case _:
            raise TypeError(f"{type(value).__name__} is no part of a state")


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{key!r:.40} is no name of a part")
    return key


def _plain(value: Any) -> Any:
    """The value for JSON: what is not finite as text, which no other text of a state is."""
    match value:
        case float() if not math.isfinite(value):
            return repr(float(value))
        case list() | tuple():
            return [_plain(each) for each in value]
        case dict():
            return {key: _plain(each) for key, each in value.items()}
        case _:
            return value


def _thawed(value: Any) -> Any:
    """What `_plain` was given; whole numbers are of type int, as an engine's counts have to be."""
    match value:
        case "nan" | "inf" | "-inf":
            return float(value)
        case float() if value.is_integer() and abs(value) < _EXACT:
            return int(value)
        case list():
            return [_thawed(each) for each in value]
        case dict():
            return {key: _thawed(each) for key, each in value.items()}
        case _:
            return value
