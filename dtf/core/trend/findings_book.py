"""The analysis stream folded: every finding in its newest version, what people said of it, how each rule does.

Whether a finding is raised follows from this stream alone: its evidence is in it, and so are the
judgements that say how much evidence its rule needs.
"""

from collections.abc import Iterator, Mapping, Set
from itertools import islice
from typing import Any

from dtf.api.v1 import findings_pb2 as pb
from dtf.core.trend import measurements
from dtf.core.trend.confirmations import ConfirmationBook
from dtf.core.trend.finding_rows import (
    MOVED_AWAY,
    RAISED,
    SET_ASIDE,
    FindingRows,
    Place,
    point_of,
    standings_in_groups,
)
from dtf.core.trend.finding_words import ANOMALIES, KIND_NAMES
from dtf.core.trend.findings_kept import Known
from dtf.core.trend.imported import fault_of
from dtf.core.trend.points import PointBuffer, Points, Unusable
from dtf.core.trend.series_points import SeriesKey
from dtf.core.trend.succession import Succession, is_lost, is_orphaned, successions
from dtf.core.trend.triage import RuleRecord

MOST_FINDINGS = 50_000
"""Findings that are known, the newest; of the others the store has the points and the stream the events."""
FORGOTTEN_SHARE = 16
"""When so many more are known as this part of them, the oldest are forgotten."""
MOST_GROUPED = 10_000
"""Findings of a suite that are looked at for what they share, the newest."""


class FindingsBook:
    """Events of the analysis stream in, points of `findings` and of imported history out."""

    def __init__(self, most_findings: int = MOST_FINDINGS, *, rule_version: int = 0) -> None:
        """`rule_version`: what older rules found is not raised, for the log is searched again by those of now."""
        self._rule_version = rule_version
        self.sequence = 0
        self.findings: dict[str, Known] = {}
        """By identity, in the order in which they were first seen."""
        self.imports: list[tuple[int, pb.PointsImported]] = []
        """Imported points that nobody took yet, with their sequences."""
        self.import_sequence = 0
        """Of the newest imported points."""
        self._newest_imports: dict[SeriesKey, int] = {}
        """Time of the newest imported point of each series."""
        self.confirmations = ConfirmationBook()
        """What was asked for to confirm findings."""
        self._most = most_findings
        self._records = {kind: RuleRecord() for kind in KIND_NAMES}
        self._buffer = PointBuffer()
        self._rows = FindingRows()
        self._suites: dict[str, dict[str, Known]] = {}
        """The findings, by suite and identity."""
        self._touched: dict[str, int] = {}
        """Suites of which something changed since points were last taken, with how many events did."""
        self._required: dict[int, float] = {}
        """What a finding of each rule needed then."""
        self._lost: dict[str, Known] = {}
        """Findings of which something was said and which do not stand any more, by identity."""

    def __len__(self) -> int:
        return len(self._buffer) + len(self._rows) + sum(self._touched.values())

    def apply(self, event: pb.AnalysisEvent, sequence: int) -> None:
        """Fold one event. Raises Unusable for points that no series can take, and for findings that cannot be told apart."""
        if sequence <= self.sequence:
            return
        self.sequence = sequence
        match event.WhichOneof("event"):
            case "finding":
                self._take_up(event.finding)
            case "finding_triaged":
                self._triage(event.finding_triaged)
            case "findings_notified":
                self._remember_notice(event.findings_notified)
            case "confirmation_requested":
                self.confirmations.apply(event.confirmation_requested)
            case "finding_succeeded":
                self._succeed(event.finding_succeeded)
            case "points_imported":
                if fault := fault_of(event.points_imported):
                    raise Unusable(f"imported points: {fault[0]}: {fault[1]}")
                self.imports.append((sequence, event.points_imported))
                self.import_sequence = sequence
                self._note_newest(event.points_imported)
                self._write_imported(event.points_imported)
            case _:
                pass  # of a later version

    def take(self) -> list[Points]:
        """The points of every event folded since the last call, and of what they change for other findings."""
        required = self.required_confidences()
        for suite in self._suites if required != self._required else self._touched:
            self._write_suite(suite, required)
        self._required, self._touched = required, {}
        self._rows.move_to(self._buffer.of(measurements.FINDINGS))
        return self._buffer.take()

    def state(self) -> dict[str, Any]:
        """Where the fold is; what it knows it reads again from the stream."""
        return {"sequence": self.sequence}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to do: the stream is read from its beginning."""

    def record_of(self, kind: int) -> RuleRecord:
        """How a rule has done."""
        return self._records.get(kind) or RuleRecord()

    def required_confidences(self) -> dict[int, float]:
        """What a finding of each rule needs now."""
        return {kind: self.record_of(kind).required_confidence for kind in KIND_NAMES}

    def is_raised(self, known: Known, required: Mapping[int, float]) -> bool:
        """Whether a finding is to be spoken of."""
        finding = known.finding
        is_old = finding.rule_version < self._rule_version
        if is_old or finding.state == pb.FINDING_STATE_WENT_AWAY or finding.kind in ANOMALIES:
            return False
        match known.verdict:
            case pb.TRIAGE_VERDICT_REJECTED | pb.TRIAGE_VERDICT_MUTED:
                return False
            case pb.TRIAGE_VERDICT_ACCEPTED:
                return True
            case _:
                return finding.confidence >= required.get(finding.kind, 0.0)

    def named(self, beginning: str) -> list[Known]:
        """The findings whose identity begins so; that very one, if there is one."""
        exact = self.findings.get(beginning)
        if exact is not None:
            return [exact]
        return [known for identity, known in self.findings.items() if identity.startswith(beginning)]

    def newest_import(self, key: SeriesKey) -> int:
        """Time of the newest imported point of a series, searched or not; -1: none was imported."""
        return self._newest_imports.get(key, -1)

    def followed(self, known: Known) -> Known:
        """The finding that stands in its place now; itself where none does."""
        seen: set[str] = set()
        while known.successor_id in self.findings and known.successor_id not in seen:
            seen.add(known.successor_id)
            known = self.findings[known.successor_id]
        return known

    def successions(self) -> list[Succession]:
        """What was said of findings that do not stand any more, and the findings that it is to be said of."""
        suites = {known.finding.series.suite for known in self._lost.values()}
        candidates = (known for suite in suites for known in self._suites[suite].values())
        return successions(self._lost.values(), candidates, self._rule_version) if self._lost else []

    def orphans(self) -> list[Known]:
        """Judged findings that the rules of now do not find; says nothing before these have searched everything."""
        return [known for known in self._lost.values() if is_orphaned(known, self._rule_version)]

    def newest_first(self) -> Iterator[Known]:
        """Every finding, the newest place in time first."""
        return iter(
            sorted(
                self.findings.values(),
                key=lambda known: (-known.finding.time_unix_nanos, known.finding.finding_id),
            )
        )

    def _take_up(self, finding: pb.Finding) -> None:
        known = self.findings.get(finding.finding_id)
        series = known.finding.series if known is not None else finding.series
        if not finding.finding_id or series != finding.series:
            raise Unusable(
                f"finding {finding.finding_id[:20]!r} has no identity, or is of another series than it was"
            )
        if known is None:
            known = self.findings[finding.finding_id] = Known(finding)
            self._suites.setdefault(finding.series.suite, {})[finding.finding_id] = known
            self._count(known, 1)
            self._forget_oldest()
        else:
            old = known.finding
            if (finding.rule_version, finding.version) <= (old.rule_version, old.version):
                return  # said before
            self._count(known, -1)
            known.finding = finding
            self._count(known, 1)
            if (old.time_unix_nanos, old.kind) != (finding.time_unix_nanos, finding.kind):
                self._rows.write(old, known.verdict, MOVED_AWAY, state="moved")
        self._touch(known)

    def _triage(self, triaged: pb.FindingTriaged) -> None:
        known = self.findings.get(triaged.finding_id)
        if known is not None:
            self._count(known, -1)
            known.triage = triaged
            self._count(known, 1)
            self._touch(known)

    def _succeed(self, event: pb.FindingSucceeded) -> None:
        old, new = self.findings.get(event.finding_id), self.findings.get(event.successor_id)
        if old is None or new is None or old is new:
            return
        for known in (old, new):
            self._count(known, -1)
        old.successor_id, new.successor_id = event.successor_id, ""
        new.inherit(old)
        for known in (old, new):
            self._count(known, 1)
            self._touch(known)

    def _remember_notice(self, notified: pb.FindingsNotified) -> None:
        for identity in notified.finding_ids:
            known = self.findings.get(identity)
            if known is not None:
                known.notified.add(notified.channel)
                self._note_lost(known)

    def _touch(self, known: Known) -> None:
        known.standing = None
        self._note_lost(known)
        suite = known.finding.series.suite
        self._touched[suite] = self._touched.get(suite, 0) + 1

    def _write_suite(self, suite: str, required: Mapping[int, float]) -> None:
        """Write each finding of the suite whose point does not say what is true of it now."""
        findings = self._suites[suite]
        raised = {identity: known for identity, known in findings.items() if self.is_raised(known, required)}
        newest = list(islice(reversed(raised.values()), MOST_GROUPED))
        groups = standings_in_groups([known.finding for known in reversed(newest)])
        untrue: list[Known] = []
        for identity, known in findings.items():
            standing = groups.get(identity) or (RAISED if identity in raised else SET_ASIDE)
            if standing != known.standing:
                known.standing = standing
                untrue.append(known)
        for known in untrue:
            self._rows.write(known.finding, known.verdict, known.standing or SET_ASIDE)
        if any(map(_is_gone, untrue)):
            self._write_over({point_of(known.finding) for known in untrue if _is_gone(known)}, findings)

    def _write_over(self, places: Set[Place], findings: Mapping[str, Known]) -> None:
        """Where one went away and another stands at the same place, the point is that one's."""
        for known in findings.values():
            if not _is_gone(known) and point_of(known.finding) in places:
                self._rows.write(known.finding, known.verdict, known.standing or SET_ASIDE)

    def _note_newest(self, imported: pb.PointsImported) -> None:
        series, times = imported.series, imported.times_unix_nanos
        key = SeriesKey(series.suite, series.case_name, series.metric, series.pool)
        if times:
            self._newest_imports[key] = max(self.newest_import(key), times[-1])

    def _write_imported(self, imported: pb.PointsImported) -> None:
        series = imported.series
        points = self._buffer.of(measurements.BENCHMARKS)
        revisions = list(imported.revisions) or [""] * len(imported.times_unix_nanos)
        for time_ns, value, revision in zip(
            imported.times_unix_nanos, imported.values, revisions, strict=False
        ):
            points.add(
                time_ns,
                {
                    "suite": series.suite,
                    "case": series.case_name,
                    "pool": series.pool,
                    "metric": series.metric,
                    "run": "",
                    "revision": revision,
                    "worker": imported.source,
                    "value": value,
                    "unit": imported.unit,
                    "is_lower_better": imported.is_lower_better
                    if imported.HasField("is_lower_better")
                    else None,
                },
            )

    def _note_lost(self, known: Known) -> None:
        identity = known.finding.finding_id
        if is_lost(known, self._rule_version):
            self._lost[identity] = known
        else:
            self._lost.pop(identity, None)

    def _count(self, known: Known, by: int) -> None:
        """Count a finding for its rule: each judgement once, and what is there by the rules of now."""
        record = self._records.get(known.finding.kind)
        if record is None or known.successor_id:
            return
        if known.finding.rule_version >= self._rule_version and not known.finding.is_moved:
            if known.finding.state == pb.FINDING_STATE_WENT_AWAY:
                record.gone += by
            else:
                record.standing += by
        record.accepted += by * (known.verdict == pb.TRIAGE_VERDICT_ACCEPTED)
        record.rejected += by * (known.verdict == pb.TRIAGE_VERDICT_REJECTED)

    def _forget_oldest(self) -> None:
        """Many at once, so that one costs the same however many there are; what people judged is the last to go."""
        if len(self.findings) <= self._most + self._most // FORGOTTEN_SHARE:
            return
        by_worth = sorted(self.findings.values(), key=_worth)
        for known in by_worth[: len(by_worth) - self._most]:
            forgotten = known.finding
            del self.findings[forgotten.finding_id]
            del self._suites[forgotten.series.suite][forgotten.finding_id]
            self._lost.pop(forgotten.finding_id, None)


def _worth(known: Known) -> tuple[bool, bool]:
    """What is forgotten first comes first: what went away, then what nobody judged; of equals the oldest."""
    is_judged = known.verdict != pb.TRIAGE_VERDICT_UNSPECIFIED
    return is_judged, not _is_gone(known)


def _is_gone(known: Known) -> bool:
    return known.finding.state == pb.FINDING_STATE_WENT_AWAY
