"""Workers without processes or sockets: thousands of real sessions over streams in memory.

Each simulated worker talks to the coordinator's own WorkerService, by the same handlers, messages
and rules as a real one; what is left out is gRPC. All of them live in the coordinator's loop.
"""

import asyncio
import heapq
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, cast

import grpc.aio

from dtf.api.v1 import common_pb2, worker_service_pb2
from dtf.coordinator.desk import Desk
from dtf.coordinator.worker_service import WorkerService
from dtf.ports.clock import Clock
from dtf.rpc.handlers import Context
from dtf.worker.pulse import Pulse

OPENING_AT_ONCE = 512
LOOK_SECONDS = 0.05
Up = worker_service_pb2.AttachRequest
Down = worker_service_pb2.AttachResponse


class StreamRefused(Exception):
    """The coordinator ended a stream with a refusal."""


class MemoryStream:
    """A stream of a call, in memory: what the handler reads was `put`, what it writes is heard at once."""

    def __init__(self, hear: "Any") -> None:
        self._hear = hear
        self._waiting: deque[Up] = deque()
        self._is_over = False
        self._grown = asyncio.Event()

    def put(self, message: Up) -> None:
        """Say something to the handler."""
        self._waiting.append(message)
        self._grown.set()

    def finish(self) -> None:
        """Say no more."""
        self._is_over = True
        self._grown.set()

    async def read(self) -> object:
        """The next message (grpc.aio.ServicerContext)."""
        while not self._waiting:
            if self._is_over:
                return grpc.aio.EOF
            self._grown.clear()
            await self._grown.wait()
        return self._waiting.popleft()

    async def write(self, message: Down) -> None:
        """What the handler says (grpc.aio.ServicerContext)."""
        self._hear(message)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: object = ()) -> None:
        """The handler refuses (grpc.aio.ServicerContext)."""
        raise StreamRefused(f"{code.name}: {details}")


@dataclass(slots=True)
class SimulatedWorker:
    """One worker: it passes every lease at once, one message for all that came in one."""

    opened: worker_service_pb2.CreateSessionResponse
    credits: int
    pulse: Pulse
    clock: Clock
    stream: MemoryStream = field(init=False)
    attached: asyncio.Event = field(default_factory=asyncio.Event)
    sequence: int = 0
    passed_count: int = 0
    is_hung: bool = False
    """Whether it says nothing more, though its connection lives."""
    message_count: int = 0
    """Messages it said."""

    def __post_init__(self) -> None:
        self.stream = MemoryStream(self.hear)

    def attach(self) -> None:
        """The first message of the stream."""
        handle = worker_service_pb2.SessionHandle(
            worker_id=self.opened.worker_id,
            incarnation=self.opened.incarnation,
            session_token=self.opened.session_token,
        )
        self._say(Up(session=handle, credits=self.credits))

    def beat(self, now: float) -> None:
        """Say what is due."""
        beat = self.pulse.due(now)
        if beat.is_due and not self.is_hung:
            message = Up(credits=self.credits, state=common_pb2.WORKER_STATE_ACTIVE)
            if beat.with_telemetry:
                message.telemetry.cpu_ratio = 0.1
            self._say(message)

    def hear(self, message: Down) -> None:
        """Take in what the coordinator says, and pass what it assigns."""
        self.attached.set()
        self.pulse.told(self.clock.monotonic(), message.heartbeat_seconds)
        if message.assignments:
            self.sequence += 1
            report = Up(sequence=self.sequence, credits=self.credits)
            for part in message.assignments:
                count = len(part.fences)
                self.passed_count += count
                report.results.add(run_id=part.run_id, fences=part.fences, durations_seconds=[0.001] * count)
            self._say(report)

    def _say(self, message: Up) -> None:
        self.message_count += 1
        self.stream.put(message)


class SimulatedFleet:
    """Workers of one coordinator, in its own loop. Use it as an async context manager."""

    def __init__(
        self, desk: Desk, clock: Clock, *, credits: int = 64, telemetry_seconds: float = 5.0
    ) -> None:
        self._service = WorkerService(desk)
        self._clock = clock
        self._credits = credits
        self._telemetry_seconds = telemetry_seconds
        self._streams: list[asyncio.Task[None]] = []
        self._group = asyncio.TaskGroup()
        self._due: list[tuple[float, int]] = []
        self.workers: list[SimulatedWorker] = []

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._streams.append(self._group.create_task(self._beat()))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for stream in self._streams:
            stream.cancel()
        await self._group.__aexit__(None, None, None)

    async def grow(self, count: int) -> None:
        """Open and attach `count` more; return when each has heard from the coordinator."""
        gate = asyncio.Semaphore(OPENING_AT_ONCE)
        first = len(self.workers)
        async with asyncio.TaskGroup() as group:
            for number in range(first, first + count):
                group.create_task(self._open(number, gate))

    async def _beat(self) -> None:
        """Keep every pulse, for ever."""
        while True:
            now = self._clock.monotonic()
            while self._due and self._due[0][0] <= now:
                worker = self.workers[self._due[0][1]]
                worker.beat(now)
                heapq.heapreplace(self._due, (worker.pulse.next_at, self._due[0][1]))
            await self._clock.sleep(LOOK_SECONDS)

    @property
    def message_count(self) -> int:
        """Messages said by all."""
        return sum(worker.message_count for worker in self.workers)

    async def _open(self, number: int, gate: asyncio.Semaphore) -> None:
        async with gate:
            request = worker_service_pb2.CreateSessionRequest(
                worker_id=f"simulated-{number}", pool="simulated", slots=1, request_id=f"simulated-{number}"
            )
            opened = await self._service.CreateSession(request, cast(Context, MemoryStream(lambda _: None)))
            pulse = Pulse(self._clock.monotonic(), opened.heartbeat_seconds, self._telemetry_seconds)
            worker = SimulatedWorker(opened, self._credits, pulse, self._clock)
            heapq.heappush(self._due, (pulse.next_at, len(self.workers)))
            self.workers.append(worker)
            self._streams.append(self._group.create_task(self._serve(worker)))
            worker.attach()
            await worker.attached.wait()

    async def _serve(self, worker: SimulatedWorker) -> None:
        context = cast(Context, worker.stream)
        with suppress(StreamRefused):  # a worker that counts as lost stays away
            await self._service.Attach(cast(Any, None), context)
