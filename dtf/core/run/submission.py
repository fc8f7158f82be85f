"""Decisions about runs: created, fed, sealed, cancelled."""

from collections.abc import Iterator

from dtf.api.v1 import common_pb2, events_pb2, run_service_pb2
from dtf.core.run import limits
from dtf.core.run.commands import CancelRun, Conflict, CreateRun, NotFound, NotPossible, SubmitTasks
from dtf.core.run.limits import Faults
from dtf.core.run.outline import retired_message
from dtf.core.run.outlook import Outlooks
from dtf.core.run.placement import newly_waiting
from dtf.core.run.state import Run, State, content_digest
from dtf.core.run.task_columns import TaskColumns


def find_run(state: State, run_id: str) -> Run:
    """The run; NotPossible if it has left the working state, NotFound if there is none."""
    run = state.runs.get(run_id)
    if run is None and run_id in state.retired_runs:
        raise NotPossible(f"run {run_id} has ended, and its tasks have left the working state")
    if run is None:
        raise NotFound(f"there is no run {run_id[:128]!r} in this namespace", run_id=run_id[:128])
    return run


def create_run(state: State, command: CreateRun) -> list[events_pb2.Event]:
    """RunCreated, with the task that the command may bring; nothing if the request id is known with the same content."""
    request = command.request
    _check_creation(request)
    created = _created(command.run_id, request)
    known = state.run_requests.get(request.request_id)
    if known is not None:
        created.run_id = known
        if not _is_as_created(state, known, created):
            raise Conflict(
                f"request id {request.request_id!r} created run {known} with another content; use a new id",
                run_id=known,
            )
        return []
    if not command.run_id or command.run_id in state.runs or command.run_id in state.retired_runs:
        raise Conflict(f"run {command.run_id!r} exists already; give a fresh identifier")
    event = events_pb2.Event(run_created=created)
    return [event] if command.task is None else [event, *_only_task(state, created, command.task)]


def _only_task(
    state: State, created: events_pb2.RunCreated, task: common_pb2.TaskSpec
) -> list[events_pb2.Event]:
    run = Run.begun(created)
    request = run_service_pb2.SubmitTasksRequest(run_id=run.run_id, batch=1, tasks=[task], seal=True)
    return _fed(state, run, request, is_sealing=True)


def _is_as_created(state: State, run_id: str, created: events_pb2.RunCreated) -> bool:
    run = state.runs.get(run_id)
    if run is not None:
        return created == run.created
    return content_digest(created) == state.retired_runs[run_id].content_digest


def _created(run_id: str, request: run_service_pb2.CreateRunRequest) -> events_pb2.RunCreated:
    return events_pb2.RunCreated(
        run_id=run_id,
        request_id=request.request_id,
        suite=request.suite,
        revision=request.revision,
        owner=request.owner,
        priority=request.priority,
        templates=request.templates,
        labels=request.labels,
        placement_timeout_seconds=request.placement_timeout_seconds,
        confirmation=request.confirmation if request.HasField("confirmation") else None,
    )


def _check_creation(request: run_service_pb2.CreateRunRequest) -> None:
    faults = Faults()
    faults.text("request_id", request.request_id, 1, limits.MAX_REQUEST_ID_LENGTH)
    faults.text("suite", request.suite, 1, limits.MAX_SUITE_LENGTH)
    faults.text("revision", request.revision, 0, limits.MAX_LABEL_LENGTH)
    faults.text("owner", request.owner, 0, limits.MAX_LABEL_LENGTH)
    faults.number("priority", request.priority, -limits.MAX_PRIORITY, limits.MAX_PRIORITY)
    faults.number("placement_timeout_seconds", request.placement_timeout_seconds, 0, limits.MAX_SECONDS)
    faults.labels("labels", request.labels)
    if request.HasField("confirmation"):
        _check_confirmation(faults, request.confirmation)
    if not 1 <= len(request.templates) <= limits.MAX_TEMPLATES:
        faults.add(
            "templates", f"has {len(request.templates)} entries; 1 to {limits.MAX_TEMPLATES} are allowed"
        )
    for index, template in enumerate(request.templates[: limits.MAX_TEMPLATES]):
        limits.check_template(faults, f"templates[{index}]", template)
    if request.ByteSize() > limits.MAX_EVENT_BYTES:
        faults.add(
            "templates",
            f"make the request {request.ByteSize():,} bytes long; at most {limits.MAX_EVENT_BYTES:,} are "
            "allowed: put what is long into the blob store or into the tasks",
        )
    faults.refuse_if_any("the run cannot be created")


def _check_confirmation(faults: Faults, confirmation: events_pb2.Confirmation) -> None:
    faults.text("confirmation.finding_id", confirmation.finding_id, 1, limits.MAX_FINDING_ID_LENGTH)
    faults.number("confirmation.number", confirmation.number, 1, limits.MAX_CONFIRMATIONS)
    faults.text("confirmation.run_id", confirmation.run_id, 1, limits.MAX_LABEL_LENGTH)
    faults.text("confirmation.code_note", confirmation.code_note, 0, limits.MAX_REASON_LENGTH)


def submit_tasks(state: State, command: SubmitTasks) -> list[events_pb2.Event]:
    """TasksSubmitted for each part of the batch, and SubmissionSealed; nothing for a repetition."""
    request = command.request
    run = find_run(state, request.run_id)
    fresh = _fresh_tasks(run, request)
    is_sealing = request.seal and not run.is_sealed
    if not fresh and not is_sealing:
        return []
    if run.state != common_pb2.RUN_STATE_ACTIVE:
        raise NotPossible(f"run {run.run_id} takes no more tasks: it has ended or was cancelled")
    if fresh and run.is_sealed:
        raise NotPossible(f"run {run.run_id} takes no more tasks: its submission was sealed")
    return _fed(state, run, fresh, is_sealing)


def _fed(
    state: State, run: Run, fresh: run_service_pb2.SubmitTasksRequest | None, is_sealing: bool
) -> list[events_pb2.Event]:
    outlooks = Outlooks()
    events: list[events_pb2.Event] = []
    if fresh:
        events.extend(_submission(run, fresh, outlooks))
        used = {template for event in events for template in event.tasks_submitted.templates or (0,)}
        events.extend(newly_waiting(state, run, used))
    if is_sealing:
        outlook = outlooks.of(run)
        outlook.sealed = True
        sealed = events_pb2.SubmissionSealed(
            run_id=run.run_id, task_count=run.task_count + outlook.submitted_tasks
        )
        events.append(events_pb2.Event(submission_sealed=sealed))
        events.extend(outlooks.finishing())
    return events


def _fresh_tasks(
    run: Run, request: run_service_pb2.SubmitTasksRequest
) -> run_service_pb2.SubmitTasksRequest | None:
    """The message with those of its tasks that are not there yet; None: it has none. Raises Conflict on a gap.

    The last batch may be there in part: it was too large for one commit, and the reign ended between
    two of them.
    """
    if not request.tasks:
        return None
    expected = len(run.batches) + 1
    if request.batch > expected:
        raise Conflict(
            f"batch {request.batch} of run {run.run_id} came before batch {expected}; send them in order",
            expected_batch=str(expected),
        )
    if request.batch == 0:
        faults = Faults()
        faults.add("batch", f"is 0; messages with tasks are numbered from 1, the next is {expected}")
        faults.refuse("the tasks cannot be submitted")
    if request.batch == expected:
        return request
    known = run.batches[-1].task_count
    if request.batch < expected - 1 or len(request.tasks) <= known:
        return None
    return run_service_pb2.SubmitTasksRequest(
        run_id=request.run_id, batch=request.batch, tasks=request.tasks[known:]
    )


def _submission(
    run: Run, request: run_service_pb2.SubmitTasksRequest, outlooks: Outlooks
) -> Iterator[events_pb2.Event]:
    is_small = request.ByteSize() <= limits.MAX_EVENT_BYTES
    whole = TaskColumns.of_request(request)
    specs = whole.specs
    if not whole.are_plain(len(run.templates)):
        _check_tasks(run, specs)
    outlook = outlooks.of(run)
    for part in (whole,) if is_small else map(TaskColumns.read, _parts(specs)):
        event = events_pb2.Event()
        submitted = event.tasks_submitted
        submitted.run_id = run.run_id
        submitted.first_task = run.task_count + outlook.submitted_tasks
        submitted.batch = request.batch
        outlook.submitted_tasks += len(part.names)
        outlook.submitted_cases += part.write(submitted, run.created.priority)
        yield event


def _parts(specs: list[common_pb2.TaskSpec]) -> Iterator[list[common_pb2.TaskSpec]]:
    part: list[common_pb2.TaskSpec] = []
    size = 0
    for spec in specs:
        spec_size = spec.ByteSize()
        if part and size + spec_size > limits.MAX_EVENT_BYTES:
            yield part
            part, size = [], 0
        part.append(spec)
        size += spec_size
    if part:
        yield part


def _check_tasks(run: Run, specs: list[common_pb2.TaskSpec]) -> None:
    faults = Faults()
    if len(specs) > limits.MAX_TASKS_PER_MESSAGE:
        faults.add("tasks", f"has {len(specs)} entries; at most {limits.MAX_TASKS_PER_MESSAGE} are allowed")
    for index, spec in enumerate(specs[: limits.MAX_TASKS_PER_MESSAGE]):
        _check_task(faults, f"tasks[{index}]", spec, len(run.templates))
    faults.refuse_if_any("the tasks cannot be submitted")


def _check_task(faults: Faults, field: str, spec: common_pb2.TaskSpec, templates: int) -> None:
    faults.text(f"{field}.name", spec.name, 1, limits.MAX_NAME_LENGTH)
    faults.number(f"{field}.template", spec.template, 0, templates - 1)
    faults.number(f"{field}.payload bytes", len(spec.payload.encode()), 0, limits.MAX_PAYLOAD_BYTES)
    faults.number(f"{field}.expected_seconds", spec.expected_seconds, 0, limits.MAX_SECONDS)
    faults.number(f"{field}.priority", spec.priority, -limits.MAX_PRIORITY, limits.MAX_PRIORITY)
    for name in spec.cases:
        if not 0 < len(name) <= limits.MAX_NAME_LENGTH:
            faults.text(f"{field}.cases", name, 1, limits.MAX_NAME_LENGTH)
    if spec.positions and len(spec.positions) != len(spec.cases):
        faults.add(f"{field}.positions", f"has {len(spec.positions)} entries for {len(spec.cases)} cases")
    if spec.positions and max(spec.positions) > limits.MAX_POSITION:
        faults.add(f"{field}.positions", f"are at most {limits.MAX_POSITION}")
    if spec.ByteSize() > limits.MAX_EVENT_BYTES:
        faults.add(
            field,
            f"is {spec.ByteSize():,} bytes long; at most {limits.MAX_EVENT_BYTES:,} are allowed: cut it",
        )


def cancel_run(state: State, command: CancelRun) -> list[events_pb2.Event]:
    """RunCancelRequested, and RunFinished at once if nothing is leased; nothing if it was asked before."""
    retired = state.retired_runs.get(command.run_id)
    if retired is not None and retired_message(retired).state == common_pb2.RUN_STATE_CANCELLED:
        return []
    run = find_run(state, command.run_id)
    if run.is_cancelling or run.state == common_pb2.RUN_STATE_CANCELLED:
        return []
    if run.is_terminal:
        raise NotPossible(f"run {run.run_id} has finished; there is nothing to cancel")
    requested = events_pb2.RunCancelRequested(
        run_id=run.run_id,
        requested_by=command.requested_by[: limits.MAX_LABEL_LENGTH],
        reason=command.reason[: limits.MAX_REASON_LENGTH],
    )
    outlooks = Outlooks()
    outlooks.of(run).cancelling = True
    return [events_pb2.Event(run_cancel_requested=requested), *outlooks.finishing()]
