"""The start of a reign: restore the state (recovery.py), then append LeaderElected."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from dtf.api.v1 import events_pb2
from dtf.coordinator.commits import Step, headers_of, serialize
from dtf.coordinator.monotonic_time import MonotonicTime
from dtf.coordinator.pipeline import Deposed
from dtf.coordinator.recovery import Fold, check_history, fold, replay, restore, send_spooled
from dtf.core.run.commands import ElectLeader
from dtf.core.run.decide import decide
from dtf.core.run.evolve import evolve
from dtf.ports.clock import Clock
from dtf.ports.event_log import AppendConflict, EventLog
from dtf.ports.preparation import PreparationProcess
from dtf.ports.snapshot_store import SnapshotStore
from dtf.ports.spool import CommitSpool, SpooledCommit

__all__ = ["Reign", "begin_reign", "fold", "replay"]

log = logging.getLogger(__name__)

MAX_ELECTIONS = 10
"""An append of the reign before may land between the replay and the election; more often than this it is another leader."""


@dataclass(slots=True)
class Reign(Fold):
    """State and chain as of the election, this one included."""

    elected: events_pb2.Commit = field(default_factory=events_pb2.Commit)
    snapshot_sequence: int = 0
    """Of the snapshot it began from; 0: from the log's beginning."""


async def begin_reign(
    event_log: EventLog,
    clock: Clock,
    *,
    leader: str,
    lease_seconds: float,
    nonce: bytes,
    code_version: str,
    reign: Reign | None = None,
    snapshots: Sequence[SnapshotStore] = (),
    spool: CommitSpool | None = None,
    accepted_loss: events_pb2.AcceptedLoss | None = None,
    preparation: PreparationProcess | None = None,
) -> Reign:
    """Restore the state, on top of what a standby has folded into `reign`, and be elected.

    With `accepted_loss` the log goes on without what it lost, and LeaderElected says so. Raises
    HistoryLost, Deposed if others keep writing meanwhile, ChainBroken, LogError, SpoolError.
    """
    reign = reign or Reign()
    restored = await restore(event_log, snapshots, spool, reign, preparation)
    reign.snapshot_sequence = restored.snapshot_sequence or reign.snapshot_sequence
    log.info("restored", extra={"begun_from": restored.snapshot, "sequence": reign.chain.sequence})
    if accepted_loss is None:
        await send_spooled(event_log, reign, await check_history(event_log, reign, restored))
    if spool is not None:
        spool.begin(nonce.hex())
    command = ElectLeader(leader, lease_seconds, accepted_loss)
    for attempt in range(MAX_ELECTIONS):
        commit_id = nonce + attempt.to_bytes(4, "big") + bytes(4)
        if await _elect(event_log, clock, reign, command, commit_id, code_version, spool):
            return reign
        await replay(event_log, reign.state, reign.chain)
    raise Deposed(
        f"{MAX_ELECTIONS} elections failed: another coordinator keeps writing to this namespace's log"
    )


async def _elect(
    event_log: EventLog,
    clock: Clock,
    reign: Reign,
    command: ElectLeader,
    commit_id: bytes,
    code_version: str,
    spool: CommitSpool | None,
) -> bool:
    """Append LeaderElected where the replay ended; False if something else is there."""
    now_ns = MonotonicTime(clock, reign.chain.now_ns).next_ns()
    events = decide(reign.state, command, now_ns)
    payload, message_id = serialize(
        commit_id=commit_id,
        epoch=events[0].leader_elected.epoch,
        previous_hash=reign.chain.last_hash,
        now_ns=now_ns,
        code_version=code_version,
        steps=[Step(command, events, None)],
        events=events,
    )
    headers = headers_of(events)
    if spool is not None:
        await spool.write(SpooledCommit(reign.chain.sequence + 1, payload, message_id, headers))
    try:
        sequence = await event_log.append(
            payload,
            message_id=message_id,
            previous_message_id=None,
            expected_last_sequence=reign.chain.sequence,
            headers=headers,
        )
    except AppendConflict:
        return False
    if spool is not None:
        spool.acknowledge(sequence, message_id)
    commit = reign.chain.accept(sequence, payload, message_id)
    if commit is None:
        raise Deposed(f"LeaderElected at {sequence} does not continue the chain")
    for event in commit.events:
        evolve(reign.state, event, now_ns, sequence)
    reign.elected = commit
    return True
