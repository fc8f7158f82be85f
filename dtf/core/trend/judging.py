"""Results of cases as points: which series each belongs to, and at what time it lies."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.trend import measurements
from dtf.core.trend.names import NameBook, group_name, most_series, series_name
from dtf.core.trend.open_run import VERDICT_NAMES, Group, OpenRun
from dtf.core.trend.points import PointBuffer

_T = TypeVar("_T")
_D = TypeVar("_D")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a result came from."""

    run: OpenRun
    worker_id: str
    pool: str


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One result of one case."""

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

    def advance(self, now_ns: int) -> None:
        """A commit of this time begins; times never fall and never repeat."""
        self.next_time_ns = max(self.next_time_ns, now_ns)

    def stamp(self) -> int:
        """The next time, one nanosecond after the last."""
        time = self.next_time_ns
        self.next_time_ns += 1
        return time

    def accept(self, run: OpenRun, event: events_pb2.ResultsAccepted, origin: Origin) -> None:
        """The results of one event."""
        retried = set(event.retried)
        for index, (case, result) in enumerate(_results(run, event)):
            number = run.case_at(result.task, case)
            if number < 0:
                continue
            run.busy_seconds += result.duration_seconds or 0.0
            run.cpu_seconds += result.cpu_seconds or 0.0
            if index in retried:
                run.failed_before.add(number)
                self._add_point(
                    measurements.RETRIES, self._series_of(result.name, result, origin), result, origin
                )
            else:
                self._judge(run, number, result, origin)
            if index not in retried and index < len(event.details) and event.details[index]:
                self._add_detail(event.details[index], result, origin)

    def judge_unmeasured(
        self,
        run: OpenRun,
        task: int,
        case: int,
        verdict: int,
        origin: Origin,
        duration_seconds: float | None = None,
    ) -> None:
        """A verdict that the machinery gave, without a measurement but perhaps the time it took."""
        number = run.case_at(task, case)
        if number >= 0:
            self._judge(
                run, number, CaseResult(run.case_names[number], task, verdict, duration_seconds), origin
            )

    def _judge(self, run: OpenRun, number: int, result: CaseResult, origin: Origin) -> None:
        if run.is_judged[number]:
            return
        run.is_judged[number] = 1
        if number in run.failed_before and result.verdict == common_pb2.VERDICT_PASSED:
            result = CaseResult(
                result.name,
                result.task,
                common_pb2.VERDICT_FLAKY,
                result.duration_seconds,
                result.cpu_seconds,
                result.peak_memory_bytes,
            )
        self._write_or_group(result, origin)

    def _write_or_group(self, result: CaseResult, origin: Origin) -> None:
        if self._has_series(result, origin):
            origin.run.names_used.add(result.name)
            self._add_point(measurements.CASES, result.name, result, origin)
            return
        name = group_name(origin.run.template_of(result.task), result.name)
        group = origin.run.groups.get(name)
        if group is None:
            group = origin.run.groups[name] = Group()
        group.add(VERDICT_NAMES.get(result.verdict, "error"), result.duration_seconds)

    def _has_series(self, result: CaseResult, origin: Origin) -> bool:
        run = origin.run
        if result.name in run.names_used:
            return False
        return self._names.admit(run.suite, result.name, most_series(run.template_of(result.task)))

    def _series_of(self, name: str, result: CaseResult, origin: Origin) -> str:
        template = origin.run.template_of(result.task)
        return self._names.series_of(
            origin.run.suite, name, most_series(template), group_name(template, name)
        )

    def _add_point(
        self, measurement: measurements.Measurement, series: str, result: CaseResult, origin: Origin
    ) -> None:
        run = origin.run
        self._buffer.of(measurement).add_row(
            self.stamp(),
            (
                run.suite,
                series,
                origin.pool,
                run.run_id,
                run.revision,
                origin.worker_id,
                result.task,
                run.later_attempts.get(result.task, 1),
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
            self._write_or_group(
                CaseResult(series_name(found.name), result.task, found.verdict, found.duration_seconds),
                origin,
            )
        for measured in detail.measurements:
            self._add_benchmark(measured, result, origin)

    def _add_benchmark(self, measured: events_pb2.Measurement, result: CaseResult, origin: Origin) -> None:
        run = origin.run
        name = series_name(measured.case_name) if measured.case_name else result.name
        self._buffer.of(measurements.BENCHMARKS).add(
            self.stamp(),
            {
                "suite": run.suite,
                "case": self._series_of(name, result, origin),
                "pool": origin.pool,
                "metric": series_name(measured.metric),
                "run": run.run_id,
                "revision": run.revision,
                "worker": origin.worker_id,
                "value": measured.value,
                "unit": measured.unit,
                "is_lower_better": measured.is_lower_better,
            },
        )


def _results(run: OpenRun, event: events_pb2.ResultsAccepted) -> Iterator[tuple[int, CaseResult]]:
    """(case in its task, result) of each entry. A case the run does not know has the name ""."""
    count = len(event.tasks)
    columns = zip(
        event.tasks,
        _column(event.cases, 0, count),
        _column(event.verdicts, common_pb2.VERDICT_PASSED, count),
        _column(event.durations_seconds, None, count),
        _column(event.cpu_seconds, None, count),
        _column(event.peak_memory_bytes, None, count),
        strict=True,
    )
    for task, case, verdict, duration, cpu_seconds, peak in columns:
        number = run.case_at(task, case)
        name = run.case_names[number] if number >= 0 else ""
        yield case, CaseResult(name, task, verdict, duration, cpu_seconds, peak)


def _column(values: Sequence[_T], default: _D, count: int) -> Sequence[_T | _D]:
    """A column as it was sent, or its default where it is empty (or does not fit, which no coordinator sends)."""
    return values if len(values) == count else (default,) * count
