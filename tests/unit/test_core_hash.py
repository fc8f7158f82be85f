"""One number for the state, however often it was asked for."""

import pytest

from dtf.api.v1 import common_pb2, run_service_pb2, worker_service_pb2
from dtf.core.fleet.worker import Worker
from dtf.core.run.commands import (
    CancelRun,
    Command,
    CreateRun,
    GrantLeases,
    RegisterWorker,
    ReportResults,
    SubmitTasks,
)
from dtf.core.run.decide import decide
from dtf.core.run.evolve import evolve
from dtf.core.run.state import State
from dtf.core.run.state_codec import decode_state, encode_state
from dtf.core.run.state_hash import forget_caches, state_hash
from tests.unit.core_world import FAILED, PASSED, World, columns, rebuilt, task, template


def story() -> World:
    world = World()
    world.worker("w", slots=3)
    world.run("a", [task("one"), common_pb2.TaskSpec(name="two", payload="[1]"), task("three", ["x", "y"])])
    world.grant(w=3)
    world.report("w", columns("a", [1]))
    world.run("b", [task("late", expected_seconds=1.5)])
    world.do(CancelRun("b", "me", "why"))
    return world


def test_every_replay_has_the_same_hash_at_every_sequence_and_no_two_sequences_share_one() -> None:
    commits = story().commits
    stepwise = [state_hash(rebuilt(commits[:sequence])) for sequence in range(len(commits) + 1)]
    assert len(set(stepwise)) == len(stepwise)
    again = story()
    assert state_hash(again.state) == stepwise[-1]
    forget_caches(again.state)
    assert state_hash(again.state) == stepwise[-1]


def test_the_hash_of_nothing_is_a_constant() -> None:
    assert state_hash(State()) == state_hash(State())
    assert len(state_hash(State())) == 64


def _many(count: int, *, with_cases: bool) -> list[common_pb2.TaskSpec]:
    cases = ["p", "q"] if with_cases else []
    return [common_pb2.TaskSpec(name=f"t{index}", cases=cases) for index in range(count)]


@pytest.mark.parametrize("with_cases", [False, True], ids=["one case a task", "two cases a task"])
def test_a_hash_in_chunks_is_the_hash_of_the_whole(with_cases: bool) -> None:
    state, now_ns = State(), 0

    def do(command: Command) -> None:
        nonlocal now_ns
        now_ns += 1
        for event in decide(state, command, now_ns):
            evolve(state, event, now_ns, now_ns)
        incremental = state_hash(state)
        fresh = decode_state(encode_state(state))
        assert state_hash(fresh) == incremental, type(command).__name__

    create = run_service_pb2.CreateRunRequest(request_id="r", suite="s", templates=[template(test_retries=1)])
    session = worker_service_pb2.CreateSessionRequest(worker_id="w", request_id="w", slots=4096)
    do(CreateRun("r", create))
    do(RegisterWorker("", session))
    for batch in range(1, 6):
        specs = _many(2048, with_cases=with_cases)
        do(SubmitTasks(run_service_pb2.SubmitTasksRequest(run_id="r", batch=batch, tasks=specs)))
    for _ in range(2):
        do(GrantLeases({"w": 5000}, limit=5000))
        held = list(state.workers["w"].leases["r"])
        verdicts = [FAILED if fence % 7 == 0 else PASSED for fence in held]
        for case in range(1 + with_cases):
            do(ReportResults("w", 1, [columns("r", held[:-9], verdicts[:-9], [case] * (len(held) - 9))]))
        ended = worker_service_pb2.AttemptEnd(fence=held[-1], outcome=common_pb2.OUTCOME_CRASHED)
        do(ReportResults("w", 1, ends=[ended], released_fences=held[-9:-5]))
    do(CancelRun("r", "me", "why"))


def test_a_commit_hashes_the_chunks_it_touched_and_no_other() -> None:
    world = World()
    world.worker("w", slots=3)
    world.run("big", _many(4096, with_cases=False), seal=False)
    for _ in range(3):
        world.submit("big", _many(4096, with_cases=False))
    state_hash(world.state)
    chunks = list(world.state.hash_cache.runs["big"].chunks)
    assert len(chunks) == 4
    (task_index, *_) = world.grant(w=1)["w"]
    assert task_index == 0
    assert world.state.hash_cache.runs["big"].changed_chunks == {0}
    state_hash(world.state)
    assert world.state.hash_cache.runs["big"].chunks[1:] == chunks[1:]
    assert world.state.hash_cache.runs["big"].chunks[0] != chunks[0]


def test_fences_that_a_worker_completed_are_hashed_over_every_generation() -> None:
    state = State(workers={"w": Worker("w", incarnation=1)})
    seen = set[str]()
    for first in range(0, 40_000, 3000):
        state.workers["w"].completed.update(list(range(first, first + 3000)))
        state.hash_cache.changed_workers.add("w")
        incremental = state_hash(state)
        assert state_hash(decode_state(encode_state(state))) == incremental
        seen.add(incremental)
    assert len(seen) == len(range(0, 40_000, 3000))
    assert state.workers["w"].completed.generation == 4
