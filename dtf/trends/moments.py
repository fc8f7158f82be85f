"""Times as users have them, as seconds since 1970-01-01 UTC. A time without a zone is UTC."""

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from typing import Any

import numpy as np

from dtf.core.trend.imports.cells import iso_moment

Floats = np.ndarray[Any, np.dtype[np.float64]]
FIRST_DATE, END_OF_DATES = -62_135_596_800.0, 253_402_300_800.0
"""The years 1 to 9999, which a calendar has."""


def seconds(moment: Any, position: int | None = None) -> float:
    """One time: a datetime, a date, a number of seconds, ISO text, numpy's datetime64, a pandas Timestamp.

    Raises ValueError, naming `position` if it is given.
    """
    found = _seconds(moment)
    if math.isnan(found) or math.isinf(found):
        name = "the time" if position is None else f"time {position}"
        raise ValueError(
            f"{name} is {moment!r:.60}: wanted a datetime, seconds since 1970 or ISO text as 2026-05-01T12:00"
        )
    return found


def _seconds(moment: Any) -> float:
    match moment:
        case bool():
            return math.nan
        case int() | float() | np.integer() | np.floating():
            try:
                return float(moment)
            except OverflowError:
                return math.inf
        case np.datetime64():
            return (
                math.nan
                if np.isnat(moment)
                else float(moment.astype("datetime64[us]").astype(np.int64)) / 1e6
            )
        case datetime():
            return _of_datetime(moment)
        case date():
            return _of_datetime(datetime.combine(moment, time()))
        case str():
            return _of_text(moment.strip())
        case _:
            return math.nan


def _of_datetime(moment: datetime) -> float:
    if moment != moment:  # pandas' NaT is a datetime that differs from itself
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _of_text(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    when = iso_moment(text)
    return math.nan if when is None else when.timestamp()


def is_date(moment: Any) -> bool:
    """Whether it says a date, rather than a number."""
    if isinstance(moment, str):
        try:
            float(moment)
        except ValueError:
            return True
        return False
    return isinstance(moment, date | np.datetime64)


def all_seconds(moments: Sequence[Any] | Floats) -> Floats:
    """Times in order, shape (n,). Raises ValueError for one that is none or is before its predecessor."""
    array = np.asarray(moments) if isinstance(moments, np.ndarray) else None
    if array is not None and array.dtype.kind == "M":
        found = np.where(np.isnat(array), np.nan, array.astype("datetime64[us]").astype(np.int64) / 1e6)
    elif array is not None and array.dtype.kind in "iuf":
        found = array.astype(np.float64)
    else:
        found = np.asarray([_seconds(each) for each in moments], dtype=np.float64)
    _check(found, moments)
    return found


def _check(found: Floats, moments: Sequence[Any] | Floats) -> None:
    bad = np.flatnonzero(~np.isfinite(found))
    if len(bad):
        seconds(moments[int(bad[0])], int(bad[0]))
        raise ValueError(f"time {bad[0]} is missing")
    back = np.flatnonzero(np.diff(found) < 0)
    if len(back):
        at = int(back[0]) + 1
        raise ValueError(
            f"time {at} ({moments[at]}) is before time {at - 1} ({moments[at - 1]}): sort the series by time first"
        )


def as_text(moment: float) -> str:
    """ISO text of seconds since 1970: the date of a midnight, else with the time, to the second unless it has a fraction.

    Seconds beyond the years that have dates stay a number.
    """
    if not FIRST_DATE <= moment < END_OF_DATES:
        return f"{moment:.10g} s"
    when = datetime.fromtimestamp(moment, UTC).replace(tzinfo=None)
    if not (when.hour or when.minute or when.second or when.microsecond):
        return when.date().isoformat()
    return when.isoformat(sep=" ", timespec="milliseconds" if when.microsecond else "seconds")
