"""Whether what became slower is within the limits, and what it would take to pass.

Cost that moved between cases of a suite, all of it confirmed, while the suite's own series did not change, is no
regression of the suite: it is named and does not count, unless its finding was accepted. What a series became worse by besides counts.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import findings_pb2
from dtf.core.trend.finding_groups import FindingGroup, group_findings, groups_by_finding
from dtf.core.trend.finding_text import relative_text, revisions_text, series_text, value_text
from dtf.core.trend.finding_words import STATE_NAMES
from dtf.core.trend.group_text import moved_text
from dtf.core.trend.scarcity import scarcity_text


@dataclass(frozen=True, slots=True)
class GateRule:
    """The limits."""

    max_regression: float
    limits: Mapping[str, float]
    """Other limits by pattern of "case metric"; the first that fits counts."""
    fails_on_provisional: bool = False

    def limit_of(self, series: findings_pb2.FindingSeries) -> float:
        """Share by which a series may have become worse."""
        name = f"{series.case_name or series.suite} {series.metric}"
        return next(
            (limit for pattern, limit in self.limits.items() if fnmatchcase(name, pattern)),
            self.max_regression,
        )


@dataclass(frozen=True, slots=True)
class Breach:
    """A series beyond its limit."""

    compared: pb.SeriesComparison
    limit: float
    is_confirmed: bool
    moved: FindingGroup | None = None
    """What moved here from elsewhere, if anything did."""

    @property
    def levels(self) -> list[pb.TrackedFinding]:
        """The findings that say how much the level changed: those of the spread do not."""
        return [
            each for each in self.compared.findings if each.finding.kind != findings_pb2.FINDING_KIND_VARIANCE
        ]

    @property
    def sentence(self) -> str:
        """What became worse, by how much, since when."""
        found = self.compared
        interval = f"{relative_text(found.relative_low)} to {relative_text(found.relative_high)}"
        since = [revisions_text(each.finding) for each in self.levels if revisions_text(each.finding)]
        where = f" since {since[0]}" if since else ""
        states = {STATE_NAMES.get(each.finding.state, "") for each in self.levels}
        state = "confirmed" if states == {"confirmed"} else "provisional"
        return (
            f"{series_text(found.series)} {relative_text(found.relative)} ({interval}){where}, "
            f"{state}; the limit is {relative_text(self.signed_limit)}{self._aside}"
        )

    @property
    def _aside(self) -> str:
        if self.moved is None:
            return ""
        doubt = "" if self.moved.is_confirmed else ", which is not confirmed"
        doubt += "" if self.moved.is_proven else ", and no series of the suite says that the sum stayed"
        return f"; {moved_text(self.moved)}{doubt}"

    @property
    def signed_limit(self) -> float:
        """The limit in the direction in which this series is worse."""
        return self.limit if self.compared.is_lower_better else -self.limit

    @property
    def remedies(self) -> list[str]:
        """What it would take to pass."""
        found = self.compared
        first, last = self.levels[0].finding, self.levels[-1].finding
        aim = first.level_before * (1 + self.signed_limit * math.copysign(1.0, first.level_before))
        side = "at most" if found.is_lower_better else "at least"
        newest, now = last.finding_id, value_text(last.level_after, found.unit)
        return [
            f"bring it back to {side} {value_text(aim, found.unit)} (now {now})",
            f"or live with it: dtf trends mute {newest} --reason …",
            f"or, if it is a false alarm: dtf trends reject {newest} --reason …",
        ]


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What the gate says."""

    breaches: tuple[Breach, ...]
    waiting: tuple[Breach, ...]
    """Beyond their limits, but not confirmed: more points will tell."""
    within: int
    """Series that became worse within their limits."""
    moved: tuple[Breach, ...] = ()
    """Beyond their limits by cost that moved within the suite: they do not count."""

    @property
    def is_passed(self) -> bool:
        """Whether there is no breach."""
        return not self.breaches


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much the gate could have found: of a series with few points, that it did not change says nothing."""

    count: int
    """Series that were compared."""
    short: int
    """Those of them with too few points."""
    least: int
    """Points from which on a change can be found."""

    @classmethod
    def of(cls, compared: pb.CompareRevisionsResponse) -> "Coverage":
        """That of a comparison."""
        count = len(compared.series) + compared.omitted_count
        return cls(count, compared.short_count, compared.least_point_count)

    @property
    def share(self) -> float:
        """Of the series, those with points enough; 0 where nothing was compared."""
        return 1 - self.short / self.count if self.count else 0.0

    @property
    def sentence(self) -> str:
        """What could not have been found; "" where nothing is to be said."""
        if not self.count:
            return "no series has points at both ends; nothing could have been found"
        return scarcity_text(self.short, self.count, self.least)


def judge(series: Iterable[pb.SeriesComparison], rule: GateRule) -> GateVerdict:
    """Hold compared series against the limits; the worst come first, as they are given."""
    compared = list(series)
    groups = group_findings(found.finding for each in compared for found in each.findings)
    moved_of = groups_by_finding(group for group in groups if group.is_moved)
    breaches: list[Breach] = []
    waiting: list[Breach] = []
    moved: list[Breach] = []
    within = 0
    for each in compared:
        if each.impact != findings_pb2.FINDING_IMPACT_REGRESSION:
            continue
        limit = rule.limit_of(each.series)
        if abs(each.relative) <= limit:  # NaN, worse than 0 by any share, is beyond
            within += 1
            continue
        is_confirmed = any(
            found.finding.state == findings_pb2.FINDING_STATE_CONFIRMED
            and found.finding.impact == findings_pb2.FINDING_IMPACT_REGRESSION
            for found in each.findings
        )
        groups_here = [moved_of.get(found.finding.finding_id) for found in each.findings]
        breach = Breach(each, limit, is_confirmed, next(filter(None, groups_here), None))
        if _is_only_moved(breach, moved_of):
            moved.append(breach)
        else:
            (breaches if is_confirmed or rule.fails_on_provisional else waiting).append(breach)
    return GateVerdict(tuple(breaches), tuple(waiting), within, tuple(moved))


def _is_only_moved(breach: Breach, moved_of: Mapping[str, FindingGroup]) -> bool:
    """Whether the series is within its limit without what moved to it."""
    rest = 0.0
    for found in breach.levels:
        group = moved_of.get(found.finding.finding_id)
        is_accepted = found.triage.verdict == findings_pb2.TRIAGE_VERDICT_ACCEPTED
        if group is None or not group.is_confirmed or not group.is_proven or is_accepted:
            rest += found.finding.absolute
    worse = rest if breach.compared.is_lower_better else -rest
    return breach.moved is not None and worse <= breach.limit * abs(breach.levels[0].finding.level_before)
