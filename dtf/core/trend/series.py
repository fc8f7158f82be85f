"""One series: its newest positions, what the engine knows of it, and the findings that a new point brings."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dtf.api.v1 import findings_pb2 as pb
from dtf.core.trend.anomalies.detector import FINDING_SCORE, AnomalyDetector
from dtf.core.trend.anomalies.detector import STATE_VERSION as ANOMALIES_VERSION
from dtf.core.trend.changes import ChangeStream
from dtf.core.trend.changes.stream import STATE_VERSION as CHANGES_VERSION
from dtf.core.trend.finding_track import FindingTrack, Place, Tracked, finding_id
from dtf.core.trend.findings import (
    AnomalyKind,
    ChangeKind,
    ChangePoint,
    ChangeState,
    Effect,
    Impact,
    Interval,
)
from dtf.core.trend.series_points import SeriesKey, SeriesPoint
from dtf.core.trend.together import RULE_VERSION as TOGETHER_VERSION
from dtf.core.trend.together import Together, Unusual

RULE_VERSION = 30_000 + 1_000 * TOGETHER_VERSION + 100 * CHANGES_VERSION + ANOMALIES_VERSION
"""Rises when the same points would give other findings: an analyzer then searches its log anew."""
POSITIONS_KEPT = 512
"""Newest positions of which run, revision and value are known: two months of eight runs a day."""
MOST_IN_BLOCK = 128
"""Points that are taken up at once: few of POSITIONS_KEPT, so that each still sees the one before it."""
SIZES_KEPT = 20
"""Runs of a suite that say how large it is."""
LEAST_SIZE_RATIO = 0.9
"""A run with a smaller share of the largest of them ran a part of the suite, and is no point of its series."""

KINDS: "Mapping[str, pb.FindingKind.ValueType]" = {
    ChangeKind.STEP: pb.FINDING_KIND_STEP,
    ChangeKind.DRIFT: pb.FINDING_KIND_DRIFT,
    ChangeKind.VARIANCE: pb.FINDING_KIND_VARIANCE,
}
ANOMALY_KINDS: "Mapping[str, pb.FindingKind.ValueType]" = {
    AnomalyKind.POINT: pb.FINDING_KIND_POINT,
    AnomalyKind.COLLECTIVE: pb.FINDING_KIND_COLLECTIVE,
    AnomalyKind.MULTIVARIATE: pb.FINDING_KIND_MULTIVARIATE,
}
STATES: "Mapping[str, pb.FindingState.ValueType]" = {
    ChangeState.PROVISIONAL: pb.FINDING_STATE_PROVISIONAL,
    ChangeState.CONFIRMED: pb.FINDING_STATE_CONFIRMED,
    ChangeState.WENT_AWAY: pb.FINDING_STATE_WENT_AWAY,
}
IMPACTS: "Mapping[str, pb.FindingImpact.ValueType]" = {
    Impact.REGRESSION: pb.FINDING_IMPACT_REGRESSION,
    Impact.IMPROVEMENT: pb.FINDING_IMPACT_IMPROVEMENT,
    Impact.CHANGE: pb.FINDING_IMPACT_CHANGE,
}

_SECOND_NS = 1_000_000_000


class Position(NamedTuple):
    """Where one value of a series came from."""

    time_ns: int
    value: float
    weight: float
    run_id: str
    revision: str
    task: int = -1
    """Of that run; -1: none measured it."""


class Series:
    """Points in, findings out; `state` and `restore` carry it over a restart."""

    def __init__(
        self,
        key: SeriesKey,
        unit: str = "",
        is_lower_better: bool | None = None,
        *,
        changes: ChangeStream | None = None,
        anomalies: AnomalyDetector | None = None,
    ) -> None:
        """`changes`, `anomalies`: what is known of it already."""
        self.key = key
        self.unit = unit
        self.is_lower_better = is_lower_better
        self.count = 0
        """Positions so far."""
        self.positions: list[Position] = []
        """The newest of them."""
        self._sizes: list[int] = []
        self._changes = changes or ChangeStream(lower_is_better=is_lower_better)
        self._anomalies = anomalies or AnomalyDetector()
        self._together: Together | None = None
        """This metric with those measured with it, where this one is the first of them."""
        self._track = FindingTrack(key)

    @property
    def standing(self) -> Sequence[Tracked]:
        """The changes that did not go away."""
        return self._track.standing

    def append(self, point: SeriesPoint) -> list[pb.Finding]:
        """Take up a point; return every finding that is new or different."""
        return self.extend((point,))

    def extend(self, points: Sequence[SeriesPoint]) -> list[pb.Finding]:
        """The same as `append` for each in turn, all that they would have returned in one list, but faster."""
        found: list[pb.Finding] = []
        while points:
            block = self._block(points)
            points = points[max(1, len(block)) :]
            while block:
                used, said = self._take(block)
                found += said
                block = block[used:]
        return found

    def _block(self, points: Sequence[SeriesPoint]) -> Sequence[SeriesPoint]:
        """The first of the points that are positions of the series, up to one that has to be asked whether it is."""
        first = points[0]
        if not self._is_position(first):
            return ()
        newest, count = first.time_ns, 1
        for point in points[1:MOST_IN_BLOCK]:
            if point.size or point.is_replicate or point.time_ns <= newest:
                break
            newest, count = point.time_ns, count + 1
        return points[:count]

    def _is_position(self, point: SeriesPoint) -> bool:
        if point.size and not self._is_whole(point.size):
            return False
        if self.count and point.time_ns <= self.positions[-1].time_ns:
            return False  # times of the log rise strictly: it was read before
        # else the series has gone on: a value of an older revision has no place at its end
        return not point.is_replicate or self._is_newest_revision(point.revision)

    def _take(self, block: Sequence[SeriesPoint]) -> tuple[int, list[pb.Finding]]:
        """Positions up to the first that changes what is known of change points: how many, and what is found."""
        times = [point.time_ns / _SECOND_NS for point in block]
        used, news = self._changes.extend_to_news(
            times, [point.value for point in block], [point.weight for point in block]
        )
        taken, before = block[:used], self.count
        self.count += used
        self.positions = [*self.positions, *map(_position_of, taken)][-POSITIONS_KEPT:]
        found: list[pb.Finding] = []
        for number, point in enumerate(taken):
            if news and number == used - 1:
                # imported points have no sequence; what is found again where it went away is another finding
                cause = point.sequence or self.count
                said = self._track.update(self._changes.change_points, cause, self._place_of)
                found += [self._change_finding(each, point) for each in said]
            found += self._unusual(before + number, times[number], point)
        return used, found

    def _unusual(self, index: int, time: float, point: SeriesPoint) -> list[pb.Finding]:
        """What is unusual of the position `index`, by itself and with what was measured together with it."""
        found: list[pb.Finding] = []
        score = self._anomalies.update(time, point.value)
        if score >= FINDING_SCORE:
            found.append(self._anomaly_finding(index, score, point))
        unusual = self._look_together(time, point)
        if unusual is not None:
            found.append(self._together_finding(index, unusual, point))
        return found

    def position(self, index: int) -> Position | None:
        """The position `index`, as long as it is kept."""
        place = index - (self.count - len(self.positions))
        return self.positions[place] if 0 <= place < len(self.positions) else None

    def state(self) -> dict[str, Any]:
        """What `restore` takes: plain values, doubles exact."""
        return {
            "key": list(self.key),
            "unit": self.unit,
            "is_lower_better": self.is_lower_better,
            "count": self.count,
            "positions": [list(each) for each in self.positions],
            "sizes": self._sizes,
            "changes": self._changes.state(),
            "anomalies": self._anomalies.state(),
            "together": None if self._together is None else self._together.state(),
            "tracked": [_packed(each) for each in self._track.standing],
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> "Series":
        """The series whose `state` this is."""
        series = cls(
            SeriesKey(*state["key"]),
            state["unit"],
            state["is_lower_better"],
            changes=ChangeStream.restore(state["changes"]),
            anomalies=AnomalyDetector.restore(state["anomalies"]),
        )
        series.count = state["count"]
        series.positions = [Position(*each) for each in state["positions"]]
        series._sizes = list(state["sizes"])
        together = state["together"]
        series._together = None if together is None else Together.restore(together)
        series._track = FindingTrack(series.key, map(_unpacked, state["tracked"]))
        return series

    def _is_newest_revision(self, revision: str) -> bool:
        return bool(self.positions) and self.positions[-1].revision == revision

    def _is_whole(self, size: int) -> bool:
        largest = max(self._sizes, default=0)
        self._sizes = [*self._sizes[1 - SIZES_KEPT :], size]
        return size >= LEAST_SIZE_RATIO * largest

    def _change_finding(self, tracked: Tracked, point: SeriesPoint) -> pb.Finding:
        change = tracked.change
        effect = change.effect
        place = tracked.place
        finding = self._finding(tracked.finding_id, tracked.version, point)
        finding.kind = KINDS[change.kind]
        finding.state = STATES[change.state]
        finding.impact = IMPACTS[change.impact]
        finding.index, finding.first_index, finding.last_index = (
            change.index,
            max(0, change.first_index),
            change.last_index,
        )
        finding.time_unix_nanos = place.time_ns
        finding.level_before, finding.level_after = change.level_before, change.level_after
        finding.absolute, finding.relative = effect.absolute, effect.relative
        finding.absolute_low, finding.absolute_high = effect.interval.low, effect.interval.high
        finding.relative_low, finding.relative_high = (
            effect.relative_interval.low,
            effect.relative_interval.high,
        )
        finding.confidence = change.confidence
        finding.revision_before, finding.revision = place.revision_before, place.revision
        finding.revision_last, finding.run_id = place.revision_last, place.run_id
        finding.before_unix_nanos, finding.last_unix_nanos = place.before_ns, place.last_ns
        finding.is_moved = tracked.is_moved
        return finding

    def _place_of(self, change: ChangePoint) -> Place | None:
        place = self.position(change.index)
        if place is None:
            return None
        before, after = self.position(change.first_index - 1), self.position(change.last_index)
        return Place(
            place.time_ns,
            before.revision if before else "",
            place.revision,
            after.revision if after else place.revision,
            place.run_id,
            before.time_ns if before else 0,
            after.time_ns if after else place.time_ns,
        )

    def _anomaly_finding(self, index: int, score: float, point: SeriesPoint) -> pb.Finding:
        finding = self._finding(finding_id(self.key, "point", index, point.sequence), 1, point)
        finding.kind = ANOMALY_KINDS[self._anomalies.kind]
        finding.state = pb.FINDING_STATE_CONFIRMED
        finding.impact = self._impact_of(point.value - self._anomalies.expected)
        self._locate(finding, index, point)
        self._measure(finding, self._anomalies.expected, point.value)
        finding.confidence = score
        return finding

    def _look_together(self, time: float, point: SeriesPoint) -> Unusual | None:
        if not point.row:
            return None
        if self._together is None:
            self._together = Together([each.metric for each in point.row])
        return self._together.append(time, point.row)

    def _together_finding(self, index: int, unusual: Unusual, point: SeriesPoint) -> pb.Finding:
        """What is unusual together, as a finding of the metric that fits the others least."""
        finding = self._finding(finding_id(self.key, "together", index, point.sequence), 1, point)
        worst = unusual.contributions[0]
        finding.series.metric, finding.unit = worst.metric, worst.unit
        finding.ClearField("is_lower_better")
        finding.kind = ANOMALY_KINDS[AnomalyKind.MULTIVARIATE]
        finding.state = pb.FINDING_STATE_CONFIRMED
        finding.impact = pb.FINDING_IMPACT_CHANGE
        self._locate(finding, index, point)
        self._measure(finding, worst.expected, worst.value)
        finding.confidence = unusual.score
        finding.contributions.extend(
            pb.Contribution(
                metric=each.metric,
                unit=each.unit,
                value=each.value,
                expected=each.expected,
                share=each.share,
            )
            for each in unusual.contributions
        )
        return finding

    def _locate(self, finding: pb.Finding, index: int, point: SeriesPoint) -> None:
        finding.index = finding.first_index = finding.last_index = index
        finding.time_unix_nanos = point.time_ns
        previous = self.position(index - 1)
        finding.revision_before = previous.revision if previous else ""
        finding.revision = finding.revision_last = point.revision
        finding.run_id = point.run_id
        finding.before_unix_nanos = previous.time_ns if previous else 0
        finding.last_unix_nanos = point.time_ns

    def _measure(self, finding: pb.Finding, expected: float, value: float) -> None:
        finding.level_before, finding.level_after = expected, value
        difference = value - expected
        finding.absolute = finding.absolute_low = finding.absolute_high = difference
        relative = difference / abs(expected) if expected else float("nan")
        finding.relative = finding.relative_low = finding.relative_high = relative

    def _impact_of(self, difference: float) -> "pb.FindingImpact.ValueType":
        if self.is_lower_better is None or not difference:
            return pb.FINDING_IMPACT_CHANGE
        is_worse = (difference > 0) == self.is_lower_better
        return pb.FINDING_IMPACT_REGRESSION if is_worse else pb.FINDING_IMPACT_IMPROVEMENT

    def _finding(self, identity: str, version: int, point: SeriesPoint) -> pb.Finding:
        suite, case, metric, pool = self.key
        return pb.Finding(
            finding_id=identity,
            version=version,
            series=pb.FindingSeries(suite=suite, case_name=case, metric=metric, pool=pool),
            unit=self.unit,
            is_lower_better=self.is_lower_better,
            log_sequence=point.sequence,
            caused_by_run_id=point.run_id,
            caused_unix_nanos=point.time_ns,
            rule_version=RULE_VERSION,
        )


def _position_of(point: SeriesPoint) -> Position:
    return Position(point.time_ns, point.value, point.weight, point.run_id, point.revision, point.task)


def _packed(tracked: Tracked) -> list[Any]:
    change = tracked.change
    effect = change.effect
    return [
        tracked.finding_id,
        tracked.version,
        list(tracked.place),
        [change.index, change.time, change.kind.value, change.state.value, change.confidence],
        [effect.absolute, effect.relative, effect.interval.low, effect.interval.high],
        [effect.relative_interval.low, effect.relative_interval.high],
        [change.first_index, change.last_index, change.level_before, change.level_after, change.impact.value],
    ]


def _unpacked(packed: Sequence[Any]) -> Tracked:
    identity, version, where, place, (absolute, relative, low, high), (relative_low, relative_high), rest = (
        packed
    )
    index, time, kind, state, confidence = place
    first_index, last_index, level_before, level_after, impact = rest
    return Tracked(
        identity,
        version,
        ChangePoint(
            index=index,
            time=time,
            kind=ChangeKind(kind),
            state=ChangeState(state),
            confidence=confidence,
            effect=Effect(absolute, relative, Interval(low, high), Interval(relative_low, relative_high)),
            first_index=first_index,
            last_index=last_index,
            level_before=level_before,
            level_after=level_after,
            impact=Impact(impact),
        ),
        Place(*where),
    )
