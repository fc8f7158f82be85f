"""A task of a run once more, as a run of its own, so that a finding gets more points.

The run that is made has the template, the payload and the revision of the one that it repeats a part of,
and says so; that one's tasks, verdicts and state stay as they are. It is refused where the same code can
not run again: the packed tree was removed, or the tree in place is another by now, be it by a commit or by
edits that are not committed. What speaks against it and cannot be settled is noted with the run.

Run and task are one decision and so one commit: a coordinator that dies leaves both or nothing. (Logs of
earlier versions may have the run alone; it gets its task when it is asked for again.)
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from dtf.api.v1 import common_pb2, events_pb2, run_service_pb2
from dtf.coordinator.desk import Desk, require
from dtf.core.run.commands import (
    CreateRun,
    FieldViolation,
    InvalidRequest,
    NotFound,
    NotPossible,
    SubmitTasks,
)
from dtf.core.run.limits import MAX_CONFIRMATIONS, MAX_FINDING_ID_LENGTH, MAX_PRIORITY, MAX_REASON_LENGTH
from dtf.core.run.state import Run
from dtf.core.trend.names import series_name
from dtf.ports.blob_store import BlobMissing
from dtf.settings.project import revision_of
from dtf.settings.working_tree import edits_of, named

PLACEMENT_SECONDS = 900.0
"""A run that nobody waits for does not wait longer than this for a worker that could run it."""
OWN_LABELS = "dtf."
"""Labels that begin so name the invocation that asked for a run, which asked for no other."""

_PACK = "Packed trees stay as they are: --workspace pack"


class Reruns:
    """Makes such runs; the same finding and number make one."""

    def __init__(self, desk: Desk, fresh_id: Callable[[], str]) -> None:
        self._desk = desk
        self._fresh_id = fresh_id

    async def confirm(self, request: run_service_pb2.ConfirmFindingRequest) -> str:
        """Make the run, if it is not there yet; its identity. Raises Rejection."""
        _check(request)
        key = f"confirm-{request.finding_id}-{request.number}"
        known = self._desk.state.run_requests.get(key)
        run = self._desk.state.runs.get(known) if known is not None else None
        if known is not None and (run is None or run.is_sealed):
            return known
        source = await self._desk.history.whole(request.run_id)
        if request.task >= source.task_count:
            raise NotFound(f"run {source.run_id} has {source.task_count} tasks, and no task {request.task}")
        task = _task(source, request.task, request.case_name)
        if run is None:
            template = source.created.templates[source.template_of(request.task).index]
            note = await self._check_code(source, template)
            creation = _creation(request, source, template, key)
            creation.confirmation.code_note = note[:MAX_REASON_LENGTH]
            made = CreateRun(self._fresh_id(), creation, task)
            await self._desk.intake.submit(made, creation.ByteSize() + task.ByteSize())
            return self._desk.state.run_requests[key]
        tasks = run_service_pb2.SubmitTasksRequest(run_id=run.run_id, batch=1, tasks=[task], seal=True)
        await self._desk.intake.submit(SubmitTasks(tasks), tasks.ByteSize())
        return run.run_id

    async def _check_code(self, source: Run, template: common_pb2.TaskTemplate) -> str:
        """What speaks against the code being the same; "": nothing. Raises NotPossible where it is not."""
        workspace = template.workspace
        if workspace.HasField("archive"):
            await self._check_archive(source, workspace.archive.digest)
            return ""
        directory = _directory_of(template)
        if directory is None:
            return ""
        if not template.HasField("workspace") and not directory.is_dir():
            raise NotPossible(f"the tree that run {source.run_id} used is gone: {directory}")
        found = revision_of(directory)
        if found and source.created.revision and found != source.created.revision:
            raise NotPossible(
                f"{directory} is at revision {found[:12]} by now; run {source.run_id} was at "
                f"{source.created.revision[:12]}. {_PACK}"
            )
        return await asyncio.to_thread(_check_edits, directory, source)

    async def _check_archive(self, source: Run, digest: str) -> None:
        try:
            async for _ in self._desk.blobs.get(digest):
                return  # it is there, and was used just now: it stays until the run is created
        except BlobMissing as error:
            raise NotPossible(
                f"the workspace of run {source.run_id} was removed from the blob store ([blobs] max_age_days, max_bytes)"
            ) from error


def _check_edits(directory: Path, source: Run) -> str:
    """What of the tree is not committed, if it is older than the run. Raises NotPossible for what is newer."""
    edits = edits_of(directory)
    if edits is None:
        return f"nobody can say whether {directory} changed since run {source.run_id}: git knows nothing of it here"
    newer = edits.since(source.created_at_ns)
    if newer:
        raise NotPossible(
            f"{directory} has edits that run {source.run_id} did not see, for they are newer: {named(newer)}. {_PACK}"
        )
    if edits.changed_ns:
        older = named(list(edits.changed_ns))
        return f"with edits that are not committed, older than run {source.run_id}: {older}"
    return ""


def _check(request: run_service_pb2.ConfirmFindingRequest) -> None:
    require(request.run_id, "run_id")
    require(request.finding_id, "finding_id")
    faults = []
    if len(request.finding_id) > MAX_FINDING_ID_LENGTH:
        faults.append(FieldViolation("finding_id", f"is longer than {MAX_FINDING_ID_LENGTH} characters"))
    if not 1 <= request.number <= MAX_CONFIRMATIONS:
        faults.append(FieldViolation("number", f"is {request.number}, expected 1 to {MAX_CONFIRMATIONS}"))
    if faults:
        raise InvalidRequest(f"{faults[0].field} {faults[0].description}", violations=faults)


def _creation(
    request: run_service_pb2.ConfirmFindingRequest,
    source: Run,
    template: common_pb2.TaskTemplate,
    key: str,
) -> run_service_pb2.CreateRunRequest:
    """What the source was created by, with this template only, after everything that people wait for."""
    created = source.created
    creation = run_service_pb2.CreateRunRequest(
        request_id=key,
        suite=created.suite,
        revision=created.revision,
        owner=request.requested_by,
        priority=max(-MAX_PRIORITY, created.priority - 1),
        templates=[template],
        labels={name: value for name, value in created.labels.items() if not name.startswith(OWN_LABELS)},
        placement_timeout_seconds=created.placement_timeout_seconds or PLACEMENT_SECONDS,
        confirmation=events_pb2.Confirmation(
            finding_id=request.finding_id, number=request.number, run_id=source.run_id
        ),
    )
    needs = creation.templates[0].requirements
    needs.pool = needs.pool or request.pool
    return creation


def _task(source: Run, task: int, case_name: str) -> common_pb2.TaskSpec:
    """The task as it was submitted, with the one case if it is known by name."""
    spec = common_pb2.TaskSpec(name=source.names[task], payload=source.payload_of(task))
    if source.expected_seconds is not None:
        spec.expected_seconds = source.expected_seconds[task]
    if source.case_names is None:
        return spec
    names = list(source.cases_named(task))
    asked = [index for index, name in enumerate(names) if series_name(name) == case_name]
    chosen = asked[:1] or range(len(names))
    first = source.case_range(task).start
    for index in chosen:
        spec.cases.append(names[index])
        if source.case_positions is not None and source.case_positions[first + index] >= 0:
            spec.positions.append(source.case_positions[first + index])
    if len(spec.positions) != len(spec.cases):
        del spec.positions[:]
    return spec


def _directory_of(template: common_pb2.TaskTemplate) -> Path | None:
    """Where the code is that the template runs; None: it does not say."""
    match template.WhichOneof("spec"):
        case "pytest":
            named = template.pytest.root_dir
        case "command":
            named = template.command.working_dir
        case "callable":
            named = template.callable.working_dir or next(iter(template.callable.import_path), "")
        case _:
            named = ""
    root = template.workspace.root
    if root and template.workspace.path and Path(named).is_relative_to(root):
        named = str(Path(template.workspace.path) / Path(named).relative_to(root))
    return Path(named) if named else None
