"""The newest finite values of a series, in arrays that grow at one end and are cut at the other."""

from dataclasses import dataclass, field

import numpy as np

from dtf.core.trend.changes.arrays import Places, Vector


def _floats() -> Vector:
    return np.empty(256)


def _whole() -> Places:
    return np.empty(256, dtype=np.int64)


@dataclass(slots=True)
class Window:
    """Finite values with their position in the series, time and weight."""

    length: int = 0
    _positions: Places = field(default_factory=_whole)
    _times: Vector = field(default_factory=_floats)
    _values: Vector = field(default_factory=_floats)
    _weights: Vector = field(default_factory=_floats)

    @property
    def positions(self) -> Places:
        return self._positions[: self.length]

    @property
    def times(self) -> Vector:
        return self._times[: self.length]

    @property
    def values(self) -> Vector:
        return self._values[: self.length]

    @property
    def weights(self) -> Vector:
        return self._weights[: self.length]

    def place_of(self, position: int) -> int:
        """Where in the window the first value at or behind this position is."""
        return int(self.positions.searchsorted(position))

    def count_from(self, position: int) -> int:
        """Values at or behind this position."""
        return self.length - self.place_of(position)

    def add(self, positions: Places, times: Vector, values: Vector, weights: Vector) -> None:
        """Put these behind the newest."""
        end = self.length + len(values)
        while end > len(self._values):
            self._grow()
        self._positions[self.length : end] = positions
        self._times[self.length : end] = times
        self._values[self.length : end] = values
        self._weights[self.length : end] = weights
        self.length = end

    def cut(self, count: int) -> None:
        """Forget the oldest `count`."""
        kept = self.length - count
        for each in (self._positions, self._times, self._values, self._weights):
            each[:kept] = each[count : self.length].copy()
        self.length = kept

    def _grow(self) -> None:
        self._positions = np.concatenate([self._positions, np.empty_like(self._positions)])
        self._times = np.concatenate([self._times, np.empty_like(self._times)])
        self._values = np.concatenate([self._values, np.empty_like(self._values)])
        self._weights = np.concatenate([self._weights, np.empty_like(self._weights)])
