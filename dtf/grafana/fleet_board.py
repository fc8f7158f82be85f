"""The dashboard of fleet, queue and scaling."""

from dtf.grafana import flux
from dtf.grafana.panels import FULL_WIDTH, HALF_WIDTH, Board

_POOL = flux.chosen("pool")


def fleet_board(data_source_uid: str) -> Board:
    """Workers, queue, and what the resource manager decided why."""
    board = Board(
        "dtf-fleet",
        "dtf: fleet, queue and scaling",
        "How many workers there are, what waits for them, and why pools grow and shrink.",
        since="now-6h",
        data_source_uid=data_source_uid,
    )
    board.variable("pool", "Pool", flux.tag_values("pool", ["pools", "scaling"]), has_all=True)
    board.annotation("Scaling", _scale_actions(), "blue")
    for field, title in (
        ("workers", "Workers"),
        ("queued", "Queued tasks"),
        ("leased", "Running tasks"),
        ("open_runs", "Open runs"),
    ):
        board.number(title, flux.source("fleet", field) + "  |> last()\n" + flux.kept())
    board.series(
        "Queue",
        flux.source("fleet", "queued", "leased") + flux.windows("max"),
        description="Tasks that wait for a worker, and tasks that a worker holds; the most in each step.",
        as_steps=True,
    )
    board.series(
        "Workers by pool",
        flux.source("pools", "workers", "draining", where=_POOL) + flux.windows("last", "pool"),
        name="${__field.labels.pool} ${__field.name}",
        as_steps=True,
    )
    board.series(
        "What scaling wanted and had",
        flux.source("scaling", "desired", "observed", "requested", "recommended", where=_POOL)
        + flux.windows("last", "pool"),
        description="desired: after all rules; recommended: what the policy wanted before them; "
        "requested: asked for and not here yet; observed: registered and not draining.",
        name="${__field.labels.pool} ${__field.name}",
        as_steps=True,
    )
    board.series(
        "Backlog",
        flux.source("scaling", "backlog_seconds", where=_POOL) + flux.windows("max", "pool"),
        unit="s",
        description="Expected time of all the work there is, for one slot.",
        name="${__field.labels.pool}",
    )
    board.series(
        "Utilization",
        flux.source("scaling", "utilization_ratio", where=_POOL) + flux.windows("mean", "pool"),
        unit="percentunit",
        name="${__field.labels.pool}",
    )
    board.series(
        "Arrivals",
        flux.source("scaling", "arrival_rate", where=_POOL) + flux.windows("mean", "pool"),
        unit="reqps",
        description="Tasks that arrived a second, over the last minute.",
        name="${__field.labels.pool}",
    )
    board.rows(
        "Decisions that changed something",
        flux.source("scaling", where=_POOL)
        + flux.PIVOT
        + '  |> filter(fn: (r) => r.action != "hold")\n'
        + flux.NEWEST_FIRST
        + flux.rows("time", "pool", "action", "observed", "desired", "reason", limit=200),
        ["time", "pool", "action", "observed", "desired", "reason"],
        width=FULL_WIDTH,
    )
    board.rows(
        "Worker-seconds by pool",
        _worker_seconds(),
        ["pool", "worker_seconds"],
        units={"worker_seconds": "s"},
        description="How many workers there were, times how long: what a pool costs.",
        width=HALF_WIDTH,
    )
    return board


def _scale_actions() -> str:
    return (
        flux.source("scaling", "action", "reason", where=_POOL)
        + flux.PIVOT
        + '  |> filter(fn: (r) => r.action != "hold")\n'
        + "  |> group()\n"
        + "  |> map(fn: (r) => ({time: r._time, title: r.pool, text: r.reason, tags: r.action}))\n"
    )


def _worker_seconds() -> str:
    return (
        flux.source("pools", "workers", where=_POOL)
        + '  |> group(columns: ["pool"])\n'
        + '  |> sort(columns: ["_time"], desc: true)\n'
        + '  |> elapsed(unit: 1s, columnName: "seconds")\n'
        + "  |> map(fn: (r) => ({pool: r.pool, worker_seconds: float(v: r._value) * float(v: -r.seconds)}))\n"
        + '  |> sum(column: "worker_seconds")\n'
        + '  |> group()\n  |> sort(columns: ["worker_seconds"], desc: true)\n'
    )
