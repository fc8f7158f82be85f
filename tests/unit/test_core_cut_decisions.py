"""A decision too large for one commit, when its reign ends between two of them: the next one makes up for it."""

from collections.abc import Sequence

import pytest

from dtf.api.v1 import events_pb2, run_service_pb2, worker_service_pb2
from dtf.coordinator.inputs import arguments
from dtf.core.run.commands import (
    Command,
    ElectLeader,
    ExpireWorkers,
    QuarantineWorker,
    RegisterWorker,
    ReportResults,
    SubmitTasks,
)
from dtf.core.run.decide import decide
from dtf.core.run.evolve import evolve
from dtf.core.run.invariants import check
from dtf.core.run.rederive import Rederivation
from tests.unit.core_world import World, columns, task


class Cuttable(World):
    """A world in which a decision may be cut short, and that tells how it would be derived again."""

    def __init__(self) -> None:
        self.inputs: list[tuple[events_pb2.Input, Sequence[events_pb2.Event], int]] = []
        super().__init__()

    def do(self, command: Command) -> list[events_pb2.Event]:
        """As ever; and as its commit has it."""
        events = super().do(command)
        self._note(command, events, continues=False)
        return events

    def cut(self, command: Command, landing: int) -> None:
        """Decide; the first `landing` events land, the reign ends, and another begins."""
        self.now_ns += 1_000_000
        events = decide(self.state, command, self.now_ns)
        assert len(events) > landing
        self.commits.append((self.now_ns, events[:landing]))
        for event in events[:landing]:
            evolve(self.state, event, self.now_ns, len(self.commits))
        self._note(command, events[:landing], continues=True)
        self.do(ElectLeader("host-2", 10.0))

    def _note(self, command: Command, events: Sequence[events_pb2.Event], *, continues: bool) -> None:
        source = events_pb2.Input(
            kind=type(command).__name__,
            event_count=len(events),
            arguments=arguments(command),
            continues=continues,
        )
        if events:
            self.inputs.append((source, events, self.now_ns))

    def derive_again(self) -> list[str]:
        """What a replay says of the log: nothing, if each decision is what it must be."""
        again, epoch, found = Rederivation(), 0, []
        for sequence, (source, events, now_ns) in enumerate(self.inputs, 1):
            epoch += source.kind == "ElectLeader"
            commit = events_pb2.Commit(epoch=epoch, now_unix_nanos=now_ns, inputs=[source], events=events)
            found += [difference.what for difference in again.follow(commit, sequence)]
        return found


@pytest.fixture
def world() -> Cuttable:
    """A run of four tasks, all leased by one worker."""
    world = Cuttable()
    world.run("r1", [task(str(index)) for index in range(4)])
    world.worker("w1", slots=4)
    world.grant(w1=4)
    return world


def test_the_leases_of_a_worker_whose_loss_was_cut_short_are_ended(world: Cuttable) -> None:
    world.cut(ExpireWorkers([("w1", 1, 12.0)]), landing=1)
    assert check(world.state) != []
    world.do(ExpireWorkers(()))
    world.check()
    assert world.state.runs["r1"].queued_count == 4
    assert world.derive_again() == []


def test_the_leases_of_a_worker_whose_quarantine_was_cut_short_are_ended(world: Cuttable) -> None:
    world.cut(QuarantineWorker("w1", "someone", "odd"), landing=1)
    world.do(ExpireWorkers(()))
    world.check()
    assert world.state.runs["r1"].infrastructure_charges == {}


def test_a_run_whose_last_result_landed_without_its_end_ends(world: Cuttable) -> None:
    fences = [world.fence("r1", index) for index in range(4)]
    world.cut(ReportResults("w1", 1, [columns("r1", fences)]), landing=1)
    assert not world.state.runs["r1"].is_terminal
    world.do(ExpireWorkers(()))
    world.check()
    assert world.state.runs["r1"].is_terminal
    assert world.derive_again() == []


def test_with_nothing_left_over_nothing_is_decided(world: Cuttable) -> None:
    assert world.do(ExpireWorkers(())) == []


def test_a_batch_that_landed_in_part_is_completed_when_it_comes_again() -> None:
    world = Cuttable()
    world.run("r1", [task("before")], seal=False)
    tasks = [task(f"{index} {'x' * 3000}") for index in range(200)]
    request = run_service_pb2.SubmitTasksRequest(run_id="r1", batch=2, tasks=tasks, seal=True)
    world.cut(SubmitTasks(request), landing=1)
    landed = world.state.runs["r1"].task_count
    assert 1 < landed < 201
    world.do(SubmitTasks(request))
    run = world.state.runs["r1"]
    assert run.names == ["before", *(spec.name for spec in tasks)]
    assert run.is_sealed
    assert world.do(SubmitTasks(request)) == []
    world.check()
    assert world.derive_again() == []


def test_a_worker_that_registers_anew_after_a_cut_loss_holds_nothing(world: Cuttable) -> None:
    before = world.state.workers["w1"]
    assert before.lease_count == 4
    world.cut(RegisterWorker("", _session("w1")), landing=1)
    world.do(ExpireWorkers(()))
    world.worker("w1")
    assert world.state.workers["w1"].lease_count == 0
    world.check()


def _session(name: str) -> worker_service_pb2.CreateSessionRequest:
    return worker_service_pb2.CreateSessionRequest(worker_id=name, slots=1, request_id="again")
