"""What changed in a series of measurements, what is unusual in it and where it goes: no server needed.

    import dtf.trends

    analysis = dtf.trends.analyze([10.1, 9.9, 10.0, …], lower_is_better=True)
    for change in analysis.change_points:
        print(change.index, change.kind, change.effect.relative, change.state)

Values are a list, an array, a pandas Series or the path of a file; times are datetimes, seconds since
1970 or ISO text. docs/trends.md is the user's page, docs/statistics.md has the mathematics. Nothing
heavier than numpy is imported before it is used.
"""

from dtf.core.trend.anomalies import ALARM_SCORE
from dtf.core.trend.findings import (
    Anomaly,
    AnomalyKind,
    ChangeKind,
    ChangePoint,
    ChangeState,
    Effect,
    Finding,
    Forecast,
    Impact,
    Interval,
    Seasonality,
    Trend,
    TrendLabel,
)
from dtf.trends.analysis import Analysis, analyze
from dtf.trends.files import load
from dtf.trends.stream import AnomalyDetector, Stream

__all__ = [
    "ALARM_SCORE",
    "Analysis",
    "Anomaly",
    "AnomalyDetector",
    "AnomalyKind",
    "ChangeKind",
    "ChangePoint",
    "ChangeState",
    "Effect",
    "Finding",
    "Forecast",
    "Impact",
    "Interval",
    "Seasonality",
    "Stream",
    "Trend",
    "TrendLabel",
    "analyze",
    "load",
]
