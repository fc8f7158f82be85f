"""Every series there is: a bounded number of them in memory, the others in a vault, as bytes.

What is found depends on the points alone, in their order: which series are in memory, when they
were saved and when the process was started again changes nothing.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from dtf.api.v1 import findings_pb2 as pb
from dtf.core.trend.series import Series
from dtf.core.trend.series_points import SeriesKey, SeriesPoint

MOST_IN_MEMORY = 1_000
"""Series in memory; of a thousand runs each takes some 200 KB, of fifty a tenth of it."""


class _Newest(msgspec.Struct):
    """What is read of a series whose newest position alone is asked for."""

    positions: list[tuple[int, float, float, str, str, int]]


class _Counted(msgspec.Struct):
    """What is read of a series whose length alone is asked for."""

    count: int


class Measured(msgspec.Struct, frozen=True):
    """In what a series is measured."""

    unit: str = ""
    is_lower_better: bool | None = None


class Vault(Protocol):
    """Where series are that are not in memory."""

    def load(self, key: SeriesKey) -> bytes | None:
        """What was saved of a series; None: nothing."""
        ...


class SeriesBook:
    """Points of any series in, findings out. What changed since the last `take` must be saved."""

    def __init__(self, vault: Vault, most_in_memory: int = MOST_IN_MEMORY) -> None:
        self._vault = vault
        self._most = most_in_memory
        self._series: OrderedDict[SeriesKey, Series] = OrderedDict()
        self._changed: dict[SeriesKey, bytes | None] = {}
        """Series that changed since they were last taken; the bytes of those that had to leave memory."""

    def append(self, point: SeriesPoint) -> list[pb.Finding]:
        """Take up a point; return every finding that is new or different."""
        return self.extend((point,))

    def extend(self, points: Sequence[SeriesPoint]) -> list[pb.Finding]:
        """The same for points of one series, of which there is at least one."""
        key, unit, is_lower_better, *_ = points[0]
        series = self.get(key) or Series(key, unit, is_lower_better)
        found = series.extend(points)
        self._series[key] = series
        self._changed[key] = None
        self._make_room()
        return found

    def get(self, key: SeriesKey) -> Series | None:
        """A series, if there is one of that name."""
        series = self._series.get(key)
        if series is not None:
            self._series.move_to_end(key)
            return series
        saved = self._changed.get(key) or self._vault.load(key)
        if saved is None:
            return None
        series = self._series[key] = unpack_series(saved)
        self._make_room()
        return series

    def peek(self, key: SeriesKey) -> Series | None:
        """A series to look at, which does not come into memory by it."""
        series = self._series.get(key)
        if series is not None:
            return series
        saved = self._changed.get(key) or self._vault.load(key)
        return unpack_series(saved) if saved is not None else None

    def count(self, key: SeriesKey) -> int:
        """Positions of a series so far; 0: there is none of that name."""
        series = self._series.get(key)
        if series is not None:
            return series.count
        saved = self._changed.get(key) or self._vault.load(key)
        return msgspec.msgpack.decode(saved, type=_Counted).count if saved is not None else 0

    def newest_ns(self, key: SeriesKey) -> int:
        """Time of the newest position of a series; -1: it has none."""
        series = self._series.get(key)
        if series is not None:
            return series.positions[-1].time_ns if series.positions else -1
        saved = self._changed.get(key) or self._vault.load(key)
        positions = msgspec.msgpack.decode(saved, type=_Newest).positions if saved is not None else ()
        return positions[-1][0] if positions else -1

    def measured(self, key: SeriesKey) -> Measured | None:
        """Unit and better direction of a series; None: there is none of that name."""
        series = self._series.get(key)
        if series is not None:
            return Measured(series.unit, series.is_lower_better)
        saved = self._changed.get(key) or self._vault.load(key)
        return msgspec.msgpack.decode(saved, type=Measured) if saved is not None else None

    def take(self) -> Mapping[SeriesKey, bytes]:
        """What changed since the last call, to be saved."""
        taken = {
            key: saved if saved is not None and key not in self._series else pack_series(self._series[key])
            for key, saved in self._changed.items()
        }
        self._changed = {}
        return taken

    def __iter__(self) -> Iterator[Series]:
        """Those in memory."""
        return iter(self._series.values())

    def _make_room(self) -> None:
        while len(self._series) > self._most:
            key, series = self._series.popitem(last=False)
            if key in self._changed:
                self._changed[key] = pack_series(series)


def pack_series(series: Series) -> bytes:
    """The series as bytes."""
    return msgspec.msgpack.encode(series.state())


def unpack_series(data: bytes) -> Series:
    """The series in these bytes. Raises ValueError for bytes that are no series."""
    state = msgspec.msgpack.decode(data)
    if not isinstance(state, dict):
        raise ValueError(f"no state of a series: {data[:20]!r}…")
    return Series.restore(state)
