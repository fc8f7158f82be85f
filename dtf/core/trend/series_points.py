"""From points of the log to points of series: one position a run, replicates within a run taken together.

    cases        duration, processor time and peak memory of a case that passed, at once
    benchmarks   every value that one metric of one case had in a run, as their median, when the run ends;
                 how many there were is its weight
    runs         work of a suite as a whole (the pool's size does not change it, as it changes the time
                 from beginning to end), of runs in which every case was judged and none failed

What runs that are still open have measured so far is part of the state that a restart goes on from.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, NamedTuple

from dtf.api.v1 import events_pb2
from dtf.core.trend import measurements
from dtf.core.trend.log_fold import LogFold
from dtf.core.trend.names import NameBook
from dtf.core.trend.points import Value

MOST_REPLICATES = 1_000
"""Values of one metric of one case in one run that are kept; what comes after adds to the weight only."""

_CASE_METRICS: Mapping[str, str] = {"duration_seconds": "s", "cpu_seconds": "s", "peak_memory_bytes": "bytes"}
_RUN_METRICS: Mapping[str, str] = {"busy_seconds": "s", "cpu_seconds": "s"}
_GOOD_VERDICTS = ("passed", "flaky")


class SeriesKey(NamedTuple):
    """Names a series; `case` "": the suite as a whole, then `pool` is "" too."""

    suite: str
    case: str
    metric: str
    pool: str


class SeriesPoint(NamedTuple):
    """One value on its way into its series."""

    key: SeriesKey
    unit: str
    is_lower_better: bool | None
    time_ns: int
    value: float
    weight: float
    run_id: str
    revision: str
    sequence: int
    """Sequence in the log of the commit that brought it; 0: it was imported."""
    size: int = 0
    """Cases of the run, where the series is that of a suite: runs of parts of a suite are not compared with whole ones."""


@dataclass(slots=True)
class _Replicates:
    unit: str
    is_lower_better: bool
    revision: str
    values: list[float] = field(default_factory=list)
    count: int = 0

    def add(self, value: float) -> None:
        self.count += 1
        if len(self.values) < MOST_REPLICATES:
            self.values.append(value)


class SeriesReader:
    """Takes the newest points of a LogFold, commit after commit."""

    def __init__(self) -> None:
        self._open: dict[str, dict[SeriesKey, _Replicates]] = {}

    def state(self) -> list[Any]:
        """What `restore` takes, as JSON values."""
        return [
            [run_id, [[list(key), asdict(found)] for key, found in series.items()]]
            for run_id, series in self._open.items()
        ]

    def restore(self, state: Sequence[Any]) -> None:
        """Go on from `state`."""
        self._open = {
            run_id: {SeriesKey(*key): _Replicates(**found) for key, found in series}
            for run_id, series in state
        }

    def read(self, fold: LogFold) -> list[SeriesPoint]:
        """The series' points that the last commit folded completes."""
        sequence = fold.sequence
        found = [*_case_points(fold, sequence)]
        for _time_ns, row in fold.newest(measurements.BENCHMARKS):
            self._gather(_named(measurements.BENCHMARKS, row))
        for time_ns, row in fold.newest(measurements.RUNS):
            run = _named(measurements.RUNS, row)
            found += self._end_run(run, time_ns, sequence)
            found += _run_points(run, time_ns, sequence)
        return found

    def _gather(self, row: Mapping[str, Value]) -> None:
        value = row["value"]
        if not isinstance(value, int | float):
            return
        key = SeriesKey(str(row["suite"]), str(row["case"]), str(row["metric"]), str(row["pool"]))
        series = self._open.setdefault(str(row["run"]), {})
        if key not in series:
            series[key] = _Replicates(str(row["unit"]), bool(row["is_lower_better"]), str(row["revision"]))
        series[key].add(float(value))

    def _end_run(self, run: Mapping[str, Value], time_ns: int, sequence: int) -> Iterator[SeriesPoint]:
        run_id = str(run["run"])
        for key, found in sorted(self._open.pop(run_id, {}).items()):
            yield SeriesPoint(
                key,
                found.unit,
                found.is_lower_better,
                time_ns,
                median(found.values),
                float(found.count),
                run_id,
                found.revision,
                sequence,
            )


def _case_points(fold: LogFold, sequence: int) -> Iterator[SeriesPoint]:
    for time_ns, row in fold.newest(measurements.CASES):
        suite, case, pool, run_id, revision, _worker, _task, _attempt, verdict, *values = row
        if verdict not in _GOOD_VERDICTS:
            continue
        for (metric, unit), value in zip(_CASE_METRICS.items(), values, strict=True):
            if isinstance(value, int | float):
                key = SeriesKey(str(suite), str(case), metric, str(pool))
                yield SeriesPoint(
                    key, unit, True, time_ns, float(value), 1.0, str(run_id), str(revision), sequence
                )


def _run_points(run: Mapping[str, Value], time_ns: int, sequence: int) -> Iterator[SeriesPoint]:
    if run["state"] != "finished" or run["failed"] or run["error"] or run["unjudged"]:
        return
    size = run["case_count"]
    assert isinstance(size, int)
    for metric, unit in _RUN_METRICS.items():
        value = run[metric]
        if isinstance(value, int | float) and value > 0:
            key = SeriesKey(str(run["suite"]), "", metric, "")
            run_id, revision = str(run["run"]), str(run["revision"])
            yield SeriesPoint(key, unit, True, time_ns, float(value), 1.0, run_id, revision, sequence, size)


def _named(measurement: measurements.Measurement, row: tuple[Value, ...]) -> dict[str, Value]:
    return dict(zip((*measurement.tags, *measurement.fields), row, strict=True))


class AnalyzedLogFold(LogFold):
    """A LogFold that gathers the series' points as well, until they are taken."""

    def __init__(self, names: NameBook) -> None:
        super().__init__(names)
        self._reader = SeriesReader()
        self._waiting: list[SeriesPoint] = []

    def __len__(self) -> int:
        return max(super().__len__(), len(self._waiting))

    def apply(self, commit: events_pb2.Commit, sequence: int) -> None:
        """Fold one commit."""
        if sequence > self.sequence:
            super().apply(commit, sequence)
            self._waiting += self._reader.read(self)

    def state(self) -> dict[str, Any]:
        """What `restore` takes, as JSON values."""
        return {**super().state(), "replicates": self._reader.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        super().restore(state)
        self._reader.restore(state.get("replicates", ()))
        self._waiting = []

    def take_series_points(self) -> list[SeriesPoint]:
        """The series' points of every commit folded since the last call."""
        taken, self._waiting = self._waiting, []
        return taken
