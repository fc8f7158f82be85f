"""Decisions made again from a log: also those that a recorded run seldom holds."""

from collections.abc import Sequence

import pytest

from dtf.api.v1 import common_pb2, events_pb2, run_service_pb2
from dtf.coordinator.inputs import arguments
from dtf.core.run.commands import Command, CreateRun, SubmitTasks
from dtf.core.run.decide import decide
from dtf.core.run.rederive import Difference, Rederivation
from tests.unit.core_world import template

NAME = "n" * 3000
NOW_NS = 5_000_000_000


def created() -> CreateRun:
    return CreateRun(
        "r", run_service_pb2.CreateRunRequest(request_id="q", suite="s", priority=2, templates=[template()])
    )


def large() -> SubmitTasks:
    """A message cut into several events, whose tasks say their cases in every way there is."""
    tasks = [common_pb2.TaskSpec(name=f"{number}{NAME}", priority=number % 2) for number in range(55)]
    for task in tasks[::3]:
        task.cases.append(task.name)
    for task in tasks[1::3]:
        task.cases.extend([task.name, "b"])
        task.positions.extend([7, 8])
    return SubmitTasks(run_service_pb2.SubmitTasksRequest(run_id="r", batch=1, tasks=tasks, seal=True))


def source(command: Command, count: int, *, continues: bool = False) -> events_pb2.Input:
    return events_pb2.Input(
        kind=type(command).__name__,
        event_count=count,
        arguments=arguments(command),
        continues=continues,
    )


def commit(
    inputs: Sequence[events_pb2.Input], events: Sequence[events_pb2.Event], epoch: int = 1
) -> events_pb2.Commit:
    return events_pb2.Commit(epoch=epoch, now_unix_nanos=NOW_NS, inputs=inputs, events=events)


def begun() -> tuple[Rederivation, list[events_pb2.Event]]:
    """A log in which the run was created, and the events of the large message."""
    again = Rederivation()
    events = decide(again.state, created(), NOW_NS)
    assert again.follow(commit([source(created(), 1)], events), 1) == []
    submitted = decide(again.state, large(), NOW_NS)
    assert [event.WhichOneof("event") for event in submitted] == ["tasks_submitted"] * 2 + [
        "submission_sealed"
    ]
    return again, submitted


def test_a_message_cut_into_several_events_is_cut_again_where_it_was() -> None:
    again, events = begun()
    assert again.follow(commit([source(large(), 3)], events), 2) == []
    assert again.state.runs["r"].task_count == 55


def test_a_decision_that_goes_on_in_the_next_commit_is_one_decision() -> None:
    again, events = begun()
    assert again.follow(commit([source(large(), 1, continues=True)], events[:1]), 2) == []
    assert again.state.runs["r"].task_count == 0, "it is taken whole"
    assert again.follow(commit([source(large(), 2)], events[1:]), 3) == []
    assert again.state.runs["r"].is_sealed
    assert again.input_count == 2


def test_a_decision_cut_off_by_the_end_of_its_reign_is_known_as_far_as_it_came() -> None:
    again, events = begun()
    assert again.follow(commit([source(large(), 2, continues=True)], events[:2]), 2) == []
    elected = events_pb2.Event(leader_elected=events_pb2.LeaderElected(epoch=1))
    election = events_pb2.Input(kind="ElectLeader", event_count=1)
    assert again.follow(commit([election], [elected], epoch=2), 3) == []
    run = again.state.runs["r"]
    assert (run.task_count, run.is_sealed) == (55, False)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("GrantLeases", b"{}"),
        ("SubmitTasks", b"not JSON"),
        ("NoSuchCommand", b""),
        ("CloseSession", b""),
        ("SubmitTasks", b'{"cases":[[5000,1]]}'),
    ],
)
def test_an_input_that_does_not_go_with_its_events_is_told(kind: str, said: bytes) -> None:
    again, events = begun()
    forged = events_pb2.Input(kind=kind, event_count=3, arguments=said)
    (found,) = again.follow(commit([forged], events), 2)
    assert (found.sequence, found.kind) == (2, kind)
    assert again.state.runs["r"].task_count == 55, "the log goes on as it is"


def test_events_of_no_input_are_told() -> None:
    again, events = begun()
    assert again.follow(commit([], events), 2) == [Difference(2, "", "3 of its events are of no input")]


def test_a_command_that_would_be_refused_is_told() -> None:
    again, events = begun()
    assert again.follow(commit([source(large(), 3)], events), 2) == []
    events[0].tasks_submitted.batch = 2
    events[1].tasks_submitted.batch = 2
    (found,) = again.follow(commit([source(large(), 3)], events), 3)
    assert "is refused" in found.what
