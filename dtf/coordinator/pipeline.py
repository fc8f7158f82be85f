"""Commits on their way to the log: appended in order, acknowledged in order, recovered in order.

Each commit names the one before it (Nats-Expected-Last-Msg-Id), so that a stranger's message or a
newer leader fails all that follow. On a failed append nothing is sent until the log's own end has
been read:

    same commits there      they landed: acknowledged
    absent, log as expected sent again from the first that is missing, with back-off
    log shorter             LogTailLost: what was acknowledged is gone
    a newer leader's there  Deposed: drop the state, stop
    anything else there     LogDisturbed: drop the state, stop; the next start passes it over

Beside it each commit goes to the spool, and is let out when both have it. One that the spool did not
take is spooled again, with back-off, and submissions are refused with the cause meanwhile.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Protocol

from dtf.coordinator.commits import PendingCommit
from dtf.core.events import parse_commit
from dtf.core.run.commands import Rejection
from dtf.ports.clock import Clock
from dtf.ports.event_log import EventLog, LogError, LogFull, StoredCommit
from dtf.ports.spool import CommitSpool, SpooledCommit, SpoolError
from dtf.rpc.errors import LogFullRefusal, LogUnavailableRefusal

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.05
LONGEST_RETRY_SECONDS = 2.0
WATCH_SECONDS = 2.0
"""How long an idle writer may lead on without knowing that another one does."""
FAILURES_BEFORE_REFUSING = 2
"""One failed append may be a broker's restart; after the second, clients are told rather than kept."""


class WriterStopped(Exception):
    """Base of what ends a reign.

    WriterStopped
    ├── Deposed        a newer leader wrote where this writer's commit would have gone
    ├── LogDisturbed   a stranger wrote there: starting again is enough
    └── LogTailLost    the log ends before what it had acknowledged
    """


class Deposed(WriterStopped):
    """A newer leader wrote to the log."""


class LogDisturbed(WriterStopped):
    """A stranger wrote to the log."""


class LogTailLost(WriterStopped):
    """The log ends before what it had acknowledged."""


class PipelineListener(Protocol):
    """What the pipeline tells."""

    def landed(self, commit: PendingCommit) -> None:
        """A commit is durable; called in the order of the log."""
        ...

    def moved(self) -> None:
        """There may be room for another commit."""
        ...

    def refused(self, refusal: Rejection) -> None:
        """The log takes nothing for now, and why."""
        ...


class CommitPipeline:
    """The commits in flight. `send` appends; `run` recovers what fails, for ever."""

    def __init__(
        self,
        event_log: EventLog,
        clock: Clock,
        listener: PipelineListener,
        *,
        epoch: int,
        sequence: int,
        message_id: str,
        spool: CommitSpool | None = None,
    ) -> None:
        self._log = event_log
        self._spool = spool
        self._clock = clock
        self._listener = listener
        self._epoch = epoch
        self._failed = asyncio.Event()
        self.in_flight: deque[PendingCommit] = deque()
        self.is_stalled = False
        """An append failed, and what became of it is not known yet."""
        self.refusing: Rejection | None = None
        self.durable_sequence = sequence
        self.durable_id = message_id

    def send(self, commit: PendingCommit) -> None:
        """Append the next commit."""
        self.in_flight.append(commit)
        self._keep(commit)
        self._append(commit)

    async def run(self) -> None:
        """Recover from failed appends for ever. Raises WriterStopped when the reign is over."""
        while True:
            await self._failed.wait()
            self._failed.clear()
            await self._recover()

    async def watch(self) -> None:
        """Look at the log's end now and then, so that an idle writer learns that it was deposed.

        Raises WriterStopped. A log that does not answer is left to the next append.
        """
        while True:
            await self._clock.sleep(WATCH_SECONDS)
            if not self.in_flight and not self.is_stalled:
                await self._look()

    async def _look(self) -> None:
        expected = self.durable_sequence
        try:
            head = await self._log.head()
            if self.in_flight or self.durable_sequence != expected or head.last_sequence == expected:
                return
            if head.last_sequence < expected:
                raise _tail_lost(head.last_sequence, expected)
            async for batch in self._log.read(expected, expected + 1):
                raise self._displaced_by(batch[0])
        except LogError as error:
            log.warning("the end of the log cannot be read", extra={"cause": str(error)})

    def _append(self, commit: PendingCommit) -> None:
        commit.acknowledgement = self._log.append(
            commit.payload,
            message_id=commit.message_id,
            previous_message_id=commit.previous_message_id,
            expected_last_sequence=commit.expected_last_sequence,
            headers=commit.headers,
        )
        commit.acknowledgement.add_done_callback(self._answered)

    def _keep(self, commit: PendingCommit) -> None:
        """Spool a commit."""
        if self._spool is not None:
            record = SpooledCommit(commit.sequence, commit.payload, commit.message_id, commit.headers)
            commit.spooling = self._spool.write(record)
            commit.spooling.add_done_callback(self._answered)

    def _answered(self, future: "asyncio.Future[Any]") -> None:
        if future.cancelled() or future.exception() is not None:
            self._stall()
        elif not self.is_stalled:
            self._release()

    def _release(self) -> None:
        """Let out what is durable, in order, as far as the acknowledgements go."""
        durable = list(takewhile(_is_durable, self.in_flight))
        for index, commit in enumerate(durable):
            if not commit.is_stored and _landed_at(commit) != commit.sequence:
                self._let_out(durable[:index])
                self._stall()
                return
        self._let_out(durable)
        self._listener.moved()

    def _let_out(self, durable: Sequence[PendingCommit]) -> None:
        """Note that the log has these, then let their effects out."""
        if self._spool is not None and durable:
            self._spool.acknowledge(durable[-1].sequence, durable[-1].message_id)
        for commit in durable:
            self.in_flight.popleft()
            self.durable_sequence, self.durable_id = commit.sequence, commit.message_id
            self._listener.landed(commit)

    def _stall(self) -> None:
        self.is_stalled = True
        self._failed.set()

    # -- recovery

    async def _recover(self) -> None:
        """Read the log's end until every commit in flight is durable. Raises WriterStopped."""
        failures, delay = 0, FIRST_RETRY_SECONDS
        while self.in_flight:
            fault = await self._await_answers()
            is_readable = True
            try:
                await self._read_back()
            except LogError as unreadable:
                fault, is_readable = unreadable, False
            self._let_out(list(takewhile(_is_kept, self.in_flight)))
            if not self.in_flight:
                break
            failures += 1
            self._consider_refusing(fault, failures)
            if failures > 1:
                await self._clock.sleep(delay)
                delay = min(delay * 2, LONGEST_RETRY_SECONDS)
            if is_readable:
                self._resend()
            self._keep_again()
        log.info("the log takes commits again", extra={"failures": failures})
        self.refusing = None
        self._failed.clear()
        self.is_stalled = False
        self._listener.moved()

    async def _await_answers(self) -> Exception | None:
        """Wait until log and spool answered for every commit (the adapters bound the wait); the first fault, if any."""
        first: Exception | None = None
        for commit in list(self.in_flight):
            for future in (commit.acknowledgement, commit.spooling):
                if future is not None:
                    await asyncio.wait([future])
                    first = first or _fault_of(future)
        return first

    async def _read_back(self) -> None:
        """Mark what the log has. Raises WriterStopped if it has anything else, LogError if it is mute."""
        missing = deque(commit for commit in self.in_flight if not commit.is_stored)
        if not missing:
            return
        first = missing[0].sequence
        head = await self._log.head()
        if head.last_sequence < first - 1:
            raise _tail_lost(head.last_sequence, first - 1)
        async for batch in self._log.read(first - 1, head.last_sequence):
            for stored in batch:
                if not missing or stored.message_id != missing[0].message_id:
                    raise self._displaced_by(stored)
                missing.popleft().is_stored = True

    def _displaced_by(self, stored: StoredCommit) -> WriterStopped:
        commit = parse_commit(stored.payload, stored.message_id)
        if commit is not None and commit.epoch > self._epoch:
            return Deposed(
                f"another coordinator leads since message {stored.sequence} of the log "
                f"(epoch {commit.epoch}; this one's was {self._epoch})"
            )
        return LogDisturbed(
            f"message {stored.sequence} of the log is a stranger's; start again, and it is passed over"
        )

    def _resend(self) -> None:
        missing = [commit for commit in self.in_flight if not commit.is_stored]
        for index, commit in enumerate(missing):
            commit.expected_last_sequence = commit.sequence - 1 if index == 0 else None
            self._append(commit)

    def _keep_again(self) -> None:
        for commit in self.in_flight:
            if commit.spooling is not None and commit.spooling.done() and not _is_spooled(commit):
                self._keep(commit)

    def _consider_refusing(self, fault: Exception | None, failures: int) -> None:
        if isinstance(fault, LogFull | SpoolError):
            refusal: Rejection = LogFullRefusal(f"submissions are refused: {fault}")
        elif failures >= FAILURES_BEFORE_REFUSING:
            refusal = LogUnavailableRefusal(f"the event log does not answer: {fault}")
        else:
            return
        if self.refusing is None:
            log.warning("refusing submissions", extra={"cause": str(fault)})
        self.refusing = refusal
        self._listener.refused(refusal)


def _tail_lost(last_sequence: int, acknowledged: int) -> LogTailLost:
    return LogTailLost(
        f"the log ends at {last_sequence} but {acknowledged} was acknowledged; "
        "start again: the start says what is lost and what can be done"
    )


def _is_durable(commit: PendingCommit) -> bool:
    return (commit.is_stored or _landed_at(commit) is not None) and _is_spooled(commit)


def _is_kept(commit: PendingCommit) -> bool:
    return commit.is_stored and _is_spooled(commit)


def _is_spooled(commit: PendingCommit) -> bool:
    future = commit.spooling
    return future is None or (future.done() and _fault_of(future) is None)


def _landed_at(commit: PendingCommit) -> int | None:
    """The sequence the log acknowledged, or None while it has not or could not."""
    future = commit.acknowledgement
    if future is None or not future.done() or _fault_of(future) is not None:
        return None
    return future.result()


def _fault_of(future: "asyncio.Future[Any]") -> Exception | None:
    if future.cancelled():
        return LogError("the append was cancelled")
    error = future.exception()
    return error if isinstance(error, Exception) or error is None else LogError(str(error))
