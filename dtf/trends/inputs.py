"""A series as the user gave it, as arrays."""

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from dtf.trends.moments import Floats, all_seconds, is_date

LARGEST = 1e100
"""Largest value that is analysed: sums of squares of larger ones are no numbers."""
LARGEST_WEIGHT = 1e9


@dataclass(frozen=True, slots=True)
class Inputs:
    """A series; every array has shape (n,)."""

    values: Floats
    """NaN: missing."""
    times: Floats
    """Seconds since 1970, in order; positions if there are none."""
    weights: Floats | None
    has_times: bool
    has_dates: bool
    """Whether the times were given as dates."""


def inputs(values: Any, times: Any, weights: Any) -> Inputs:
    """Check and convert what `analyze` was given. Raises ValueError with one line that says what is wrong."""
    is_of_index = times is None and _is_pandas(values, "Series")
    if is_of_index:
        times = _index_times(values)
    numbers = _numbers(values, "value")
    check_size(numbers)
    has_dates = False
    if times is None:
        moments = np.arange(len(numbers), dtype=np.float64)
    else:
        given = _sequence(times)
        if len(given) != len(numbers):
            raise ValueError(f"there are {len(numbers)} values but {len(given)} times")
        try:
            moments = all_seconds(given)
        except ValueError as error:
            hint = "; these are the Series' index: .reset_index(drop=True) counts positions instead"
            raise ValueError(f"{error}{hint if is_of_index else ''}") from None
        has_dates = len(given) > 0 and is_date(given[0])
    return Inputs(numbers, moments, _weights(weights, len(numbers)), times is not None, has_dates)


def check_size(numbers: Floats) -> None:
    """Raises ValueError for a finite value beyond LARGEST; shape (n,)."""
    too_large = np.flatnonzero(np.isfinite(numbers) & (np.abs(numbers) > LARGEST))
    if len(too_large):
        at = too_large[0]
        raise ValueError(f"value {at} is {numbers[at]:g}: beyond {LARGEST:g} nothing is analysed")


def _is_pandas(values: Any, name: str) -> bool:
    """Whether it is one of pandas' types; pandas is not imported to find out."""
    return any(
        each.__name__ == name and each.__module__.partition(".")[0] == "pandas"
        for each in type(values).__mro__
    )


def _index_times(series: Any) -> Any:
    """The index of a pandas Series if it says times; None if it names the rows in another way."""
    index = series.index
    if hasattr(index, "to_timestamp"):
        index = index.to_timestamp()
    array = index.to_numpy()
    if array.dtype.kind in "iufM":
        return array
    try:
        all_seconds(array[:1])
    except ValueError:
        return None
    return array


def _sequence(values: Any) -> Any:
    """Something with a length and positions; pandas objects as arrays."""
    if _is_pandas(values, "DataFrame"):
        names = ", ".join(str(each) for each in list(values.columns)[:8])
        raise ValueError(
            f"a DataFrame is no series: give a column of it, as frame[{names.split(', ')[0]!r}] (it has {names})"
        )
    if hasattr(values, "to_numpy"):
        return values.to_numpy()
    if isinstance(values, np.ndarray | list | tuple):
        return values
    if isinstance(values, dict) or not isinstance(values, Iterable):
        raise ValueError(
            f"wanted a list, an array, a pandas Series or the path of a file, not {type(values).__name__}"
        )
    return list(values)


def _numbers(values: Any, name: str) -> Floats:
    given = _sequence(values)
    if isinstance(given, np.ma.MaskedArray):
        given = np.where(np.ma.getmaskarray(given), np.nan, np.ma.getdata(given).astype(np.float64))
    if isinstance(given, np.ndarray) and given.dtype.kind in "iufb":
        numbers = given.astype(np.float64)
    else:
        numbers = np.asarray(
            [_number(each, name, position) for position, each in enumerate(given)], np.float64
        )
    if numbers.ndim != 1:
        raise ValueError(f"wanted one dimension, not shape {numbers.shape}: give one column at a time")
    return numbers


def is_absent(value: Any) -> bool:
    """Whether it stands for a missing value: None, pandas' NA."""
    return value is None or type(value).__name__ == "NAType"


def is_number(value: Any) -> bool:
    """Whether it can be compared with numbers."""
    return isinstance(value, Real | np.number)


def _number(value: Any, name: str, position: int) -> float:
    if is_absent(value):
        return float("nan")
    try:
        if isinstance(value, str) or np.ndim(value) == 0:
            return float(value)
    except OverflowError:
        raise ValueError(f"{name} {position} is a whole number larger than {LARGEST:g}") from None
    except (TypeError, ValueError):
        raise ValueError(f"{name} {position} is {value!r}, which is no number") from None
    raise ValueError(
        f"wanted one dimension: {name} {position} has {len(value)} entries; give one column at a time"
    )


def _weights(weights: Any, count: int) -> Floats | None:
    if weights is None:
        return None
    numbers = _numbers(weights, "weight")
    if len(numbers) != count:
        raise ValueError(f"there are {count} values but {len(numbers)} weights")
    bad = np.flatnonzero(~((numbers > 0) & (numbers <= LARGEST_WEIGHT)))
    if len(bad):
        raise ValueError(
            f"weight {bad[0]} is {numbers[bad[0]]:g}: a weight is above 0 (how many measurements a value is) "
            f"and at most {LARGEST_WEIGHT:g}"
        )
    return numbers
