"""Who runs what: the rules of slots.py, with processes that only note what they are told."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from dtf.api.v1 import common_pb2, worker_service_pb2
from dtf.runner.channel import Prepare, ResultItem
from dtf.runner.launch_messages import Exited
from dtf.runner.status import RunningCase
from dtf.settings.model import WorkerSettings
from dtf.worker.command_attempt import Commands
from dtf.worker.leases import Key, Lease, LeaseBook
from dtf.worker.outbound import Outbound
from dtf.worker.pace import MAX_WINDOW, window_of
from dtf.worker.process_watch import PREPARE_TIMEOUT_SECONDS
from dtf.worker.reporter import Reporter
from dtf.worker.runner_pool import RunnerPool
from dtf.worker.slot_rules import MINIMUM_SERVICE_SECONDS
from dtf.worker.slots import IDLE_SECONDS, SlotBoard
from dtf.worker.successors import FLUSH_LINGER_SECONDS
from dtf.worker.uploads import Uploads
from dtf.worker.warm_process import Death, State, StopReason, WarmProcess
from dtf.worker.workspace_setup import Setup
from dtf.worker.workspaces import Fetch, Workspaces
from tests.fakes import FakeClock

CRASHED, CANCELLED, TIMED_OUT = (
    common_pb2.OUTCOME_CRASHED,
    common_pb2.OUTCOME_CANCELLED,
    common_pb2.OUTCOME_TIMED_OUT,
)


class NotedProcess:
    """Stands in for a WarmProcess."""

    def __init__(self) -> None:
        self.state = State.WARM
        self.process = None
        self.key: Key | None = None
        self.leases: dict[int, Lease] = {}
        self.outstanding = 0
        self.average_seconds = 0.0
        self.given_at = 0.0
        self.is_flushed = False
        self.needs_successor = False
        self.was_ready = True
        self.stop_reason: StopReason | None = None
        self.running: RunningCase | None = None
        self.given: list[list[int]] = []
        self.dropped: list[int] = []

    def prepare(self, message: Prepare, key: Key) -> None:
        self.state = State.PREPARING
        self.prepared_for = message

    def give(self, leases: Sequence[Lease], timeout_seconds: float, now: float) -> None:
        self.given.append([lease.fence for lease in leases])
        self.leases |= {lease.fence: lease for lease in leases}
        self.outstanding += sum(lease.case_count for lease in leases)
        self.given_at = now
        self.is_flushed = False

    def flush(self) -> None:
        self.is_flushed = True

    def drop(self, fences: Sequence[int]) -> None:
        self.dropped += fences

    def running_case(self) -> RunningCase | None:
        return self.running

    def look_into_journal(self) -> None:
        pass

    @property
    def was_told_to_go(self) -> bool:
        return self.stop_reason is not None and self.stop_reason.outcome != CRASHED


class NotedRunners:
    """Stands in for a RunnerPool."""

    def __init__(self) -> None:
        self.taken: list[NotedProcess] = []
        self.retired: list[NotedProcess] = []

    def take(self, _listener: object) -> NotedProcess:
        self.taken.append(NotedProcess())
        return self.taken[-1]

    def retire(self, process: NotedProcess) -> None:
        process.state = State.FINISHING
        self.retired.append(process)

    def stop(self, process: NotedProcess, reason: StopReason, *, with_stacks: bool = False) -> None:
        process.stop_reason = process.stop_reason or reason

    def forget(self, process: NotedProcess, death: Death) -> None:
        pass

    def tick(self, now: float, listener: object) -> None:
        pass


class Table:
    """A board and what it is told."""

    def __init__(self, clock: FakeClock, slots: int = 1, workspaces: Workspaces | None = None) -> None:
        self.clock = clock
        self.book = LeaseBook()
        self.outbound = Outbound()
        self.runners = NotedRunners()
        reporter = Reporter(self.book, self.outbound, cast(Uploads, None), cast(asyncio.TaskGroup, None))
        self.board = SlotBoard(
            slot_count=slots,
            worker_id="w",
            book=self.book,
            reporter=reporter,
            runners=cast(RunnerPool, self.runners),
            commands=cast(Commands, None),
            workspaces=workspaces
            or Workspaces(
                WorkerSettings(), cast(Fetch, None), cast(Setup, None), cast(asyncio.TaskGroup, None), clock
            ),
            clock=clock,
        )
        self.fence = 0

    def run(self, run_id: str, count: int, *, executor: str = "callable", workspace: str = "") -> list[int]:
        """A run leases `count` attempts; their fences. `workspace`: where its code is said to be."""
        template = common_pb2.TaskTemplate()
        if workspace:
            template.workspace.CopyFrom(common_pb2.Workspace(root="/home/ada", path=workspace))
        getattr(template, executor).SetInParent()
        self.board.add_context(worker_service_pb2.RunContext(run_id=run_id, templates=[template]))
        fences = list(range(self.fence + 1, self.fence + 1 + count))
        self.fence += count
        batch = worker_service_pb2.Assignments(
            run_id=run_id, tasks=range(count), fences=fences, names=["n"] * count
        )
        self.board.assign([batch])
        return fences

    @property
    def processes(self) -> list[NotedProcess]:
        return self.runners.taken

    def prepared(self, process: NotedProcess) -> None:
        process.state = State.SERVING
        self.board.on_prepared(cast(WarmProcess, process))

    def result(self, process: NotedProcess, *fences: int, seconds: float = 0.001) -> None:
        items = [ResultItem(fence, 0, 1, seconds, 0.0, 0, 0.0, True) for fence in fences]
        self.board.on_results(cast(WarmProcess, process), items)

    def die(self, process: NotedProcess, running: int = 0, *, output: str = "") -> None:
        state, process.state = process.state, State.DEAD
        case = RunningCase(running, 0, 0.0, 60.0) if running else None
        death = Death(Exited(1, 3, 0, 0.0, 0), case, output, state, 1.0)
        self.board.on_death(cast(WarmProcess, process), death)

    def said(self) -> worker_service_pb2.AttachRequest:
        return self.outbound.next_message(0, common_pb2.WORKER_STATE_ACTIVE)


@pytest.fixture
def table(clock: FakeClock) -> Table:
    return Table(clock)


def test_a_free_slot_takes_the_work_that_waits_longest(table: Table) -> None:
    table.run("old", 2)
    table.run("new", 2)
    (process,) = table.processes
    assert process.key == ("old", 0)
    assert process.prepared_for.run_id == "old"


def test_slots_getting_ready_leave_the_rest_to_others(clock: FakeClock) -> None:
    table = Table(clock, slots=3)
    table.run("a", 1)
    assert [process.key for process in table.processes] == [("a", 0)]
    table.run("b", 5)
    assert [process.key for process in table.processes] == [("a", 0), ("b", 0), ("b", 0)]


def test_callables_are_given_one_at_first_and_many_once_they_are_known_to_be_short(table: Table) -> None:
    fences = table.run("r", 400)
    (process,) = table.processes
    table.prepared(process)
    assert process.given == [fences[:1]]
    table.result(process, fences[0], seconds=0.0005)
    assert process.given[1] == fences[1:101]


def test_long_callables_are_given_one_by_one(table: Table) -> None:
    fences = table.run("r", 4)
    (process,) = table.processes
    table.prepared(process)
    table.result(process, fences[0], seconds=3.0)
    table.result(process, fences[1], seconds=3.0)
    assert process.given == [[fence] for fence in fences[:3]]


def test_pytest_is_given_a_second_attempt_however_long_they_take(table: Table) -> None:
    fences = table.run("r", 4, executor="pytest")
    (process,) = table.processes
    table.prepared(process)
    assert process.given == [fences[:2]]
    table.result(process, fences[0], seconds=3.0)
    assert process.given == [fences[:2], fences[2:3]]


@pytest.mark.parametrize(("seconds", "window"), [(0.0, 1), (10.0, 1), (0.001, 50), (1e-6, MAX_WINDOW)])
def test_the_window_is_what_takes_fifty_milliseconds(seconds: float, window: int) -> None:
    assert window_of(seconds) == window


def test_slots_share_what_waits(clock: FakeClock) -> None:
    table = Table(clock, slots=2)
    fences = table.run("r", 40)
    for process in table.processes:
        process.average_seconds = 1e-5
        table.prepared(process)
    first, second = table.processes
    assert (len(first.leases), len(second.leases)) == (20, 20)
    assert sorted([*first.leases, *second.leases]) == fences


def test_an_idle_process_goes_when_other_work_waits(table: Table) -> None:
    fences = table.run("a", 1)
    table.prepared(table.processes[0])
    table.run("b", 1)
    assert len(table.processes) == 1
    table.result(table.processes[0], *fences)
    assert table.runners.retired == table.processes[:1]
    assert table.processes[1].key == ("b", 0)


async def test_an_idle_process_goes_after_a_while(table: Table) -> None:
    fences = table.run("a", 1)
    table.prepared(table.processes[0])
    table.result(table.processes[0], *fences)
    table.board.tick(table.clock.monotonic())
    assert table.runners.retired == []
    await table.clock.advance(IDLE_SECONDS + 1)
    table.board.tick(table.clock.monotonic())
    assert table.runners.retired == table.processes


async def test_a_run_that_never_ends_does_not_starve_another(table: Table) -> None:
    fences = table.run("endless", 1)
    (process,) = table.processes
    table.prepared(process)
    table.run("other", 1)
    fences += table.run("endless", 20)
    await table.clock.advance(MINIMUM_SERVICE_SECONDS - 1)
    table.result(process, fences[0], seconds=1.0)
    assert list(process.leases) == [fences[1]]
    await table.clock.advance(2)
    table.result(process, fences[1], seconds=1.0)
    assert table.runners.retired == [process]
    assert table.processes[1].key == ("other", 0)


def test_the_case_that_ran_is_charged_and_the_others_wait_in_front(table: Table) -> None:
    fences = table.run("r", 6, executor="pytest")
    (process,) = table.processes
    table.prepared(process)
    table.die(process, running=fences[0], output="last words")
    message = table.said()
    ((end),) = message.ends
    assert (end.fence, end.outcome, end.running_case, end.reason) == (
        fences[0],
        CRASHED,
        1,
        "exited with code 3 (os._exit(3))",
    )
    table.prepared(table.processes[1])
    assert table.processes[1].given == [fences[1:3]]


def test_a_result_known_from_the_journal_is_taken_once(table: Table) -> None:
    fences = table.run("r", 1)
    (process,) = table.processes
    table.prepared(process)
    table.result(process, fences[0])
    table.result(process, fences[0])
    (entry,) = table.said().results
    assert list(entry.fences) == fences
    table.die(process, running=fences[0])
    assert not table.said().ends


def test_deaths_that_no_case_explains_end_in_an_error_of_the_work(table: Table) -> None:
    fences = table.run("r", 3)
    table.die(table.processes[0])
    assert not table.said().results
    table.die(table.processes[1])
    (entry,) = table.said().results
    assert list(entry.fences) == fences
    assert set(entry.verdicts) == {common_pb2.VERDICT_ERROR}
    assert b"exited with code 3 (os._exit(3)) before it ran a case" in entry.details[0]
    later = table.run("r", 1)
    assert list(table.said().results[0].fences) == later
    assert len(table.processes) == 2


@pytest.mark.parametrize("is_begun", [False, True])
def test_cancelled_attempts_end_once_they_are_dropped_or_stopped(table: Table, is_begun: bool) -> None:
    fences = table.run("r", 3, executor="pytest")
    (process,) = table.processes
    table.prepared(process)
    if is_begun:
        process.running = RunningCase(fences[0], 0, 0.0, 60.0)
    table.board.cancel(fences)
    assert [end.fence for end in table.said().ends] == fences[2:]
    assert process.dropped == fences[:2]
    if is_begun:
        assert process.stop_reason is not None
        assert process.stop_reason.outcome == CANCELLED
        table.board.on_dropped(cast(WarmProcess, process), fences[1:2])
        table.die(process, running=fences[0])
    else:
        table.board.on_dropped(cast(WarmProcess, process), fences[:2])
    ends = table.said().ends
    assert sorted((end.fence, end.outcome) for end in ends) == [(f, CANCELLED) for f in fences[:2]]
    assert len(table.book) == 0


def test_a_cancelled_attempt_that_begins_before_it_is_dropped_is_stopped(table: Table) -> None:
    fences = table.run("r", 1)
    (process,) = table.processes
    table.prepared(process)
    table.board.cancel(fences)
    assert process.stop_reason is None
    process.running = RunningCase(fences[0], 0, 0.0, 60.0)
    table.board.tick(1.0)
    assert process.stop_reason is not None


def test_revoked_leases_go_back_unless_they_began(table: Table) -> None:
    fences = table.run("r", 3, executor="pytest")
    (process,) = table.processes
    table.prepared(process)
    table.board.revoke(fences)
    assert list(table.said().released_fences) == fences[2:]
    table.board.on_dropped(cast(WarmProcess, process), fences[1:2])
    assert list(table.said().released_fences) == fences[1:2]
    assert list(process.leases) == fences[:1]


def test_an_overdue_case_is_stopped_and_timed_out(table: Table) -> None:
    fences = table.run("r", 1)
    (process,) = table.processes
    table.prepared(process)
    process.running = RunningCase(fences[0], 0, 10.0, 5.0)
    table.board.tick(15.0)
    assert process.stop_reason is None
    table.board.tick(15.1)
    assert process.stop_reason is not None
    table.die(process, running=fences[0])
    ((end),) = table.said().ends
    assert (end.outcome, end.reason) == (TIMED_OUT, "stopped after its timeout of 5 s")


async def test_a_case_held_back_is_run_when_no_successor_is_to_be_had(table: Table) -> None:
    table.run("r", 1, executor="pytest")
    (process,) = table.processes
    table.prepared(process)
    table.board.tick(table.clock.monotonic())
    assert not process.is_flushed
    await table.clock.advance(FLUSH_LINGER_SECONDS * 2)
    table.board.tick(table.clock.monotonic())
    assert process.is_flushed


@pytest.mark.parametrize("why", ["exhausted", "draining"])
def test_a_case_held_back_is_run_at_once_when_it_is_known_to_be_the_last(table: Table, why: str) -> None:
    table.run("r", 1, executor="pytest")
    (process,) = table.processes
    table.prepared(process)
    if why == "exhausted":
        table.board.run_exhausted(["r"])
    else:
        table.board.drain()
    assert process.is_flushed
    table.run("r", 1, executor="pytest")
    assert process.is_flushed == (why == "draining")


def test_short_leases_are_asked_for_far_ahead(table: Table) -> None:
    assert table.board.wanted_leases(65, 1024) == 65
    fences = table.run("r", 2)
    table.prepared(table.processes[0])
    table.result(table.processes[0], fences[0], seconds=0.0002)
    assert table.board.wanted_leases(65, 1024) == 500
    assert table.board.wanted_leases(65, 100) == 100


def test_free_slots_get_ready_for_a_pytest_run_before_any_of_it_is_leased() -> None:
    table = Table(FakeClock(), slots=2)
    table.run("early", 0, executor="pytest")
    assert [process.key for process in table.processes] == [("early", 0), ("early", 0)]
    assert all(process.state is State.PREPARING for process in table.processes)
    (fence,) = table.run("early", 1, executor="pytest")
    table.prepared(table.processes[0])
    assert table.processes[0].given == [[fence]]
    assert len(table.processes) == 2
    table.board.runs_ended(["early"])
    assert table.runners.retired == [table.processes[1]]


def test_other_work_takes_the_slot_of_one_that_only_got_ready() -> None:
    table = Table(FakeClock())
    table.run("early", 0, executor="pytest")
    (fence,) = table.run("urgent", 1)
    table.prepared(table.processes[0])
    assert table.runners.retired == [table.processes[0]]
    table.prepared(table.processes[1])
    assert table.processes[1].given == [[fence]]


async def test_a_case_held_back_is_run_when_its_successors_yield_to_older_work(clock: FakeClock) -> None:
    """Else neither goes on: the successor is not given, and the slot is not given up."""
    table = Table(clock)
    table.run("endless", 1, executor="pytest")
    (process,) = table.processes
    table.prepared(process)
    (older,) = table.run("other", 1)
    await clock.advance(MINIMUM_SERVICE_SECONDS + 1)
    table.run("endless", 5, executor="pytest")
    assert len(process.leases) == 1
    table.board.tick(clock.monotonic())
    assert process.is_flushed
    table.result(process, *process.leases)
    assert table.runners.retired == [process]
    table.prepared(table.processes[1])
    assert table.processes[1].given == [[older]]


async def test_work_that_waited_for_older_work_is_given_when_that_is_gone(clock: FakeClock) -> None:
    table = Table(clock)
    table.run("endless", 1, executor="pytest")
    (process,) = table.processes
    table.prepared(process)
    older = table.run("other", 1)
    await clock.advance(MINIMUM_SERVICE_SECONDS + 1)
    fences = table.run("endless", 2, executor="pytest")
    assert len(process.leases) == 1
    table.board.revoke(older)
    table.board.tick(clock.monotonic())
    assert process.given[1] == fences[:1]


def test_a_lease_asked_back_that_was_never_told_is_given_back(table: Table) -> None:
    (held,) = table.run("r", 1)
    (process,) = table.processes
    table.prepared(process)
    table.board.revoke([held, 77])
    assert list(table.said().released_fences) == [77]
    table.result(process, held)
    table.said()
    table.board.revoke([held])
    assert not table.outbound.has_more


async def test_a_process_that_never_gets_warm_is_stopped(table: Table) -> None:
    table.run("r", 1)
    (process,) = table.processes
    process.state = State.STARTING
    await table.clock.advance(PREPARE_TIMEOUT_SECONDS)
    table.board.tick(table.clock.monotonic())
    assert process.stop_reason is None
    await table.clock.advance(1)
    table.board.tick(table.clock.monotonic())
    assert process.stop_reason is not None
