"""What demand costs somebody who knows all of it beforehand: the figure that no policy can be expected to reach.

The oracle knows every arrival and duration. It serves tasks in order, has a worker begin each within
`wait` of its arrival, launches a start-up ahead, keeps an idle worker where that is cheaper than letting
it go and launching another, and one in twenty tasks, those whose workers cost most in idleness and
start-ups, it fits into the time that the others leave. It is a good schedule, not a proof of the least.
"""

from bisect import insort
from heapq import heappop, heappush

from dtf.core.simulation.scaling.trace import Trace

FREE_RATIO = 0.05
"""Of the tasks, a 95th percentile says nothing."""


def oracle_seconds(trace: Trace, wait: float, startup: float) -> float:
    """Worker-seconds, start-ups included, of one-slot workers."""
    busy: list[float] = []
    idle: list[float] = []
    extra: list[float] = []
    for at, duration in zip(trace.submits, trace.durations, strict=True):
        while busy and busy[0] <= at:
            insort(idle, heappop(busy))
        if busy and busy[0] <= at + wait:
            begin = heappop(busy)
            extra.append(0.0)
        else:
            # the one that became free last: of gaps whose cost does not grow beyond a start-up, nested ones are best
            begin = at
            extra.append(min(at - idle.pop(), startup) if idle else startup)
        heappush(busy, begin + duration)
    extra.sort()
    kept = extra[: len(extra) - int(FREE_RATIO * len(extra))]
    return sum(trace.durations) + sum(kept)
