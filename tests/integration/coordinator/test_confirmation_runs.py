"""A task of a run runs again to confirm a finding: one run a number, of the same code, and nothing of the first changes."""

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest

from dtf.adapters.memory_log import MemoryLog
from dtf.api.v1 import common_pb2, run_service_pb2
from dtf.client.client import Client
from dtf.coordinator.process import Coordinator
from dtf.core.run.commands import RetireRuns
from dtf.rpc.errors import parse
from tests.coordinators import create_request, running_coordinator, verified
from tests.integration.coordinator.rig import Crew
from tests.scripted_worker import WAIT_SECONDS

pytestmark = pytest.mark.coordinator


async def confirm(client: Client, run_id: str, **fields: Any) -> run_service_pb2.Run:
    """The run that is made for a finding."""
    request = run_service_pb2.ConfirmFindingRequest(
        run_id=run_id, **{"finding_id": "f", "number": 1, **fields}
    )
    answer = await client.runs.ConfirmFinding(request, metadata=client.metadata, timeout=WAIT_SECONDS)
    return answer.run


async def refusal_of(client: Client, run_id: str, **fields: Any) -> tuple[grpc.StatusCode, str]:
    """How it is refused."""
    with pytest.raises(grpc.RpcError) as refused:
        await confirm(client, run_id, **fields)
    failure = parse(refused.value)
    return failure.code, failure.message


async def first_run(client: Client, workers: Crew, **fields: Any) -> run_service_pb2.Run:
    """A run of a shard of three cases and a call, that ended with one failure."""
    worker = await workers.hire(pool="big")
    specs = [
        common_pb2.TaskSpec(name="shard", cases=["a", "b", "c"], positions=[4, 5, 6], expected_seconds=2.0),
        common_pb2.TaskSpec(name="call", payload="[7]", cases=["call"], positions=[7]),
    ]
    run = await client.create_run(
        create_request("r", revision="4f2a91c", labels={"branch": "x", "dtf.invocation": "k"}, **fields)
    )
    await run.submit_many(specs)
    await run.seal()
    await worker.hear_leases(2)
    await worker.pass_all()
    await run.result()
    return await client.get_run(run.run_id)


async def test_the_run_repeats_one_case_and_says_what_for(
    client: Client, workers: Crew, coordinator: Coordinator
) -> None:
    before = await first_run(client, workers)
    made = await confirm(client, before.run_id, task=0, case_name="b", pool="big", requested_by="ann")
    assert made.confirmation.run_id == before.run_id
    assert (made.confirmation.finding_id, made.confirmation.number) == ("f", 1)
    assert (made.revision, made.suite, made.owner, made.priority) == ("4f2a91c", "suite", "ann", -1)
    assert dict(made.labels) == {"branch": "x"}
    assert (made.is_sealed, made.case_count) == (True, 1)
    run = coordinator.desk.state.runs[made.run_id]
    assert (run.cases_named(0), list(run.case_positions or ())) == (["b"], [5])
    assert run.created.templates[0].requirements.pool == "big"
    call = await confirm(client, before.run_id, task=1, case_name="load", number=2)
    assert coordinator.desk.state.runs[call.run_id].payload_of(0) == "[7]"
    assert coordinator.desk.state.runs[call.run_id].created.templates[0].requirements.pool == ""
    assert await client.get_run(before.run_id) == before


async def test_asking_again_is_asking_once(
    client: Client, workers: Crew, coordinator: Coordinator, log: MemoryLog
) -> None:
    run = await first_run(client, workers)
    made = await confirm(client, run.run_id)
    length = len(log.commits)
    assert await confirm(client, run.run_id) == made
    await coordinator.desk.writer.submit(RetireRuns(kept_runs=0, kept_tasks=0, grace_seconds=0))
    assert (await confirm(client, run.run_id)).run_id == made.run_id
    assert len(log.commits) == length + 1
    verified(log)


async def test_a_coordinator_that_dies_when_the_log_has_the_run_leaves_its_task_too(
    client: Client, workers: Crew, coordinator: Coordinator, log: MemoryLog, tmp_path: Path
) -> None:
    run = await first_run(client, workers)
    await coordinator.desk.writer.settled()
    length = len(log.commits)
    log.hold_acknowledgements()  # what it was to do next waits for this, without end
    call = asyncio.ensure_future(confirm(client, run.run_id))
    async with asyncio.timeout(WAIT_SECONDS):
        async for _ in log.follow(length):
            break
    left = MemoryLog()
    for stored in log.commits:
        left.inject(stored.payload, stored.message_id, stored.headers)
    log.release_acknowledgements()
    made = await call
    async with running_coordinator(left, tmp_path / "again") as next_reign:
        found = next_reign.desk.state.runs[made.run_id]
        assert (found.task_count, found.is_sealed) == (1, True)


async def test_a_run_that_was_left_without_its_task_gets_it(
    client: Client, workers: Crew, coordinator: Coordinator
) -> None:
    """As in the log of an earlier version, whose coordinator died between two commits."""
    run = await first_run(client, workers)
    made = await confirm(client, run.run_id)
    state = coordinator.desk.state
    left = run_service_pb2.CreateRunRequest(
        request_id="confirm-g-3",
        suite=made.suite,
        revision=made.revision,
        templates=state.runs[made.run_id].created.templates,
    )
    created = await client.create_run(left)
    again = await confirm(client, run.run_id, finding_id="g", number=3)
    assert (again.run_id, again.task_count, again.is_sealed) == (created.run_id, 1, True)


async def test_a_retired_run_runs_again(client: Client, workers: Crew, coordinator: Coordinator) -> None:
    run = await first_run(client, workers)
    await coordinator.desk.writer.submit(RetireRuns(kept_runs=0, kept_tasks=0, grace_seconds=0))
    assert (await confirm(client, run.run_id, task=0, case_name="c")).case_count == 1


async def test_what_cannot_run_again_is_refused(client: Client, workers: Crew, tmp_path: Path) -> None:
    run = await first_run(client, workers)
    assert (await refusal_of(client, ""))[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert (await refusal_of(client, run.run_id, number=0))[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert (await refusal_of(client, "none"))[0] is grpc.StatusCode.NOT_FOUND
    assert await refusal_of(client, run.run_id, task=2) == (
        grpc.StatusCode.NOT_FOUND,
        f"run {run.run_id} has 2 tasks, and no task 2",
    )


async def run_in(
    client: Client, workers: Crew, template: common_pb2.TaskTemplate, revision: str = "aaaa"
) -> str:
    """A run of one task of that template that ended."""
    worker = await workers.hire()
    request = run_service_pb2.CreateRunRequest(suite="s", revision=revision, templates=[template])
    run = await client.create_run(request)
    await run.submit_many([common_pb2.TaskSpec(name="t")])
    await run.seal()
    await worker.hear_leases(1)
    await worker.pass_all()
    await run.result()
    return run.run_id


async def test_a_tree_that_went_on_does_not_pass_for_the_old_one(
    client: Client, workers: Crew, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    (tree / ".git").mkdir(parents=True)
    (tree / ".git" / "HEAD").write_text("aaaa\n")
    command = common_pb2.CommandSpec(argv=["true"], working_dir=str(tree))
    run_id = await run_in(client, workers, common_pb2.TaskTemplate(command=command))
    made = await confirm(client, run_id)
    assert made.task_count == 1
    assert f"nobody can say whether {tree} changed since run {run_id}" in made.confirmation.code_note
    (tree / ".git" / "HEAD").write_text("bbbb\n")
    code, said = await refusal_of(client, run_id, number=2)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "is at revision bbbb by now" in said
    (tree / ".git" / "HEAD").unlink()
    (tree / ".git").rmdir()
    tree.rmdir()
    assert "is gone" in (await refusal_of(client, run_id, number=3))[1]


def git(tree: Path, *arguments: str) -> str:
    """What git says in that tree."""
    who = ("-c", "user.name=ann", "-c", "user.email=ann@example.org")
    done = subprocess.run(["git", "-C", str(tree), *who, *arguments], capture_output=True, check=True)
    return done.stdout.decode().strip()


async def test_edits_that_the_run_did_not_see_are_refused_and_older_ones_noted(
    client: Client, workers: Crew, coordinator: Coordinator, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    (tree / "a b").mkdir(parents=True)
    for name in ("code.py", "a b/grün.py", "gone.py"):
        (tree / name).write_text("1\n")
    git(tree, "init", "-q")
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "one")
    (tree / "result.json").write_text("git does not know this one")
    (tree / "gone.py").unlink()
    (tree / "a b/grün.py").write_text("2\n")
    command = common_pb2.CommandSpec(argv=["true"], working_dir=str(tree / "a b"))
    template = common_pb2.TaskTemplate(command=command)
    run_id = await run_in(client, workers, template, revision=git(tree, "rev-parse", "HEAD"))
    began = coordinator.desk.state.runs[run_id].created_at_ns
    os.utime(tree / "a b/grün.py", ns=(began - 1, began - 1))
    made = await confirm(client, run_id)
    note = f"with edits that are not committed, older than run {run_id}: a b/grün.py, gone.py"
    assert made.confirmation.code_note == note
    os.utime(tree / "a b/grün.py", ns=(began + 1, began + 1))
    code, said = await refusal_of(client, run_id, number=2)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert f"has edits that run {run_id} did not see, for they are newer: a b/grün.py. " in said
    git(tree, "checkout", "-q", "a b/grün.py", "gone.py")
    assert (await confirm(client, run_id, number=2)).confirmation.code_note == ""


async def test_a_packed_tree_that_was_removed_is_missed(
    client: Client, workers: Crew, coordinator: Coordinator
) -> None:
    digest = await coordinator.desk.blobs.put(b"packed")
    workspace = common_pb2.Workspace(
        root="/w", archive=common_pb2.Blob(digest=digest, size_bytes=6), digest=digest
    )
    template = common_pb2.TaskTemplate(
        command=common_pb2.CommandSpec(argv=["true"], working_dir="/w"), workspace=workspace
    )
    run_id = await run_in(client, workers, template)
    assert (await confirm(client, run_id)).task_count == 1
    for stored in await coordinator.desk.blobs.list_stored():
        await coordinator.desk.blobs.remove(stored)
    code, said = await refusal_of(client, run_id, number=2)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "was removed from the blob store" in said
