"""A coordinator's core with everything around it left out: given commands, then events."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec
import pytest

from dtf.api.v1 import common_pb2, events_pb2, run_service_pb2, worker_service_pb2
from dtf.coordinator.inputs import arguments
from dtf.core.run.commands import (
    Command,
    CreateRun,
    ElectLeader,
    GrantLeases,
    RegisterWorker,
    Rejection,
    ReportResults,
    SubmitTasks,
)
from dtf.core.run.decide import decide
from dtf.core.run.evolve import evolve, evolve_prepared
from dtf.core.run.invariants import check
from dtf.core.run.limits import MAX_EVENT_BYTES
from dtf.core.run.prepared import PreparedCommit, prepare
from dtf.core.run.rederive import command_of
from dtf.core.run.state import Run, State
from dtf.core.run.state_hash import state_hash

PASSED = common_pb2.VERDICT_PASSED
FAILED = common_pb2.VERDICT_FAILED
ERROR = common_pb2.VERDICT_ERROR
SKIPPED = common_pb2.VERDICT_SKIPPED
FLAKY = common_pb2.VERDICT_FLAKY
SECOND = 1_000_000_000

Commit = tuple[int, list[events_pb2.Event]]


def template(
    *,
    test_retries: int = 0,
    infrastructure_retries: int = 1,
    labels: Mapping[str, str] | None = None,
    pool: str = "",
    cpus: float = 0,
    memory_bytes: int = 0,
    gpus: int = 0,
) -> common_pb2.TaskTemplate:
    """A callable's template."""
    return common_pb2.TaskTemplate(
        callable=common_pb2.CallableSpec(function="examples:nothing"),
        requirements=common_pb2.Requirements(
            resources=common_pb2.Resources(cpus=cpus, memory_bytes=memory_bytes, gpus=gpus),
            labels=labels or {},
            pool=pool,
        ),
        retry=common_pb2.RetryPolicy(
            test_retries=test_retries, infrastructure_retries=infrastructure_retries
        ),
    )


def task(name: str, cases: Sequence[str] = (), **more: float) -> common_pb2.TaskSpec:
    """A task as its submitter describes it."""
    return common_pb2.TaskSpec(name=name, cases=cases, **more)  # type: ignore[arg-type]  # numbers by name


def columns(
    run_id: str,
    fences: Sequence[int],
    verdicts: Sequence["common_pb2.Verdict.ValueType"] = (),
    cases: Sequence[int] = (),
    seconds: float = 0.01,
) -> worker_service_pb2.CaseResults:
    """Results as a worker sends them."""
    return worker_service_pb2.CaseResults(
        run_id=run_id,
        fences=fences,
        verdicts=verdicts,
        cases=cases,
        durations_seconds=[seconds] * len(fences),
    )


class World:
    """A state and every commit that led to it. Each command is one commit."""

    def __init__(self) -> None:
        self.state = State()
        self.commits: list[Commit] = []
        self.now_ns = 1_000 * SECOND
        self.do(ElectLeader("host-1", 10.0))

    def do(self, command: Command) -> list[events_pb2.Event]:
        """Decide and fold; the state is checked not to have changed between the two."""
        self.now_ns += 1_000_000
        before = state_hash(self.state)
        try:
            events = decide(self.state, command, self.now_ns)
        finally:
            assert state_hash(rebuilt(self.commits)) == before, "decide changed the state"
        assert decided_again(self.state, command, events, self.now_ns) == events
        self.commits.append((self.now_ns, events))
        for event in events:
            assert event.ByteSize() <= MAX_EVENT_BYTES + 64 * 1024
            evolve(self.state, event, self.now_ns, len(self.commits))
        return events

    def refused(self, command: Command, kind: type[Rejection], match: str = ".") -> Rejection:
        """The command must be refused in this way."""
        with pytest.raises(kind, match=match) as caught:
            self.do(command)
        return caught.value

    def run(
        self,
        run_id: str,
        tasks: Sequence[common_pb2.TaskSpec] = (),
        *,
        templates: Sequence[common_pb2.TaskTemplate] = (),
        seal: bool = True,
        priority: int = 0,
        placement_timeout_seconds: float = 0,
    ) -> Run:
        """Create a run and submit its tasks."""
        request = run_service_pb2.CreateRunRequest(
            request_id=f"request of {run_id}",
            suite="suite",
            templates=templates or [template()],
            priority=priority,
            placement_timeout_seconds=placement_timeout_seconds,
        )
        self.do(CreateRun(run_id, request))
        self.submit(run_id, tasks, seal=seal)
        return self.state.runs[run_id]

    def submit(
        self, run_id: str, tasks: Sequence[common_pb2.TaskSpec], *, seal: bool = False
    ) -> list[events_pb2.Event]:
        """Submit the next batch."""
        batch = len(self.state.runs[run_id].batches) + 1
        request = run_service_pb2.SubmitTasksRequest(run_id=run_id, batch=batch, tasks=tasks, seal=seal)
        return self.do(SubmitTasks(request))

    def worker(
        self,
        worker_id: str,
        *,
        slots: int = 1,
        pool: str = "local",
        labels: Mapping[str, str] | None = None,
        cpus: float = 8,
        memory_bytes: int = 2**33,
        gpus: int = 0,
        request_id: str = "",
    ) -> list[events_pb2.Event]:
        """Open a session."""
        request = worker_service_pb2.CreateSessionRequest(
            worker_id=worker_id,
            pool=pool,
            labels=labels or {},
            resources=common_pb2.Resources(cpus=cpus, memory_bytes=memory_bytes, gpus=gpus),
            slots=slots,
            request_id=request_id or f"session {len(self.commits)}",
        )
        return self.do(RegisterWorker("", request))

    def grant(self, **credits: int) -> dict[str, list[int]]:
        """Grant to these workers; worker → tasks it got."""
        got: dict[str, list[int]] = {worker_id: [] for worker_id in credits}
        for event in self.do(GrantLeases(credits)):
            got[event.leases_granted.worker_id].extend(event.leases_granted.tasks)
        return got

    def fence(self, run_id: str, task_index: int) -> int:
        """The fence of a leased task."""
        for worker in self.state.workers.values():
            for fence, index in worker.leases.get(run_id, {}).items():
                if index == task_index:
                    return fence
        raise AssertionError(f"task {task_index} of {run_id} is not leased")

    def report(
        self,
        worker_id: str,
        *results: worker_service_pb2.CaseResults,
        ends: Sequence[worker_service_pb2.AttemptEnd] = (),
        released: Sequence[int] = (),
        incarnation: int = 0,
    ) -> list[events_pb2.Event]:
        """Report as a worker does."""
        number = incarnation or self.state.workers[worker_id].incarnation
        return self.do(ReportResults(worker_id, number, results, ends, released))

    def check(self) -> None:
        """Every invariant holds, and the log leads to this state again."""
        assert check(self.state) == []
        for again in (rebuilt(self.commits), rebuilt_prepared(self.commits)):
            assert again == self.state
            assert state_hash(again) == state_hash(self.state)


def decided_again(
    state: State, command: Command, events: list[events_pb2.Event], now_ns: int
) -> list[events_pb2.Event]:
    """What the command leads to that the log, where `events` will stand, makes of `command`."""
    if not events:
        return []
    source = events_pb2.Input(
        kind=type(command).__name__, event_count=len(events), arguments=arguments(command)
    )
    try:
        return decide(state, command_of(state, source, events), now_ns)
    except Rejection as error:
        raise AssertionError(f"{command} was decided and is refused as the log has it") from error


def rebuilt(commits: Sequence[Commit]) -> State:
    """The state that the commits lead to, from their serialized events."""
    state = State()
    for sequence, (now_ns, events) in enumerate(commits, 1):
        for event in events:
            evolve(state, events_pb2.Event.FromString(event.SerializeToString()), now_ns, sequence)
    return state


def rebuilt_prepared(commits: Sequence[Commit]) -> State:
    """The same from commits that another process read; the hash, taken on the way, notes what changes."""
    state = State()
    for sequence, (now_ns, events) in enumerate(commits, 1):
        if not events:
            continue  # a log has no such commit
        commit = prepare(events_pb2.Commit(now_unix_nanos=now_ns, events=events))
        handed_over = msgspec.msgpack.decode(msgspec.msgpack.encode(commit), type=PreparedCommit)
        evolve_prepared(state, [handed_over], sequence)
        if sequence == len(commits) // 2:
            state_hash(state)
    return state


def kinds(events: Sequence[events_pb2.Event]) -> list[str | None]:
    """What kinds of events these are."""
    return [event.WhichOneof("event") for event in events]


def checked() -> Iterator[World]:
    """A world whose invariants are checked when the test is over."""
    world = World()
    yield world
    world.check()
