"""The analysis stream folded: every finding in its newest version, what people said of it, how each rule does.

Whether a finding is raised follows from this stream alone: its evidence is in it, and so are the
judgements that say how much evidence its rule needs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dtf.api.v1 import findings_pb2 as pb
from dtf.core.trend import measurements
from dtf.core.trend.confirmations import ConfirmationBook
from dtf.core.trend.points import PointBuffer, Points, Value
from dtf.core.trend.series_points import SeriesKey
from dtf.core.trend.triage import RuleRecord

MOST_FINDINGS = 50_000
"""Findings that are known, the newest; of the others the store has the points and the stream the events."""

KIND_NAMES: Mapping[int, str] = {
    pb.FINDING_KIND_STEP: "step",
    pb.FINDING_KIND_DRIFT: "drift",
    pb.FINDING_KIND_VARIANCE: "variance",
    pb.FINDING_KIND_POINT: "point",
    pb.FINDING_KIND_COLLECTIVE: "collective",
    pb.FINDING_KIND_MULTIVARIATE: "multivariate",
}
"""How the store and people's commands write a kind."""
STATE_NAMES: Mapping[int, str] = {
    pb.FINDING_STATE_PROVISIONAL: "provisional",
    pb.FINDING_STATE_CONFIRMED: "confirmed",
    pb.FINDING_STATE_WENT_AWAY: "went_away",
}
IMPACT_NAMES: Mapping[int, str] = {
    pb.FINDING_IMPACT_REGRESSION: "regression",
    pb.FINDING_IMPACT_IMPROVEMENT: "improvement",
    pb.FINDING_IMPACT_CHANGE: "change",
}
TRIAGE_NAMES: Mapping[int, str] = {
    pb.TRIAGE_VERDICT_UNSPECIFIED: "",
    pb.TRIAGE_VERDICT_ACCEPTED: "accepted",
    pb.TRIAGE_VERDICT_REJECTED: "rejected",
    pb.TRIAGE_VERDICT_MUTED: "muted",
}
ANOMALIES = frozenset({pb.FINDING_KIND_POINT, pb.FINDING_KIND_COLLECTIVE, pb.FINDING_KIND_MULTIVARIATE})
"""Kinds that say nothing of what comes after: they are kept and drawn, and nobody is called for them."""

_MILLISECOND_NS = 1_000_000


@dataclass(slots=True)
class Known:
    """A finding with what people said of it."""

    finding: pb.Finding
    triage: pb.FindingTriaged | None = None
    notified: set[str] = field(default_factory=set)
    """Channels that were told of it, each with the state it was in: "slack confirmed"."""

    @property
    def verdict(self) -> "pb.TriageVerdict.ValueType":
        """What was said last."""
        return self.triage.verdict if self.triage is not None else pb.TRIAGE_VERDICT_UNSPECIFIED


class FindingsBook:
    """Events of the analysis stream in, points of `findings` and of imported history out."""

    def __init__(self, most_findings: int = MOST_FINDINGS) -> None:
        self.sequence = 0
        self.findings: dict[str, Known] = {}
        """By identity, in the order in which they were first seen."""
        self.imports: list[tuple[int, pb.PointsImported]] = []
        """Imported points that nobody took yet, with their sequences."""
        self.confirmations = ConfirmationBook()
        """What was asked for to confirm findings."""
        self._most = most_findings
        self._records = {kind: RuleRecord() for kind in KIND_NAMES}
        self._buffer = PointBuffer()
        self._rows: dict[tuple[int, SeriesKey, str], dict[str, Value]] = {}
        """Points of `findings` by time and tags: the newest of each, which is what the store keeps."""

    def __len__(self) -> int:
        return len(self._buffer) + len(self._rows)

    def apply(self, event: pb.AnalysisEvent, sequence: int) -> None:
        """Fold one event."""
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
            case "points_imported":
                self.imports.append((sequence, event.points_imported))
                self._write_imported(event.points_imported)
            case _:
                pass  # of a later version

    def take(self) -> list[Points]:
        """The points of every event folded since the last call."""
        points = self._buffer.of(measurements.FINDINGS)
        for (time_ns, _key, _kind), row in self._rows.items():
            points.add(time_ns, row)
        self._rows = {}
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
        if finding.state == pb.FINDING_STATE_WENT_AWAY or finding.kind in ANOMALIES:
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
        if known is None:
            known = self.findings[finding.finding_id] = Known(finding)
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
                self._write(known, old, "moved")
        self._write(known, finding)

    def _triage(self, triaged: pb.FindingTriaged) -> None:
        known = self.findings.get(triaged.finding_id)
        if known is not None:
            self._count(known, -1)
            known.triage = triaged
            self._count(known, 1)
            self._write(known, known.finding)

    def _remember_notice(self, notified: pb.FindingsNotified) -> None:
        for identity in notified.finding_ids:
            known = self.findings.get(identity)
            if known is not None:
                known.notified.add(notified.channel)

    def _write(self, known: Known, finding: pb.Finding, state: str = "") -> None:
        series = finding.series
        moved = "moved" if finding.is_moved else ""
        required: dict[int, float] = {finding.kind: self.record_of(finding.kind).required_confidence}
        kind = KIND_NAMES.get(finding.kind, "unknown")
        key = SeriesKey(series.suite, series.case_name, series.metric, series.pool)
        self._rows[finding.time_unix_nanos, key, kind] = {
            "suite": series.suite,
            "case": series.case_name,
            "metric": series.metric,
            "pool": series.pool,
            "kind": kind,
            "finding": finding.finding_id,
            "state": state or moved or STATE_NAMES.get(finding.state, "unknown"),
            "impact": IMPACT_NAMES.get(finding.impact, "change"),
            "triage": TRIAGE_NAMES.get(known.verdict, ""),
            "is_raised": not state and self.is_raised(known, required),
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

    def _count(self, known: Known, by: int) -> None:
        record = self._records.get(known.finding.kind)
        if record is None or known.finding.is_moved:
            return
        if known.finding.state == pb.FINDING_STATE_WENT_AWAY:
            record.gone += by
        else:
            record.standing += by
        record.accepted += by * (known.verdict == pb.TRIAGE_VERDICT_ACCEPTED)
        record.rejected += by * (known.verdict == pb.TRIAGE_VERDICT_REJECTED)

    def _forget_oldest(self) -> None:
        if len(self.findings) <= self._most:
            return
        gone = (
            identity
            for identity, known in self.findings.items()
            if known.finding.state == pb.FINDING_STATE_WENT_AWAY
        )
        del self.findings[next(gone, next(iter(self.findings)))]
