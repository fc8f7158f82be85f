"""What a run of faults came to, one line a kind."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

COLUMNS = ("verdicts lost", "verdicts twice", "submissions lost", "violations")


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that was injected."""

    stack: int
    number: int
    kind: str
    detail: str
    at: float
    sequence: int
    """Where the log was."""
    leases: int
    """Leases that were out at that moment."""
    waiting: int
    """Client requests whose commits were being made."""
    lasted_seconds: float
    recovery_seconds: float
    """From its end until a run submitted when it struck was through; below 0: never."""

    @property
    def in_flight(self) -> bool:
        """Whether leases and commits were in flight."""
        return self.leases > 0 and self.waiting > 0


@dataclass(slots=True)
class Tally:
    """All of it."""

    struck: list[Struck] = field(default_factory=list)
    found: "defaultdict[str, Counter[str]]" = field(default_factory=lambda: defaultdict(Counter))
    """By kind: how many of each column."""

    @property
    def is_clean(self) -> bool:
        """Nothing was lost, nothing came twice, nothing was violated, and every fault was recovered from."""
        return not any(self.found.values()) and all(each.recovery_seconds >= 0 for each in self.struck)

    def lines(self, kinds: Sequence[str], left_out: Iterable[tuple[str, str]]) -> Iterator[str]:
        """The table."""
        yield (
            f"{'kind':<20}{'injected':>9}{'in flight':>10}{'verdicts':>10}{'verdicts':>9}{'submissions':>12}"
            f"{'checker':>11}{'recovery s':>14}"
        )
        yield f"{'':<20}{'':>9}{'':>10}{'lost':>10}{'twice':>9}{'lost':>12}{'violations':>11}{'p50':>8}{'max':>6}"
        for kind in kinds:
            yield self._line(kind, [each for each in self.struck if each.kind == kind], self.found[kind])
        total: Counter[str] = Counter()
        for counts in self.found.values():
            total.update(counts)
        yield self._line("all", self.struck, total)
        for name, why in left_out:
            yield f"left out: {name}: {why}"

    def _line(self, kind: str, struck: Sequence[Struck], found: Counter[str]) -> str:
        in_flight = sum(each.in_flight for each in struck)
        counts = "".join(
            f"{found[column]:>{width}}" for column, width in zip(COLUMNS, (10, 9, 12, 11), strict=True)
        )
        return f"{kind:<20}{len(struck):>9}{in_flight:>10}{counts}{_recovery(struck)}"


def _recovery(struck: Sequence[Struck]) -> str:
    times = [each.recovery_seconds for each in struck]
    if not times:
        return f"{'-':>8}{'-':>6}"
    longest = "never" if min(times) < 0 else f"{max(times):.1f}"
    return f"{statistics.median(times):>8.1f}{longest:>6}"
