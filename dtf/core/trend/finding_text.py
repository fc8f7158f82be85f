"""Findings in words: values with their units, changes with their intervals."""

import math

from dtf.api.v1 import findings_pb2 as pb
from dtf.core.trend.finding_words import ANOMALIES, IMPACT_NAMES, KIND_NAMES, STATE_NAMES

MOST_CONTRIBUTIONS = 3
"""Metrics that a sentence names."""

_BYTE_UNITS = ("B", "KiB", "MiB", "GiB")
_REVISION_SHOWN = 12


def series_text(series: pb.FindingSeries) -> str:
    """ "test_parse.py::test_big duration_seconds (local)"."""
    name = series.case_name or f"suite {series.suite}"
    pool = f" ({series.pool})" if series.pool else ""
    return f"{name} {series.metric}{pool}"


def value_text(value: float, unit: str) -> str:
    """The value with its unit: "1.23 s", "4.5 ms", "3.2 MiB", "0.87"."""
    match unit:
        case "s" if abs(value) < 1e-3:
            return f"{value * 1e6:.3g} µs"
        case "s" if abs(value) < 1:
            return f"{value * 1e3:.3g} ms"
        case "bytes":
            return _bytes_text(value)
        case "" | "1":
            return f"{value:.4g}"
        case _:
            return f"{value:.4g} {unit}"


def _bytes_text(value: float) -> str:
    for unit in _BYTE_UNITS[:-1]:
        if abs(value) < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} {_BYTE_UNITS[-1]}"


def relative_text(value: float) -> str:
    """ "+30 %", "−4.2 %"; "from 0" where there is nothing to relate it to."""
    if math.isnan(value):
        return "from 0"
    percent = abs(value) * 100
    digits = 1 if percent < 9.95 else 0
    return f"{'−' if value < 0 else '+'}{percent:.{digits}f} %"


def change_text(finding: pb.Finding) -> str:
    """ "+30 % (+28 % to +32 %), 1 s → 1.3 s"; "spread +80 % (+60 % to +100 %), 2 ms → 3.6 ms (standard deviation)"."""
    levels = (
        f"{value_text(finding.level_before, finding.unit)} → {value_text(finding.level_after, finding.unit)}"
    )
    if finding.contributions:
        return _together_text(finding)
    if finding.kind in ANOMALIES:
        return f"{relative_text(finding.relative)}, {levels}"
    interval = f"{relative_text(finding.relative_low)} to {relative_text(finding.relative_high)}"
    text = f"{relative_text(finding.relative)} ({interval}), {levels}"
    return f"spread {text} (standard deviation)" if finding.kind == pb.FINDING_KIND_VARIANCE else text


def _together_text(finding: pb.Finding) -> str:
    """ "duration_seconds 3 s where the others say 1 s (71 %), cpu_seconds 1 s where the others say 2.6 s (29 %)"."""
    return ", ".join(
        f"{each.metric} {value_text(each.value, each.unit)} where the others say "
        f"{value_text(each.expected, each.unit)} ({each.share:.0%})"
        for each in finding.contributions[:MOST_CONTRIBUTIONS]
    ).replace("%)", " %)")


def revisions_text(finding: pb.Finding) -> str:
    """ "4f2a91c..9d3e001": the change came after the first and no later than the second; "" if neither is known."""
    before = finding.revision_before[:_REVISION_SHOWN]
    last = finding.revision_last[:_REVISION_SHOWN]
    if not last:
        return ""
    return f"{before}..{last}" if before and before != last else last


def finding_sentence(finding: pb.Finding) -> str:
    """The finding in one sentence."""
    kind = KIND_NAMES.get(finding.kind, "finding")
    what = "unusual value" if finding.kind in ANOMALIES else kind
    what = "unusual together" if finding.contributions else what
    state = STATE_NAMES.get(finding.state, "").replace("_", " ")
    impact = IMPACT_NAMES.get(finding.impact, "change")
    where = revisions_text(finding)
    since = f" since {where}" if where else ""
    label = impact if impact != "change" else what
    return f"{state} {label}: {series_text(finding.series)} {change_text(finding)}{since}"
