"""What metrics are made of: noise that remembers, days, bumps, places for what is odd."""

from dataclasses import dataclass
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Random = np.random.Generator

DAY = 288
"""Five-minute positions in a day."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A metric and where a person marked it."""

    values: Floats
    """Shape (n,)."""
    marks: tuple[int, ...]
    """Where each anomaly begins, as far as a person sees it."""
    interval: float
    """Usual seconds between values."""
    is_regular: bool
    """Whether values come on time; traffic's come when a vehicle does."""


def metric(
    values: Any, marks: tuple[int, ...] = (), interval: float = 300.0, *, is_regular: bool = True
) -> Watched:
    """With these numbers."""
    return Watched(np.asarray(values, dtype=np.float64), marks, interval, is_regular)


def remembering(random: Random, length: int, memory: float) -> Floats:
    """Autoregressive noise with a standard deviation of 1, shape (length,)."""
    reach = int(np.ceil(np.log(1e-4) / np.log(memory))) if memory > 0 else 1
    kernel = memory ** np.arange(reach) * np.sqrt(1 - memory**2)
    return np.asarray(
        np.convolve(random.standard_normal(length + reach - 1), kernel, "valid"), dtype=np.float64
    )


def places(random: Random, length: int, count: int, since: float = 0.18) -> list[int]:
    """So many places behind the share `since` of the file, a window's length apart where that fits."""
    first, last = int(since * length), int(0.97 * length)
    apart = min(int(0.1 * length / max(count, 1)) + 1, (last - first) // (count + 1))
    cuts = np.sort(random.integers(0, last - first - apart * count + 1, count))
    return [int(first + cut + apart * (number + 0.5)) for number, cut in enumerate(cuts)]


def moments(random: Random, length: int, rate: float) -> list[int]:
    """Places of unmarked oddities anywhere: about `rate` of them."""
    return [int(each) for each in np.sort(random.integers(30, length - 30, random.poisson(rate)))]


def bump(length: int, place: int, rise: int, fall: float) -> Floats:
    """From 0 up to 1 within `rise` positions from `place` on, then down again exponentially; shape (length,)."""
    since = np.arange(length) - place
    up = np.clip((since + 1) / max(rise, 1), 0.0, 1.0)
    return np.where(since < 0, 0.0, up * np.exp(-np.maximum(since - rise, 0) / fall))


def day_shape(random: Random, length: int, day: int, sharp: float = 1.0) -> Floats:
    """A daily pattern between about -1 and 1: a wave, its harmonics, a weekend; shape (length,)."""
    phase = 2 * np.pi * (np.arange(length) / day + random.random())
    wave = np.sin(phase) + sharp * (
        0.35 * np.sin(2 * phase + random.uniform(0, 6)) + 0.15 * np.sin(3 * phase)
    )
    weekend = 1.0 - random.uniform(0.0, 0.35) * ((np.arange(length) // day + random.integers(7)) % 7 >= 5)
    return np.asarray(wave * weekend / 1.3, dtype=np.float64)
