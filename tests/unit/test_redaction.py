"""Redaction hides names and output, and leaves every decision what it was."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtf.api.v1 import common_pb2, events_pb2, run_service_pb2, worker_service_pb2
from dtf.core.chain import ChainReader
from dtf.core.run.commands import (
    CancelRun,
    Command,
    CreateRun,
    ElectLeader,
    GrantLeases,
    QuarantineWorker,
    RegisterWorker,
    ReportResults,
    ReviewPlacement,
    SubmitTasks,
)
from dtf.core.run.proof import Proof
from dtf.core.run.redaction import _REDACTIONS, NotRedactable, Redactor, parse_wishes
from tests.unit.command_log import CommandLog
from tests.unit.core_world import columns, task, template

KEY = b"k" * 32
SECRETS = ("acme", "payroll", "zurich", "hunter2", "kim", "verysecret")


def create(run_id: str, *templates: common_pb2.TaskTemplate, **more: object) -> CreateRun:
    request = run_service_pb2.CreateRunRequest(
        request_id=run_id, suite="acme/payroll", owner="kim@zurich", templates=templates
    )
    request.labels["customer"] = "acme"
    for name, value in more.items():
        setattr(request, name, value)
    return CreateRun(run_id, request)


def submit(run_id: str, *tasks: common_pb2.TaskSpec) -> SubmitTasks:
    return SubmitTasks(run_service_pb2.SubmitTasksRequest(run_id=run_id, batch=1, tasks=tasks, seal=True))


def register(worker_id: str, **labels: str) -> RegisterWorker:
    request = worker_service_pb2.CreateSessionRequest(
        worker_id=worker_id, request_id=worker_id, pool="local", slots=2, host="zurich", labels=labels
    )
    return RegisterWorker(worker_id, request)


def a_day() -> list[Command]:
    """Placement by a label, a wait for it, failures, a quarantine with a reason, a cancelled run."""
    detail = events_pb2.CaseDetail(
        message="acme: hunter2 is wrong", output_tail="hunter2", reports_json=b"[]"
    )
    failed = columns("r", [1], [common_pb2.VERDICT_FAILED], [0])
    failed.details.append(detail.SerializeToString())
    return [
        ElectLeader("zurich:1", 10.0),
        register("w1", host="zurich", os="linux"),
        create("r", template(), template(labels={"site": "verysecret"}), placement_timeout_seconds=600.0),
        submit("r", task("tests/payroll.py::test_acme[1]", ["a::acme", "a::b"]), task("payroll", template=1)),
        GrantLeases({"w1": 8}),
        ReviewPlacement(worker_expected=False),
        ReportResults("w1", 1, results=[failed]),
        register("w2", site="verysecret"),
        GrantLeases({"w2": 8}),
        QuarantineWorker("w2", "kim", "payroll is wrong there"),
        create("s", template()),
        submit("s", task("payroll")),
        CancelRun("s", "kim", "acme called"),
    ]


def redacted(log: CommandLog, redactor: Redactor) -> list[tuple[int, bytes, str]]:
    """The log redacted and chained anew."""
    chain, previous, messages = ChainReader(), b"", []
    for stored in log.messages:
        commit = chain.accept(stored.sequence, stored.payload, stored.message_id)
        assert commit is not None
        redactor.redact(commit).prev_hash = previous
        payload = commit.SerializeToString()
        previous = hashlib.sha256(payload).digest()
        messages.append((stored.sequence, payload, previous.hex()))
    return messages


@pytest.mark.parametrize(("names", "output"), [(True, True), (True, False), (False, True), (False, False)])
def test_every_decision_follows_from_the_redacted_log(names: bool, output: bool) -> None:
    log = CommandLog()
    log.do(*a_day())
    kinds = {event for _, message in _commits(log) for event in message}
    assert {"placement_changed", "attempts_ended", "worker_quarantined", "run_cancel_requested"} <= kinds
    proof = Proof("test")
    for message in redacted(log, Redactor(KEY, names, output)):
        proof.take(*message)
    proof.finish()
    assert proof.derived_commits == len(log.messages)


def _commits(log: CommandLog) -> list[tuple[int, list[str]]]:
    return [
        (m.sequence, [e.WhichOneof("event") or "" for e in events_pb2.Commit.FromString(m.payload).events])
        for m in log.messages
    ]


def test_nothing_that_was_secret_is_left() -> None:
    log = CommandLog()
    log.do(*a_day())
    held = b"".join(payload for _, payload, _ in redacted(log, Redactor(KEY, names=True, output=True)))
    plain = b"".join(stored.payload for stored in log.messages)
    assert [word for word in SECRETS if word.encode() not in plain] == []
    assert [word for word in SECRETS if word.encode() in held] == []
    assert b"linux" in held, "what a machine is stays"


@given(st.lists(st.text(min_size=1, max_size=30), unique=True, max_size=30))
def test_pseudonyms_keep_length_and_equality(names: list[str]) -> None:
    redactor = Redactor(KEY, names=True, output=False)
    found = [redactor.text(name) for name in names]
    assert [len(new.encode()) for new in found] == [len(old.encode()) for old in names]
    assert [redactor.text(name) for name in names] == found


def test_pseudonyms_keep_the_shape_of_a_case() -> None:
    redactor = Redactor(KEY, names=True, output=False)
    one, other = redactor.text("tests/io.py::test_rename[4]"), redactor.text("tests/io.py::test_remove[4]")
    assert one != other
    assert one.rpartition("_")[0] == other.rpartition("_")[0]
    assert one.endswith("[4]")
    assert Redactor(b"other" * 6, names=True, output=False).text("rename") != redactor.text("rename")


def test_json_stays_json() -> None:
    redactor = Redactor(KEY, names=True, output=False)
    assert redactor.text(r'{"k\u00e9y": [true, "a\nb", 12]}').count(r"\n") == 1
    assert "true" in redactor.text('["acme", true]')


def test_every_kind_of_event_is_known_to_it() -> None:
    """A new kind must be looked at: it is refused until it is."""
    assert set(_REDACTIONS) == {field.name for field in events_pb2.Event.DESCRIPTOR.fields}
    with pytest.raises(NotRedactable):
        Redactor(KEY, names=True, output=True).redact(events_pb2.Commit(events=[events_pb2.Event()]))


def test_wishes_are_parsed() -> None:
    assert parse_wishes(["names,output"]) == parse_wishes(["names", "output"]) == {"names", "output"}
    assert parse_wishes([]) == frozenset()
    with pytest.raises(ValueError, match="paths cannot be redacted; names, output can"):
        parse_wishes(["names,paths"])
