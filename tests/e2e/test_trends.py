"""The six behaviours of the original trend analyzer, on real runs: a real stack, real commands, real benchmark files.

It connects, collects, finds the anomaly, tells a degrading latency and an improving throughput from noise,
draws and reports, and reads back from the database. Pure noise raises nothing. Then the analyzer is
killed in the middle, and what it found is the same as a search of the log from its beginning.
"""

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import duckdb
import pytest

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import common_pb2, run_service_pb2
from dtf.cli.exit_codes import ExitCode
from dtf.client.client import Client
from dtf.client.connect import peer
from dtf.core.trend.scarcity import LEAST_POINTS
from tests.e2e.project import SETTINGS, Project
from tests.trend_histories import noise, stepped

pytestmark = pytest.mark.trend_analyzer

RUNS = 70
KILLED_AT = 45
CHANGED_AT = 40
SPIKE_AT = 36
CALL_SECONDS = 240.0
"""As much as a first search takes while numba compiles the kernels beside other tests, and more."""
BENCHMARKS = ("load", "pump", "idle")
"""What the history is made of. How long `cp` takes and what memory it needs is this machine's own affair."""
GATE = """
[gate.limits]
"bench *" = "1000"
"""


def result_file(latency: float, throughput: float, steady: float) -> str:
    """What Google Benchmark would write: seconds of one benchmark, items a second of another, one that is only noise."""
    return json.dumps(
        {
            "benchmarks": [
                {"name": "load", "real_time": latency, "time_unit": "s"},
                {"name": "pump", "items_per_second": throughput},
                {"name": "idle", "real_time": steady, "time_unit": "s"},
            ]
        }
    )


async def run_benchmarks(project: Project, histories: Sequence[Sequence[float]], numbers: range) -> None:
    """A run for each number, whose one command writes that number's results."""
    stack = project.stack
    template = common_pb2.TaskTemplate(
        command=common_pb2.CommandSpec(
            working_dir=str(project.directory),
            benchmark_json="result.json",
            benchmark_format=common_pb2.BENCHMARK_FORMAT_GOOGLE_BENCHMARK,
        )
    )
    async with Client(peer(stack.server, stack.token_file), peer(stack.analysis, stack.token_file)) as client:
        await client.wait_connected()
        for number in numbers:
            project.write(f"r{number}.json", result_file(*(values[number] for values in histories)))
            request = run_service_pb2.CreateRunRequest(
                suite="bench", revision=f"rev{number:04d}", templates=[template]
            )
            run = await client.create_run(request)
            argv = ["cp", f"r{number}.json", "result.json"]
            await run.submit_many([common_pb2.TaskSpec(name="bench", payload=json.dumps(argv))])
            await run.seal()
            result = await run.result()
            assert result.counts.passed == 1, result
        await settle(project, client)


async def settle(project: Project, client: Client) -> None:
    """Wait until the log as it is now was searched."""
    log = await project.open_log()
    try:
        last = (await log.head()).last_sequence
    finally:
        await log.close()
    request = pb.GetCheckpointRequest(wait_for_sequence=last, wait_for_findings=last)
    await client.analysis.GetCheckpoint(
        request, metadata=client.metadata, timeout=CALL_SECONDS, wait_for_ready=True
    )


def found_in(project: Project, *options: str) -> list[Any]:
    """Findings of the benchmarks as `dtf trends list --json` prints them."""
    lines = project.dtf("trends", "list", "--suite", "bench", "--json", *options).splitlines()
    *found, last = map(json.loads, lines)
    assert last["history"]["least_points"] == LEAST_POINTS
    return [each for each in found if each["finding"]["series"]["case_name"] in BENCHMARKS]


@pytest.mark.timeout(600)
async def test_a_degrading_latency_and_an_improving_throughput_are_told_from_noise(project: Project) -> None:
    latencies = stepped(noise(11, RUNS, 0.100, 0.002), CHANGED_AT, 0.025)
    latencies[SPIKE_AT] += 0.2
    histories = (
        latencies,
        stepped(noise(12, RUNS, 500.0, 8.0), CHANGED_AT, 100.0),
        noise(13, RUNS, 0.050, 0.001),
    )
    project.write("dtf.toml", SETTINGS + GATE)
    project.dtf("up")
    await run_benchmarks(project, histories, range(KILLED_AT))
    os.kill(project.part("trend-analyzer").pid, signal.SIGKILL)
    await run_benchmarks(project, histories, range(KILLED_AT, RUNS))

    findings = found_in(project)
    told = {(each["finding"]["series"]["case_name"], each["finding"]["impact"]) for each in findings}
    assert told == {("load", "FINDING_IMPACT_REGRESSION"), ("pump", "FINDING_IMPACT_IMPROVEMENT")}, findings
    regression = next(each for each in findings if each["finding"]["series"]["case_name"] == "load")
    assert abs(int(regression["finding"]["index"]) - CHANGED_AT) <= 1
    assert regression["finding"]["state"] == "FINDING_STATE_CONFIRMED"

    assert "result       the same" in project.dtf("trends", "rebuild")
    _reads_back(project)
    _draws(project)
    _reports(project)
    _gates_and_triages(project, regression["finding"]["finding_id"])


def _draws(project: Project) -> None:
    shown = project.dtf("trends", "show", "load", "--metric", "real_time", "--plot", "load.svg")
    assert f"load  real_time  {RUNS} runs" in shown
    assert "regression (step)" in shown
    assert ElementTree.parse(project.directory / "load.svg").getroot().tag.endswith("svg")


def _reports(project: Project) -> None:
    span = f"rev{CHANGED_AT - 5:04d}..rev{RUNS - 1:04d}"
    options = ("report", "--compare", span, "--suite", "bench")
    document = json.loads(project.dtf(*options, "--format", "json"))
    impacts = {
        each["series"]["case_name"]: each["impact"]
        for each in document["series"]
        if each["impact"] != "FINDING_IMPACT_UNSPECIFIED" and each["series"]["case_name"] in BENCHMARKS
    }
    assert impacts == {"load": "FINDING_IMPACT_REGRESSION", "pump": "FINDING_IMPACT_IMPROVEMENT"}
    assert "| worse | load real_time (local)" in project.dtf(*options, "--format", "md")
    suites = ElementTree.fromstring(project.dtf(*options, "--format", "junit"))
    failed = [case.get("name", "") for case in suites.iter("testcase") if case.find("failure") is not None]
    assert [name for name in failed if name.startswith(BENCHMARKS)] == ["load real_time (local)"]
    project.dtf(*options, "--html", "compare.html")
    page = (project.directory / "compare.html").read_text()
    assert "load real_time (local)" in page
    assert "http" not in page.replace("http-equiv", "")


def _gates_and_triages(project: Project, identity: str) -> None:
    said = project.dtf("gate", "--suite", "bench", "--github", expect=(ExitCode.REGRESSED,))
    assert "gate failed: 1 regression beyond the limit (+5.0 %)" in said
    assert f"dtf trends mute {identity}" in said
    assert "::error title=performance regression::load real_time" in said
    project.dtf("gate", "--suite", "bench", "--max-regression", "0.5")
    muted = project.dtf("trends", "mute", identity[:6], "--reason", "mended in the next release")
    assert "[muted]" in muted
    assert "gate passed" in project.dtf("gate", "--suite", "bench")
    project.dtf("trends", "accept", identity, "--reason", "the new parser")
    assert "1 accepted" in project.dtf("trends", "rules")
    project.dtf("gate", "--suite", "bench", expect=(ExitCode.REGRESSED,))


def _reads_back(project: Project) -> None:
    project.dtf("trends", "list", "--all")
    everything = found_in(project, "--all")
    anomalies = [each["finding"] for each in everything if each["finding"]["kind"] == "FINDING_KIND_POINT"]
    assert SPIKE_AT in [int(each["index"]) for each in anomalies], everything
    project.dtf("down", "--now")
    store = next(Path(project.directory / ".dtf").rglob("metrics.duckdb"))
    with duckdb.connect(str(store), read_only=True) as connection:
        points = connection.execute(
            "SELECT metric, count(*), count(DISTINCT revision) FROM benchmarks GROUP BY 1 ORDER BY 1"
        ).fetchall()
        rows = connection.execute(
            "SELECT \"case\", impact FROM findings WHERE is_raised AND state = 'confirmed' "
            "AND metric IN ('real_time', 'items_per_second') ORDER BY 1"
        ).fetchall()
    assert points == [("items_per_second", RUNS, RUNS), ("real_time", 2 * RUNS, RUNS)]
    assert rows == [("load", "regression"), ("pump", "improvement")]
    project.dtf("up")
