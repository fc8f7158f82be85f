"""A worker whose machine is taken away."""

import json
from pathlib import Path

import pytest

from tests.integration.worker_rig import eventually, finish, running
from tests.machine_metadata import ACTION, Metadata

pytestmark = pytest.mark.worker

WAITS = """
import pathlib, time

def wait(started, go_on):
    pathlib.Path(started).touch()
    while not pathlib.Path(go_on).exists():
        time.sleep(0.02)
"""


async def test_it_finishes_what_runs_takes_nothing_new_and_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = Metadata()
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url)
    (tmp_path / "dtf.toml").write_text('[worker]\nspot_notices = "aws"\n')
    (tmp_path / "m.py").write_text(WAITS)
    started, go_on = tmp_path / "started", tmp_path / "go-on"
    try:
        async with running(tmp_path) as rig, rig.client() as client:
            worker = await rig.worker("--slots", "2")
            run = await client.start_run(
                "s", function="m:wait", arguments=[[str(started), str(go_on)]], working_dir=str(tmp_path)
            )
            await eventually(started.exists, "the attempt runs")
            metadata.answers[ACTION] = json.dumps({"action": "terminate", "time": "2026-11-23T03:00:00Z"})
            await eventually(lambda: "leaving: EC2 will terminate" in worker.log, "the notice is heard")
            never = tmp_path / "never"
            await client.start_run(
                "s", function="m:wait", arguments=[[str(never), str(go_on)]], working_dir=str(tmp_path)
            )
            go_on.touch()
            assert (await finish(run)).counts.passed == 1
            assert await worker.exit_code() == 0
            assert not never.exists()
    finally:
        metadata.stop()
