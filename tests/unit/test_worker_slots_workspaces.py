"""Work whose code is not there yet: it waits, takes no slot from other work, and fails as the machine's fault."""

from typing import cast

import pytest

from dtf.api.v1 import common_pb2
from dtf.core.workspace import Relocation
from dtf.worker.hopeless_work import Failure
from dtf.worker.leases import Key
from dtf.worker.workspaces import Listener, Place, Workspaces
from tests.fakes import FakeClock
from tests.unit.test_worker_slots import Table


class NotedWorkspaces:
    """Stands in for Workspaces: what is wanted is ready when the test says so."""

    def __init__(self) -> None:
        self.wanted: dict[Key, Listener] = {}
        self.places: dict[Key, Place] = {}
        self.forgotten: set[str] = set()

    def want(self, key: Key, workspace: common_pb2.Workspace, listener: Listener) -> None:
        self.wanted.setdefault(key, listener)

    def can_start(self, key: Key) -> bool:
        return key not in self.wanted or key in self.places

    def place_of(self, key: Key) -> Place | None:
        return self.places.get(key)

    def forget_runs(self, run_ids: set[str]) -> None:
        self.forgotten |= run_ids

    def ready(self, key: Key) -> None:
        self.places[key] = Place(Relocation("/home/ada", "/cache/tree"))
        self.wanted[key].workspace_ready(key)


@pytest.fixture
def workspaces() -> NotedWorkspaces:
    return NotedWorkspaces()


@pytest.fixture
def table(workspaces: NotedWorkspaces) -> Table:
    return Table(FakeClock(), workspaces=cast(Workspaces, workspaces))


def test_work_waits_for_its_code_and_other_work_goes_first(table: Table, workspaces: NotedWorkspaces) -> None:
    table.run("packed", 1, workspace="/x")
    assert table.processes == []
    table.run("here", 1)
    assert [process.key for process in table.processes] == [("here", 0)]
    table.prepared(table.processes[0])
    table.result(table.processes[0], 2)
    workspaces.ready(("packed", 0))
    assert [process.key for process in table.processes] == [("here", 0), ("packed", 0)]
    assert table.processes[1].prepared_for.spec["site_dirs"] == []


def test_a_pytest_run_whose_code_came_before_its_leases_is_got_ready_for(
    table: Table, workspaces: NotedWorkspaces
) -> None:
    table.run("early", 0, executor="pytest", workspace="/x")
    assert table.processes == []
    workspaces.ready(("early", 0))
    assert [process.key for process in table.processes] == [("early", 0)]


def test_commands_whose_code_came_before_their_leases_wait_for_these(
    table: Table, workspaces: NotedWorkspaces
) -> None:
    table.run("early", 0, executor="command", workspace="/x")
    workspaces.ready(("early", 0))
    assert table.processes == []


def test_attempts_whose_code_cannot_be_had_end_as_crashed_also_those_that_come_later(
    table: Table, workspaces: NotedWorkspaces
) -> None:
    first = table.run("packed", 2, workspace="/x")
    failure = Failure("no room on this worker's disk", "tar: full", is_of_machine=True)
    workspaces.wanted["packed", 0].workspace_failed(("packed", 0), failure)
    later = table.run("packed", 1, workspace="/x")
    message = table.outbound.next_message(0, common_pb2.WORKER_STATE_ACTIVE)
    assert [end.fence for end in message.ends] == [*first, *later]
    assert {end.outcome for end in message.ends} == {common_pb2.OUTCOME_CRASHED}
    assert {end.reason for end in message.ends} == {"no room on this worker's disk"}
    assert len(table.book) == 0


def test_a_run_that_ended_needs_its_code_no_longer(table: Table, workspaces: NotedWorkspaces) -> None:
    table.run("packed", 0, workspace="/x")
    table.board.runs_ended(["packed"])
    assert workspaces.forgotten == {"packed"}
