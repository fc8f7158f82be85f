"""The worker for the time of one session: what it holds, runs and has to say.

One loop supervises everything that runs and makes the heartbeats, so that a worker whose
supervision hangs falls silent and loses its leases.
"""

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from dtf.api.v1 import common_pb2, worker_service_pb2
from dtf.client.journal import open_journal
from dtf.ports.clock import Clock
from dtf.settings.model import WorkerSettings
from dtf.worker.command_attempt import Commands
from dtf.worker.launcher_client import LauncherClient, LauncherLost
from dtf.worker.leases import LeaseBook
from dtf.worker.outbound import Outbound
from dtf.worker.pulse import Pulse
from dtf.worker.reporter import Reporter
from dtf.worker.runner_pool import RunnerPool
from dtf.worker.session import Metadata, Session
from dtf.worker.slots import SlotBoard
from dtf.worker.standstill import Standstill
from dtf.worker.telemetry import TelemetrySampler
from dtf.worker.uploads import Uploads
from dtf.worker.workspace_setup import Setup
from dtf.worker.workspaces import Workspaces

if TYPE_CHECKING:
    from dtf.api.v1.worker_service_pb2_grpc import WorkerServiceAsyncStub


TICK_SECONDS = 0.05
CLOSE_RETRY_SECONDS = 0.5

_log = logging.getLogger(__name__)


class Left(Exception):
    """The worker left in good order."""


class DrainTimedOut(Exception):
    """What ran took longer than a drain may."""


class Engagement:
    """One session's worth of work (session.Handler)."""

    def __init__(
        self,
        *,
        settings: WorkerSettings,
        opened: worker_service_pb2.CreateSessionResponse,
        stub: "WorkerServiceAsyncStub",
        metadata: Metadata,
        launcher: LauncherClient,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._opened = opened
        self._launcher = launcher
        self._clock = clock
        self._book = LeaseBook()
        self._journal = open_journal("worker")
        self._outbound = Outbound() if self._journal is None else Outbound(self._note_durable)
        self._session = Session(stub, metadata, opened, self._outbound, self, clock)
        self._uploads = Uploads(self._session.upload, clock)
        self._sampler = TelemetrySampler()
        self._pulse = Pulse(clock.monotonic(), opened.heartbeat_seconds, settings.telemetry_seconds)
        self._least_credits = settings.slots + settings.credits
        self._most_credits = opened.max_credits or self._least_credits
        self._is_told_to_drain = False
        self._drain_until: float | None = None

    async def run(self) -> None:
        """Work until told to leave. Raises DrainTimedOut, RunnersBroken, SessionError."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._build(tasks)
                tasks.create_task(self._uploads.run())
                tasks.create_task(self._session.run())
                tasks.create_task(self._supervise())
                tasks.create_task(self._leave_when_done())
        except BaseExceptionGroup as group:
            error = first_leaf(group)
            if not isinstance(error, Left):
                raise error from None
        finally:
            with contextlib.suppress(LauncherLost):
                await self._launcher.kill_all()
            self._workspaces.close()

    def _build(self, tasks: asyncio.TaskGroup) -> None:
        reporter = Reporter(self._book, self._outbound, self._uploads, tasks)
        self._runners = RunnerPool(self._launcher, tasks, self._clock, self._settings.slots)
        self._workspaces = Workspaces(
            self._settings, self._session.fetch, Setup(self._launcher, self._clock), tasks, self._clock
        )
        self._board = SlotBoard(
            slot_count=self._settings.slots,
            worker_id=self._opened.worker_id,
            book=self._book,
            reporter=reporter,
            runners=self._runners,
            commands=Commands(self._launcher, reporter, tasks, self._clock),
            workspaces=self._workspaces,
            clock=self._clock,
        )
        self._standstill = Standstill(self._board.slots, self._book, self._outbound, self._clock.monotonic())

    def drain(self) -> None:
        """Finish what has begun, give back the rest, and leave."""
        if self._drain_until is None:
            self._drain_until = self._clock.monotonic() + self._settings.drain_timeout_seconds
            self._board.give_back()
            self._outbound.beat()

    # The loop.

    async def _supervise(self) -> None:
        was_warm = False
        while True:
            now = self._clock.monotonic()
            self._board.tick(now)
            self._standstill.look(now)
            beat = self._pulse.due(now)
            if beat.with_telemetry:
                sample = self._sampler.sample(self._board.running_count, self._book.total_waiting)
                self._outbound.beat(sample)
            elif beat.is_due or was_warm != self._board.is_warm:
                self._outbound.beat()
            was_warm = self._board.is_warm
            if self._drain_until is not None and now > self._drain_until:
                raise DrainTimedOut(
                    f"{len(self._book)} attempts still held after {self._settings.drain_timeout_seconds:g} s"
                )
            await self._clock.sleep(TICK_SECONDS)

    async def _leave_when_done(self) -> None:
        """Leave once nothing is held, everything said is durable, and somebody wants it."""
        while True:
            await self._clock.sleep(TICK_SECONDS)
            if not (self._is_draining and not len(self._book) and self._outbound.is_settled):
                continue
            await self._runners.close()
            if await self._session.close("drained"):
                raise Left
            await self._clock.sleep(CLOSE_RETRY_SECONDS)

    @property
    def _is_draining(self) -> bool:
        return self._is_told_to_drain or self._drain_until is not None

    # What the session asks.

    def handle(self, message: worker_service_pb2.AttachResponse) -> None:
        """The coordinator said something."""
        self._pulse.told(self._clock.monotonic(), message.heartbeat_seconds)
        for context in message.contexts:
            self._board.add_context(context)
        if message.is_draining != self._is_told_to_drain:
            self._is_told_to_drain = message.is_draining
            if message.is_draining:
                self._board.drain()
            else:
                self._board.undo_drain()
        if message.assignments:
            if self._journal is not None:
                name, number = self._opened.worker_id, self._opened.incarnation
                self._journal.leased(name, number, message.assignments, self._clock.now_ns())
            self._board.assign(message.assignments, self._outbound.is_unacknowledged)
        if message.cancelled_fences:
            self._board.cancel(message.cancelled_fences)
        if message.revoked_fences:
            self._board.revoke(message.revoked_fences)
        if message.exhausted_runs:
            self._board.run_exhausted(message.exhausted_runs)
        if message.ended_runs:
            self._board.runs_ended(message.ended_runs)

    def _note_durable(self, message: worker_service_pb2.AttachRequest) -> None:
        if self._journal is not None:
            self._journal.acknowledged(self._opened.worker_id, self._opened.incarnation, message)

    def held_fences(self) -> list[int]:
        """Of every lease that is not durably over."""
        return [*self._book.fences, *(self._outbound.unacknowledged_fences - set(self._book.fences))]

    def known_runs(self) -> list[str]:
        """Runs whose context the board has."""
        return self._board.known_runs

    def credits(self) -> int:
        """How many more leases can be taken."""
        if self._is_draining or not self._board.is_warm:
            return 0
        wanted = self._board.wanted_leases(self._least_credits, self._most_credits)
        return max(0, wanted - len(self._book))

    def state(self) -> "common_pb2.WorkerState.ValueType":
        """What the worker wants to be."""
        if self._drain_until is not None:
            return common_pb2.WORKER_STATE_DRAINING
        return common_pb2.WORKER_STATE_ACTIVE


def first_leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first exception of a group that is no group."""
    first = group.exceptions[0]
    return first_leaf(first) if isinstance(first, BaseExceptionGroup) else first
