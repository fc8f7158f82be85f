"""What a cell of a table says: a number, a time, or nothing."""

import re
from datetime import UTC, datetime

MISSING = frozenset(
    ("", "nan", "na", "n/a", "null", "none", "nil", "-", "<na>", "nat", "inf", "-inf", "+inf")
)
"""Cells that say that nothing was measured, in any case of letters."""

MILLISECONDS_FROM, MICROSECONDS_FROM, NANOSECONDS_FROM = 1e11, 1e14, 1e17
"""Numbers from here on are times in these units: as seconds they were beyond the year 5000."""
LAST_MOMENT = 253_402_300_799.0
"""The end of the year 9999: what is later is no time, but a number in a column that is called so."""

_DECIMAL_COMMA = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+)?,\d+([eE][+-]?\d+)?")
_ZONE = re.compile(r"(?<=\d) (?=[+-]\d{2}:?\d{2}$)")


def is_missing(text: str) -> bool:
    """Whether the cell says that there is no value."""
    return text.lower() in MISSING


def number(text: str, *, is_comma_decimal: bool = False) -> float | None:
    """The number in a cell; None: it is none. With decimal commas 1.234,5 is one and 1.5 is none."""
    if is_comma_decimal:
        if has_decimal_comma(text):
            text = text.replace(".", "").replace(",", ".")
        elif "." in text:
            return None
    try:
        return float(text)
    except ValueError:
        return None


def has_decimal_comma(text: str) -> bool:
    """Whether it is a number with a decimal comma, as 12,5 or 1.234,5."""
    return _DECIMAL_COMMA.fullmatch(text) is not None


def iso_moment(text: str) -> datetime | None:
    """A time in ISO text, as UTC where it says no zone; None: it is none.

    Also as `git log` writes it (2026-05-01 12:00:00 +0200), with slashes in the date, and with UTC behind.
    """
    text = text.strip()
    if text[4:5] == "/" and text[7:8] == "/":
        text = f"{text[:4]}-{text[5:7]}-{text[8:]}"
    for zone in (" UTC", " GMT", " Z"):
        text = text.removesuffix(zone)
    try:
        when = datetime.fromisoformat(_ZONE.sub("", text))
        return when if when.tzinfo else when.replace(tzinfo=UTC)
    except ValueError:
        return None


def moment(text: str) -> float | None:
    """The time in a cell, as seconds since 1970; of numbers the size says the unit. None: it is none."""
    found = number(text)
    if found is not None:
        seconds = _in_seconds(found)
        return seconds if abs(seconds) <= LAST_MOMENT else None
    when = iso_moment(text)
    try:
        return None if when is None else when.timestamp()
    except (OverflowError, ValueError):
        return None


def _in_seconds(found: float) -> float:
    size = abs(found)
    if size >= NANOSECONDS_FROM:
        return found / 1e9
    if size >= MICROSECONDS_FROM:
        return found / 1e6
    return found / 1e3 if size >= MILLISECONDS_FROM else found
