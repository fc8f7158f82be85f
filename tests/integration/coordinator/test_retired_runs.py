"""Runs that left the working state are answered for as before, from their outlines and from the log."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest

from dtf.adapters.memory_log import MemoryLog
from dtf.api.v1 import common_pb2, run_service_pb2
from dtf.client.client import Client
from dtf.client.submission import SubmissionFailed
from dtf.coordinator.process import Coordinator
from dtf.core.run.commands import RetireRuns
from dtf.ports.event_log import LogHead
from tests.coordinators import SETTINGS, create_request, peer_of, running_coordinator, tasks
from tests.fakes import FakeClock
from tests.integration.coordinator.rig import Crew, start_run
from tests.scripted_worker import WAIT_SECONDS, scripted_worker

pytestmark = pytest.mark.coordinator


class ArchivedLog(MemoryLog):
    """A log whose beginning was archived when told so."""

    first_sequence = 1

    async def head(self) -> LogHead:
        """Where the log ends, and where it begins now."""
        return replace(await super().head(), first_sequence=self.first_sequence)


@pytest.fixture
def log() -> ArchivedLog:
    return ArchivedLog()


async def get(client: Client, run_id: str) -> run_service_pb2.Run:
    request = run_service_pb2.GetRunRequest(run_id=run_id)
    return (await client.runs.GetRun(request, metadata=client.metadata, timeout=WAIT_SECONDS)).run


async def all_tasks(client: Client, run_id: str, page_size: int = 100) -> Sequence[run_service_pb2.Task]:
    found: list[run_service_pb2.Task] = []
    request = run_service_pb2.ListTasksRequest(run_id=run_id, page_size=page_size)
    while True:
        response = await client.runs.ListTasks(request, metadata=client.metadata, timeout=WAIT_SECONDS)
        found.extend(response.tasks)
        request.page_token = response.next_page_token
        if not request.page_token:
            return found


async def finished_run(client: Client, workers: Crew, count: int = 5) -> str:
    worker = await workers.hire()
    run = await start_run(client, count)
    await worker.hear_leases(count)
    await worker.pass_all()
    await run.result()
    return run.run_id


async def retire_all(coordinator: Coordinator) -> None:
    await coordinator.desk.writer.submit(RetireRuns(kept_runs=0, kept_tasks=0, grace_seconds=0))


async def test_a_retired_run_answers_as_it_did_before(
    client: Client, coordinator: Coordinator, workers: Crew
) -> None:
    run_id = await finished_run(client, workers)
    before = await get(client, run_id), await all_tasks(client, run_id)
    watched = [(seen.sequence, seen.event) async for seen in (await client.attach(run_id)).watch()]
    await retire_all(coordinator)
    assert run_id not in coordinator.desk.state.runs
    assert (await get(client, run_id), await all_tasks(client, run_id, page_size=2)) == before
    assert [(seen.sequence, seen.event) async for seen in (await client.attach(run_id)).watch()] == watched


async def test_runs_are_listed_in_the_order_of_creation_whether_retired_or_not(
    client: Client, coordinator: Coordinator, workers: Crew
) -> None:
    early = await client.create_run(create_request("early"))
    ended = await finished_run(client, workers)
    late = await client.create_run(create_request("late"))
    await retire_all(coordinator)
    assert list(coordinator.desk.state.runs) == [early.run_id, late.run_id]
    request = run_service_pb2.ListRunsRequest(page_size=1)
    listed: list[str] = []
    while not listed or request.page_token:
        page = await client.runs.ListRuns(request, metadata=client.metadata, timeout=WAIT_SECONDS)
        listed.extend(run.run_id for run in page.runs)
        request.page_token = page.next_page_token
    assert listed == [late.run_id, ended, early.run_id]


async def test_creating_a_retired_run_again_gives_the_same_run_and_runs_nothing(
    client: Client, coordinator: Coordinator, workers: Crew
) -> None:
    run_id = await finished_run(client, workers)
    await retire_all(coordinator)
    again = await client.create_run(create_request("r"))
    assert again.run_id == run_id
    assert not coordinator.desk.state.runs


async def test_tasks_for_a_retired_run_are_refused_because_it_has_ended(
    client: Client, coordinator: Coordinator, workers: Crew
) -> None:
    run_id = await finished_run(client, workers)
    await retire_all(coordinator)
    run = await client.attach(run_id)
    with pytest.raises(SubmissionFailed, match="has ended"):
        await run.submit_many(tasks(1))
        await run.seal()


async def test_when_the_log_was_archived_the_outline_stays_and_the_tasks_are_where_it_says(
    client: Client, coordinator: Coordinator, workers: Crew, log: ArchivedLog
) -> None:
    run_id = await finished_run(client, workers)
    await retire_all(coordinator)
    run = await get(client, run_id)
    log.first_sequence = run.last_sequence + 1
    assert (await get(client, run_id)).state == common_pb2.RUN_STATE_FINISHED
    with pytest.raises(
        grpc.aio.AioRpcError,
        match=f"no longer whole.*commit {run.first_sequence} is asked for.*dtf log archive",
    ):
        await all_tasks(client, run_id)


async def test_a_watcher_of_an_archived_run_hears_where_it_is(log: ArchivedLog, tmp_path: Path) -> None:
    async with running_coordinator(log, tmp_path) as first, AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(peer_of(first)))
        run_id = await finished_run(client, Crew(peer_of(first), stack))
        await retire_all(first)
        last = (await get(client, run_id)).last_sequence
    async with running_coordinator(log, tmp_path) as successor, Client(peer_of(successor)) as client:
        log.first_sequence = last + 1
        run = await client.attach(run_id)
        with pytest.raises(grpc.aio.AioRpcError, match="no longer whole in the log"):
            [seen async for seen in run.watch()]


async def test_the_coordinator_retires_by_itself_what_its_settings_let_go(tmp_path: Path) -> None:
    clock = FakeClock()
    settings = replace(SETTINGS, kept_runs=0, run_grace_seconds=2.0)
    async with (
        running_coordinator(MemoryLog(), tmp_path, settings=settings, clock=clock) as coordinator,
        Client(peer_of(coordinator)) as client,
        scripted_worker(peer_of(coordinator)) as worker,
    ):
        await worker.attach(credits=8)
        run = await start_run(client, 2)
        await worker.hear_leases(2)
        await worker.pass_all()
        await run.result()
        assert run.run_id in coordinator.desk.state.runs
        await clock.advance(6.0)
        await coordinator.desk.writer.settled()
        assert list(coordinator.desk.state.retired_runs) == [run.run_id]
        assert (await get(client, run.run_id)).counts.passed == 2
