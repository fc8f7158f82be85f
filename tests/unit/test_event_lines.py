"""Picking events out of messages, by what their headers say and without them."""

import hashlib
from collections.abc import Mapping

import pytest

from dtf.adapters.event_lines import EventFilter, format_time
from dtf.api.v1 import events_pb2
from dtf.ports.event_log import StoredCommit
from tests.commits import run_created, run_finished, worker_left


def message(
    *events: events_pb2.Event, headers: Mapping[str, str] | None = None, payload: bytes | None = None
) -> StoredCommit:
    commit = events_pb2.Commit(commit_id=bytes(16), epoch=1, now_unix_nanos=10**18, events=events)
    stored = commit.SerializeToString() if payload is None else payload
    return StoredCommit(7, stored, hashlib.sha256(stored).hexdigest(), headers or {})


def picked(wanted: EventFilter, stored: StoredCommit) -> list[tuple[str, str]]:
    return [(listed.run_id, listed.type_name) for listed in wanted.pick(stored)]


def test_without_headers_everything_is_looked_at() -> None:
    stored = message(run_created("a"), run_created("b"), worker_left("w"))
    assert picked(EventFilter(), stored) == [("a", "RunCreated"), ("b", "RunCreated"), ("", "WorkerLeft")]
    assert picked(EventFilter("b"), stored) == [("b", "RunCreated")]
    assert picked(EventFilter("", ["worker_left"]), stored) == [("", "WorkerLeft")]
    assert picked(EventFilter("b", ["RunFinished"]), stored) == []


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Dtf-Types": "RunCreated,RunFinished", "Dtf-Runs": "a,b"}, [("b", "RunFinished")]),
        ({"Dtf-Types": "RunFinished"}, [("b", "RunFinished")]),
        ({"Dtf-Types": "RunCreated"}, []),
        ({"Dtf-Runs": "a"}, []),
    ],
)
def test_headers_that_rule_a_commit_out_save_its_parsing(
    headers: dict[str, str], expected: list[tuple[str, str]]
) -> None:
    stored = message(run_created("a"), run_finished("b"), headers=headers)
    assert picked(EventFilter("b", ["RunFinished"]), stored) == expected


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(message(payload=b"\xff\xff"), id="no protobuf"),
        pytest.param(message(payload=b""), id="empty"),
        pytest.param(message(), id="no events"),
        pytest.param(StoredCommit(7, message(run_created("a")).payload, "other", {}), id="another id"),
        pytest.param(StoredCommit(7, message(run_created("a")).payload, "", {}), id="no id"),
    ],
)
def test_what_is_no_commit_is_passed_over_and_counted(stored: StoredCommit) -> None:
    wanted = EventFilter()
    assert picked(wanted, stored) == []
    assert wanted.stranger_count == 1


def test_an_unknown_type_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="no event type CaseFailed; there are AttemptsEnded, "):
        EventFilter("", ["CaseFailed"])


def test_times_have_microseconds_and_are_utc() -> None:
    assert format_time(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456Z"


def test_a_line_for_people_is_cut_to_the_width() -> None:
    (listed,) = EventFilter().pick(message(run_created("a" * 300)))
    assert len(listed.as_text(80)) == 80
    assert listed.as_text(80).endswith("…")
