"""Results of cases as points: which series each belongs to, and at what time it lies."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from google.protobuf.message import DecodeError

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.trend import measurements
from dtf.core.trend.names import NameBook, series_name
from dtf.core.trend.open_run import VERDICT_NAMES, OpenRun
from dtf.core.trend.points import PointBuffer

_T = TypeVar("_T")
_D = TypeVar("_D")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a result came from."""

    run: OpenRun
    worker_id: str
    pool: str


class CaseResult(NamedTuple):
    """One result of one case; a tuple because one is made for each."""

    name: str
    task: int
    verdict: int
    duration_seconds: float | None = None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None


class CaseJudge:
    """Turns accepted results into points of `cases`, `retries` and `benchmarks`, or adds them to a group."""

    def __init__(self, names: NameBook, buffer: PointBuffer) -> None:
        self._names = names
        self._buffer = buffer
        self.next_time_ns = 0
        self.benchmark_tasks: list[int] = []
        """The task of each point of BENCHMARKS that this commit brought."""

    def advance(self, now_ns: int) -> None:
        """A commit of this time begins; times never fall and never repeat."""
        self.benchmark_tasks = []
        self.next_time_ns = max(self.next_time_ns, now_ns)

    def stamp(self) -> int:
        """The next time, one nanosecond after the last."""
        time = self.next_time_ns
        self.next_time_ns += 1
        return time

    def accept(self, event: events_pb2.ResultsAccepted, origin: Origin) -> None:
        """The results of one event."""
        run = origin.run
        retried = frozenset(event.retried)
        details = event.details
        for index, (case, values) in enumerate(_entries(event)):
            task = values[0]
            number = run.case_at(task, case)
            if number < 0:
                continue
            result = CaseResult(run.case_names[number], *values)
            if index in retried:
                run.failed_before.add(number)
                series = self._series_of(result.name, task, run)
                self._add_point(measurements.RETRIES, series, result, origin)
                continue
            self._judge(number, result, origin)
            if index < len(details) and details[index]:
                self._add_detail(details[index], result, origin)

    def judge_unmeasured(
        self, task: int, case: int, verdict: int, origin: Origin, duration_seconds: float | None = None
    ) -> None:
        """A verdict that the machinery gave, without a measurement but perhaps the time it took."""
        number = origin.run.case_at(task, case)
        if number >= 0:
            name = origin.run.case_names[number]
            self._judge(number, CaseResult(name, task, verdict, duration_seconds), origin)

    def _judge(self, number: int, result: CaseResult, origin: Origin) -> None:
        run = origin.run
        if run.is_judged[number]:
            return
        run.is_judged[number] = 1
        if number in run.failed_before and result.verdict == common_pb2.VERDICT_PASSED:
            result = result._replace(verdict=common_pb2.VERDICT_FLAKY)
        self._write_or_group(result, origin)

    def _write_or_group(self, result: CaseResult, origin: Origin) -> None:
        run, name = origin.run, result.name
        rule = run.rule_of(result.task)
        if name not in run.names_used and self._names.admit(run.suite, name, rule.most):
            run.names_used.add(name)
            self._add_point(measurements.CASES, name, result, origin)
        else:
            group = run.group(rule.group or rule.group_of(name))
            group.add(VERDICT_NAMES.get(result.verdict, "error"), result.duration_seconds)

    def _series_of(self, name: str, task: int, run: OpenRun) -> str:
        rule = run.rule_of(task)
        return self._names.series_of(run.suite, name, rule.most, rule.group_of(name))

    def _add_point(
        self, measurement: measurements.Measurement, series: str, result: CaseResult, origin: Origin
    ) -> None:
        run = origin.run
        task = result.task
        self._buffer.of(measurement).add_row(
            self.stamp(),
            (
                run.suite,
                series,
                origin.pool,
                run.run_id,
                run.revision,
                origin.worker_id,
                task,
                run.later_attempts.get(task, 1),
                VERDICT_NAMES.get(result.verdict, "error"),
                result.duration_seconds,
                result.cpu_seconds,
                result.peak_memory_bytes,
            ),
        )

    def _add_detail(self, encoded: bytes, result: CaseResult, origin: Origin) -> None:
        try:
            detail = events_pb2.CaseDetail.FromString(encoded)
        except DecodeError:
            return  # the verdict stands without it; the coordinator's log still has the bytes
        for found in detail.found:
            own = CaseResult(series_name(found.name), result.task, found.verdict, found.duration_seconds)
            self._write_or_group(own, origin)
        for measured in detail.measurements:
            self._add_benchmark(measured, result, origin)

    def _add_benchmark(self, measured: events_pb2.Measurement, result: CaseResult, origin: Origin) -> None:
        run = origin.run
        name = series_name(measured.case_name) if measured.case_name else result.name
        self.benchmark_tasks.append(result.task)
        self._buffer.of(measurements.BENCHMARKS).add(
            self.stamp(),
            {
                "suite": run.suite,
                "case": self._series_of(name, result.task, run),
                "pool": origin.pool,
                "metric": self._names.metric_of(run.suite, series_name(measured.metric)),
                "run": run.run_id,
                "revision": run.revision,
                "worker": origin.worker_id,
                "value": measured.value,
                "unit": measured.unit,
                "is_lower_better": measured.is_lower_better,
            },
        )


_Values = tuple[int, int, float | None, float | None, int | None]


def _entries(event: events_pb2.ResultsAccepted) -> Iterable[tuple[int, _Values]]:
    """(case in its task, (task, verdict, duration, CPU time, peak memory)) of each entry."""
    count = len(event.tasks)
    values = zip(
        event.tasks,
        _column(event.verdicts, common_pb2.VERDICT_PASSED, count),
        _column(event.durations_seconds, None, count),
        _column(event.cpu_seconds, None, count),
        _column(event.peak_memory_bytes, None, count),
        strict=True,
    )
    return zip(_column(event.cases, 0, count), values, strict=True)


def _column(values: Sequence[_T], default: _D, count: int) -> Sequence[_T | _D]:
    """A column as it was sent, or its default where it is empty (or does not fit, which no coordinator sends)."""
    return values if len(values) == count else (default,) * count
