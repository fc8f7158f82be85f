"""What services need of the coordinator: its state, its writer, and a way to answer from durable state only."""

from dataclasses import dataclass, field

from dtf.coordinator.audience import Audience
from dtf.coordinator.bell import Bell
from dtf.coordinator.blob_keeper import BlobKeeper
from dtf.coordinator.commit_feed import CommitFeed
from dtf.coordinator.history import History
from dtf.coordinator.intake import Intake
from dtf.coordinator.output_rights import OutputRights
from dtf.coordinator.pipeline import WriterStopped
from dtf.coordinator.scaling_relay import ScalingRelay
from dtf.coordinator.session_hub import SessionHub
from dtf.coordinator.sessions import Sessions
from dtf.coordinator.writer import Writer
from dtf.core.run.commands import FieldViolation, InvalidRequest
from dtf.core.run.state import RetiredRun, Run, State
from dtf.ports.blob_store import BlobStore
from dtf.ports.clock import Clock
from dtf.ports.event_log import EventLog
from dtf.rpc.certificates import ServerCertificates
from dtf.rpc.errors import NotLeading
from dtf.settings.model import CoordinatorSettings


@dataclass(slots=True)
class Desk:
    """Everything a service works with. Made once a reign."""

    settings: CoordinatorSettings
    state: State
    writer: Writer
    sessions: Sessions
    hub: SessionHub
    feed: CommitFeed
    scaling: ScalingRelay
    event_log: EventLog
    blobs: BlobStore
    blob_keeper: BlobKeeper
    clock: Clock
    certificates: ServerCertificates | None
    """What the listener shows; None: no TLS."""
    bell: Bell
    """Rung at each durable commit and each scaling decision."""
    output_bell: Bell
    """Rung when output grew, and when a run ended."""
    output_rights: OutputRights
    strangers: frozenset[int]
    """Sequences of messages in the log that are no commits of its chain."""
    code_version: str
    leading_since_at: float
    history: History = field(init=False)
    """Runs that left the state."""
    audience: Audience = field(default_factory=Audience)
    intake: Intake = field(init=False)

    def __post_init__(self) -> None:
        self.intake = Intake(self.writer)
        self.history = History(self.state, self.event_log, self.clock, self.strangers)

    def dismiss(self, reason: WriterStopped) -> None:
        """The reign is over: whoever waits for anything is told to ask the next leader."""
        self.writer.stop(reason)
        refusal = NotLeading(str(reason))
        self.sessions.end_streams(refusal)
        self.bell.take_down(refusal)
        self.output_bell.take_down(refusal)

    def find(self, run_id: str) -> Run | RetiredRun:
        """A run, or the outline of one that left the state. Raises InvalidRequest, NotFound."""
        require(run_id, "run_id")
        return self.history.find(run_id)


def require(value: str, field: str) -> None:
    """Raises InvalidRequest unless a field is set."""
    if not value:
        raise InvalidRequest(f"{field} is empty", violations=[FieldViolation(field, "is empty")])
