"""Which finding stands where another one was: what was said of that one is said of it.

An identity follows from where a change was first seen. Other rules see the same change some values
earlier or elsewhere, as a drift and not as a step, or by another kind of anomaly; a change that moves
further than its location interval is a new finding, too. The same change it is where series, direction and
what changed (level, spread, a value, several metrics together) are the same, and the location intervals meet
or the places are next to each other.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from dtf.api.v1 import findings_pb2 as pb
from dtf.core.trend.finding_track import NEAR
from dtf.core.trend.findings_kept import Known

_SORTS: Mapping[int, str] = {
    pb.FINDING_KIND_STEP: "level",
    pb.FINDING_KIND_DRIFT: "level",
    pb.FINDING_KIND_VARIANCE: "spread",
    pb.FINDING_KIND_POINT: "value",
    pb.FINDING_KIND_COLLECTIVE: "value",
    pb.FINDING_KIND_MULTIVARIATE: "together",
}
"""What changed: the one does not become the other."""


class Succession(NamedTuple):
    """A finding, and the one that stands in its place."""

    finding_id: str
    successor_id: str


def is_lost(known: Known, rule_version: int) -> bool:
    """Whether what was said of a finding is said of nothing that stands: another may stand in its place."""
    finding = known.finding
    is_spoken_of = known.verdict != pb.TRIAGE_VERDICT_UNSPECIFIED or bool(known.notified)
    if known.successor_id or not is_spoken_of:
        return False
    is_gone = finding.state == pb.FINDING_STATE_WENT_AWAY
    return finding.is_moved if is_gone else finding.rule_version < rule_version


def is_orphaned(known: Known, rule_version: int) -> bool:
    """Whether a judgement is of what the rules of now do not find, once they have searched everything."""
    return known.verdict != pb.TRIAGE_VERDICT_UNSPECIFIED and is_lost(known, rule_version)


def successions(lost: Iterable[Known], findings: Iterable[Known], rule_version: int) -> list[Succession]:
    """The successor of each finding that has one, the nearest pairs first.

    Of two that were one place, each takes another one where there are two; else both are followed by the same.
    """
    by_series: dict[tuple[str, ...], list[pb.Finding]] = {}
    for known in findings:
        if _stands(known.finding, rule_version):
            by_series.setdefault(_series_of(known.finding), []).append(known.finding)
    pairs = sorted(pair for known in lost for pair in _pairs(known.finding, by_series))
    found: dict[str, str] = {}
    for *_, old, new in pairs:
        if old not in found and new not in found.values():
            found[old] = new
    for *_, old, new in pairs:
        found.setdefault(old, new)
    return [Succession(*pair) for pair in found.items()]


_Pair = tuple[int, int, str, str]
"""Distances in time and in positions, the old finding, the new one."""


def _pairs(old: pb.Finding, by_series: Mapping[tuple[str, ...], Sequence[pb.Finding]]) -> Iterator[_Pair]:
    for new in by_series.get(_series_of(old), ()):
        if new.finding_id != old.finding_id and _is_direction_kept(old, new) and _is_there(old, new):
            apart = abs(new.time_unix_nanos - old.time_unix_nanos)
            yield apart, abs(new.index - old.index), old.finding_id, new.finding_id


def _stands(finding: pb.Finding, rule_version: int) -> bool:
    return finding.rule_version >= rule_version and finding.state != pb.FINDING_STATE_WENT_AWAY


def _series_of(finding: pb.Finding) -> tuple[str, ...]:
    """The series and what changed in it; of several metrics together any of them may fit least."""
    series, sort = finding.series, _SORTS.get(finding.kind, "")
    metric = "" if sort == "together" else series.metric
    return series.suite, series.case_name, metric, series.pool, sort


def _is_direction_kept(old: pb.Finding, new: pb.Finding) -> bool:
    return old.kind == pb.FINDING_KIND_MULTIVARIATE or (old.absolute > 0) == (new.absolute > 0)


def _is_there(old: pb.Finding, new: pb.Finding) -> bool:
    """Whether the location intervals meet, in time, or the places are next to each other, in positions."""
    (first, last), (begin, end) = _interval(old), _interval(new)
    return (begin <= last and first <= end) or abs(new.index - old.index) <= NEAR


def _interval(finding: pb.Finding) -> tuple[int, int]:
    """First and last time at which the change may be, in nanoseconds."""
    time, before = finding.time_unix_nanos, finding.before_unix_nanos
    return (before + 1 if before else time), max(time, finding.last_unix_nanos)
