"""What the store says, as messages of AnalysisService: made here and nowhere else."""

from collections.abc import Mapping, Sequence
from statistics import median

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import common_pb2, findings_pb2
from dtf.core.trend.comparing import Difference
from dtf.core.trend.open_run import VERDICT_NAMES
from dtf.core.trend.series import IMPACTS
from dtf.core.trend.statistics import CaseComparison, CaseHistory
from dtf.ports.metric_store import FleetSample, SeriesName, SeriesValue

MOST_RECENT_LISTS = 1_000
"""Slowest cases of a comparison that carry their newest durations: nobody reads 20,000 small lines."""
MOST_COMPARISON_BYTES = 12 * 2**20
"""A comparison ends, slowest first, before it grows beyond this: receivers take 16 MiB."""

_NS = 1e9
_VERDICTS: "Mapping[str, common_pb2.Verdict.ValueType]" = {
    name: common_pb2.Verdict.ValueType(number) for number, name in VERDICT_NAMES.items()
}


def statistics(history: CaseHistory) -> pb.CaseStatistics:
    """What the newest runs of one case say."""
    return pb.CaseStatistics(
        case_name=history.case_name,
        count=history.count,
        median_seconds=history.median_seconds,
        mad_seconds=history.mad_seconds,
        last_seconds=history.last_seconds,
        failed_count=history.failed_count,
        flaky_count=history.flaky_count,
    )


def series_key(name: SeriesName) -> pb.SeriesKey:
    """The name of a series."""
    return pb.SeriesKey(suite=name.suite, case_name=name.case_name, metric=name.metric)


def series_point(value: SeriesValue) -> pb.SeriesPoint:
    """One value of a series."""
    return pb.SeriesPoint(
        time_at=value.time_ns / _NS,
        value=value.value,
        run_id=value.run_id,
        revision=value.revision,
        worker_id=value.worker_id,
        verdict=_VERDICTS.get(value.verdict, common_pb2.VERDICT_UNSPECIFIED),
    )


def fleet_point(sample: FleetSample) -> pb.FleetPoint:
    """The fleet at one moment."""
    return pb.FleetPoint(
        time_at=sample.time_ns / _NS, workers=sample.workers, queued=sample.queued, leased=sample.leased
    )


def comparison(compared: Sequence[CaseComparison], run_count: int) -> pb.CompareRunResponse:
    """A run beside its history, slowest first."""
    response = pb.CompareRunResponse(run_count=run_count)
    size = 0
    for index, each in enumerate(sorted(compared, key=_slowness)):
        case = _case_comparison(each, with_recent=index < MOST_RECENT_LISTS)
        size += case.ByteSize()
        if size > MOST_COMPARISON_BYTES:
            break
        response.cases.append(case)
    return response


def _slowness(compared: CaseComparison) -> tuple[float, str]:
    return (-(compared.point.duration_seconds or 0.0), compared.point.case_name)


def _case_comparison(compared: CaseComparison, *, with_recent: bool) -> pb.CaseComparison:
    return pb.CaseComparison(
        case_name=compared.point.case_name,
        duration_seconds=compared.point.duration_seconds or 0.0,
        history=statistics(compared.history),
        ratio=compared.ratio,
        is_unusual=compared.is_unusual,
        recent_seconds=compared.recent_seconds if with_recent else (),
        verdict=_VERDICTS.get(compared.point.verdict, common_pb2.VERDICT_UNSPECIFIED),
    )


def series_difference(found: Difference, findings: Sequence[pb.TrackedFinding]) -> pb.SeriesComparison:
    """A series at two revisions, with the changes between them."""
    series, impact = found.series, found.impact
    suite, case, metric, pool = series.key
    return pb.SeriesComparison(
        series=findings_pb2.FindingSeries(suite=suite, case_name=case, metric=metric, pool=pool),
        unit=series.unit,
        is_lower_better=series.is_lower_better,
        base_count=len(found.base_values),
        base_value=median(found.base_values) if found.base_values else None,
        head_count=len(found.head_values),
        head_value=median(found.head_values) if found.head_values else None,
        impact=IMPACTS[impact] if impact is not None else findings_pb2.FINDING_IMPACT_UNSPECIFIED,
        absolute=found.absolute,
        relative=found.relative,
        relative_low=found.relative_low,
        relative_high=found.relative_high,
        findings=findings,
        point_count=found.point_count,
    )
