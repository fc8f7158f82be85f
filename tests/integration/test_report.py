"""Reports of real runs, with and without the trend analyzer."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dtf.adapters.nats_server import NatsServer
from dtf.api.v1 import common_pb2
from dtf.client.client import Client
from dtf.client.run import RunHandle
from dtf.core.run.summary import Fault
from dtf.report.gather import RunNotFinished, gather_report
from dtf.report.text import summary_lines
from dtf.report.wording import verdict_word
from dtf.report.write import report_run
from dtf.rpc.channel import Peer
from tests.integration.pool_rig import TOKEN, PoolRig, kill, pool_rig
from tests.integration.scripted_pool import WAIT_SECONDS

pytestmark = pytest.mark.trend_analyzer


@pytest.fixture
async def rig(own_nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[PoolRig]:
    """Broker, coordinator, and a pool of two."""
    (tmp_path / "project").mkdir()
    async with pool_rig(own_nats_server, tmp_path / "project") as made:
        manager = await made.start_manager("--min", "2", "--max", "2")
        await made.workers_until(2)
        yield made
        await kill(manager)


async def run_mixture(client: Client, directory: Path) -> RunHandle:
    """Passing, failing and flaky commands, to their end."""
    flag = directory / "flag"
    wobbly = f"test -e {flag} || {{ touch {flag}; echo not yet; exit 1; }}"
    commands = [["sleep", "0.02"]] * 6 + [["sh", "-c", "echo broken '<b>'; exit 3"], ["sh", "-c", wobbly]]
    run = await client.start_run("mixture", commands=commands, test_retries=1)
    await run.result()
    flag.unlink()
    return run


async def test_a_report_agrees_with_the_coordinator_and_holds_the_output(rig: PoolRig) -> None:
    run = await run_mixture(rig.client, rig.directory)
    report = await gather_report(rig.client, run.run_id)
    counts = Counter(verdict_word(case.verdict) for case in report.run.cases)
    assert counts == {"passed": 6, "failed": 1, "flaky": 1}
    assert (report.run.counts.passed, report.run.counts.failed, report.run.counts.flaky) == (6, 1, 1)
    (failure,) = report.run.failures
    assert failure.fault is Fault.TEST
    assert [part.text for part in report.outputs[failure.task, 0]] == ["broken <b>\n"]
    assert {worker.worker_id for worker in report.workers} <= {"local-1", "local-2"}
    assert report.peak_workers == 2
    assert report.comparison is None
    assert "no trend analyzer is known" in report.comparison_note


async def test_the_history_comes_once_the_analyzer_has_reached_the_run(rig: PoolRig) -> None:
    analyzer, peer = await rig.start_analyzer()
    async with Client(Peer((rig.address,), TOKEN), peer) as client:
        await run_mixture(client, rig.directory)
        second = await run_mixture(client, rig.directory)
        written = await report_run(
            client, second.run_id, rig.directory / "reports", analyzer_timeout_seconds=WAIT_SECONDS
        )
        assert written.page == rig.directory / "reports" / second.run_id / "index.html"
        assert "1 of 8 cases failed." in written.page.read_text("utf-8")
        comparison = written.report.comparison
        assert comparison is not None and comparison.run_count == 1
        assert any("against 1 earlier run" in line for line in written.lines)
        await kill(analyzer)
        alone = await gather_report(client, second.run_id, analyzer_timeout_seconds=0.5)
        assert alone.comparison is None and alone.comparison_note
        assert summary_lines(alone)[0] == written.lines[0]


async def test_the_command_prints_lines_and_json_of_the_newest_run(rig: PoolRig) -> None:
    run = await run_mixture(rig.client, rig.directory)
    code, text = await rig.command("report", "--html", "page.html")
    assert code == 0
    assert text.splitlines()[0].startswith("6 passed, 1 failed, 1 flaky in ")
    assert text.splitlines()[-1] == "report       page.html"
    assert "<svg" in (rig.directory / "page.html").read_text("utf-8")
    code, text = await rig.command("report", run.run_id, "--json")
    document = json.loads(text)
    assert (code, document["run_id"], len(document["cases"])) == (0, run.run_id, 8)


async def test_a_run_that_goes_on_has_no_report_yet(rig: PoolRig) -> None:
    run = await rig.client.start_run("long", commands=[["sleep", "600"]])
    with pytest.raises(RunNotFinished, match=run.run_id):
        await gather_report(rig.client, run.run_id)
    await run.cancel("the test is over")
    assert (await run.result()).state == common_pb2.RUN_STATE_CANCELLED
    report = await gather_report(rig.client, run.run_id)
    assert report.run.unjudged == 1
    assert summary_lines(report)[0].startswith("1 not run (cancelled) in ")
