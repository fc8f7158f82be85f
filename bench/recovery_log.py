"""Event logs to start from, as a coordinator would have written them: the rules decide, commits are chained.

    mixed      runs of 512 tasks on eight workers: a batch submitted, a few leases or results an event,
               about ten events a commit; ended runs retire as they do in production
    singles    one event a commit: every task submitted, leased and reported by itself

Only the disk is spared while they are written: nats-server syncs at its leisure then.
"""

import asyncio
import hashlib
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.api.v1 import common_pb2, events_pb2, run_service_pb2, worker_service_pb2
from dtf.coordinator.commits import Step, headers_of, serialize
from dtf.core.run.commands import (
    Command,
    CreateRun,
    ElectLeader,
    GrantLeases,
    RegisterWorker,
    ReportResults,
    RetireRuns,
    SubmitTasks,
)
from dtf.core.run.decide import decide
from dtf.core.run.evolve import evolve
from dtf.core.run.state import State

WORKERS = 8
RUN_TASKS = 512
MOST_IN_FLIGHT = 512
START_NS = 1_800_000_000_000_000_000
TICK_NS = 1_000_000
KEPT_RUNS = 20


@dataclass(slots=True)
class LogBuilder:
    """Decides and appends. `state` is the fold of what was appended."""

    log: JetStreamLog
    seed: int = 1
    state: State = field(default_factory=State)
    sequence: int = 0
    event_count: int = 0
    hash: bytes = b""
    byte_count: int = 0
    _steps: list[Step] = field(default_factory=list)
    _in_flight: "deque[asyncio.Future[int]]" = field(default_factory=deque)
    _run_count: int = 0

    async def build(self, events: int, *, is_mixed: bool) -> None:
        """Append commits until the log has so many events."""
        dice = random.Random(f"{self.seed} {self.event_count}")
        if not self.sequence:
            for command in _opening():
                await self._do(command, 1)
        while self.event_count < events:
            for command in self._run(dice, is_mixed):
                await self._do(command, dice.randint(2, 18) if is_mixed else 1)
                if self.event_count >= events:
                    break
        await self._cut()
        while self._in_flight:
            await self._in_flight.popleft()

    def _run(self, dice: random.Random, is_mixed: bool) -> Iterator[Command]:
        """One run from its creation to its end; what an earlier call left unfinished comes first."""
        run_id = next(iter(self.state.active_runs), "")
        if not run_id:
            self._run_count += 1
            run_id = f"r{self._run_count:06d}"
            template = common_pb2.TaskTemplate(callable=common_pb2.CallableSpec(function="bench:nothing"))
            yield CreateRun(
                run_id,
                run_service_pb2.CreateRunRequest(request_id=run_id, suite="s", templates=[template]),
            )
        run = self.state.runs[run_id]
        while run.task_count < RUN_TASKS:
            yield _submission(run_id, run.task_count, 64 if is_mixed else 1, len(run.batches) + 1)
        while self.state.queued_count or self.state.leased_count:
            name = f"w{dice.randrange(WORKERS)}"
            most = dice.randint(1, 8) if is_mixed else 1
            if self.state.queued_count:
                yield GrantLeases({name: most})
            yield from self._report(name, dice, is_mixed)
        yield RetireRuns(KEPT_RUNS, 1_000_000, 0.0)

    def _report(self, name: str, dice: random.Random, is_mixed: bool) -> Iterator[Command]:
        worker = self.state.workers[name]
        for run_id, leases in [(run_id, list(leases)) for run_id, leases in worker.leases.items()]:
            while leases:
                size = dice.randint(1, 4) if is_mixed else 1
                fences, leases = leases[:size], leases[size:]
                results = worker_service_pb2.CaseResults(
                    run_id=run_id,
                    fences=fences,
                    durations_seconds=[dice.expovariate(1.0) for _ in fences],
                    cpu_seconds=[0.5] * len(fences),
                    started_at=[1.8e9] * len(fences),
                )
                yield ReportResults(name, worker.incarnation, [results])

    async def _do(self, command: Command, commit_events: int) -> None:
        now_ns = START_NS + (self.sequence + 1) * TICK_NS
        events = decide(self.state, command, now_ns)
        if not events:
            return
        for event in events:
            evolve(self.state, event, now_ns, self.sequence + 1)
        self.event_count += len(events)
        self._steps.append(Step(command, events, None))
        if sum(len(step.events) for step in self._steps) >= commit_events:
            await self._cut()

    async def _cut(self) -> None:
        if not self._steps:
            return
        events: Sequence[events_pb2.Event] = [event for step in self._steps for event in step.events]
        payload, message_id = serialize(
            commit_id=b"building" + (self.sequence + 1).to_bytes(8, "big"),
            epoch=1,
            previous_hash=self.hash,
            now_ns=START_NS + (self.sequence + 1) * TICK_NS,
            code_version="bench",
            steps=self._steps,
            events=events,
        )
        self._in_flight.append(
            self.log.append(
                payload,
                message_id=message_id,
                previous_message_id=self.hash.hex(),
                expected_last_sequence=None,
                headers=headers_of(events),
            )
        )
        self.sequence, self.hash, self._steps = self.sequence + 1, hashlib.sha256(payload).digest(), []
        self.byte_count += len(payload)
        while len(self._in_flight) > MOST_IN_FLIGHT:
            await self._in_flight.popleft()


def _opening() -> Iterator[Command]:
    yield ElectLeader("bench", 10.0)
    for index in range(WORKERS):
        name = f"w{index}"
        yield RegisterWorker(
            "", worker_service_pb2.CreateSessionRequest(worker_id=name, request_id=name, slots=8)
        )


def _submission(run_id: str, first: int, count: int, batch: int) -> Command:
    tasks = [
        common_pb2.TaskSpec(name=f"tests/test_module_{(first + index) // 20}.py::test_{first + index}")
        for index in range(count)
    ]
    request = run_service_pb2.SubmitTasksRequest(
        run_id=run_id, batch=batch, tasks=tasks, seal=first + count >= RUN_TASKS
    )
    return SubmitTasks(request)
