"""A step in a benchmark, on a real stack: the case runs again by itself until the change is confirmed."""

import asyncio
import json
import os
import signal
from collections.abc import Sequence
from typing import Any

import pytest

from dtf.adapters.records import JetStreamRecords
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import common_pb2, findings_pb2, run_service_pb2
from dtf.client.client import Client
from dtf.client.connect import peer
from dtf.ports.subjects import RecordKind
from dtf.settings.model import NatsSettings
from tests.e2e.project import COMMAND_SECONDS, Project
from tests.trend_histories import noise, stepped

pytestmark = pytest.mark.trend_analyzer

SETTINGS = """
[pool]
min_workers = 1
max_workers = 1

[trends]
confirm = true
confirm_per_hour = 60
"""
BENCH = """
n=$(cat number)
cp "r$n.json" result.json
echo $((n + 1)) > number
"""
"""What runs measures the next value of a history, so that how busy this machine is changes nothing."""
STEADY, SLOW = 30, 4
"""Runs before and behind the step: the last four leave it provisional."""
VALUES = STEADY + SLOW + 60


def write_history(project: Project) -> None:
    """A program that measures one value after the other, and these."""
    project.write("next.sh", BENCH)
    project.write("number", "0")
    for number, value in enumerate(stepped(noise(21, VALUES, 0.1, 0.002), STEADY, 0.05)):
        document = {"benchmarks": [{"name": "load", "real_time": value, "time_unit": "s"}]}
        project.write(f"r{number}.json", json.dumps(document))


async def run_load(client: Client, project: Project, numbers: range) -> list[run_service_pb2.Run]:
    """A run of the benchmark for each revision."""
    spec = common_pb2.CommandSpec(
        argv=["sh", "next.sh"],
        working_dir=str(project.directory),
        benchmark_json="result.json",
        benchmark_format=common_pb2.BENCHMARK_FORMAT_GOOGLE_BENCHMARK,
    )
    made = []
    for number in numbers:
        request = run_service_pb2.CreateRunRequest(
            suite="bench", revision=f"rev{number:04d}", templates=[common_pb2.TaskTemplate(command=spec)]
        )
        run = await client.create_run(request)
        await run.submit_many([common_pb2.TaskSpec(name="bench")])
        await run.seal()
        assert (await run.result()).counts.passed == 1
        made.append(await client.get_run(run.run_id))
    return made


async def wait_for_event(project: Project, wanted: Any) -> findings_pb2.AnalysisEvent:
    """The first event of the analysis stream that is wanted."""
    stack = project.stack
    nats = NatsSettings(
        url=stack.nats,
        credentials_file=stack.nats_credentials_file,
        append_timeout_seconds=COMMAND_SECONDS,
    )
    records = await JetStreamRecords.open(nats, RecordKind.ANALYSIS, stack.namespace, SystemClock())
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            async for batch in records.follow(0):
                for stored in batch:
                    event = findings_pb2.AnalysisEvent.FromString(stored.payload)
                    if wanted(event):
                        return event
    finally:
        await records.close()
    raise AssertionError("the stream ended")


def is_confirmed(event: findings_pb2.AnalysisEvent) -> bool:
    """Whether it says that what the benchmark measured has a confirmed change."""
    finding = event.finding
    return finding.series.case_name == "load" and finding.state == findings_pb2.FINDING_STATE_CONFIRMED


def confirmations(project: Project, known: Sequence[run_service_pb2.Run]) -> list[Any]:
    """The runs that nobody but the analyzer asked for, oldest first."""
    lines = project.dtf("runs", "--limit", "100", "--json").splitlines()
    ours = {run.run_id for run in known}
    return [run for run in reversed(list(map(json.loads, lines))) if run["run_id"] not in ours]


async def test_a_step_is_confirmed_without_anybody_asking(project: Project) -> None:
    project.write("dtf.toml", SETTINGS)
    write_history(project)
    project.dtf("up")
    stack = project.stack
    async with Client(peer(stack.server, stack.token_file), peer(stack.analysis, stack.token_file)) as client:
        await client.wait_connected()
        known = await run_load(client, project, range(STEADY))
        known += await run_load(client, project, range(STEADY, STEADY + SLOW))
        await wait_for_event(project, lambda event: event.HasField("confirmation_requested"))
        os.kill(project.part("trend-analyzer").pid, signal.SIGKILL)
        found = (await wait_for_event(project, is_confirmed)).finding
        asked_for = [await client.get_run(run.run_id) for run in known]
    assert asked_for == known, "a run that was repeated in part stays as it was"
    made = confirmations(project, known)
    numbers = [(run["confirmation"]["finding_id"], run["confirmation"]["number"]) for run in made]
    assert made
    assert len(set(numbers)) == len(numbers), "no number runs twice"
    assert {run["task_count"] for run in made} == {1}
    own = [run for run in made if run["confirmation"]["finding_id"] == found.finding_id]
    source = own[-1]["confirmation"]["run_id"]
    assert own[-1]["revision"] == next(run.revision for run in known if run.run_id == source)
    told = project.dtf("trends", "show", "load", "--suite", "bench", "--metric", "real_time")
    assert f"run {own[-1]['run_id']} repeats task 0 of run {source}" in told
    assert f"to confirm finding {found.finding_id}" in project.dtf("runs", "show", own[0]["run_id"])
    assert f"to confirm finding {found.finding_id}" in project.dtf("explain", own[0]["run_id"])
    story = project.dtf("explain", source)
    assert f"run {own[-1]['run_id']} repeats a part of it to confirm finding {found.finding_id}" in story
    assert "result       the same" in project.dtf("trends", "rebuild")
