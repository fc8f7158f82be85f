"""The start of a reign: replay the whole log, verify its chain, then append LeaderElected."""

import logging
from dataclasses import dataclass, field

from dtf.api.v1 import events_pb2
from dtf.coordinator.commits import Step, headers_of, serialize
from dtf.coordinator.pipeline import Deposed
from dtf.coordinator.writer import MonotonicTime
from dtf.core.chain import ChainReader
from dtf.core.run.commands import ElectLeader
from dtf.core.run.decide import decide
from dtf.core.run.evolve import evolve
from dtf.core.run.state import State
from dtf.ports.clock import Clock
from dtf.ports.event_log import AppendConflict, EventLog, StoredCommit

log = logging.getLogger(__name__)

MAX_ELECTIONS = 10
"""An append of the reign before may land between the replay and the election; more often than this it is another leader."""


@dataclass(slots=True)
class Reign:
    """State and chain as of the election, this one included."""

    state: State = field(default_factory=State)
    chain: ChainReader = field(default_factory=ChainReader)
    elected: events_pb2.Commit = field(default_factory=events_pb2.Commit)


async def replay(event_log: EventLog, state: State, chain: ChainReader) -> None:
    """Fold every commit after the chain's position into `state`. Raises ChainBroken, LogError."""
    async for batch in event_log.read(chain.sequence):
        for stored in batch:
            fold(state, chain, stored)


def fold(state: State, chain: ChainReader, stored: StoredCommit) -> None:
    """Fold one message into `state`; a stranger's is passed over. Raises ChainBroken."""
    commit = chain.accept(stored.sequence, stored.payload, stored.message_id)
    if commit is None:
        log.warning("passed over a message that is no commit", extra={"sequence": stored.sequence})
        return
    for event in commit.events:
        evolve(state, event, commit.now_unix_nanos, stored.sequence)


async def begin_reign(
    event_log: EventLog,
    clock: Clock,
    *,
    leader: str,
    lease_seconds: float,
    nonce: bytes,
    code_version: str,
    reign: Reign | None = None,
) -> Reign:
    """Replay, on top of what a standby has folded into `reign`, and be elected.

    Raises Deposed if others keep writing meanwhile, ChainBroken, LogError.
    """
    reign = reign or Reign()
    command = ElectLeader(leader, lease_seconds)
    for _ in range(MAX_ELECTIONS):
        await replay(event_log, reign.state, reign.chain)
        if await _elect(event_log, clock, reign, command, nonce, code_version):
            return reign
    raise Deposed(
        f"{MAX_ELECTIONS} elections failed: another coordinator keeps writing to this namespace's log"
    )


async def _elect(
    event_log: EventLog, clock: Clock, reign: Reign, command: ElectLeader, nonce: bytes, code_version: str
) -> bool:
    """Append LeaderElected where the replay ended; False if something else is there."""
    now_ns = MonotonicTime(clock, reign.chain.now_ns).next_ns()
    events = decide(reign.state, command, now_ns)
    payload, message_id = serialize(
        commit_id=nonce + bytes(8),
        epoch=reign.chain.epoch + 1,
        previous_hash=reign.chain.last_hash,
        now_ns=now_ns,
        code_version=code_version,
        steps=[Step(command, events, None)],
        events=events,
    )
    try:
        sequence = await event_log.append(
            payload,
            message_id=message_id,
            previous_message_id=None,
            expected_last_sequence=reign.chain.sequence,
            headers=headers_of(events),
        )
    except AppendConflict:
        return False
    commit = reign.chain.accept(sequence, payload, message_id)
    if commit is None:
        raise Deposed(f"LeaderElected at {sequence} does not continue the chain")
    for event in commit.events:
        evolve(reign.state, event, now_ns, sequence)
    reign.elected = commit
    return True
