"""What ended leaves the working state, and what must be known of it stays."""

import pytest

from dtf.api.v1 import common_pb2, events_pb2, run_service_pb2, worker_service_pb2
from dtf.core.run.commands import (
    CancelRun,
    CloseSession,
    Conflict,
    CreateRun,
    ExpireWorkers,
    ForgetWorkers,
    GrantLeases,
    NotFound,
    NotPossible,
    RegisterWorker,
    ReportResults,
    RetireRuns,
    SubmitTasks,
)
from dtf.core.run.decide import decide
from dtf.core.run.evolve import evolve
from dtf.core.run.history_fold import RunHistory
from dtf.core.run.outline import message_of, newest_first
from dtf.core.run.queries import run_message
from dtf.core.run.state import State
from dtf.core.run.state_codec import decode_state, encode_state
from dtf.core.run.state_hash import state_hash
from tests.unit.core_world import FAILED, PASSED, SECOND, World, checked, columns, kinds, task, template

world = pytest.fixture(checked)

AT_ONCE = RetireRuns(kept_runs=0, kept_tasks=0, grace_seconds=0)


def finish(world: World, run_id: str, tasks: int = 2) -> None:
    """A run of some tasks that pass."""
    if "w" not in world.state.workers:
        world.worker("w", slots=4)
    world.run(run_id, [task(f"{run_id}-{index}") for index in range(tasks)])
    world.grant(w=100)
    world.report("w", columns(run_id, list(world.state.workers["w"].leases[run_id])))
    assert world.state.runs[run_id].is_terminal


def retired_by(world: World, command: RetireRuns) -> list[str]:
    """The runs it retires."""
    return [run_id for event in world.do(command) for run_id in event.runs_retired.run_ids]


def test_the_newest_ended_runs_stay_by_number(world: World) -> None:
    for run_id in "abcd":
        finish(world, run_id)
    assert retired_by(world, RetireRuns(kept_runs=2, kept_tasks=100, grace_seconds=0)) == ["a", "b"]
    assert list(world.state.runs) == ["c", "d"]
    assert list(world.state.retired_runs) == ["a", "b"]
    assert world.do(RetireRuns(kept_runs=2, kept_tasks=100, grace_seconds=0)) == []


def test_the_newest_ended_runs_stay_by_the_tasks_they_hold(world: World) -> None:
    for run_id, tasks in (("a", 1), ("b", 5), ("c", 3), ("d", 2)):
        finish(world, run_id, tasks)
    assert retired_by(world, RetireRuns(kept_runs=100, kept_tasks=5, grace_seconds=0)) == ["a", "b"]


def test_a_run_stays_for_its_grace_and_one_that_goes_on_stays_for_ever(world: World) -> None:
    world.run("long", [task("waits")], templates=[template(pool="moon")])
    finish(world, "a")
    patient = RetireRuns(kept_runs=0, kept_tasks=0, grace_seconds=60)
    assert world.do(patient) == []
    world.now_ns += 61 * SECOND
    assert retired_by(world, patient) == ["a"]
    world.now_ns += 3600 * SECOND
    assert world.do(patient) == []
    assert list(world.state.active_runs) == ["long"]


def test_the_outline_is_what_was_answered_before(world: World) -> None:
    finish(world, "a")
    world.run("b", [task("never")], seal=False)
    world.do(CancelRun("b", "me", "why"))
    finish(world, "c")
    before = {run_id: run_message(run) for run_id, run in world.state.runs.items()}
    world.do(RetireRuns(kept_runs=1, kept_tasks=100, grace_seconds=0))
    assert {run.run_id: message_of(run) for run in newest_first(world.state)} == before
    assert [run.run_id for run in newest_first(world.state)] == ["c", "b", "a"]


def test_creating_a_retired_run_again_gives_that_run_and_another_content_is_a_conflict(world: World) -> None:
    finish(world, "a")
    request = run_service_pb2.CreateRunRequest(
        request_id="request of a", suite="suite", templates=[template()]
    )
    assert world.do(CreateRun("b", request)) == []
    world.do(AT_ONCE)
    assert world.do(CreateRun("b", request)) == []
    assert world.state.run_requests["request of a"] == "a"
    request.suite = "another"
    world.refused(CreateRun("b", request), Conflict, "created run a with another content")
    request.request_id = "fresh"
    world.refused(CreateRun("a", request), Conflict, "run 'a' exists already")


def test_a_retired_run_takes_no_tasks_and_cannot_be_cancelled_unless_it_was(world: World) -> None:
    finish(world, "a")
    world.run("b", [task("never")])
    world.do(CancelRun("b", "me", "why"))
    world.do(AT_ONCE)
    more = run_service_pb2.SubmitTasksRequest(run_id="a", batch=2, tasks=[task("late")])
    world.refused(SubmitTasks(more), NotPossible, "run a has ended")
    world.refused(CancelRun("a", "me", "why"), NotPossible, "has ended")
    assert world.do(CancelRun("b", "me", "why")) == []


def test_late_results_of_a_retired_run_are_refused_as_stale_and_repetitions_passed_over(world: World) -> None:
    world.worker("lost")
    world.worker("w", slots=4)
    world.run("a", [task("one")])
    world.grant(lost=1)
    (stale,) = world.state.workers["lost"].leases["a"]
    world.do(ExpireWorkers([("lost", 1, 11.0)]))
    world.grant(w=1)
    (fence,) = world.state.workers["w"].leases["a"]
    world.report("w", columns("a", [fence]))
    world.do(AT_ONCE)
    (refused,) = world.report("lost", columns("a", [stale]))
    assert list(refused.results_refused.fences) == [stale]
    assert world.report("w", columns("a", [fence])) == []


def test_of_outlines_the_newest_stay_and_the_key_of_one_that_went_creates_anew(world: World) -> None:
    for run_id in "abc":
        finish(world, run_id)
    world.do(RetireRuns(0, 0, 0, kept_outlines=2))
    assert list(world.state.retired_runs) == ["b", "c"]
    assert sorted(world.state.run_requests.values()) == ["b", "c"]
    request = run_service_pb2.CreateRunRequest(
        request_id="request of a", suite="suite", templates=[template()]
    )
    assert kinds(world.do(CreateRun("new", request))) == ["run_created"]


def test_a_retired_run_is_folded_out_of_the_log_again(world: World) -> None:
    world.worker("w", slots=2)
    world.run("other", [task("x") for _ in range(3)])
    cases = [task("one"), task("two", ["p", "q"])]
    world.run("a", cases, templates=[template(test_retries=1)])
    world.grant(w=100)
    fences = list(world.state.workers["w"].leases["a"])
    world.report("w", columns("a", fences[:1]))

    world.report("w", columns("other", list(world.state.workers["w"].leases["other"])))
    world.report("w", columns("a", [fences[1]] * 2, [FAILED, PASSED], [0, 1]))
    world.grant(w=100)
    (again,) = world.state.workers["w"].leases["a"]
    world.report("w", columns("a", [again], [PASSED], [0]))
    whole = world.state.runs["a"]
    assert whole.is_terminal
    history = RunHistory("a")
    for sequence, (now_ns, events) in enumerate(world.commits, 1):
        if whole.first_sequence <= sequence <= whole.last_sequence:
            history.follow(events_pb2.Commit(now_unix_nanos=now_ns, events=events), sequence)
    assert history.run == whole
    world.do(AT_ONCE)
    assert "a" not in world.state.runs


def test_retiring_what_still_runs_or_is_not_there_changes_nothing(world: World) -> None:
    world.run("a", [task("one")])
    before = state_hash(world.state)
    event = events_pb2.Event(runs_retired=events_pb2.RunsRetired(run_ids=["a", "b"], forgotten_run_ids=["c"]))
    evolve(world.state, event)
    assert state_hash(world.state) == before
    assert list(world.state.runs) == ["a"]


def test_workers_long_gone_are_forgotten_and_those_present_never(world: World) -> None:
    for name in ("a", "b", "c", "here"):
        world.worker(name)
    world.do(CloseSession("b", 1, "bye"))
    world.now_ns += SECOND
    world.do(ExpireWorkers([("a", 1, 11.0)]))
    world.do(CloseSession("c", 1, "bye"))
    assert world.do(ForgetWorkers(kept_workers=1, grace_seconds=3600)) == []
    world.now_ns += 3600 * SECOND
    (event,) = world.do(ForgetWorkers(kept_workers=1, grace_seconds=3600))
    assert list(event.workers_forgotten.worker_ids) == ["b", "a"]
    assert sorted(world.state.workers) == ["c", "here"]
    assert sorted(worker for worker, _ in world.state.session_requests.values()) == ["c", "here"]


def test_no_incarnation_of_a_forgotten_worker_comes_again(world: World) -> None:
    for _ in range(5):
        world.worker("a")
    world.do(CloseSession("a", 5, "bye"))
    world.do(ForgetWorkers(0, 0))
    assert world.state.incarnation_floor == 5
    world.worker("new")
    assert world.state.workers["new"].incarnation == 6
    world.do(CloseSession("new", 6, "bye"))
    world.do(ForgetWorkers(0, 0))
    world.worker("a")
    assert world.state.workers["a"].incarnation == 7
    late = world.refused(ReportResults("b", 1, [columns("r", [1])]), NotFound)
    assert "no worker" in late.message


def test_a_session_key_repeated_late_does_not_depose_the_present_session(world: World) -> None:
    world.worker("a", request_id="first")
    world.worker("a", request_id="second")
    request = worker_service_pb2.CreateSessionRequest(worker_id="a", request_id="first", slots=1)
    world.refused(RegisterWorker("", request), Conflict, "opened incarnation 1 of worker a, which is over")
    assert world.do(ForgetWorkers(0, 0, kept_requests=1)) == []
    (event,) = world.do(ForgetWorkers(0, 0, kept_requests=0))
    assert list(event.workers_forgotten.request_ids) == ["first"]
    assert list(world.state.session_requests) == ["second"]


def complete_one_run(state: State, number: int, tasks: int) -> None:
    """A run of `tasks` through decide and evolve, and whatever may leave leaves."""
    now_ns = (number + 1) * 3600 * SECOND

    def do(command: object) -> list[events_pb2.Event]:
        events = decide(state, command, now_ns)  # type: ignore[arg-type]  # one of the commands below
        for event in events:
            evolve(state, event, now_ns, state.last_sequence + 1)
        return events

    run_id, worker_id = f"run-{number:05}", f"worker-{number:05}"
    create = run_service_pb2.CreateRunRequest(request_id=run_id, suite="s", templates=[template()])
    do(CreateRun(run_id, create))
    specs = [common_pb2.TaskSpec(name=f"case({index})", payload=f"[{index}]") for index in range(tasks)]
    do(SubmitTasks(run_service_pb2.SubmitTasksRequest(run_id=run_id, batch=1, tasks=specs, seal=True)))
    session = worker_service_pb2.CreateSessionRequest(worker_id=worker_id, request_id=worker_id, slots=64)
    do(RegisterWorker("", session))
    while state.queued_count:
        for event in do(GrantLeases({worker_id: 1024})):
            granted = event.leases_granted
            fences = range(granted.first_fence, granted.first_fence + len(granted.tasks))
            do(ReportResults(worker_id, state.workers[worker_id].incarnation, [columns(run_id, fences)]))
    do(CloseSession(worker_id, state.workers[worker_id].incarnation, "done"))
    do(RetireRuns(kept_runs=3, kept_tasks=10_000, grace_seconds=60, kept_outlines=20))
    do(ForgetWorkers(kept_workers=5, grace_seconds=60))


def test_the_state_does_not_grow_with_the_runs_and_workers_that_went_through_it() -> None:
    state, sizes = State(), []
    for number in range(120):
        complete_one_run(state, number, 200)
        sizes.append(len(encode_state(state)))
    assert len(state.runs) <= 4
    assert len(state.retired_runs) <= 20
    assert len(state.workers) <= 6
    assert max(sizes[60:]) <= 1.02 * max(sizes[30:60])
    again = decode_state(encode_state(state))
    assert again == state
    assert state_hash(again) == state_hash(state)
