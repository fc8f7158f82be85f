"""Putting back what a log lost, and letting it go on without.

Commits are appended from the spool as they were, byte for byte, each where it was: the chain and the
sequences are again what everybody who read the log remembers. Where a stranger's message stood, a
message that is no commit stands for it. Each append says what it follows, so that a repair that was
interrupted goes on where it stopped, and whatever a leader writes meanwhile stops it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dtf.api.v1 import events_pb2
from dtf.coordinator.loss import Loss, parse
from dtf.core.chain import ChainReader
from dtf.core.run.state import State
from dtf.ports.event_log import AppendConflict, EventLog
from dtf.ports.spool import SpooledCommit

FILLER = b"dtf log repair: a message that was no commit stood here"


class RepairRefused(Exception):
    """The log cannot be repaired so; nothing more was written. The message says why."""


@dataclass(frozen=True, slots=True)
class PutBack:
    """What a repair appended."""

    first: int
    last: int
    commits: int
    fillers: int


async def put_back(event_log: EventLog, loss: Loss, chain: ChainReader) -> PutBack:
    """Append the spooled commits that continue the log. Raises RepairRefused, LogError.

    Those that were never acknowledged are appended as well, as a start would.
    """
    if loss.replaced_by:
        raise RepairRefused(f"nothing can be put back: in its place stands {loss.replaced_by}")
    position = chain.sequence
    commits = fillers = 0
    for commit in loss.spooled.commits:
        if commit.sequence <= position:
            break  # it was meant for a place that a stranger took
        while position + 1 < commit.sequence:
            position = await _append(event_log, FILLER, "", position, {})
            fillers += 1
        position = await _append(event_log, commit.payload, commit.message_id, position, commit.headers)
        commits += 1
    return PutBack(chain.sequence + 1, position, commits, fillers)


async def _append(
    event_log: EventLog, payload: bytes, message_id: str, after: int, headers: Mapping[str, str]
) -> int:
    try:
        return await event_log.append(
            payload,
            message_id=message_id,
            previous_message_id=None,
            expected_last_sequence=after,
            headers=headers,
        )
    except AppendConflict as error:
        raise RepairRefused(
            f"somebody else writes to the log: it no longer ends at {after}; "
            "stop every coordinator of this namespace, then repair again"
        ) from error


def accepted_loss(
    loss: Loss, state: State, beyond: Sequence[State], accepted_by: str
) -> events_pb2.AcceptedLoss:
    """What LeaderElected says of it. `beyond` are states that snapshots keep of the lost history."""
    lost = [parse(commit) for commit in loss.spooled.commits]
    return events_pb2.AcceptedLoss(
        after_sequence=loss.after_sequence,
        through_sequence=loss.through.sequence,
        through_hash=bytes.fromhex(loss.through.message_id),
        lost_epoch=max([state.epoch, *(commit.epoch for commit in lost), *(s.epoch for s in beyond)]),
        next_fence=max(
            [state.next_fence, *_fences_after(loss.spooled.commits), *(s.next_fence for s in beyond)]
        ),
        accepted_by=accepted_by,
    )


def _fences_after(commits: Sequence[SpooledCommit]) -> list[int]:
    return [
        event.leases_granted.first_fence + len(event.leases_granted.tasks)
        for commit in commits
        for event in parse(commit).events
        if event.HasField("leases_granted")
    ]
