"""Whose turn it is among runs of one priority: all get the same share of the workers' time.

Theory. Each lease to be granted falls to one of the runs: to the one in whose part of [0, 1) the
point `lease / golden ratio` lies, modulo 1. The parts are as 1 / seconds, where seconds is how long
a task of the run should take: for each task of a second that is fifty tasks of 20 ms. Nothing need
be remembered for it, since the next fence says how many leases were granted so far; and these
points are spread so evenly (the three-distance theorem, Swierczkowski 1958) that a part p of the
interval is met again after at most 4 / p leases: nobody waits long for its turn. Where all tasks
are quick, a point stands for a block of leases and not for one: for half a second of work at most.

A task counts for ten seconds at most (MOST_COUNTED_SECONDS). Beyond, long tasks get more than
their share of time: otherwise a run of one task of an hour would wait for an hour.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from dtf.core.run.window import PREFETCH_SECONDS

MOST_COUNTED_SECONDS = 10.0
LEAST_COUNTED_SECONDS = 0.0005
"""Below, what a task costs the worker and the wire is more than what it takes."""
LONGEST_TURN = 32
"""Tasks in one turn: each turn looks at all workers, so it pays to deal many."""
_GOLDEN = 11_400_714_819_323_198_485
"""2^64 divided by the golden ratio (Knuth, The Art of Computer Programming, volume 3, section 6.4)."""
_MODULUS = 2**64


@dataclass(frozen=True, slots=True)
class Turn:
    """So many tasks of the run with this index."""

    index: int
    count: int


class Turns:
    """Turns of runs whose tasks take these seconds each, on about so many workers."""

    def __init__(self, seconds: Sequence[float], workers: int) -> None:
        counted = [min(max(each, LEAST_COUNTED_SECONDS), MOST_COUNTED_SECONDS) for each in seconds]
        self._weights = [1.0 / each for each in counted]
        block = min(LONGEST_TURN, int(PREFETCH_SECONDS / max(counted)))
        self._block = max(1, block, workers // LONGEST_TURN)
        """Leases that one point stands for."""
        self._most = max(LONGEST_TURN, workers)
        self._present = set(range(len(counted)))
        self._settle()

    def next(self, fence: int) -> Turn | None:
        """The turn that begins with this lease; None: no run is left."""
        if not self._present:
            return None
        block = fence // self._block
        index = self._owner(block)
        while True:
            block += 1
            count = block * self._block - fence
            if count >= self._most or self._owner(block) != index:
                return Turn(index, count)

    def drop(self, index: int) -> None:
        """The run can be given nothing more in this grant."""
        self._present.discard(index)
        if 2 * len(self._present) <= len(self._order):
            self._settle()

    def _settle(self) -> None:
        """Divide the interval among the runs that are left; done as often as their number has halved."""
        self._order = sorted(self._present)
        self._ends = list(accumulate(self._weights[index] for index in self._order))

    def _owner(self, block: int) -> int:
        point = (block * _GOLDEN % _MODULUS) / _MODULUS * self._ends[-1]
        place = min(bisect_right(self._ends, point), len(self._order) - 1)
        while self._order[place] not in self._present:
            place = (place + 1) % len(self._order)
        return self._order[place]
