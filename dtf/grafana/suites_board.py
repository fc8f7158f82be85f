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
    board.annotation(
        "Shared changes",
        _shared()
        + "  |> map(fn: (r) => ({time: r.time,\n"
        + '      title: string(v: r.series) + " series: " + r.impact,\n'
        + '      text: r.suite + ", no later than " + r.revision_last + "; the largest: " + r.largest,\n'
        + "      tags: r.impact}))\n",
        "orange",
    )
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
    shared = ["time", "suite", "impact", "series", "revision_last", "relative", "largest"]
    board.rows(
        "Changes that several series share",
        _shared() + f"  |> limit(n: 50)\n  |> keep(columns: {flux.names(*shared)})\n",
        shared,
        units={"relative": "percentunit"},
        description="Raised changes of one suite and direction that came no later than the same revision, with the "
        "largest of them. `dtf trends` takes the whole location interval and tells cost that moved.",
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


def _shared() -> str:
    """A row for each revision that changed several series of a suite in one direction."""
    size = "if exists r.relative then math.abs(x: r.relative) else 0.0"
    return (
        'import "math"\n'
        + flux.source("findings", where=_SUITE)
        + flux.PIVOT
        + f"  |> filter(fn: (r) => {flux.RAISED} and not {flux.ANOMALY} and exists r.revision_last)\n"
        + '  |> filter(fn: (r) => r.revision_last != "")\n'
        + '  |> group(columns: ["suite", "impact", "revision_last"])\n'
        + "  |> reduce(\n"
        + '      identity: {series: 0, time: time(v: 0), size: -1.0, relative: 0.0, largest: ""},\n'
        + "      fn: (r, accumulator) => {\n"
        + f"        size = {size}\n"
        + "        isLarger = size > accumulator.size\n"
        + "        return {\n"
        + "          series: accumulator.series + 1,\n"
        + "          time: if r._time > accumulator.time then r._time else accumulator.time,\n"
        + "          size: if isLarger then size else accumulator.size,\n"
        + "          relative: if isLarger and exists r.relative then r.relative else accumulator.relative,\n"
        + '          largest: if isLarger then r.case + " " + r.metric else accumulator.largest,\n'
        + "        }\n"
        + "      },\n"
        + "  )\n"
        + "  |> filter(fn: (r) => r.series > 1)\n"
        + '  |> group()\n  |> sort(columns: ["time"], desc: true)\n'
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
