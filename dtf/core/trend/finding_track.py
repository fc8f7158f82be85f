"""What one series has found so far: which change is the one seen before, and what it is called.

The engine says where changes are now; people speak of a finding and mean the same one tomorrow. A
change keeps its identity while its place moves within its own location interval; what no change
answers to any more went away, or was found again elsewhere.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from dtf.core.trend.findings import ChangeKind, ChangePoint, ChangeState

NEAR = 3
"""Positions that a change may move and be the same: a location is known no better while few points follow it."""

_SECOND_NS = 1_000_000_000


class Place(NamedTuple):
    """Where a change lies, in the words of the log."""

    time_ns: int
    revision_before: str
    revision: str
    revision_last: str
    run_id: str
    before_ns: int = 0
    """Time of the position of `revision_before`; 0: not known."""
    last_ns: int = 0
    """Time of the position of `revision_last`; 0: not known."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """A change with its identity."""

    finding_id: str
    version: int
    change: ChangePoint
    place: Place
    is_moved: bool = False
    """It went away here because it was found again elsewhere."""


def finding_id(series: Sequence[str], kind: str, index: int, sequence: int) -> str:
    """Ten characters that follow from the series, the place where the finding first was, and its cause."""
    text = "\0".join((*series, kind, str(index), str(sequence)))
    return hashlib.blake2s(text.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()


class FindingTrack:
    """The changes of one series that did not go away."""

    def __init__(self, series: Sequence[str], tracked: Iterable[Tracked] = ()) -> None:
        self._series = series
        self.standing: list[Tracked] = list(tracked)

    def update(
        self, changes: Sequence[ChangePoint], sequence: int, place_of: Callable[[ChangePoint], Place | None]
    ) -> list[Tracked]:
        """Take up the changes there are now; return what is new, different or gone, in a fixed order.

        `place_of` gives None for a change so far back that its place is not known any more.
        """
        matched = self._match(changes)
        said: list[Tracked] = []
        standing: list[Tracked] = []
        for change, old in zip(changes, matched, strict=True):
            now = self._following(old, change, sequence, place_of(change))
            standing.append(now)
            if now is not old:
                said.append(now)
        kept = {id(old) for old in matched if old is not None}
        gone = [old for old in self.standing if id(old) not in kept]
        self.standing = standing
        return [*(self._gone(old, standing) for old in gone), *said]

    def _match(self, changes: Sequence[ChangePoint]) -> list[Tracked | None]:
        """The standing finding that each change is, each used once: the same place first, then the nearest."""
        matched: list[Tracked | None] = [None] * len(changes)
        left = list(self.standing)
        for position, change in enumerate(changes):
            same = next(
                (old for old in left if old.change.index == change.index and _is_alike(old.change, change)),
                None,
            )
            if same is not None:
                matched[position] = same
                left.remove(same)
        for position, change in enumerate(changes):
            if matched[position] is None:
                near = [old for old in left if _is_near(old.change, change)]
                if near:
                    nearest = min(near, key=lambda old: abs(old.change.index - change.index))
                    matched[position] = nearest
                    left.remove(nearest)
        return matched

    def _following(
        self, old: Tracked | None, change: ChangePoint, sequence: int, place: Place | None
    ) -> Tracked:
        if old is None:
            rule = "spread" if change.kind is ChangeKind.VARIANCE else "change"
            identity = finding_id(self._series, rule, change.index, sequence)
            unknown = Place(round(change.time * _SECOND_NS), "", "", "", "")
            return Tracked(identity, 1, change, place or unknown)
        if repr(old.change) == repr(change):  # NaN, which equals nothing, is the same here
            return old
        return Tracked(old.finding_id, old.version + 1, change, place or old.place)

    def _gone(self, old: Tracked, standing: Sequence[Tracked]) -> Tracked:
        is_moved = any(
            _is_alike(old.change, now.change)
            and old.change.first_index <= now.change.last_index
            and now.change.first_index <= old.change.last_index
            for now in standing
        )
        change = replace(old.change, state=ChangeState.WENT_AWAY)
        return Tracked(old.finding_id, old.version + 1, change, old.place, is_moved)


def _is_alike(old: ChangePoint, new: ChangePoint) -> bool:
    """Whether both are of the level, or both of the spread: the one does not become the other."""
    return (old.kind is ChangeKind.VARIANCE) is (new.kind is ChangeKind.VARIANCE)


def _is_near(old: ChangePoint, new: ChangePoint) -> bool:
    if not _is_alike(old, new):
        return False
    if abs(old.index - new.index) <= NEAR:
        return True
    return old.first_index <= new.index <= old.last_index or new.first_index <= old.index <= new.last_index
