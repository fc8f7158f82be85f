"""Commands out of the log, and the decisions they led to made again.

A commit names, for each of its inputs, the command's kind, how many of its events came of it, and
the arguments that those events lack (dtf/coordinator/inputs.py). `command_of` puts the command
together again. It need not be the command that was sent, but it decides the same: results that
changed nothing left no event, and are not asked about again.

`Rederivation` follows a log and decides each command anew, on the state and at the time it was
decided on; what differs is told. So a log proves that this code would have decided as it says.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from dtf.api.v1 import common_pb2, events_pb2, run_service_pb2, worker_service_pb2
from dtf.core.run import commands
from dtf.core.run.commands import Command, Rejection
from dtf.core.run.decide import decide
from dtf.core.run.evolve import evolve
from dtf.core.run.state import State


class NotDerivable(ValueError):
    """An input does not say enough, or not what its events say; the message says which."""


@dataclass(frozen=True, slots=True)
class Difference:
    """An input whose command does not lead to its events."""

    sequence: int
    """Of the commit that its events end in."""
    kind: str
    what: str


@dataclass(slots=True)
class _Open:
    """An input whose events are gathered, over several commits if they did not fit into one."""

    source: events_pb2.Input
    now_ns: int
    events: list[events_pb2.Event] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)


class Rederivation:
    """A state that follows a log, and every decision of it made once more."""

    def __init__(self, state: State | None = None) -> None:
        """Begins with `state`, as of a commit that no decision spans; None: with the empty one."""
        self.state = State() if state is None else state
        self.input_count = 0
        """Inputs decided again, those that differed included."""
        self._open: _Open | None = None
        self._epoch = 0

    def follow(self, commit: events_pb2.Commit, sequence: int) -> list[Difference]:
        """Take the next commit; how its decisions, made again, differ from what it says."""
        differences: list[Difference] = []
        if self._open is not None and commit.epoch != self._epoch:
            differences.extend(self._settle(self._open, sequence, is_cut=True))
        self._epoch = commit.epoch
        events = iter(commit.events)
        for source in commit.inputs:
            part = list(islice(events, source.event_count))
            opened = self._open = self._open or _Open(source, commit.now_unix_nanos)
            opened.events.extend(part)
            opened.sequences.extend([sequence] * len(part))
            if not source.continues:
                differences.extend(self._settle(opened, sequence))
        differences.extend(self._pass_over(list(events), commit.now_unix_nanos, sequence))
        return differences

    def fold(self, commit: events_pb2.Commit, sequence: int) -> list[Difference]:
        """Take the next commit without deciding anything again: other code decided it."""
        differences = list(self._settle(self._open, sequence, is_cut=True)) if self._open is not None else []
        self._epoch = commit.epoch
        for event in commit.events:
            evolve(self.state, event, commit.now_unix_nanos, sequence)
        return differences

    @property
    def is_settled(self) -> bool:
        """Whether no decision goes on in the next commit, so that the state is the log's."""
        return self._open is None

    def _settle(self, opened: _Open, sequence: int, *, is_cut: bool = False) -> Iterator[Difference]:
        """The decision is whole; or cut: its reign ended between its commits, and the rest is in no log."""
        self._open = None
        self.input_count += 1
        what = self._compare(opened, is_cut)
        if what:
            yield Difference(sequence, opened.source.kind, what)
        for event, landed_at in zip(opened.events, opened.sequences, strict=True):
            evolve(self.state, event, opened.now_ns, landed_at)

    def _compare(self, opened: _Open, is_cut: bool) -> str:
        try:
            command = command_of(self.state, opened.source, opened.events)
            derived = decide(self.state, command, opened.now_ns)
        except NotDerivable as error:
            return "" if is_cut else str(error)
        except Rejection as error:
            return f"is refused: {error.message}"
        return _difference(opened.events, derived[: len(opened.events)] if is_cut else derived)

    def _pass_over(
        self, events: Sequence[events_pb2.Event], now_ns: int, sequence: int
    ) -> Iterator[Difference]:
        if events:
            yield Difference(sequence, "", f"{len(events)} of its events are of no input")
        for event in events:
            evolve(self.state, event, now_ns, sequence)


def _difference(recorded: Sequence[events_pb2.Event], derived: Sequence[events_pb2.Event]) -> str:
    if len(recorded) != len(derived):
        return f"leads to {len(derived)} events; the log has {len(recorded)}"
    for index, (old, new) in enumerate(zip(recorded, derived, strict=True)):
        if _encoded(old) != _encoded(new):
            kinds = f"{old.WhichOneof('event')} in the log, {new.WhichOneof('event')} now"
            return f"event {index} differs ({kinds}): {_one_line(old)} became {_one_line(new)}"
    return ""


def _encoded(event: events_pb2.Event) -> bytes:
    """The event's bytes, the entries of its maps in order: on the wire they come in any."""
    return event.SerializeToString(deterministic=True)


def _one_line(event: events_pb2.Event) -> str:
    return " ".join(str(event).split())[:300]


def command_of(state: State, source: events_pb2.Input, events: Sequence[events_pb2.Event]) -> Command:
    """The command that `source` names and that led to `events`, given on `state`. Raises NotDerivable."""
    try:
        said: dict[str, Any] = json.loads(source.arguments) if source.arguments else {}
        return _command_of(state, source.kind, said, _Told(events))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise NotDerivable(
            f"the input says {source.kind!r} with {source.arguments!r}, which does not go with its "
            f"{len(events)} events ({type(error).__name__}: {error})"
        ) from error


class _Told:
    """The events of one input, by type."""

    def __init__(self, events: Sequence[events_pb2.Event]) -> None:
        self._events = events

    def all(self, kind: str) -> list[Any]:
        """The messages of one type, in order."""
        return [getattr(event, kind) for event in self._events if event.WhichOneof("event") == kind]

    def only(self, kind: str) -> Any:
        """The first message of a type that there must be."""
        return self.all(kind)[0]


def _command_of(state: State, kind: str, said: dict[str, Any], told: _Told) -> Command:
    match kind:
        case "ElectLeader":
            elected = told.only("leader_elected")
            loss = elected.accepted_loss if elected.HasField("accepted_loss") else None
            return commands.ElectLeader(elected.leader, elected.lease_seconds, loss)
        case "CreateRun":
            return _create_run(told.only("run_created"), told.all("tasks_submitted"))
        case "SubmitTasks":
            return commands.SubmitTasks(_submission(state, said, told))
        case "CancelRun":
            asked = told.only("run_cancel_requested")
            return commands.CancelRun(asked.run_id, asked.requested_by, asked.reason)
        case "GrantLeases":
            credits = {str(worker): int(count) for worker, count in said["credits"]}
            return commands.GrantLeases(credits, int(said["limit"]))
        case "ReportResults":
            return _report(state, said, told)
        case "ReviewPlacement":
            return commands.ReviewPlacement(bool(said["worker_expected"]))
        case "RetireRuns":
            return commands.RetireRuns(**said)
        case _:
            return _fleet_command_of(kind, said, told)


def _fleet_command_of(kind: str, said: dict[str, Any], told: _Told) -> Command:
    match kind:
        case "RegisterWorker":
            return _register(told.only("worker_registered"), int(said.get("proved_incarnation", 0)))
        case "IssueToken":
            return _issue_token(told.only("token_issued"))
        case "RevokeToken":
            revoked = told.only("token_revoked")
            return commands.RevokeToken(revoked.token_id, revoked.revoked_by, revoked.reason)
        case "DrainWorker":
            asked = told.only("worker_drain_requested")
            return commands.DrainWorker(asked.worker_id, asked.requested_by, asked.reason)
        case "QuarantineWorker":
            asked = told.only("worker_quarantined")
            return commands.QuarantineWorker(asked.worker_id, asked.requested_by, asked.reason)
        case "ReleaseWorker":
            released = told.only("worker_released")
            return commands.ReleaseWorker(released.worker_id, released.requested_by)
        case "CloseSession":
            left = told.only("worker_left")
            return commands.CloseSession(left.worker_id, left.incarnation, left.reason)
        case "ExpireWorkers":
            silent = [(str(name), int(number), float(seconds)) for name, number, seconds in said["silent"]]
            return commands.ExpireWorkers(silent, str(said.get("reason", "")))
        case "ScalePool":
            return _scale_pool(told.only("pool_scaled"))
        case "PausePool":
            paused = told.only("pool_paused")
            return commands.PausePool(paused.pool, paused.requested_by, paused.reason)
        case "ResumePool":
            resumed = told.only("pool_resumed")
            return commands.ResumePool(resumed.pool, resumed.requested_by)
        case "ForgetWorkers":
            return commands.ForgetWorkers(**said)
        case _:
            raise ValueError("no command of this name has events")


def _scale_pool(scaled: events_pb2.PoolScaled) -> commands.ScalePool:
    return commands.ScalePool(
        scaled.pool,
        min_workers=scaled.min_workers if scaled.HasField("min_workers") else None,
        max_workers=scaled.max_workers if scaled.HasField("max_workers") else None,
        workers=scaled.workers if scaled.HasField("workers") else None,
        requested_by=scaled.requested_by,
        reason=scaled.reason,
    )


def _create_run(
    created: events_pb2.RunCreated, submitted: Sequence[events_pb2.TasksSubmitted]
) -> commands.CreateRun:
    request = run_service_pb2.CreateRunRequest(
        request_id=created.request_id,
        suite=created.suite,
        revision=created.revision,
        owner=created.owner,
        priority=created.priority,
        templates=created.templates,
        labels=created.labels,
        placement_timeout_seconds=created.placement_timeout_seconds,
        confirmation=created.confirmation if created.HasField("confirmation") else None,
    )
    task = next(_specs(submitted[0], created.priority)) if submitted else None
    return commands.CreateRun(created.run_id, request, task)


def _issue_token(issued: events_pb2.TokenIssued) -> commands.IssueToken:
    return commands.IssueToken(
        issued.token_id,
        issued.secret_hash,
        issued.pool,
        issued.expires_unix_nanos,
        issued.cluster_id,
        is_single_use=issued.is_single_use,
        launch_id=issued.launch_id,
        issued_by=issued.issued_by,
    )


def _register(registered: events_pb2.WorkerRegistered, proved_incarnation: int) -> commands.RegisterWorker:
    request = worker_service_pb2.CreateSessionRequest(
        worker_id=registered.worker_id,
        pool=registered.pool,
        labels=registered.labels,
        resources=registered.resources,
        slots=registered.slots,
        host=registered.host,
        process_id=registered.process_id,
        version=registered.version,
        launch_id=registered.launch_id,
        request_id=registered.request_id,
    )
    # Who proved an earlier session showed no token: the event names that of the session.
    token_id = "" if proved_incarnation else registered.join_token_id
    return commands.RegisterWorker(registered.worker_id, request, token_id, proved_incarnation)


def _submission(state: State, said: dict[str, Any], told: _Told) -> run_service_pb2.SubmitTasksRequest:
    submissions: list[events_pb2.TasksSubmitted] = told.all("tasks_submitted")
    seals: list[events_pb2.SubmissionSealed] = told.all("submission_sealed")
    run_id: str = submissions[0].run_id if submissions else seals[0].run_id
    request = run_service_pb2.SubmitTasksRequest(
        run_id=run_id, batch=submissions[0].batch if submissions else 0, seal=bool(seals)
    )
    run = state.runs[run_id]
    run_priority = run.created.priority
    if submissions and submissions[0].batch == len(run.batches):
        # The rest of a batch that is there in part, as the reign ended in the middle of it.
        there = run.batches[-1]
        names = run.names[there.first_task : there.first_task + there.task_count]
        request.tasks.extend(common_pb2.TaskSpec(name=name) for name in names)
    for submitted in submissions:
        request.tasks.extend(_specs(submitted, run_priority))
    for index, *positions in said.get("cases", ()):
        spec = request.tasks[index]
        spec.cases[:] = spec.cases or [spec.name]
        spec.positions[:] = positions
    return request


def _specs(submitted: events_pb2.TasksSubmitted, run_priority: int) -> Iterator[common_pb2.TaskSpec]:
    """The tasks; one whose only case is named as itself has no cases, unless they have positions."""
    start = 0
    for index, name in enumerate(submitted.names):
        spec = common_pb2.TaskSpec(name=name)
        spec.template = submitted.templates[index] if submitted.templates else 0
        spec.payload = submitted.payloads[index] if submitted.payloads else ""
        spec.expected_seconds = submitted.expected_seconds[index] if submitted.expected_seconds else 0.0
        spec.priority = submitted.priorities[index] - run_priority if submitted.priorities else 0
        if submitted.case_counts:
            stop = start + submitted.case_counts[index]
            names = submitted.case_names[start:stop]
            if submitted.case_positions or names != [name]:
                spec.cases.extend(names)
                spec.positions.extend(submitted.case_positions[start:stop])
            start = stop
        yield spec


def _report(state: State, said: dict[str, Any], told: _Told) -> commands.ReportResults:
    """Entries and ends as the events have them; one entry of no run brings the fences that were refused."""
    accepted: list[events_pb2.ResultsAccepted] = told.all("results_accepted")
    ended: list[events_pb2.AttemptsEnded] = told.all("attempts_ended")
    released: list[events_pb2.LeasesReleased] = told.all("leases_released")
    refused: list[events_pb2.ResultsRefused] = told.all("results_refused")
    # Runs end in the order in which the report first named them.
    finished: list[events_pb2.RunFinished] = told.all("run_finished")
    results = [worker_service_pb2.CaseResults(run_id=run.run_id) for run in finished[1:] and finished]
    results.extend(map(_results, accepted))
    fences = [fence for event in refused for fence in event.fences]
    if fences:
        no_run = worker_service_pb2.CaseResults(fences=fences, durations_seconds=[0.0] * len(fences))
        results.append(no_run)
    given_back: list[int] = said.get("released_fences", [])
    about: list[Any] = [*accepted, *ended, *released, *refused]
    worker_id: str = about[0].worker_id
    return commands.ReportResults(
        worker_id=worker_id,
        incarnation=refused[0].incarnation if refused else state.workers[worker_id].incarnation,
        results=results,
        ends=[end for event in ended for end in _ends(event) if end.fence not in given_back],
        released_fences=given_back,
    )


def _results(accepted: events_pb2.ResultsAccepted) -> worker_service_pb2.CaseResults:
    passed = common_pb2.VERDICT_PASSED
    return worker_service_pb2.CaseResults(
        run_id=accepted.run_id,
        fences=accepted.fences,
        cases=accepted.cases,
        verdicts=[
            passed if verdict == common_pb2.VERDICT_FLAKY else verdict for verdict in accepted.verdicts
        ],
        durations_seconds=accepted.durations_seconds,
        cpu_seconds=accepted.cpu_seconds,
        peak_memory_bytes=accepted.peak_memory_bytes,
        started_at=accepted.started_at,
        details=accepted.details,
    )


def _ends(ended: events_pb2.AttemptsEnded) -> Iterator[worker_service_pb2.AttemptEnd]:
    for index, fence in enumerate(ended.fences):
        yield worker_service_pb2.AttemptEnd(
            fence=fence,
            outcome=ended.outcomes[index],
            running_case=ended.running_cases[index],
            reason=ended.reasons[index],
            detail=ended.details[index] if ended.details else b"",
            duration_seconds=ended.durations_seconds[index] if ended.durations_seconds else 0.0,
        )
