"""The dashboard of suites."""

from dtf.grafana import flux
from dtf.grafana.panels import FULL_WIDTH, Board

_SUITE = flux.chosen("suite")
_VERDICTS = ("passed", "failed", "error", "flaky", "skipped")


def suites_board(data_source_uid: str) -> Board:
    """Runs of suites, and the cases that are slow, flaky, failing or became slower."""
    board = Board(
        "dtf-suites",
        "dtf: suites",
        "How long runs take and how they end; which cases are slow, flaky or failing.",
        since="now-30d",
        data_source_uid=data_source_uid,
    )
    board.variable("suite", "Suite", flux.tag_values("suite", ["runs", "cases"]), has_all=True)
    board.annotation("Shared changes", _group_marks("shared"), "orange")
    board.annotation("Moved cost", _group_marks("moved"), "blue")
    board.number(
        "Runs that ended",
        flux.source("runs", "run", where=_SUITE)
        + '  |> group(columns: ["suite"])\n  |> count()\n  |> rename(columns: {_value: "runs"})\n'
        + '  |> group()\n  |> sum(column: "runs")\n',
    )
    board.number(
        "Cases failed in the newest run",
        flux.source("runs", "failed", where=_SUITE)
        + flux.grouped("suite")
        + "  |> last()\n"
        + flux.kept("suite"),
    )
    board.number(
        "Flaky cases in the newest run",
        flux.source("runs", "flaky", where=_SUITE)
        + flux.grouped("suite")
        + "  |> last()\n"
        + flux.kept("suite"),
    )
    board.number(
        "Time of the newest run",
        flux.source("runs", "duration_seconds", where=_SUITE)
        + flux.grouped("suite")
        + "  |> last()\n"
        + flux.kept("suite"),
        unit="s",
    )
    board.series(
        "Time of runs",
        flux.source("runs", "duration_seconds", "busy_seconds", where=_SUITE)
        + flux.windows("median", "suite"),
        unit="s",
        description="duration: from creation to end; busy: of all results together, retries included.",
        name="${__field.labels.suite} ${__field.name}",
        as_points=True,
    )
    board.series(
        "Verdicts",
        flux.source("runs", *_VERDICTS, where=_SUITE) + flux.windows("sum"),
        is_stacked=True,
    )
    board.rows(
        "Slowest cases",
        flux.source("cases", "duration_seconds", where=_SUITE)
        + '  |> group(columns: ["suite", "case"])\n'
        + '  |> median(method: "exact_mean")\n'
        + '  |> rename(columns: {_value: "median_seconds"})\n'
        + '  |> group()\n  |> sort(columns: ["median_seconds"], desc: true)\n'
        + flux.rows("suite", "case", "median_seconds", limit=25),
        ["suite", "case", "median_seconds"],
        units={"median_seconds": "s"},
    )
    board.rows(
        "Became slower",
        _slower(),
        ["suite", "case", "before_seconds", "recent_seconds", "ratio"],
        units={"before_seconds": "s", "recent_seconds": "s"},
        description="Median of the newest five results of a case over the median of those before. "
        "A hint; what the analyzer found is on the dashboard of one case.",
    )
    shared = [
        "time",
        "suite",
        "impact",
        "group_state",
        "group_count",
        "group_relative",
        "revision_last",
        "group_text",
    ]
    board.rows(
        "Changes that several series share",
        _groups("shared") + flux.NEWEST_FIRST + flux.rows(*shared, limit=50),
        shared,
        units={"group_relative": "percentunit"},
        description="Raised changes of one suite and direction that one revision explains, as `dtf trends` groups them.",
        width=FULL_WIDTH,
    )
    moved = [
        "time",
        "suite",
        "metric",
        "pool",
        "group_state",
        "group_count",
        "group_moved",
        "unit",
        "group_text",
    ]
    board.rows(
        "Cost that moved between cases",
        _groups("moved") + flux.NEWEST_FIRST + flux.rows(*moved, limit=50),
        moved,
        description="What some cases of a suite lost others got: no regression of the suite.",
        width=FULL_WIDTH,
    )
    board.rows("Flaky cases", _counted("flaky", 'r._value == "flaky"'), ["suite", "case", "flaky", "results"])
    board.rows(
        "Failing cases",
        _counted("failed", 'r._value == "failed" or r._value == "error"'),
        ["suite", "case", "failed", "results"],
    )
    board.rows(
        "Runs",
        flux.source("runs", where=_SUITE)
        + flux.PIVOT
        + flux.NEWEST_FIRST
        + flux.rows(
            "time", "suite", "run", "revision", "owner", "state", "duration_seconds", *_VERDICTS, limit=100
        ),
        ["time", "suite", "run", "revision", "owner", "state", "duration_seconds", *_VERDICTS],
        units={"duration_seconds": "s"},
        width=FULL_WIDTH,
    )
    board.rows(
        "Attempts that ended otherwise",
        flux.source("attempts", where=_SUITE)
        + flux.PIVOT
        + flux.NEWEST_FIRST
        + flux.rows("time", "suite", "pool", "outcome", "running_case", "worker", "reason", limit=100),
        ["time", "suite", "pool", "outcome", "running_case", "worker", "reason"],
        description="Timed out, lost, crashed or cancelled.",
        width=FULL_WIDTH,
    )
    return board


def _counted(name: str, condition: str) -> str:
    return (
        flux.source("cases", "verdict", where=_SUITE)
        + '  |> group(columns: ["suite", "case"])\n'
        + f"  |> reduce(identity: {{{name}: 0, results: 0}}, fn: (r, accumulator) => ({{\n"
        + f"      {name}: accumulator.{name} + (if {condition} then 1 else 0),\n"
        + "      results: accumulator.results + 1,\n"
        + "  }))\n"
        + f"  |> filter(fn: (r) => r.{name} > 0)\n"
        + f'  |> group()\n  |> sort(columns: ["{name}"], desc: true)\n'
        + flux.rows("suite", "case", name, "results", limit=25)
    )


def _groups(kind: str) -> str:
    """The first finding of each group, which has what is to be said of all of them."""
    return (
        flux.source("findings", where=_SUITE)
        + flux.PIVOT
        + f'  |> filter(fn: (r) => {flux.RAISED} and exists r.group_kind and r.group_kind == "{kind}")\n'
        + "  |> filter(fn: (r) => r.finding == r.finding_group)\n"
    )


def _group_marks(kind: str) -> str:
    what = '"cost moved between " + series' if kind == "moved" else 'series + " share a " + r.impact'
    return (
        _groups(kind)
        + "  |> group()\n"
        + "  |> map(fn: (r) => {\n"
        + '      series = string(v: r.group_count) + " series"\n'
        + f"      return {{time: r._time, title: {what},\n"
        + '        text: r.suite + ", " + r.group_text, tags: r.group_kind}\n'
        + "  })\n"
    )


def _slower() -> str:
    return (
        "newestFirst = "
        + flux.source("cases", "duration_seconds", where=_SUITE)
        + '  |> group(columns: ["suite", "case"])\n  |> sort(columns: ["_time"], desc: true)\n'
        + 'recent = newestFirst |> limit(n: 5) |> median(method: "exact_mean")\n'
        + 'before = newestFirst |> limit(n: 1000, offset: 5) |> median(method: "exact_mean")\n'
        + "  |> filter(fn: (r) => r._value > 0.0)\n"
        + 'join(tables: {recent: recent, before: before}, on: ["suite", "case"])\n'
        + "  |> map(fn: (r) => ({suite: r.suite, case: r.case, before_seconds: r._value_before,\n"
        + "      recent_seconds: r._value_recent, ratio: r._value_recent / r._value_before}))\n"
        + '  |> group()\n  |> sort(columns: ["ratio"], desc: true)\n  |> limit(n: 25)\n'
    )
