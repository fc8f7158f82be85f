"""History that was measured elsewhere, as it comes in: what of it can be used, and its points."""

import math
from itertools import pairwise

from dtf.api.v1 import findings_pb2 as pb
from dtf.core.trend.series_points import SeriesKey, SeriesPoint


def fault_of(imported: pb.PointsImported) -> tuple[str, str] | None:
    """The field that makes points unusable, and what is wrong with it; None: nothing is."""
    series, count = imported.series, len(imported.times_unix_nanos)
    lengths = {len(imported.values), len(imported.weights) or count, len(imported.revisions) or count}
    times = imported.times_unix_nanos
    weight = next((each for each in imported.weights if not (each > 0 and math.isfinite(each))), None)
    for is_wrong, field, what in (
        (not series.suite, "series.suite", "must not be empty"),
        (not series.metric, "series.metric", "must not be empty"),
        (lengths != {count}, "values", f"{len(imported.values)} for {count} times"),
        (any(b <= a for a, b in pairwise(times)), "times_unix_nanos", "must rise"),
        (weight is not None, "weights", f"{weight} is no positive finite number of measurements"),
    ):
        if is_wrong:
            return field, what
    return None


def imported_points(imported: pb.PointsImported) -> list[SeriesPoint]:
    """Imported history, which has no fault, as points of its series."""
    series = imported.series
    count = len(imported.times_unix_nanos)
    key = SeriesKey(series.suite, series.case_name, series.metric, series.pool)
    direction = imported.is_lower_better if imported.HasField("is_lower_better") else None
    return [
        SeriesPoint(key, imported.unit, direction, time_ns, value, weight, "", revision, 0)
        for time_ns, value, weight, revision in zip(
            imported.times_unix_nanos,
            imported.values,
            imported.weights or [1.0] * count,
            imported.revisions or [""] * count,
            strict=True,
        )
    ]
