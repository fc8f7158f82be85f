"""A snapshot's bytes: the same state and chain again, or a refusal that says why."""

import hashlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dtf.api.v1 import run_service_pb2, snapshot_pb2, worker_service_pb2
from dtf.core.chain import ChainReader
from dtf.core.run.commands import Command, CreateRun, ElectLeader, GrantLeases, RegisterWorker, SubmitTasks
from dtf.core.run.decide import decide
from dtf.core.run.evolve import evolve
from dtf.core.run.state import State
from dtf.core.run.state_hash import SCHEMA_VERSION, state_hash
from dtf.core.snapshot import (
    SnapshotDamaged,
    SnapshotOutdated,
    SnapshotTooNew,
    last_commit_sequence,
    open_snapshot,
    read_snapshot,
    take,
)
from tests.coordinators import create_request, tasks


def a_state() -> State:
    """A run with queued and leased tasks, and a worker."""
    state = State()
    worker = worker_service_pb2.CreateSessionRequest(worker_id="w", request_id="w", slots=2)
    submission = run_service_pb2.SubmitTasksRequest(run_id="r", batch=1, tasks=tasks(50))
    commands: list[Command] = [
        ElectLeader("me", 5.0),
        CreateRun("r", create_request()),
        RegisterWorker("", worker),
        SubmitTasks(submission),
        GrantLeases({"w": 7}),
    ]
    for sequence, command in enumerate(commands, 1):
        for event in decide(state, command, sequence):
            evolve(state, event, sequence, sequence)
    return state


def a_chain() -> ChainReader:
    """A chain with strangers, one of them last."""
    return ChainReader(
        sequence=7, last_hash=b"h" * 32, epoch=1, now_ns=5, commit_count=5, stranger_sequences={3, 7}
    )


def test_state_and_chain_come_back_equal_and_hash_the_same() -> None:
    state, chain = a_state(), a_chain()
    again, again_chain = open_snapshot(take(state, chain, code_version="x"))
    assert again == state
    assert state_hash(again) == state_hash(state)
    assert again_chain == chain
    assert last_commit_sequence(again_chain) == 6


def test_a_snapshot_says_what_it_is_of() -> None:
    message = read_snapshot(take(a_state(), a_chain(), code_version="1.2"))
    assert (message.last_sequence, message.last_hash, message.code_version) == (7, b"h" * 32, "1.2")
    assert message.state_hash == state_hash(a_state())


@given(st.data())
def test_no_changed_or_missing_byte_goes_unseen(data: st.DataObject) -> None:
    whole = take(a_state(), a_chain(), code_version="x")
    position = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        broken = whole[:position]
    else:
        flipped = whole[position] ^ data.draw(st.integers(1, 255))
        broken = whole[:position] + bytes([flipped]) + whole[position + 1 :]
    with pytest.raises(SnapshotDamaged):
        open_snapshot(broken)


@pytest.mark.parametrize(
    ("schema", "refusal"), [(SCHEMA_VERSION + 1, SnapshotTooNew), (SCHEMA_VERSION - 1, SnapshotOutdated)]
)
def test_another_schema_is_refused_with_who_wrote_it(schema: int, refusal: type[Exception]) -> None:
    message = read_snapshot(take(a_state(), a_chain(), code_version="9.9"))
    with pytest.raises(refusal, match=r"schema \d+, written by dtf 9\.9"):
        open_snapshot(of_schema(message, schema))


def of_schema(message: snapshot_pb2.Snapshot, schema: int) -> bytes:
    """The bytes of a snapshot as a dtf of another schema would have written them."""
    other = snapshot_pb2.Snapshot()
    other.CopyFrom(message)
    other.schema_version = schema
    body = zstandard.ZstdCompressor().compress(other.SerializeToString())
    return b"DTF snapshot 1\n" + hashlib.sha256(body).digest() + body
