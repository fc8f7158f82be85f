"""What a start rests on: the newest good snapshot, the log after it, and what the spool knows beyond.

    newest snapshot of all stores ─damaged, older schema, purged away─▶ the next one ─▶ … ─▶ the bare log
           │ good, and the log has its hash at its sequence
           ▼
    fold the tail ─▶ compare with newer snapshots and the spool's marks ─▶ lost: HistoryLost
                                            │ nothing is missing
                                            ▼
                     send again what was spooled and never reached the log

A commit that was spooled and not acknowledged had no effect yet, so that both to drop it and to send
it again would be right. It is sent again: where the note of the acknowledgement was lost with the
machine, only that is (docs/adr/0010). The chain lets it land nowhere but where it was meant to.
"""

import gc
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from dtf.coordinator.loss import Evidence, Loss, SpooledChain, chain_from, evidence_of
from dtf.coordinator.pipeline import WriterStopped
from dtf.coordinator.prepared_replay import WORTHWHILE_MESSAGES, PreparedReplay
from dtf.core.chain import ChainReader
from dtf.core.events import parse_commit
from dtf.core.run.evolve import evolve_all
from dtf.core.run.state import State
from dtf.core.snapshot import SnapshotTooNew, SnapshotUnusable, last_commit_sequence, open_snapshot
from dtf.ports.event_log import AppendConflict, EventLog, LogHead, StoredCommit
from dtf.ports.preparation import PreparationProcess
from dtf.ports.snapshot_store import SnapshotName, SnapshotStore, SnapshotStoreError
from dtf.ports.spool import CommitSpool, SpoolContents

log = logging.getLogger(__name__)


class HistoryLost(WriterStopped):
    """The log lacks what it had acknowledged. Nothing was changed; `advice` says what can be done."""

    def __init__(self, what: str, *advice: str, known: Evidence | None = None) -> None:
        """`known`: the last thing that this machine knows to be lost."""
        super().__init__(what)
        self.what = what
        self.advice = advice
        self.known = known


NOTHING_SPOOLED = SpoolContents((), (), ())
CHECKED_MARKS = 3
"""Of the spool's newest marks, in the log: each reign checked those before it when it began."""


class LogReader(Protocol):
    """What can be folded: the live log, or it and its archive. Every call may raise LogError."""

    async def head(self) -> LogHead:
        """Where it ends, and its first sequence."""
        ...

    def read(self, after: int, until: int | None = None) -> AsyncIterator[Sequence[StoredCommit]]:
        """Batches of the commits with `after` < sequence <= `until` (None: the head at the call)."""
        ...


@dataclass(slots=True)
class Fold:
    """State and chain after the messages folded so far."""

    state: State = field(default_factory=State)
    chain: ChainReader = field(default_factory=ChainReader)


@dataclass(slots=True)
class Restored:
    """How a fold came about."""

    snapshot: str = ""
    """Which snapshot it began from, in words; "": from the log's beginning."""
    snapshot_sequence: int = 0
    newer: list[Evidence] = field(default_factory=list)
    """Good snapshots that the log does not reach, or contradicts."""
    spooled: SpoolContents = NOTHING_SPOOLED
    """What the spool had beyond the log's end, read before the log was: whoever leads yet goes on writing both."""
    spool: str = ""
    """Where it is, in words."""


def fold(state: State, chain: ChainReader, stored: StoredCommit) -> None:
    """Fold one message into `state`; a stranger's is passed over. Raises ChainBroken."""
    commit = chain.accept(stored.sequence, stored.payload, stored.message_id)
    if commit is None:
        log.warning("passed over a message that is no commit", extra={"sequence": stored.sequence})
        return
    evolve_all(state, commit.events, chain.now_ns, stored.sequence)


async def replay(
    event_log: LogReader, state: State, chain: ChainReader, preparation: PreparationProcess | None = None
) -> None:
    """Fold every commit after the chain's position into `state`. Raises ChainBroken, LogError."""
    with _collector_off():
        if preparation is None:
            async for batch in event_log.read(chain.sequence):
                for stored in batch:
                    fold(state, chain, stored)
            return
        async with PreparedReplay(state, chain, fold, preparation) as prepared:
            async for batch in event_log.read(chain.sequence):
                await prepared.fold(batch)
            await prepared.finish()


@contextmanager
def _collector_off() -> Iterator[None]:
    """No garbage collection: a fold makes nothing that refers to itself, and what it makes stays."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


async def restore(
    event_log: LogReader,
    stores: Sequence[SnapshotStore],
    spool: CommitSpool | None,
    into: Fold,
    preparation: PreparationProcess | None = None,
) -> Restored:
    """Fill `into` from the newest good snapshot and the log after it.

    A fold that has begun (a standby's) goes on from where it is. A long one is helped by
    `preparation`. Raises ChainBroken, LogError, SpoolError, and HistoryLost where the log cannot be
    folded at all.
    """
    head = await event_log.head()
    restored = Restored()
    if spool is not None:
        restored.spooled, restored.spool = await spool.read(head.last_sequence), spool.description
    if into.chain.sequence:
        await _check_own_position(event_log, into.chain, head)
    else:
        await _load_newest(event_log, stores, head, into, restored)
    if head.first_sequence > into.chain.sequence + 1:
        raise HistoryLost(
            f"the log begins at {head.first_sequence}, and no good snapshot reaches it",
            "`dtf log status` names the snapshots and the archive; "
            "`dtf log snapshot` makes a snapshot anew from the archive and the log",
        )
    is_long = head.last_sequence - into.chain.sequence >= WORTHWHILE_MESSAGES
    await replay(event_log, into.state, into.chain, preparation if is_long else None)
    return restored


async def check_history(event_log: LogReader, into: Fold, restored: Restored) -> SpooledChain:
    """The spooled commits that continue the log, which is folded whole. Raises HistoryLost."""
    for what in restored.spooled.damage:
        log.warning("the spool is damaged", extra={"what": what})
    loss = await find_loss(event_log, into.chain, restored)
    if loss is not None:
        raise HistoryLost("\n".join(loss.lines()), *_advice(loss), known=loss.through)
    return chain_from(restored.spooled, into.chain.last_hash)


async def find_loss(event_log: LogReader, chain: ChainReader, restored: Restored) -> Loss | None:
    """What the log lost: whatever is known here and not in it."""
    marks = sorted(restored.spooled.marks, key=lambda mark: mark.sequence, reverse=True)
    missing = [evidence_of(mark, restored.spool) for mark in marks if mark.sequence > chain.sequence]
    within = [evidence_of(mark, restored.spool) for mark in marks if mark.sequence <= chain.sequence]
    replaced_by, after = "", chain.sequence
    for item in (*restored.newer, *within[:CHECKED_MARKS]):
        found = await message_at(event_log, item.sequence)
        if item.sequence > chain.sequence:
            missing.append(item)
        elif found is not None and found.message_id != item.message_id:
            missing.append(item)
            replaced_by = replaced_by or _in_words(found)
            after = min(after, item.sequence - 1)
    if not missing:
        return None
    spooled = chain_from(restored.spooled, chain.last_hash)
    return Loss(after, tuple(missing), spooled, replaced_by, restored.spooled.damage)


async def message_at(event_log: LogReader, sequence: int) -> StoredCommit | None:
    """One message of the log; None if it was purged."""
    head = await event_log.head()
    if not head.first_sequence <= sequence <= head.last_sequence:
        return None
    async for batch in event_log.read(sequence - 1, sequence):
        return batch[0]
    return None


async def send_spooled(event_log: EventLog, into: Fold, spooled: SpooledChain) -> int:
    """Append commits that never reached the log, in order, and fold them in; how many did."""
    count = 0
    for commit in spooled.commits:
        if commit.sequence != into.chain.sequence + 1:
            break  # somebody else's message took the place
        try:
            sequence = await event_log.append(
                commit.payload,
                message_id=commit.message_id,
                previous_message_id=None,
                expected_last_sequence=into.chain.sequence,
                headers=commit.headers,
            )
        except AppendConflict:
            break
        fold(
            into.state, into.chain, StoredCommit(sequence, commit.payload, commit.message_id, commit.headers)
        )
        count += 1
    if count:
        log.warning(
            "sent commits again that were spooled and never reached the log",
            extra={"count": count, "last": into.chain.sequence},
        )
    return count


async def known_snapshots(stores: Sequence[SnapshotStore]) -> list[tuple[SnapshotName, SnapshotStore]]:
    """The snapshots of all stores, the newest first; a store that does not answer is passed over."""
    found: list[tuple[SnapshotName, SnapshotStore]] = []
    for store in stores:
        try:
            found += [(name, store) for name in await store.names()]
        except SnapshotStoreError as error:
            log.warning("a snapshot store does not answer", extra={"cause": str(error)})
    return sorted(found, key=lambda item: item[0].sequence, reverse=True)


async def _load_newest(
    event_log: LogReader, stores: Sequence[SnapshotStore], head: LogHead, into: Fold, restored: Restored
) -> None:
    for name, store in await known_snapshots(stores):
        where = f"the snapshot at {name.sequence} in {store.description}"
        if any(item.message_id == name.hash for item in restored.newer):
            continue  # the other store has the same
        try:
            state, chain = open_snapshot(await store.load(name))
        except SnapshotTooNew as error:
            raise HistoryLost(
                f"{where} cannot be used: {error}",
                "start this namespace with that version of dtf, or a newer one",
            ) from error
        except (SnapshotUnusable, SnapshotStoreError) as error:
            log.warning("passed over a snapshot", extra={"where": where, "cause": str(error)})
            continue
        if await _is_in_log(event_log, chain, head):
            into.state, into.chain = state, chain
            restored.snapshot, restored.snapshot_sequence = where, chain.sequence
            return
        if head.first_sequence <= last_commit_sequence(chain):
            restored.newer.append(Evidence(last_commit_sequence(chain), chain.last_hash.hex(), where))
        else:
            log.warning("passed over a snapshot that the log was purged beyond", extra={"where": where})


async def _is_in_log(event_log: LogReader, chain: ChainReader, head: LogHead) -> bool:
    """Whether the log has the chain's last commit where the chain has it, and reaches its end."""
    sequence = last_commit_sequence(chain)
    if chain.sequence > head.last_sequence:
        return False
    if sequence == 0:
        return head.first_sequence == 1
    found = await message_at(event_log, sequence)
    return found is not None and found.message_id == chain.last_hash.hex()


async def _check_own_position(event_log: LogReader, chain: ChainReader, head: LogHead) -> None:
    """A standby has read what the log must still have."""
    if await _is_in_log(event_log, chain, head):
        return
    raise HistoryLost(
        f"the event log ends at {head.last_sequence} or was changed; this process has read it up to "
        f"{chain.sequence}",
        "start the coordinator that led last on its own machine: its spool says what is lost",
    )


def _in_words(found: StoredCommit) -> str:
    commit = parse_commit(found.payload, found.message_id)
    if commit is None:
        return f"message {found.sequence}, which is no commit"
    return f"another commit at {found.sequence}, of epoch {commit.epoch}"


def _advice(loss: Loss) -> list[str]:
    accept = (
        f"`dtf log repair --accept-loss {loss.after_sequence}` goes on without them: "
        "the log will say so, and what is known of them is set aside"
    )
    if loss.is_restorable:
        return ["`dtf log repair` puts them back from the spool", accept]
    if loss.replaced_by:
        return [
            "whoever wrote that did not know of them, and both cannot be true: "
            "ask who else leads this namespace before anything else",
            accept,
        ]
    return ["`dtf log repair` puts back what the spool has of them", accept]
