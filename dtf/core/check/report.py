"""What a check came to: for each property how much was checked, and what did not hold."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from dtf.core.check.properties import Property, Source

_KEPT = 20
"""Violations of one property that are kept in words; all are counted."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A place where a property does not hold."""

    property: Property
    sequence: int
    """Of the commit; 0: of none, as a submission that the log does not have."""
    what: str
    """What was seen, and what was expected."""


@dataclass(frozen=True, slots=True)
class PropertyReport:
    """One property in a history."""

    property: Property
    checked: int
    """How many things were looked at."""
    violation_count: int
    violations: tuple[Violation, ...]
    """The first of them."""
    is_asked: bool
    """Whether there was anything to check it against: some need journals."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """A whole history."""

    properties: tuple[PropertyReport, ...]
    commit_count: int
    event_count: int
    stranger_count: int
    """Messages passed over, for they are no commits or continue no chain."""
    last_sequence: int
    runs_open: int
    runs_ended: int
    accepted_losses: int = 0
    """Times an operator let the log go on without commits that it had lost."""

    @property
    def is_clean(self) -> bool:
        """Whether every property holds."""
        return not any(each.violation_count for each in self.properties)

    @property
    def violations(self) -> list[Violation]:
        """What is kept of the violations, property by property."""
        return [violation for each in self.properties for violation in each.violations]

    def of(self, wanted: Property) -> PropertyReport:
        """The report of one property."""
        return next(each for each in self.properties if each.property is wanted)

    def as_dict(self) -> dict[str, object]:
        """The report as plain data."""
        return {
            "clean": self.is_clean,
            "commits": self.commit_count,
            "events": self.event_count,
            "strangers": self.stranger_count,
            "last_sequence": self.last_sequence,
            "runs_open": self.runs_open,
            "runs_ended": self.runs_ended,
            "accepted_losses": self.accepted_losses,
            "properties": [_as_dict(each) for each in self.properties],
        }


def _as_dict(report: PropertyReport) -> dict[str, object]:
    return {
        "property": report.property.title,
        "says": report.property.says,
        "source": report.property.source.value,
        "asked": report.is_asked,
        "checked": report.checked,
        "violations": report.violation_count,
        "first": [{"sequence": each.sequence, "what": each.what} for each in report.violations],
    }


@dataclass(slots=True)
class Findings:
    """Counts what was checked, and keeps what did not hold."""

    sequence: int = 0
    """Of the commit being looked at."""
    checked: "Counter[Property]" = field(default_factory=Counter)
    counts: "Counter[Property]" = field(default_factory=Counter)
    kept: dict[Property, list[Violation]] = field(default_factory=dict)

    def note(self, which: Property, what: str, sequence: int | None = None) -> None:
        """The property does not hold here."""
        self.counts[which] += 1
        kept = self.kept.setdefault(which, [])
        if len(kept) < _KEPT:
            kept.append(Violation(which, self.sequence if sequence is None else sequence, what))

    def expect(self, which: Property, holds: bool, what: str, sequence: int | None = None) -> bool:
        """Look at one thing; `what` is noted unless it holds."""
        self.checked[which] += 1
        if not holds:
            self.note(which, what, sequence)
        return holds

    def reports(self, sources: frozenset[Source]) -> Iterator[PropertyReport]:
        """Every property, in their order."""
        for each in Property:
            kept = tuple(self.kept.get(each, ()))
            is_asked = each.source in sources
            yield PropertyReport(each, self.checked[each], self.counts[each], kept, is_asked)
