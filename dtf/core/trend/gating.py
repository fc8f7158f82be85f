"""Whether what became slower is within the limits, and what it would take to pass."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import findings_pb2
from dtf.core.trend.finding_text import relative_text, revisions_text, series_text, value_text
from dtf.core.trend.findings_book import STATE_NAMES


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

    @property
    def sentence(self) -> str:
        """What became worse, by how much, since when."""
        found = self.compared
        interval = f"{relative_text(found.relative_low)} to {relative_text(found.relative_high)}"
        since = [revisions_text(each.finding) for each in found.findings if revisions_text(each.finding)]
        where = f" since {since[0]}" if since else ""
        states = {STATE_NAMES.get(each.finding.state, "") for each in found.findings}
        state = "confirmed" if states == {"confirmed"} else "provisional"
        return (
            f"{series_text(found.series)} {relative_text(found.relative)} ({interval}){where}, "
            f"{state}; the limit is {relative_text(self.signed_limit)}"
        )

    @property
    def signed_limit(self) -> float:
        """The limit in the direction in which this series is worse."""
        return self.limit if self.compared.is_lower_better else -self.limit

    @property
    def remedies(self) -> list[str]:
        """What it would take to pass."""
        found = self.compared
        first = found.findings[0].finding
        aim = first.level_before * (1 + self.signed_limit * math.copysign(1.0, first.level_before))
        side = "at most" if found.is_lower_better else "at least"
        newest = found.findings[-1].finding.finding_id
        now = value_text(found.findings[-1].finding.level_after, found.unit)
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

    @property
    def is_passed(self) -> bool:
        """Whether there is no breach."""
        return not self.breaches


def judge(series: Iterable[pb.SeriesComparison], rule: GateRule) -> GateVerdict:
    """Hold compared series against the limits; the worst come first, as they are given."""
    breaches: list[Breach] = []
    waiting: list[Breach] = []
    within = 0
    for each in series:
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
        place = breaches if is_confirmed or rule.fails_on_provisional else waiting
        place.append(Breach(each, limit, is_confirmed))
    return GateVerdict(tuple(breaches), tuple(waiting), within)
