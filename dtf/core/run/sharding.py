"""Cuts a suite's cases into shards, so that workers end together and fixtures are set up seldom.

Longest first: a unit (a case, or a group that must stay together) that is expected to take as long
as a whole shard is a shard by itself, and the longest come first; begun late, they would be what
everybody waits for. After each of them comes one of the smallest: grants deal neighbours to one
worker, which holds its next shard while it runs one (pytest must know the successor of a case) and
cannot give that back, so a long shard behind a long one would wait where it is. What is left is cut
in the order of collection, so that the cases of a file stay together, into shards that become smaller (guided self-scheduling: Polychronopoulos and Kuck,
1987): each is expected to take REMAINING_SHARE of what remains for one worker, the last ones little.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

REMAINING_SHARE = 0.25
"""Of one worker's part of what remains: four shards in advance balance out the estimates' errors."""
SMALLEST_SHARE = 1 / 32
"""Of one worker's part of the whole: how far apart workers may end; a lease costs some 0.1 ms."""
SMALLEST_SECONDS = 0.01
"""A shard expected to take less costs more to hand out than to run."""
MAX_CASES = 256
"""Of a shard of single cases: what one message reports at once. A group is whole however large."""
MAX_NAME_BYTES = 64 * 1024
"""Of the same, its names together: they travel in one event, and none is above 256 KiB."""
ASSUMED_SECONDS = 0.02
"""A case's duration where nothing at all is known: only ratios matter then."""


@dataclass(frozen=True, slots=True)
class CaseEstimate:
    """A case and what is known of it."""

    name: str
    position: int
    """Index in the collection."""
    file: str = ""
    group: str = ""
    """Cases with the same non-empty group are one unit."""
    expected_seconds: float | None = None
    """None: no history."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Cases one worker runs in order."""

    cases: tuple[CaseEstimate, ...]
    expected_seconds: float
    """0: nothing is known of any of them."""


@dataclass(frozen=True, slots=True)
class _Unit:
    cases: tuple[CaseEstimate, ...]
    seconds: float

    @property
    def file(self) -> str:
        return self.cases[0].file

    @property
    def name_bytes(self) -> int:
        return sum(len(case.name.encode()) for case in self.cases)


def cut(cases: Sequence[CaseEstimate], workers: int) -> list[Shard]:
    """Shards of `cases` for about `workers` workers, in the order they should be begun.

    Every case is in exactly one shard, and within it in the order given. Raises ValueError for
    less than one worker.
    """
    if workers < 1:
        raise ValueError(f"{workers} workers; expected at least 1")
    assumed = assumed_seconds(cases)
    units = list(_units(cases, assumed))
    total = sum(unit.seconds for unit in units)
    long_seconds = _target(total, total, workers)
    long_units = sorted(
        (unit for unit in units if unit.seconds >= long_seconds), key=lambda unit: -unit.seconds
    )
    others = [unit for unit in units if unit.seconds < long_seconds]
    return _paired([_shard([unit]) for unit in long_units], list(_cut_in_order(others, total, workers)))


def _paired(long: Sequence[Shard], others: list[Shard]) -> list[Shard]:
    """Each long shard with the smallest of the others behind it, then the rest of the others."""
    paired: list[Shard] = []
    for shard in long:
        paired.append(shard)
        if others:
            paired.append(others.pop())
    return paired + others


def assumed_seconds(cases: Iterable[CaseEstimate]) -> float:
    """What to expect of a case without history: the median of those with one."""
    known = sorted(case.expected_seconds for case in cases if case.expected_seconds is not None)
    return known[len(known) // 2] if known else ASSUMED_SECONDS


def _units(cases: Sequence[CaseEstimate], assumed: float) -> Iterator[_Unit]:
    groups: dict[str, list[CaseEstimate]] = {}
    for case in cases:
        groups.setdefault(case.group or f"\0{case.position}", []).append(case)
    for members in groups.values():
        yield _Unit(tuple(members), sum(_seconds(case, assumed) for case in members))


def _seconds(case: CaseEstimate, assumed: float) -> float:
    return assumed if case.expected_seconds is None else case.expected_seconds


def _target(remaining: float, total: float, workers: int) -> float:
    share = max(remaining * REMAINING_SHARE, total * SMALLEST_SHARE) / workers
    return max(share, SMALLEST_SECONDS)


def _cut_in_order(units: Sequence[_Unit], total: float, workers: int) -> Iterator[Shard]:
    remaining = sum(unit.seconds for unit in units)
    taken: list[_Unit] = []
    seconds = 0.0
    cases = name_bytes = 0
    for unit in units:
        target = _target(remaining, total, workers)
        is_other_file = bool(taken) and unit.file != taken[-1].file
        is_full = cases + len(unit.cases) > MAX_CASES or name_bytes + unit.name_bytes > MAX_NAME_BYTES
        is_long_enough = seconds + unit.seconds > target or (is_other_file and seconds > target / 2)
        if taken and (is_full or is_long_enough):
            yield _shard(taken)
            remaining -= seconds
            taken, seconds = [], 0.0
            cases = name_bytes = 0
        taken.append(unit)
        seconds += unit.seconds
        cases += len(unit.cases)
        name_bytes += unit.name_bytes
    if taken:
        yield _shard(taken)


def _shard(units: Sequence[_Unit]) -> Shard:
    cases = tuple(case for unit in units for case in unit.cases)
    is_known = any(case.expected_seconds is not None for case in cases)
    return Shard(cases, sum(unit.seconds for unit in units) if is_known else 0.0)
