"""Points of `findings`: a finding as the store has it, with what it is a part of.

A point is written again whenever what it says is not true any more, also where another finding or a
judgement changed it: by the group it is in, or by how much evidence its rule needs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dtf.api.v1 import findings_pb2 as pb
from dtf.core.trend.finding_groups import FindingGroup, group_findings
from dtf.core.trend.finding_text import series_text
from dtf.core.trend.finding_words import IMPACT_NAMES, KIND_NAMES, STATE_NAMES, TRIAGE_NAMES
from dtf.core.trend.group_text import group_sentence
from dtf.core.trend.points import Points, Value
from dtf.core.trend.series_points import SeriesKey

_MILLISECOND_NS = 1_000_000


@dataclass(frozen=True, slots=True)
class Standing:
    """What a point says of its finding that does not follow from the finding alone.

    Of a group the point of its first finding says it all, that of another one only which that is: else
    each finding that joins a group of thousands would have the points of all of them written again.
    """

    is_raised: bool
    group: str = ""
    """Identity of the finding of its group that was known first; "": it is in none."""
    group_kind: str = ""
    """ "shared" or "moved"."""
    group_state: str = ""
    """ "confirmed" where each of its findings is, else "provisional"."""
    group_count: int = 0
    group_relative: float = 0.0
    """Of a shared change the median, where there is one; InfluxDB would keep an older one if there were none here."""
    group_moved: float = 0.0
    """Of a moved cost how much, in the series' unit."""
    group_text: str = ""
    """The group in a sentence; of other findings than the first the series of that one."""


RAISED, SET_ASIDE = Standing(is_raised=True), Standing(is_raised=False)
"""Those of findings in no group."""
MOVED_AWAY = SET_ASIDE
"""That of the place where a finding is not any more."""


class Place(NamedTuple):
    """What identifies a point of `findings`."""

    time_ns: int
    key: SeriesKey
    kind: str


def point_of(finding: pb.Finding) -> Place:
    """Where the finding's point is."""
    series = finding.series
    key = SeriesKey(series.suite, series.case_name, series.metric, series.pool)
    return Place(finding.time_unix_nanos, key, KIND_NAMES.get(finding.kind, "unknown"))


class FindingRows:
    """Points that wait to be written: by time and tags the newest, which is what the store keeps."""

    def __init__(self) -> None:
        self._rows: dict[Place, dict[str, Value]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def write(
        self, finding: pb.Finding, verdict: "pb.TriageVerdict.ValueType", standing: Standing, state: str = ""
    ) -> None:
        """The finding's point; `state` in the place of its own."""
        place = point_of(finding)
        moved = "moved" if finding.is_moved else ""
        self._rows[place] = {
            "suite": place.key.suite,
            "case": place.key.case,
            "metric": place.key.metric,
            "pool": place.key.pool,
            "kind": place.kind,
            "state": state or moved or STATE_NAMES.get(finding.state, "unknown"),
            "triage": TRIAGE_NAMES.get(verdict, ""),
            **_said(finding),
            "is_raised": standing.is_raised,
            "finding_group": standing.group,
            "group_kind": standing.group_kind,
            "group_state": standing.group_state,
            "group_count": standing.group_count,
            "group_relative": standing.group_relative,
            "group_moved": standing.group_moved,
            "group_text": standing.group_text,
        }

    def move_to(self, points: Points) -> None:
        """Add every point to `points`, leaving none."""
        for place, row in self._rows.items():
            points.add(place.time_ns, row)
        self._rows = {}


def standings_in_groups(raised: Sequence[pb.Finding]) -> dict[str, Standing]:
    """By identity, those of the findings that are in a group; all of them are raised, the first known comes first."""
    places = {each.finding_id: place for place, each in enumerate(raised)}
    found: dict[str, Standing] = {}
    for group in group_findings(raised):
        first = min(group.findings, key=lambda each: places[each.finding_id])
        whole = _standing(group, first)
        with_it = f"with {series_text(first.series)}"
        other = Standing(True, whole.group, whole.group_kind, group_text=with_it)
        found.update(dict.fromkeys((each.finding_id for each in group.findings), other))
        found[first.finding_id] = whole
    return found


def _standing(group: FindingGroup, first: pb.Finding) -> Standing:
    relative = group.median_relative
    return Standing(
        is_raised=True,
        group=first.finding_id,
        group_kind="moved" if group.is_moved else "shared",
        group_state="confirmed" if group.is_confirmed else "provisional",
        group_count=len(group.findings),
        group_relative=0.0 if group.is_moved or math.isnan(relative) else relative,
        group_moved=group.moved,
        group_text=group_sentence(group),
    )


def _said(finding: pb.Finding) -> dict[str, Value]:
    """What the finding itself says."""
    return {
        "finding": finding.finding_id,
        "impact": IMPACT_NAMES.get(finding.impact, "change"),
        "level_before": finding.level_before,
        "level_after": finding.level_after,
        "absolute": finding.absolute,
        "relative": finding.relative,
        "relative_low": finding.relative_low,
        "relative_high": finding.relative_high,
        "confidence": finding.confidence,
        "unit": finding.unit,
        "revision_before": finding.revision_before,
        "revision": finding.revision,
        "revision_last": finding.revision_last,
        "run": finding.run_id,
        "log_sequence": finding.log_sequence,
        "found_ms": finding.caused_unix_nanos // _MILLISECOND_NS,
    }
