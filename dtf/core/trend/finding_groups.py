"""Findings that are one thing to people: changes that one revision explains, and cost that only moved.

What is grouped are findings that stand and are raised; each keeps its identity, its triage and its
life. Places are compared within a suite, whose series have their points at the same revisions: a
revision's place is the time at which one of them first speaks of it.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from dtf.api.v1 import findings_pb2 as pb
from dtf.core.trend.finding_words import ANOMALIES, IMPACT_NAMES, KIND_NAMES, STATE_NAMES
from dtf.core.trend.findings import ChangeKind, ChangePoint, ChangeState, Effect, Impact, Interval
from dtf.core.trend.grouping import MovedCost, SeriesChange, SharedChange, find_moved_costs, group_changes

WHOLES: Mapping[str, str] = {"duration_seconds": "busy_seconds", "cpu_seconds": "cpu_seconds"}
"""Metrics of cases that add up to one of their suite."""
_ADDITIVE_UNITS = (
    "bytes B kB KB KiB MB MiB GB GiB count counts calls allocations allocs instructions cycles operations ops requests "
    "queries statements rows lines packets messages events pages faults misses joules J Wh kWh"
)
_STATISTICS = (
    "peak max maximum min minimum mean avg average median stddev rss rate ratio share best worst high low"
)
ADDITIVE_UNITS = frozenset(_ADDITIVE_UNITS.split())
"""Units of what adds up over cases, though no series of their suite says to how much. Times of cases do too, but what
benchmarks call times are mostly those of one iteration."""
NOT_ADDITIVE = frozenset(_STATISTICS.split())
"""Words of metrics that do not add up whatever their unit."""

_Token = tuple[str, str]
"""A place: ("revision", "4f2a91c"), or a run where no revision is known or it did not change, or an instant."""
_NS = 1e9
_NO_REST = Interval(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class FindingGroup:
    """Two findings or more."""

    findings: tuple[pb.Finding, ...]
    """The surest first, then by size; of a moved cost what got cheaper, then what got dearer, the largest first."""
    revision_before: str
    """The change came after this revision; "": not known."""
    revision_last: str
    """It came no later than this one; "": not known."""
    moved: float = 0.0
    """Cost that moved, in the series' unit; 0: the findings are a change that they share."""
    rest: Interval = _NO_REST
    """95 % interval of what the changes of a moved cost add up to."""

    @property
    def is_moved(self) -> bool:
        """Whether cost moved between the series and their sum stayed."""
        return self.moved > 0

    @property
    def is_proven(self) -> bool:
        """Whether cost moved, and the suite has a series of its own that says that the sum stayed."""
        return self.is_moved and self.findings[0].series.metric in WHOLES

    @property
    def sources(self) -> tuple[pb.Finding, ...]:
        """Of a moved cost: what got cheaper."""
        return tuple(each for each in self.findings if each.absolute < 0)

    @property
    def targets(self) -> tuple[pb.Finding, ...]:
        """Of a moved cost: what got dearer."""
        return tuple(each for each in self.findings if each.absolute > 0)

    @property
    def largest(self) -> pb.Finding:
        """The finding with the largest relative effect."""
        return max(self.findings, key=lambda each: (_size(each), each.finding_id))

    @property
    def median_relative(self) -> float:
        """Median of the relative effects; NaN where none has one."""
        known = [each.relative for each in self.findings if not math.isnan(each.relative)]
        return median(known) if known else math.nan

    @property
    def is_confirmed(self) -> bool:
        """Whether each of them is."""
        return all(each.state == pb.FINDING_STATE_CONFIRMED for each in self.findings)


def group_findings(findings: Iterable[pb.Finding]) -> tuple[FindingGroup, ...]:
    """The groups among findings that are raised, in order of their place; a finding alone is in none."""
    suites: defaultdict[str, list[pb.Finding]] = defaultdict(list)
    for each in findings:
        if _is_change(each):
            suites[each.series.suite].append(each)
    return tuple(group for suite in sorted(suites) for group in _grouped(suites[suite]))


def _is_change(finding: pb.Finding) -> bool:
    """Whether it says that something changed and stands; kinds, states and impacts of later versions are none of ours."""
    is_known = finding.kind in KIND_NAMES and finding.state in STATE_NAMES and finding.impact in IMPACT_NAMES
    return is_known and finding.kind not in ANOMALIES and finding.state != pb.FINDING_STATE_WENT_AWAY


def groups_by_finding(groups: Iterable[FindingGroup]) -> dict[str, FindingGroup]:
    """The group of each finding, by identity."""
    return {each.finding_id: group for group in groups for each in group.findings}


def _grouped(findings: Sequence[pb.Finding]) -> Iterator[FindingGroup]:
    order = _order(findings)
    positions = {token: position for position, token in enumerate(order)}
    by_id = {each.finding_id: each for each in findings}
    changes = [_series_change(each, positions) for each in by_id.values()]
    wholes = {change.whole for change in changes if change.whole}
    whole_changes = [
        SeriesChange(whole, change.change, change.first_position, change.last_position)
        for change in changes
        if not by_id[change.series].series.case_name
        for whole in wholes
        if json.loads(whole)[0] == by_id[change.series].series.metric
    ]
    moved = find_moved_costs(changes, whole_changes)
    taken = {each.series for cost in moved for each in (*cost.sources, *cost.targets)}
    shared = group_changes(each for each in changes if each.series not in taken)
    for cost in moved:
        yield _group(cost, [*cost.sources, *cost.targets], by_id, order, cost.moved, cost.rest)
    for change in shared:
        if change.is_shared:
            yield _group(change, change.changes, by_id, order)


def _group(
    found: MovedCost | SharedChange,
    members: Sequence[SeriesChange],
    by_id: Mapping[str, pb.Finding],
    order: Sequence[_Token],
    moved: float = 0.0,
    rest: Interval = _NO_REST,
) -> FindingGroup:
    findings = tuple(by_id[each.series] for each in members)
    before = order[found.first_position - 1] if found.first_position else ("", "")
    last = order[found.last_position]
    befores = {each.revision_before for each in findings}
    return FindingGroup(
        findings,
        before[1] if before[0] == "revision" and before[1] in befores else "",
        last[1] if last[0] == "revision" else "",
        moved,
        rest,
    )


def _tokens(finding: pb.Finding) -> tuple[_Token, _Token, _Token]:
    """The place before the change, the place it is seen at, and the last that may be the first of the new regime."""
    before, last = finding.revision_before, finding.revision_last
    if finding.revision and before != last:
        at = ("revision", finding.revision)
        return ("revision", before) if before else at, at, ("revision", last) if last else at
    if finding.run_id:
        at = ("run", finding.run_id)
    elif finding.time_unix_nanos:
        at = ("instant", str(finding.time_unix_nanos))
    else:
        at = ("finding", finding.finding_id)
    return at, at, at


def _order(findings: Sequence[pb.Finding]) -> list[_Token]:
    """Every place that is spoken of, the earliest first: each is where it was first seen."""
    times: dict[_Token, int] = {}
    for each in findings:
        time = each.time_unix_nanos
        before, at, last = _tokens(each)
        ends = (
            (before, each.before_unix_nanos or time - 1),
            (last, each.last_unix_nanos or time + 1),
        )
        for token, when in ((at, time), *(end for end in ends if end[0] != at)):
            times[token] = min(when, times.get(token, when))
    return sorted(times, key=lambda token: (times[token], token))


def _series_change(finding: pb.Finding, positions: Mapping[_Token, int]) -> SeriesChange:
    before, at, last = (positions[token] for token in _tokens(finding))
    return SeriesChange(
        finding.finding_id,
        change_point_of(finding),
        min(before + 1, at),
        max(last, at),
        _whole_of(finding),
    )


def _whole_of(finding: pb.Finding) -> str:
    """Names what this series is a part of, and the pool: parts on different machines do not add up; "" if nothing."""
    series, unit = finding.series, finding.unit
    adds_up = finding.is_lower_better and unit in ADDITIVE_UNITS and _is_total(series.metric)
    whole = WHOLES.get(series.metric) or (series.metric if adds_up else "")
    return json.dumps([whole, series.pool, unit]) if whole and series.case_name else ""


def _is_total(metric: str) -> bool:
    """Whether a sum of it over cases makes sense: it is no peak, mean, rate or percentile."""
    name = metric.lower()
    is_percentile = re.search(r"(^|[^a-z])p\d", name) is not None
    return not is_percentile and NOT_ADDITIVE.isdisjoint(re.split(r"[^a-z]+", name))


def change_point_of(finding: pb.Finding) -> ChangePoint:
    """The change point that was recorded; positions count its series as it was then."""
    return ChangePoint(
        index=finding.index,
        time=finding.time_unix_nanos / _NS,
        kind=ChangeKind(KIND_NAMES[finding.kind]),
        state=ChangeState(STATE_NAMES[finding.state]),
        confidence=finding.confidence,
        effect=Effect(
            finding.absolute,
            finding.relative,
            Interval(finding.absolute_low, finding.absolute_high),
            Interval(finding.relative_low, finding.relative_high),
        ),
        first_index=finding.first_index,
        last_index=finding.last_index,
        level_before=finding.level_before,
        level_after=finding.level_after,
        impact=Impact(IMPACT_NAMES[finding.impact]),
    )


def _size(finding: pb.Finding) -> float:
    return 0.0 if math.isnan(finding.relative) else abs(finding.relative)
