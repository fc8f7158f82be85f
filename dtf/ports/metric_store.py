"""Where the trend analyzer writes what it measured, and what reports read.

Errors:

    StoreError
    ├── StoreUnavailable    it does not answer, or asks to wait; what was written may or may not be there
    ├── StoreLocked         another process has it open
    ├── StoreCorrupt        what is there is not a store, or is damaged
    ├── StoreMismatch       it was made by another version, or refuses what we write
    └── StoreReplaced       it is not the one it was: what was written is not there any more
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dtf.core.trend.points import Points
from dtf.core.trend.statistics import CaseHistory, CasePoint


class StoreError(Exception):
    """Base of what can go wrong with the store. `is_retryable` says whether trying again can help."""

    is_retryable = False


class StoreUnavailable(StoreError):
    """The store does not answer; the same write may be made again."""

    is_retryable = True

    def __init__(self, message: str, *, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        """How long the store asks to be left alone; 0: it did not say."""


class StoreLocked(StoreError):
    """Another process has the store open."""


class StoreCorrupt(StoreError):
    """What is there is not a store, or is damaged."""


class StoreMismatch(StoreError):
    """The store was made by another version, or refuses what we write."""


class StoreReplaced(StoreError):
    """What was written is not there any more; who starts again fills the store from the streams."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far one stream has come into the store."""

    stream: str
    """log, telemetry or scaling."""
    sequence: int
    """Last sequence whose points are in the store."""
    state: str
    """What the fold must know to go on, in JSON."""


@dataclass(frozen=True, slots=True)
class SeriesName:
    """Names a series of a metric: of a case, or (case_name "") of a suite as a whole."""

    suite: str
    case_name: str
    metric: str


@dataclass(frozen=True, slots=True)
class SeriesValue:
    """One value of a series, with where it came from."""

    time_ns: int
    value: float
    run_id: str
    revision: str
    worker_id: str
    verdict: str


@dataclass(frozen=True, slots=True)
class RunSpan:
    """A run that ended."""

    run_id: str
    suite: str
    revision: str
    ended_ns: int


@dataclass(frozen=True, slots=True)
class FleetSample:
    """The fleet at one moment."""

    time_ns: int
    workers: int
    queued: int
    leased: int


class MetricStore(Protocol):
    """Points by measurement, tags and time. Writing a point again replaces it. Every call may raise StoreError."""

    @property
    def kind(self) -> str:
        """ "duckdb" or "influxdb"."""
        ...

    async def write(self, points: Sequence[Points], checkpoint: Checkpoint) -> None:
        """Store the points, and the checkpoint with them or after them, never before. Durable on return."""
        ...

    async def checkpoint(self, stream: str) -> Checkpoint | None:
        """The newest checkpoint of a stream; None: nothing was ever written for it."""
        ...

    async def series_cases(self) -> Sequence[tuple[str, str]]:
        """(suite, case) of every case that has a point in any measurement."""
        ...

    async def case_histories(
        self, suite: str, *, after: str, limit: int, window: int, excluded_run_id: str = ""
    ) -> Sequence[CaseHistory]:
        """What the newest `window` runs of each case say, as `summarize` defines it.

        Cases behind `after`, in the order of their names' UTF-8 bytes, at most `limit` of them.
        """
        ...

    async def case_points(
        self, suite: str, *, window: int, until_ns: int | None = None, excluded_run_id: str = ""
    ) -> Sequence[CasePoint]:
        """The newest `window` points of each case of the suite, ordered by case, then time.

        Points after `until_ns` do not count, nor those of the excluded run.
        """
        ...

    async def run_points(self, suite: str, run_id: str) -> Sequence[CasePoint]:
        """The points of one run, ordered by case."""
        ...

    async def run_span(self, run_id: str) -> RunSpan | None:
        """A run that ended, or None."""
        ...

    async def count_runs(self, suite: str, *, until_ns: int | None, excluded_run_id: str) -> int:
        """How many runs of the suite ended at or before `until_ns`, the excluded one left out."""
        ...

    async def series_names(self, suite: str, *, after: SeriesName | None, limit: int) -> Sequence[SeriesName]:
        """Series behind `after`, ordered by suite, case and metric; `suite` "" means all."""
        ...

    async def series_values(
        self, name: SeriesName, *, pool: str, since_ns: int, limit: int
    ) -> Sequence[SeriesValue]:
        """The newest `limit` values at or after `since_ns`, oldest first; `pool` "" means all."""
        ...

    async def fleet(self, *, since_ns: int, until_ns: int) -> Sequence[FleetSample]:
        """Samples with `since_ns` <= time < `until_ns`, oldest first."""
        ...

    async def close(self) -> None:
        """Let go of it."""
        ...
