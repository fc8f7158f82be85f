"""The dashboard of one case: its history with what the analyzer found in it."""

from dtf.grafana import flux
from dtf.grafana.panels import FULL_WIDTH, Board

_CASE = flux.chosen("suite", "case")


def case_board(data_source_uid: str) -> Board:
    """Every metric of one case over time; change points and anomalies as annotations."""
    board = Board(
        "dtf-case",
        "dtf: history of one case",
        "Every metric of one case, with its change points and anomalies.",
        since="now-90d",
        data_source_uid=data_source_uid,
    )
    measured = ["cases", "benchmarks"]
    board.variable("suite", "Suite", flux.tag_values("suite", measured))
    board.variable("case", "Case", flux.tag_values("case", measured, flux.chosen("suite")))
    board.annotation("Regressions", _changes('r.impact == "regression"'), "red")
    board.annotation("Improvements", _changes('r.impact == "improvement"'), "green")
    board.annotation("Other changes", _changes('r.impact == "change"'), "orange")
    board.annotation("Anomalies", _marks(flux.ANOMALY), "purple")
    for field, title, unit in (
        ("duration_seconds", "Duration", "s"),
        ("cpu_seconds", "Processor time", "s"),
        ("peak_memory_bytes", "Peak memory", "bytes"),
    ):
        board.series(
            title,
            flux.source("cases", field, where=_CASE) + flux.grouped("pool") + flux.kept("pool"),
            unit=unit,
            name="${__field.labels.pool}",
            as_points=True,
            width=FULL_WIDTH if field == "duration_seconds" else FULL_WIDTH // 2,
        )
    board.series(
        "What the case measured",
        flux.source("benchmarks", "value", where=_CASE)
        + flux.grouped("metric", "pool")
        + flux.kept("metric", "pool"),
        name="${__field.labels.metric} ${__field.labels.pool}",
        as_points=True,
        width=FULL_WIDTH,
    )
    found = ["time", "metric", "kind", "impact", "state", "level_before", "level_after", "unit"]
    found += ["relative", "confidence", "revision_before", "revision_last", "triage", "group_text"]
    board.rows(
        "Findings",
        flux.source("findings", where=_CASE)
        + flux.PIVOT
        + '  |> filter(fn: (r) => r.state != "moved")\n'
        + flux.NEWEST_FIRST
        + flux.rows(*found, limit=100),
        found,
        units={"relative": "percentunit", "confidence": "percentunit"},
        description="Change points and anomalies, with those that went away and those that somebody judged, "
        "and what other series have to do with them.",
        width=FULL_WIDTH,
    )
    results = ["time", "revision", "verdict", "duration_seconds", "cpu_seconds", "peak_memory_bytes"]
    results += ["pool", "worker", "run", "attempt"]
    board.rows(
        "Results",
        flux.source("cases", where=_CASE) + flux.PIVOT + flux.NEWEST_FIRST + flux.rows(*results, limit=200),
        results,
        units={"duration_seconds": "s", "cpu_seconds": "s", "peak_memory_bytes": "bytes"},
        width=FULL_WIDTH,
    )
    return board


def _changes(impact: str) -> str:
    return _marks(f"not {flux.ANOMALY} and {impact}")


def _marks(condition: str) -> str:
    """Findings as annotations; a column that no finding of the span has is not there to be read."""
    levels = f'{_number("level_before")} + " to " + {_number("level_after")}'
    unit = 'if exists r.unit then " " + r.unit else ""'
    share = f'if exists r.relative then " (" + {_number("relative", 100)} + " %)" else ""'
    revision = 'if exists r.revision and r.revision != "" then ", revision " + r.revision else ""'
    group = 'if exists r.group_text and r.group_text != "" then "; told with others: " + r.group_text else ""'
    return (
        'import "math"\n'
        + flux.source("findings", where=_CASE)
        + flux.PIVOT
        + f"  |> filter(fn: (r) => {flux.RAISED} and {condition})\n"
        + "  |> group()\n"
        + "  |> map(fn: (r) => ({time: r._time,\n"
        + '      title: r.metric + ": " + r.kind + ", " + r.state,\n'
        + f"      text: {levels}\n          + ({unit})\n          + ({share})\n          + ({revision})\n"
        + f"          + ({group}),\n"
        + "      tags: r.kind}))\n"
    )


def _number(column: str, factor: int = 1) -> str:
    """A column to four decimals, as text."""
    rounded = f"math.round(x: r.{column} * {factor * 10_000:.1f}) / 10000.0"
    return f'(if exists r.{column} then string(v: {rounded}) else "?")'
