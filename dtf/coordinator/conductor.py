"""What the writer asks and tells, passed on to whoever of the coordinator it concerns."""

from dataclasses import dataclass

from dtf.coordinator.bell import Bell
from dtf.coordinator.commit_feed import CommitFeed, feed_commit
from dtf.coordinator.commits import PendingCommit, Step
from dtf.coordinator.meters import Meters
from dtf.coordinator.output_rights import OutputRights
from dtf.coordinator.session_hub import SessionHub
from dtf.coordinator.snapshot_keeper import SnapshotKeeper
from dtf.core.run.commands import Command
from dtf.ports.clock import Clock


@dataclass(slots=True)
class Conductor:
    """What the writer asks and tells: the hub decides on grants, the feed keeps what is durable."""

    hub: SessionHub
    feed: CommitFeed
    output_bell: Bell
    """Rung when a run ended: its output is complete."""
    output_rights: OutputRights
    meters: Meters
    clock: Clock
    snapshot_keeper: SnapshotKeeper | None = None

    def follow_up(self) -> Command | None:
        """Grants for the credits at hand."""
        return self.hub.follow_up()

    def decided(self, step: Step) -> None:
        """Grants were decided."""
        self.hub.decided(step)

    def idle(self) -> None:
        """Nothing more can be granted now."""
        self.hub.idle()

    def durable(self, commit: PendingCommit) -> None:
        """A commit was acknowledged."""
        try:
            self.feed.publish(feed_commit(commit.sequence, commit.now_ns, len(commit.payload), commit.events))
            self.output_rights.durable(commit.events)
            seconds = max(0.0, (self.clock.now_ns() - commit.now_ns) / 1e9)
            self.meters.durable(len(commit.events), len(commit.payload), seconds)
        finally:
            self.hub.durable(commit)
        if self.snapshot_keeper is not None:
            self.snapshot_keeper.durable(commit)
        if any(event.HasField("run_finished") for event in commit.events):
            self.output_bell.ring()
