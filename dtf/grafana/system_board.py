"""The dashboard of machines and of the store itself."""

from dtf.grafana import flux
from dtf.grafana.panels import FULL_WIDTH, Board

_POOL = flux.chosen("pool")
_ONE_FIELD_EACH = ("verdict", "value", "desired", "queued", "incarnation", "finding")
"""A field that every point of cases and retries, benchmarks, scaling, fleet, workers and findings has."""


def system_board(data_source_uid: str) -> Board:
    """Load of the workers' machines, and how the store grows."""
    board = Board(
        "dtf-system",
        "dtf: system",
        "Load of the workers' machines; what the store receives, and how many series it has.",
        since="now-6h",
        data_source_uid=data_source_uid,
    )
    board.variable("pool", "Pool", flux.tag_values("pool", ["workers"]), has_all=True)
    for field, title, unit in (
        ("cpu_ratio", "Processors busy", "percentunit"),
        ("memory_used_bytes", "Memory in use", "bytes"),
        ("load", "Load", "short"),
        ("disk_free_bytes", "Disk free", "bytes"),
        ("worker_memory_bytes", "Memory of workers", "bytes"),
        ("running", "Attempts running", "short"),
    ):
        board.series(
            title,
            flux.source("workers", field, where=_POOL) + flux.windows("mean", "pool", "slot"),
            unit=unit,
            name="${__field.labels.pool} ${__field.labels.slot}",
        )
    condition = " or ".join(f'r._field == "{name}"' for name in _ONE_FIELD_EACH)
    board.series(
        "Points by measurement",
        "from(bucket: v.defaultBucket)\n  |> range(start: v.timeRangeStart, stop: v.timeRangeStop)\n"
        f"  |> filter(fn: (r) => {condition})\n"
        + '  |> group(columns: ["_measurement"])\n'
        + "  |> aggregateWindow(every: v.windowPeriod, fn: count, createEmpty: false)\n"
        + '  |> keep(columns: ["_time", "_value", "_measurement"])\n'
        + "  |> map(fn: (r) => ({r with _field: r._measurement}))\n",
        is_stacked=True,
    )
    board.number(
        "Series in the store",
        'import "influxdata/influxdb"\n'
        "influxdb.cardinality(bucket: v.defaultBucket, start: 1970-01-01T00:00:00Z)\n"
        '  |> rename(columns: {_value: "series"})\n',
        description="InfluxDB slows down beyond a few millions; `dtf store status` says which measurement has them.",
    )
    board.rows(
        "How far each stream has come",
        "from(bucket: v.defaultBucket)\n  |> range(start: 1970-01-01T00:00:00Z)\n"
        '  |> filter(fn: (r) => r._measurement == "checkpoints" and r._field == "sequence")\n'
        "  |> last()\n  |> group()\n"
        '  |> rename(columns: {_value: "sequence"})\n'
        '  |> keep(columns: ["stream", "sequence"])\n',
        ["stream", "sequence"],
    )
    board.series(
        "Workers, by the hour, kept long",
        flux.source("pools", "workers_last", "workers_max", where=_POOL, bucket='v.defaultBucket + "_long"')
        + flux.grouped("pool")
        + flux.kept("pool"),
        description="From the bucket that `dtf store setup` makes; its tasks sum up what may be forgotten in the other.",
        name="${__field.labels.pool} ${__field.name}",
        width=FULL_WIDTH,
    )
    return board
