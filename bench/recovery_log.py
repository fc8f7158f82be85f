"""Event logs to start from, as a coordinator would have written them: the rules decide, commits are chained.

    mixed      runs of 512 tasks on eight workers: a batch submitted, a few leases or results an event,
               several events a commit; ended runs retire as they do in production
    singles    one event a commit: every task submitted, leased and reported by itself

The rules decide the first runs, until runs retire as fast as they come; then the last of them come
again and again under new numbers (runs, fences, sequences, times), since deciding costs ten times
what appending does. Nothing else is the same twice in a log: its chain goes through all of it.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

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
START_NS = 1_800_000_000_000_000_000
TICK_NS = 1_000_000
KEPT_RUNS = 20
REPEATED_RUNS = 12


@dataclass(slots=True)
class DecidedLog:
    """The first commits of a log, made by the rules. `state` is their fold."""

    is_mixed: bool
    run_tasks: int = RUN_TASKS
    state: State = field(default_factory=State)
    commits: list[events_pb2.Commit] = field(default_factory=list)
    repeated_from: int = 0
    """Index of the first commit that is repeated; all after it are, too."""
    repeated_fences: int = 0
    """Given out by those."""
    _steps: list[Step] = field(default_factory=list)
    _run_count: int = 0

    def decide(self) -> None:
        """Decide the runs that come once, and those that come again."""
        dice = random.Random(f"recovery {self.is_mixed}")
        for command in _opening():
            self._do(command, 1)
        for _ in range(KEPT_RUNS + 1):
            self._decide_run(dice)
        self.repeated_from, fence = len(self.commits), self.state.next_fence
        for _ in range(REPEATED_RUNS):
            self._decide_run(dice)
        self.repeated_fences = self.state.next_fence - fence

    def _decide_run(self, dice: random.Random) -> None:
        for command in self._run(dice, self.is_mixed):
            self._do(command, dice.randint(2, 18) if self.is_mixed else 1)
        self._cut()

    def _run(self, dice: random.Random, is_mixed: bool) -> Iterator[Command]:
        """One run from its creation to its end."""
        self._run_count += 1
        run_id = _run_name(self._run_count)
        template = common_pb2.TaskTemplate(callable=common_pb2.CallableSpec(function="bench:nothing"))
        yield CreateRun(
            run_id, run_service_pb2.CreateRunRequest(request_id=run_id, suite="s", templates=[template])
        )
        run = self.state.runs[run_id]
        while run.task_count < self.run_tasks:
            count = min(64 if is_mixed else 1, self.run_tasks - run.task_count)
            yield _submission(run_id, run.task_count, count, len(run.batches) + 1, self.run_tasks)
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

    def _do(self, command: Command, commit_events: int) -> None:
        sequence = len(self.commits) + 1
        now_ns = START_NS + sequence * TICK_NS
        events = decide(self.state, command, now_ns)
        if not events:
            return
        for event in events:
            evolve(self.state, event, now_ns, sequence)
        self._steps.append(Step(command, events, None))
        if sum(len(step.events) for step in self._steps) >= commit_events:
            self._cut()

    def _cut(self) -> None:
        if not self._steps:
            return
        payload, _ = serialize(
            commit_id=bytes(16),
            epoch=1,
            previous_hash=b"",
            now_ns=0,
            code_version="bench",
            steps=self._steps,
            events=[event for step in self._steps for event in step.events],
        )
        self.commits.append(events_pb2.Commit.FromString(payload))
        self._steps = []


def endless(decided: DecidedLog) -> Iterator[events_pb2.Commit]:
    """The decided commits, and then those that come again, for ever; each is the iterator's own."""
    yield from decided.commits
    again = decided.commits[decided.repeated_from :]
    while True:
        names: dict[str, str] = {}
        for commit in again:
            _renumber(commit, names, decided.repeated_fences, len(again))
            yield commit


def _renumber(commit: events_pb2.Commit, names: dict[str, str], fences: int, sequences: int) -> None:
    """Turn a commit into the one that does the same to the next runs."""
    for event in commit.events:
        kind = event.WhichOneof("event")
        if kind == "leases_granted":
            event.leases_granted.run_id = _next(event.leases_granted.run_id, names)
            event.leases_granted.first_fence += fences
        elif kind == "results_accepted":
            results = event.results_accepted
            results.run_id = _next(results.run_id, names)
            results.fences[:] = [fence + fences for fence in results.fences]
            results.completed[:] = [fence + fences for fence in results.completed]
        elif kind == "tasks_submitted":
            event.tasks_submitted.run_id = _next(event.tasks_submitted.run_id, names)
        elif kind == "submission_sealed":
            event.submission_sealed.run_id = _next(event.submission_sealed.run_id, names)
        elif kind == "run_created":
            event.run_created.run_id = _next(event.run_created.run_id, names)
            event.run_created.request_id = _next(event.run_created.request_id, names)
        elif kind == "run_finished":
            event.run_finished.run_id = _next(event.run_finished.run_id, names)
            event.run_finished.first_sequence += sequences
        elif kind == "runs_retired":
            event.runs_retired.run_ids[:] = [_next(name, names) for name in event.runs_retired.run_ids]
        else:
            raise ValueError(f"a repeated commit has an event {kind!r}, which names nothing known here")


def _next(run_id: str, names: dict[str, str]) -> str:
    name = names.get(run_id)
    if name is None:
        name = names[run_id] = _run_name(int(run_id[1:]) + REPEATED_RUNS)
    return name


def _run_name(number: int) -> str:
    return f"r{number:06d}"


class CommitWriter(Protocol):
    """Where built commits go."""

    async def write(self, payload: bytes, message_id: str, previous: str, headers: Mapping[str, str]) -> None:
        """Store a message that continues the stream after `previous` ("": it is the first)."""
        ...

    async def finish(self) -> None:
        """Wait for what was written."""
        ...


class LogBuilder:
    """Appends what was decided, chained. Reports each hundredth of a build to `on_progress`."""

    def __init__(self, decided: DecidedLog, writer: CommitWriter, on_progress: Callable[[int], None]) -> None:
        self._commits = endless(decided)
        self._writer = writer
        self._on_progress = on_progress
        self.sequence = 0
        self.event_count = 0
        self.byte_count = 0
        self.last_message_id = ""

    async def build(self, events: int) -> None:
        """Append commits until the log has so many events."""
        told, step = self.event_count, max(events // 100, 1)
        while self.event_count < events:
            await self._append(next(self._commits))
            if self.event_count - told >= step:
                told = self.event_count
                self._on_progress(told)
        await self._writer.finish()

    async def _append(self, commit: events_pb2.Commit) -> None:
        self.sequence += 1
        commit.commit_id = b"building" + self.sequence.to_bytes(8, "big")
        commit.prev_hash = bytes.fromhex(self.last_message_id)
        commit.now_unix_nanos = START_NS + self.sequence * TICK_NS
        payload = commit.SerializeToString()
        previous, self.last_message_id = self.last_message_id, hashlib.sha256(payload).hexdigest()
        await self._writer.write(payload, self.last_message_id, previous, headers_of(commit.events))
        self.event_count += len(commit.events)
        self.byte_count += len(payload)


def _opening() -> Iterator[Command]:
    yield ElectLeader("bench", 10.0)
    for index in range(WORKERS):
        name = f"w{index}"
        yield RegisterWorker(
            "", worker_service_pb2.CreateSessionRequest(worker_id=name, request_id=name, slots=8)
        )


def _submission(run_id: str, first: int, count: int, batch: int, run_tasks: int) -> Command:
    tasks = [
        common_pb2.TaskSpec(name=f"tests/test_module_{(first + index) // 20}.py::test_{first + index}")
        for index in range(count)
    ]
    request = run_service_pb2.SubmitTasksRequest(
        run_id=run_id, batch=batch, tasks=tasks, seal=first + count >= run_tasks
    )
    return SubmitTasks(request)
