"""Bars of the timeline laid out: a lane a worker, rows where its cases overlap, and few enough to draw.

Cases that passed and are narrower than a pixel are drawn together with their neighbours: a lane of
ten thousand quick cases is a handful of bars that look the same.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dtf.api.v1 import common_pb2
from dtf.core.run.summary import Bar, Verdict

LANES_LIMIT = 64
_MERGED = frozenset({common_pb2.VERDICT_PASSED, common_pb2.VERDICT_SKIPPED})


@dataclass(slots=True)
class DrawnBar:
    """One rectangle, in nanoseconds; it may stand for several cases of one verdict."""

    began_ns: int
    ended_ns: int
    verdict: Verdict
    name: str
    count: int = 1


@dataclass(slots=True)
class Lane:
    """One worker."""

    worker_id: str
    rows: list[list[DrawnBar]] = field(default_factory=list)
    busy_ns: int = 0


def lay_out(bars: Iterable[Bar], pixel_ns: float) -> list[Lane]:
    """The lanes, in the order in which workers began to work."""
    lanes: dict[str, Lane] = {}
    for bar in sorted(bars, key=lambda bar: (bar.began_ns, bar.ended_ns)):
        lane = lanes.setdefault(bar.worker_id, Lane(bar.worker_id))
        lane.busy_ns += bar.ended_ns - bar.began_ns
        _place(lane.rows, bar, pixel_ns)
    return list(lanes.values())


def _place(rows: list[list[DrawnBar]], bar: Bar, pixel_ns: float) -> None:
    for row in rows:
        if _merge(row[-1], bar, pixel_ns):
            return
    drawn = DrawnBar(bar.began_ns, bar.ended_ns, bar.verdict, bar.name)
    for row in rows:
        # A result's instants are known to about a millisecond; less is no overlap.
        if row[-1].ended_ns <= bar.began_ns + 1_000_000:
            row.append(drawn)
            return
    rows.append([drawn])


def _merge(last: DrawnBar, bar: Bar, pixel_ns: float) -> bool:
    is_narrow = bar.ended_ns - bar.began_ns < pixel_ns and last.ended_ns - last.began_ns < 8 * pixel_ns
    is_near = -1_000_000 <= bar.began_ns - last.ended_ns < pixel_ns
    if not (is_narrow and is_near and bar.verdict == last.verdict and bar.verdict in _MERGED):
        return False
    last.ended_ns = max(last.ended_ns, bar.ended_ns)
    last.count += 1
    return True


def shown(lanes: Sequence[Lane]) -> tuple[Sequence[Lane], int]:
    """The lanes that are drawn, and how many are not: the busiest are."""
    if len(lanes) <= LANES_LIMIT:
        return lanes, 0
    kept = {lane.worker_id for lane in sorted(lanes, key=lambda lane: -lane.busy_ns)[:LANES_LIMIT]}
    return [lane for lane in lanes if lane.worker_id in kept], len(lanes) - LANES_LIMIT
