"""From points of the log to points of series: one position a run, replicates within a run taken together.

    cases        duration, processor time and peak memory of a case that passed, at once
    benchmarks   every value that one metric of one case had in a run, as their median, when the run ends;
                 how many there were is its weight
    confirmations  runs that repeat a part of another to confirm a finding: a position each, as a run's, of that
                 one's revision, and none of the suite's
    runs         work of a suite as a whole (the pool's size does not change it, as it changes the time
                 from beginning to end), of runs in which every case was judged and none failed

What runs that are still open have measured so far is part of the state that a restart goes on from.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from statistics import median
from typing import Any, NamedTuple

from dtf.api.v1 import events_pb2
from dtf.core.trend import measurements
from dtf.core.trend.log_fold import LogFold
from dtf.core.trend.names import NameBook
from dtf.core.trend.points import Value
from dtf.core.trend.together import RowValue

MOST_REPLICATES = 1_000
"""Values of one metric of one case in one run that are kept; what comes after adds to the weight only."""

MOST_TOGETHER = 200
"""Sets of metrics that are looked at together, those that come first: each costs a forest of some 50 ms now and then, and
100 KB. The rule is of the log's order, so that another search of the log takes the same ones."""
LEAST_SECONDS = 0.01
"""A case whose first run was shorter is none of them: its processor time and memory are its process's own."""

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
    task: int = -1
    """The task that measured it; -1: none did."""
    is_replicate: bool = False
    """It was measured to confirm a finding: one more value of a revision that the series has."""
    row: tuple[RowValue, ...] = ()
    """Every metric that was measured with this one, this one first; () where another point has them."""


@dataclass(slots=True)
class _Replicates:
    unit: str
    is_lower_better: bool
    revision: str
    task: int = -1
    is_replicate: bool = False
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
        self._together: set[SeriesKey] = set()
        self.has_left_out_together = False
        """Whether the log has more sets of metrics than are looked at together."""

    @property
    def together(self) -> list[list[str]]:
        """First series of each set of metrics that is looked at together, as JSON values."""
        return [list(key) for key in sorted(self._together)]

    def restore_together(self, keys: Iterable[Sequence[str]]) -> None:
        """Go on from `together`."""
        self._together = {SeriesKey(*key) for key in keys}

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
        benchmarks = fold.newest(measurements.BENCHMARKS)
        for (_time_ns, row), task in zip(benchmarks, fold.newest_benchmark_tasks, strict=True):
            self._gather(_named(measurements.BENCHMARKS, row), task, fold)
        for time_ns, row in fold.newest(measurements.RUNS):
            run = _named(measurements.RUNS, row)
            found += self._end_run(run, time_ns, sequence)
            if not fold.is_confirmation(str(run["run"])):
                found += _run_points(run, time_ns, sequence)
        return self._with_rows(found)

    def _with_rows(self, points: Sequence[SeriesPoint]) -> list[SeriesPoint]:
        """The points, the first of those measured together with the values of all of them."""
        found: list[SeriesPoint] = []
        for _, group in groupby(points, key=_measured_together):
            first, *rest = group
            if rest and self._is_looked_at(first):
                row = tuple(RowValue(each.key.metric, each.unit, each.value) for each in (first, *rest))
                first = first._replace(row=row)
            found += [first, *rest]
        return found

    def _is_looked_at(self, first: SeriesPoint) -> bool:
        """Whether the metrics that begin with this one are looked at together: the first sets that there are."""
        if first.key in self._together:
            return True
        is_short = first.key.metric == "duration_seconds" and first.value < LEAST_SECONDS
        if is_short:
            return False
        if len(self._together) >= MOST_TOGETHER:
            self.has_left_out_together = True
            return False
        self._together.add(first.key)
        return True

    def _gather(self, row: Mapping[str, Value], task: int, fold: LogFold) -> None:
        value = row["value"]
        if not isinstance(value, int | float):
            return
        key = SeriesKey(str(row["suite"]), str(row["case"]), str(row["metric"]), str(row["pool"]))
        run_id = str(row["run"])
        series = self._open.setdefault(run_id, {})
        if key not in series:
            unit, is_lower_better = str(row["unit"]), bool(row["is_lower_better"])
            series[key] = _Replicates(
                unit, is_lower_better, str(row["revision"]), task, fold.is_confirmation(run_id)
            )
        series[key].add(float(value))

    def _end_run(self, run: Mapping[str, Value], time_ns: int, sequence: int) -> Iterator[SeriesPoint]:
        run_id = str(run["run"])
        for key, found in sorted(self._open.pop(run_id, {}).items(), key=_by_place):
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
                task=found.task,
                is_replicate=found.is_replicate,
            )


def _case_points(fold: LogFold, sequence: int) -> Iterator[SeriesPoint]:
    for time_ns, row in fold.newest(measurements.CASES):
        suite, case, pool, run_id, revision, _worker, task, _attempt, verdict, *values = row
        if verdict not in _GOOD_VERDICTS:
            continue
        assert isinstance(task, int)
        is_replicate = fold.is_confirmation(str(run_id))
        for (metric, unit), value in zip(_CASE_METRICS.items(), values, strict=True):
            if isinstance(value, int | float):
                key = SeriesKey(str(suite), str(case), metric, str(pool))
                origin = str(run_id), str(revision), sequence
                yield SeriesPoint(
                    key,
                    unit,
                    True,
                    time_ns,
                    float(value),
                    1.0,
                    *origin,
                    task=task,
                    is_replicate=is_replicate,
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


def _by_place(item: tuple[SeriesKey, _Replicates]) -> tuple[str, str, str, str]:
    """What was measured together comes together: a case may have run on several pools in one run."""
    suite, case, metric, pool = item[0]
    return suite, case, pool, metric


def _measured_together(point: SeriesPoint) -> tuple[str, str, str, int]:
    return point.key.suite, point.key.case, point.key.pool, point.time_ns


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
        reader = self._reader
        own = {"replicates": reader.state(), "together": reader.together}
        return {**super().state(), **own, "has_left_out_together": reader.has_left_out_together}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        super().restore(state)
        self._reader.restore(state.get("replicates", ()))
        self._reader.restore_together(state.get("together", ()))
        self._reader.has_left_out_together = state.get("has_left_out_together", False)
        self._waiting = []

    @property
    def together_limit(self) -> int:
        """Sets of metrics that are looked at together at most, where the log has more; 0: it has not."""
        return MOST_TOGETHER if self._reader.has_left_out_together else 0

    def take_series_points(self) -> list[SeriesPoint]:
        """The series' points of every commit folded since the last call."""
        taken, self._waiting = self._waiting, []
        return taken
