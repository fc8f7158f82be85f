"""A finding as the fold of the analysis stream keeps it."""

from dataclasses import dataclass, field

from dtf.api.v1 import findings_pb2 as pb
from dtf.core.trend.finding_rows import Standing


@dataclass(slots=True)
class Known:
    """A finding with what people said of it."""

    finding: pb.Finding
    triage: pb.FindingTriaged | None = None
    """Its `finding_id` is another one where the judgement was of a finding that this one succeeds."""
    notified: set[str] = field(default_factory=set)
    """Channels that were told of it, each with the state it was in: "slack confirmed"."""
    standing: Standing | None = None
    """What its point says of it; None: it has none that is still true."""
    successor_id: str = ""
    """The finding that stands in its place: what was said of this one counts there."""

    @property
    def verdict(self) -> "pb.TriageVerdict.ValueType":
        """What was said last."""
        return self.triage.verdict if self.triage is not None else pb.TRIAGE_VERDICT_UNSPECIFIED

    def inherit(self, old: "Known") -> None:
        """Take over what was said of the one before; the last judgement counts."""
        self.notified |= old.notified
        if old.triage is None:
            return
        if self.triage is None or self.triage.now_unix_nanos < old.triage.now_unix_nanos:
            self.triage = old.triage
