"""A worker that does what a test says, over the real protocol."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import grpc.aio

from dtf.api.v1 import common_pb2, worker_service_pb2, worker_service_pb2_grpc
from dtf.rpc.channel import Peer, open_channel

WAIT_SECONDS = 90.0
"""Far above what anything takes: it turns a hang into a failure."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """One lease as the worker got it."""

    run_id: str
    task: int
    fence: int
    name: str
    attempt: int
    cases: tuple[int, ...] = (0,)


def unpack(assignments: worker_service_pb2.Assignments) -> list[Assigned]:
    """The leases of one message, one by one."""
    return [
        Assigned(
            run_id=assignments.run_id,
            task=task,
            fence=assignments.fences[index],
            name=assignments.names[index],
            attempt=assignments.attempts[index] if assignments.attempts else 1,
            cases=tuple(assignments.cases[index].indexes) if assignments.cases else (0,),
        )
        for index, task in enumerate(assignments.tasks)
    ]


def results(
    leases: Sequence[Assigned],
    verdict: "common_pb2.Verdict.ValueType" = common_pb2.VERDICT_PASSED,
) -> worker_service_pb2.CaseResults:
    """Every case of leases of one run, with one verdict."""
    pairs = [(lease.fence, case) for lease in leases for case in lease.cases]
    return worker_service_pb2.CaseResults(
        run_id=leases[0].run_id,
        fences=[fence for fence, _case in pairs],
        cases=[case for _fence, case in pairs],
        verdicts=[verdict] * len(pairs),
        durations_seconds=[0.001] * len(pairs),
    )


@dataclass(slots=True)
class ScriptedWorker:
    """One session. `attach` opens its stream; what comes down is kept until a test takes it."""

    peer: Peer
    stub: "worker_service_pb2_grpc.WorkerServiceAsyncStub"
    session: worker_service_pb2.CreateSessionResponse
    call: "grpc.aio.StreamStreamCall[worker_service_pb2.AttachRequest, worker_service_pb2.AttachResponse] | None" = None
    sequence: int = 0
    first_sequence: int = 0
    """What it says its streams begin with; 0: nothing."""
    held: dict[int, Assigned] = field(default_factory=dict)
    """Leases assigned and not reported, by fence."""
    contexts: list[str] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    revoked: list[int] = field(default_factory=list)
    exhausted: list[str] = field(default_factory=list)
    ended_runs: list[str] = field(default_factory=list)
    acknowledged: int = 0
    is_draining: bool = False

    @property
    def worker_id(self) -> str:
        """Its identity."""
        return self.session.worker_id

    def handle(
        self, held: Sequence[int] = (), known_runs: Sequence[str] = ()
    ) -> worker_service_pb2.SessionHandle:
        """What names the session."""
        return worker_service_pb2.SessionHandle(
            worker_id=self.session.worker_id,
            incarnation=self.session.incarnation,
            session_token=self.session.session_token,
            held_fences=held,
            known_runs=known_runs,
            first_sequence=self.first_sequence,
        )

    async def attach(
        self, *, credits: int = 64, held: Sequence[int] | None = None, known_runs: Sequence[str] = ()
    ) -> None:
        """Open a stream, saying what is held, and hear its first message."""
        fences = list(self.held) if held is None else held
        self.call = self.stub.Attach(metadata=self.peer.metadata)
        handle = self.handle(fences, known_runs)
        await self.call.write(worker_service_pb2.AttachRequest(session=handle, credits=credits))
        await self.hear()

    async def say(self, **fields: object) -> None:
        """Send one message; results, ends and releases take the next sequence."""
        assert self.call is not None
        message = worker_service_pb2.AttachRequest(**fields)  # type: ignore[arg-type]  # a test's own fields
        if message.results or message.ends or message.released_fences:
            if not message.sequence:
                self.sequence += 1
                message.sequence = self.sequence
            for part in message.results:
                for fence in part.fences:
                    self.held.pop(fence, None)
        await self.call.write(message)

    async def hear(self) -> worker_service_pb2.AttachResponse:
        """Take in the next message. Raises AioRpcError when the stream ended with a refusal."""
        assert self.call is not None
        async with asyncio.timeout(WAIT_SECONDS):
            response = await self.call.read()
        if response is grpc.aio.EOF:
            raise EOFError("the coordinator ended the stream")
        assert isinstance(response, worker_service_pb2.AttachResponse)
        self._take(response)
        return response

    def _take(self, response: worker_service_pb2.AttachResponse) -> None:
        self.contexts.extend(context.run_id for context in response.contexts)
        for assignments in response.assignments:
            assert assignments.run_id in self.contexts, "an assignment came before its context"
            for lease in unpack(assignments):
                self.held[lease.fence] = lease
        self.cancelled.extend(response.cancelled_fences)
        self.revoked.extend(response.revoked_fences)
        self.exhausted.extend(response.exhausted_runs)
        self.ended_runs.extend(response.ended_runs)
        self.acknowledged = max(self.acknowledged, response.acknowledged_sequence)
        self.is_draining = response.is_draining

    async def hear_leases(self, count: int) -> list[Assigned]:
        """Listen until this many leases are held."""
        while len(self.held) < count:
            await self.hear()
        return sorted(self.held.values(), key=lambda lease: lease.fence)

    async def hear_acknowledged(self, sequence: int) -> None:
        """Listen until a message is durable."""
        while self.acknowledged < sequence:
            await self.hear()

    async def pass_all(self, *, credits: int = 64) -> int:
        """Report every lease held as passed and hear that it is durable; how many there were."""
        leases = list(self.held.values())
        by_run: dict[str, list[Assigned]] = {}
        for lease in leases:
            by_run.setdefault(lease.run_id, []).append(lease)
        await self.say(results=[results(part) for part in by_run.values()], credits=credits)
        await self.hear_acknowledged(self.sequence)
        return len(leases)

    async def detach(self) -> None:
        """Break the stream without a word."""
        if self.call is not None:
            self.call.cancel()
            self.call = None


@asynccontextmanager
async def scripted_worker(
    peer: Peer, *, worker_id: str = "", slots: int = 1, pool: str = "local", **fields: object
) -> AsyncIterator[ScriptedWorker]:
    """A worker with an open session, not attached."""
    async with open_channel(peer) as channel:
        stub = worker_service_pb2_grpc.WorkerServiceStub(channel)
        request = worker_service_pb2.CreateSessionRequest(
            worker_id=worker_id,
            slots=slots,
            pool=pool,
            request_id=secrets.token_hex(8),
            **fields,  # type: ignore[arg-type]  # a test's own fields
        )
        session = await stub.CreateSession(request, metadata=peer.metadata, timeout=WAIT_SECONDS)
        worker = ScriptedWorker(peer, stub, session)
        yield worker
        await worker.detach()
