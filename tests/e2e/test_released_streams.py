"""Logs that released versions wrote are read as they were meant."""

import hashlib
import json
from pathlib import Path

import pytest

from dtf.adapters.stream_file import StreamFile
from dtf.api.v1 import events_pb2
from dtf.core.chain import ChainReader, LogTooNew
from dtf.core.events import TYPE_NAMES, parse_commit, type_of
from dtf.core.run.rederive import Rederivation
from dtf.core.upcast import EVENT_SCHEMA, read_commit, upcast
from dtf.ports.event_log import StoredCommit
from tests.streams.release import SUMMARIES, read, releases, streams, summary
from tests.streams.tour import tour

pytestmark = pytest.mark.coordinator

STREAMS = [path for release in releases() for path in streams(release)]
NAMES = [f"{path.parent.name}/{path.stem}" for path in STREAMS]
LOST_WORKER = next(path for path in STREAMS if path.parent.name == "0.1.0" and path.stem == "lost_worker")


@pytest.mark.parametrize("path", STREAMS, ids=NAMES)
def test_a_stream_of_a_released_version_comes_to_what_it_came_to_then(path: Path) -> None:
    golden = json.loads((path.parent / SUMMARIES).read_text())
    assert summary(path) == golden[path.stem]


def test_every_release_kept_its_streams() -> None:
    for release in releases():
        golden = json.loads((release / SUMMARIES).read_text())
        assert sorted(golden) == [path.stem for path in streams(release)]
    assert {"0.1.0", "0.2.0"} <= {release.name for release in releases()}


def test_the_tour_has_every_type_of_event_and_decides_the_same_again() -> None:
    chain, again, seen = ChainReader(), Rederivation(), set[str]()
    for stored in tour("next"):
        commit = chain.accept(stored.sequence, stored.payload, stored.message_id)
        assert commit is not None
        assert commit.schema_version == EVENT_SCHEMA
        assert again.follow(commit, stored.sequence) == []
        seen.update(type_of(event) for event in commit.events)
    assert seen == set(TYPE_NAMES.values())


def test_the_tour_is_the_same_every_time() -> None:
    assert tour("next") == tour("next")


def _losses(commit: events_pb2.Commit) -> list[events_pb2.WorkerLost]:
    return [event.worker_lost for event in commit.events if event.HasField("worker_lost")]


def test_the_cause_of_a_loss_that_version_1_put_in_words_is_read_as_a_cause() -> None:
    with StreamFile(LOST_WORKER) as stream:
        stored = [events_pb2.Commit.FromString(message.payload) for message in stream]
    assert {commit.schema_version for commit in stored} == {0}
    assert [lost.cause for commit in stored for lost in _losses(commit)] == [
        events_pb2.LOSS_CAUSE_UNSPECIFIED
    ]
    reread = [commit for _, commit in read(LOST_WORKER)]
    assert {commit.schema_version for commit in reread} == {EVENT_SCHEMA}
    assert [lost.cause for commit in reread for lost in _losses(commit)] == [events_pb2.LOSS_CAUSE_REPORTED]


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("nothing heard of worker w for 10.2 s", events_pb2.LOSS_CAUSE_SILENT),
        ("incarnation 3 of the worker took its place", events_pb2.LOSS_CAUSE_REPLACED),
        ("its process was killed by signal 9", events_pb2.LOSS_CAUSE_REPORTED),
    ],
)
def test_each_text_of_version_1_has_its_cause(reason: str, cause: "events_pb2.LossCause.ValueType") -> None:
    lost = events_pb2.WorkerLost(worker_id="w", incarnation=2, reason=reason)
    commit = upcast(events_pb2.Commit(events=[events_pb2.Event(worker_lost=lost)]))
    assert commit.events[0].worker_lost.cause == cause
    assert upcast(commit) == commit


def test_whatever_reads_commits_gets_them_in_the_present_schema() -> None:
    with StreamFile(LOST_WORKER) as stream:
        stored: list[StoredCommit] = list(stream)
    lost = [message for message in stored if _losses(read_commit(message.payload))]
    for message in lost:
        tapped = parse_commit(message.payload, message.message_id)
        assert tapped is not None
        assert _losses(tapped)[0].cause == events_pb2.LOSS_CAUSE_REPORTED
    assert lost


def test_a_log_of_a_later_version_is_refused_by_name() -> None:
    commit = events_pb2.Commit(
        commit_id=bytes(16),
        epoch=1,
        code_version="9.9",
        schema_version=EVENT_SCHEMA + 1,
        events=[events_pb2.Event(leader_elected=events_pb2.LeaderElected(epoch=1))],
    )
    payload = commit.SerializeToString()
    with pytest.raises(LogTooNew, match=r"commit 1 was written by dtf 9\.9.*schema version 3.*reads up to 2"):
        ChainReader().accept(1, payload, hashlib.sha256(payload).hexdigest())
