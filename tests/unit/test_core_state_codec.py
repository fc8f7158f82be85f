"""A state survives being bytes, and bytes that are no state are told from one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtf.api.v1 import common_pb2, state_pb2
from dtf.core.run.commands import CancelRun, CloseSession, PausePool, QuarantineWorker, ScalePool
from dtf.core.run.evolve import evolve
from dtf.core.run.invariants import check
from dtf.core.run.state import State
from dtf.core.run.state_codec import StateUndecodable, decode_state, encode_state
from dtf.core.run.state_hash import forget_caches, state_hash
from tests.unit.core_world import FAILED, World, columns, rebuilt, task, template


def eventful() -> World:
    """A world in which every field of the state has been used."""
    world = World()
    world.worker("w", slots=3, labels={"zone": "b", "arch": "arm"})
    world.worker("v", gpus=1)
    world.worker("gone")
    world.do(CloseSession("gone", 1, "bye"))
    retrying = template(test_retries=2, labels={"zone": "b"})
    mixed = [
        task("one"),
        common_pb2.TaskSpec(name="two", payload="[1]", expected_seconds=1.5, priority=3),
        common_pb2.TaskSpec(name="thr\0ee", template=1, cases=["x", "y", "z\0"], positions=[2, 0, 1]),
        task("four"),
        task("five", priority=-2),
    ]
    world.run("mixed", mixed, templates=[template(), retrying], seal=False, priority=1)
    world.submit("mixed", [task(f"more {index}") for index in range(7)])
    world.run("plain", [task(f"case({index})") for index in range(20)])
    world.grant(w=6, v=4)
    held = dict(world.state.workers["w"].leases["mixed"])
    three = next(fence for fence, index in held.items() if index == 2)
    world.report("w", columns("mixed", [three], [FAILED], [1]))
    crash = {fence: index for fence, index in held.items() if index != 2}
    world.do(QuarantineWorker("v", "me", "smells"))
    world.report("w", columns("mixed", [next(iter(crash))]))
    world.run("stopped", [task("never")])
    world.do(CancelRun("stopped", "me", "why"))
    world.do(ScalePool("p", 0, 8, None, "me", "why"))
    world.do(PausePool("q", "me", "why"))
    world.do(ScalePool("q", None, None, 3, "me", "why"))
    world.run("elsewhere", [task("waits")], templates=[template(pool="moon")])
    return world


def round_trip(state: State) -> State:
    data = encode_state(state)
    again = decode_state(data)
    assert again == state
    assert list(again.runs) == list(state.runs)
    assert list(again.workers) == list(state.workers)
    assert list(again.session_requests) == list(state.session_requests)
    assert [list(worker.leases) for worker in again.workers.values()] == [
        list(worker.leases) for worker in state.workers.values()
    ]
    assert state_hash(again) == state_hash(state)
    assert encode_state(again) == data
    return again


def test_a_state_at_every_sequence_survives_being_bytes_with_its_hash_and_its_orders() -> None:
    commits = eventful().commits
    for sequence in range(len(commits) + 1):
        again = round_trip(rebuilt(commits[:sequence]))
        assert check(again) == []


def test_a_decoded_state_goes_on_as_the_one_that_was_encoded() -> None:
    commits = eventful().commits
    whole = rebuilt(commits)
    for cut in range(len(commits)):
        state = decode_state(encode_state(rebuilt(commits[:cut])))
        for sequence, (now_ns, events) in enumerate(commits[cut:], cut + 1):
            for event in events:
                evolve(state, event, now_ns, sequence)
        assert state == whole
        assert state_hash(state) == state_hash(whole)


def test_names_with_the_separator_in_them_stay_apart() -> None:
    world = World()
    world.run("a", [task("x\0"), task("y"), task("\0")])
    world.run("b", [task("x"), task("\0y"), task("\0")])
    again = round_trip(world.state)
    assert again.runs["a"].names == ["x\0", "y", "\0"]
    assert again.runs["b"].names == ["x", "\0y", "\0"]


def test_a_snapshot_of_another_schema_version_is_refused_by_name() -> None:
    saved = state_pb2.SavedState.FromString(encode_state(State()))
    saved.schema_version += 1
    with pytest.raises(StateUndecodable, match=r"schema version \d+, this dtf reads \d+"):
        decode_state(saved.SerializeToString())


@pytest.mark.parametrize("data", [b"", b"\0", b"{}", b"\x80\x04N.", b"\xff" * 40])
def test_bytes_of_something_else_are_undecodable(data: bytes) -> None:
    with pytest.raises(StateUndecodable):
        decode_state(data)


EVENTFUL = encode_state(eventful().state)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_bytes_give_a_state_that_hangs_together_or_are_undecodable(data: st.DataObject) -> None:
    damaged = bytearray(EVENTFUL)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
    try:
        state = decode_state(bytes(damaged))
    except StateUndecodable:
        return
    forget_caches(state)
    state_hash(state)
    encode_state(state)


def _fault(saved: state_pb2.SavedState, name: str) -> None:
    run = saved.runs[0]
    match name:
        case "a column is short":
            run.attempts = run.attempts[:-2]
        case "half an entry":
            run.attempts = run.attempts[:-1]
        case "a template that is not there":
            run.task_templates = b"\xff\x00" * (len(run.task_templates) // 2)
        case "offsets that fall":
            run.case_offsets = bytes(4) + run.case_offsets[4:][::-1]
        case "a task that is not there is queued":
            run.queues[0].stops = b"\xff\xff\xff\x00" * (len(run.queues[0].stops) // 4)
        case "more queued than there are":
            run.queued_count += 1
        case "a verdict that is not there":
            run.verdicts = b"\x63" + run.verdicts[1:]
        case "a lease of no run":
            saved.workers[0].leases[0].run_id = "nobody"
        case "a run twice":
            saved.runs.add().CopyFrom(run)
        case "text that is no text":
            run.names.text = b"\xff" + run.names.text[1:]
        case _:
            raise AssertionError(name)


@pytest.mark.parametrize(
    "name",
    [
        "a column is short",
        "half an entry",
        "a template that is not there",
        "offsets that fall",
        "a task that is not there is queued",
        "more queued than there are",
        "a verdict that is not there",
        "a lease of no run",
        "a run twice",
        "text that is no text",
    ],
)
def test_a_state_that_does_not_hang_together_is_undecodable(name: str) -> None:
    saved = state_pb2.SavedState.FromString(EVENTFUL)
    _fault(saved, name)
    with pytest.raises(StateUndecodable, match="damaged"):
        decode_state(saved.SerializeToString())
