"""Events as people and scripts read them: one line an item instead of columns.

    TasksSubmitted     TaskSubmitted a task
    LeasesGranted      TaskLeased a task
    ResultsAccepted    CasePassed, CaseFailed, CaseErred, CaseSkipped, CaseFlaky a case with its final
                       verdict, CaseRetried for one that is not final; TaskFailed once a task whose
                       cases finally failed or erred in this event
    AttemptsEnded      AttemptEnded an attempt; CaseFailed or CaseErred and TaskFailed where it gave a verdict
    LeasesReleased     TaskReleased a task
    TasksAbandoned     TaskAbandoned and TaskFailed a task
    any other          itself

Names come from the TasksSubmitted that this unfolder has seen; lines about tasks submitted before
carry their index alone. `Unfolder.unfold` is given to the live feed, which says which types it wants:
of a batch of 256 results that nobody listens to, nothing is made.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from dtf.api.v1 import common_pb2, events_pb2

Wants = Callable[[str, str], bool]
"""Whether a line of this run ("" for the fleet) and type is wanted."""


def _wants_all(_run_id: str, _type_name: str) -> bool:
    return True


_CASE_LINES = {
    common_pb2.VERDICT_PASSED: "CasePassed",
    common_pb2.VERDICT_FAILED: "CaseFailed",
    common_pb2.VERDICT_ERROR: "CaseErred",
    common_pb2.VERDICT_SKIPPED: "CaseSkipped",
    common_pb2.VERDICT_FLAKY: "CaseFlaky",
}
_ACCEPTED_LINES = (*_CASE_LINES.values(), "CaseRetried", "TaskFailed")
_FAILED = (common_pb2.VERDICT_FAILED, common_pb2.VERDICT_ERROR)


@dataclass(frozen=True, slots=True)
class Line:
    """What one line says, before it is JSON."""

    run_id: str
    """"" for the fleet."""
    type_name: str
    body: dict[str, Any]


@dataclass(slots=True)
class _Names:
    tasks: dict[int, str] = field(default_factory=dict)
    cases: dict[int, Sequence[str]] = field(default_factory=dict)

    def of_task(self, task: int) -> dict[str, Any]:
        name = self.tasks.get(task)
        return {"task": task} if name is None else {"task": task, "name": name}

    def of_case(self, task: int, case: int) -> dict[str, Any]:
        cases = self.cases.get(task)
        name = cases[case] if cases is not None and case < len(cases) else self.tasks.get(task)
        return {"task": task, "case": case} | ({} if name is None else {"case_name": name})


class Unfolder:
    """Unfolds events in the order of the log; keeps the names of runs that have not ended."""

    def __init__(self) -> None:
        self._names: dict[str, _Names] = {}

    def unfold(self, event: events_pb2.Event, wants: Wants = _wants_all) -> Iterator[Line]:
        """The wanted lines of one event; none for a kind this version does not know.

        `wants` is asked once an event for each type, not for each line.
        """
        kind = event.WhichOneof("event")
        if kind is None:
            return
        said = getattr(event, kind)
        unfold = _UNFOLDS.get(kind)
        run_id = str(getattr(said, "run_id", ""))
        if unfold is not None:
            yield from unfold(self._names.setdefault(run_id, _Names()), said, wants)
        elif wants(run_id, type(said).__name__):
            yield Line(run_id, type(said).__name__, MessageToDict(said, preserving_proto_field_name=True))
        if kind == "run_finished":
            self._names.pop(run_id, None)


def _submitted(names: _Names, said: events_pb2.TasksSubmitted, wants: Wants) -> Iterator[Line]:
    first_case, is_wanted = 0, wants(said.run_id, "TaskSubmitted")
    if not is_wanted and not said.case_counts:
        names.tasks.update(enumerate(said.names, said.first_task))
        return
    for index, name in enumerate(said.names):
        task = said.first_task + index
        names.tasks[task] = name
        body: dict[str, Any] = {"task": task, "name": name}
        if said.case_counts:
            count = said.case_counts[index]
            names.cases[task] = said.case_names[first_case : first_case + count]
            body["case_count"] = count
            first_case += count
        if said.expected_seconds:
            body["expected_seconds"] = round(said.expected_seconds[index], 6)
        if is_wanted:
            yield Line(said.run_id, "TaskSubmitted", body)


def _granted(names: _Names, said: events_pb2.LeasesGranted, wants: Wants) -> Iterator[Line]:
    if not wants(said.run_id, "TaskLeased"):
        return
    for index, task in enumerate(said.tasks):
        body = names.of_task(task) | {
            "worker_id": said.worker_id,
            "incarnation": said.incarnation,
            "fence": said.first_fence + index,
            "attempt": said.attempts[index] if said.attempts else 1,
        }
        yield Line(said.run_id, "TaskLeased", body)


def _accepted(names: _Names, said: events_pb2.ResultsAccepted, wants: Wants) -> Iterator[Line]:
    retried = set(said.retried)
    wanted = {type_name: wants(said.run_id, type_name) for type_name in _ACCEPTED_LINES}
    if not (said.verdicts or retried or wanted["CasePassed"]):
        return
    failed: dict[int, dict[str, Any]] = {}
    for index, task in enumerate(said.tasks):
        verdict = said.verdicts[index] if said.verdicts else common_pb2.VERDICT_PASSED
        type_name = "CaseRetried" if index in retried else _CASE_LINES.get(verdict, "CaseErred")
        fails_task = verdict in _FAILED and index not in retried and wanted["TaskFailed"]
        if not (wanted[type_name] or fails_task):
            continue
        body = _accepted_case(names, said, index, task)
        if wanted[type_name]:
            yield Line(said.run_id, type_name, body)
        if fails_task:
            failed[task] = names.of_task(task) | {"worker_id": said.worker_id} | _only(body, "message")
    for body in failed.values():
        yield Line(said.run_id, "TaskFailed", body)


def _accepted_case(names: _Names, said: events_pb2.ResultsAccepted, index: int, task: int) -> dict[str, Any]:
    about = {
        "worker_id": said.worker_id,
        "fence": said.fences[index],
        "duration_seconds": round(said.durations_seconds[index], 6),
    }
    case = names.of_case(task, said.cases[index] if said.cases else 0)
    return case | about | _message(said.details[index] if said.details else b"")


def _message(detail: bytes) -> dict[str, Any]:
    if not detail:
        return {}
    try:
        message = events_pb2.CaseDetail.FromString(detail).message
    except DecodeError:
        return {}
    return {"message": message} if message else {}


def _only(body: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: body[key] for key in keys if key in body}


def _ended(names: _Names, said: events_pb2.AttemptsEnded, wants: Wants) -> Iterator[Line]:
    for index in range(len(said.tasks)):
        for line in _ended_attempt(names, said, index):
            if wants(line.run_id, line.type_name):
                yield line


def _ended_attempt(names: _Names, said: events_pb2.AttemptsEnded, index: int) -> Iterator[Line]:
    task = said.tasks[index]
    about = {"worker_id": said.worker_id, "fence": said.fences[index], "reason": said.reasons[index]}
    outcome = common_pb2.Outcome.Name(said.outcomes[index]).removeprefix("OUTCOME_").lower()
    ending = names.of_task(task) | about | {"outcome": outcome, "requeued": said.requeued[index]}
    running, verdict = said.running_cases[index], said.verdicts[index]
    if running:
        ending |= names.of_case(task, running - 1)
    yield Line(said.run_id, "AttemptEnded", ending)
    if running and verdict:
        body = names.of_case(task, running - 1) | about
        yield Line(said.run_id, _CASE_LINES.get(verdict, "CaseErred"), body)
    if verdict or said.remaining_verdicts[index]:
        yield Line(said.run_id, "TaskFailed", names.of_task(task) | about)


def _released(names: _Names, said: events_pb2.LeasesReleased, wants: Wants) -> Iterator[Line]:
    if not wants(said.run_id, "TaskReleased"):
        return
    for task, fence in zip(said.tasks, said.fences, strict=False):
        body = names.of_task(task) | {"worker_id": said.worker_id, "fence": fence}
        yield Line(said.run_id, "TaskReleased", body)


def _abandoned(names: _Names, said: events_pb2.TasksAbandoned, wants: Wants) -> Iterator[Line]:
    wanted = [name for name in ("TaskAbandoned", "TaskFailed") if wants(said.run_id, name)]
    for task in said.tasks:
        for type_name in wanted:
            yield Line(said.run_id, type_name, names.of_task(task) | {"reason": said.reason})


_UNFOLDS: dict[str, Callable[[_Names, Any, Wants], Iterator[Line]]] = {
    "tasks_submitted": _submitted,
    "leases_granted": _granted,
    "results_accepted": _accepted,
    "attempts_ended": _ended,
    "leases_released": _released,
    "tasks_abandoned": _abandoned,
}
