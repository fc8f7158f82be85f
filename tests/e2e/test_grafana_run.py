"""A real stack on a real InfluxDB runs a suite, and every panel shows that run."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dtf.adapters.system_clock import SystemClock
from tests.e2e.project import SETTINGS, Project
from tests.grafana_frames import Frame, ask, filled, questions, text_of
from tests.influxd import Influxd

pytestmark = [pytest.mark.trend_analyzer, pytest.mark.influxdb, pytest.mark.timeout(600)]

BUCKET = "real-run"
SUITE = """
import os, pathlib, time

HERE = pathlib.Path(__file__).parent

def is_first_time(name):
    flag = HERE / name
    is_first = not flag.exists()
    flag.touch()
    return is_first

def test_passes():
    assert True

def test_is_slow():
    time.sleep(0.3)

def test_fails():
    raise AssertionError("as it must")

def test_takes_its_process_along_once():
    if is_first_time("crashed"):
        os._exit(3)

def test_passes_at_the_second_try():
    assert not is_first_time("failed")
"""
EMPTY = {
    # A change needs a history of several runs, and no case here measures anything of its own.
    *("suites: Became slower", "suites: Changes that several series share", "suites: Shared changes"),
    *("suites: Cost that moved between cases", "suites: Moved cost"),
    *("case: Regressions", "case: Improvements", "case: Other changes", "case: Anomalies", "case: Findings"),
    "case: What the case measured",
}
EVERYTHING = {"suite": ".*", "pool": ".*", "case": ".*"}
SHOWN_SECONDS = 180.0


class Panels:
    """What the dashboards show of the bucket."""

    def __init__(self, influxd: Influxd) -> None:
        self._influxd = influxd
        self._flux = {question.name: question.flux for question in questions()}

    def frames(self, name: str, **chosen: str) -> list[Frame]:
        """Of one query."""
        return ask(self._influxd, filled(self._flux[name], BUCKET, {**EVERYTHING, **chosen}))

    def rows(self, name: str, **chosen: str) -> list[dict[str, str]]:
        """Rows of a table."""
        return [row for frame in self.frames(name, **chosen) for row in frame.rows]

    def wait_until_all_but_show(self, empty: set[str]) -> None:
        """Return when just these show nothing: telemetry and decisions come when they come."""
        clock = SystemClock()
        until = clock.monotonic() + SHOWN_SECONDS
        while (blank := {name for name in self._flux if not self.frames(name)}) != empty:
            assert clock.monotonic() < until, (
                f"show nothing: {blank - empty}; show something: {empty - blank}"
            )


@pytest.fixture
def stack(influxd: Influxd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A project whose stack writes to the bucket."""
    for name, value in influxd.environment(BUCKET).items():
        monkeypatch.setenv(name, value)
    project = Project(tmp_path, SETTINGS + '\n[store]\nkind = "influxdb"\n\n[run]\ntest_retries = 1\n')
    yield project
    left = project.close()
    assert left == [], project.logs()


def test_every_panel_shows_what_a_real_run_wrote(stack: Project, influxd: Influxd) -> None:
    stack.write("test_real.py", SUITE)
    stack.dtf("store", "setup")
    stack.dtf("up")
    run = stack.json("run", "test_real.py", "--json", expect=(1,))
    report = stack.json("report", run["run_id"], "--json")
    today = datetime.fromtimestamp(SystemClock().now_ns() / 1e9, UTC).date()
    panels = Panels(influxd)
    panels.wait_until_all_but_show({*EMPTY, "system: Workers, by the hour, kept long"})
    stack.dtf(
        "store",
        "downsample",
        "--since",
        str(today - timedelta(days=1)),
        "--until",
        str(today + timedelta(days=1)),
    )
    panels.wait_until_all_but_show(EMPTY)

    (row,) = panels.rows("suites: Runs")
    assert row["run"] == run["run_id"]
    assert [int(row[verdict]) for verdict in ("passed", "failed", "error", "flaky")] == [3, 1, 0, 1]
    (failing,) = panels.rows("suites: Failing cases")
    assert failing["case"].endswith("::test_fails")
    (flaky,) = panels.rows("suites: Flaky cases")
    assert flaky["case"].endswith("::test_passes_at_the_second_try")
    assert panels.rows("suites: Slowest cases")[0]["case"].endswith("::test_is_slow")
    (crashed,) = panels.rows("suites: Attempts that ended otherwise")
    assert crashed["outcome"] == "crashed"
    assert crashed["running_case"].endswith("::test_takes_its_process_along_once")
    for case in report["cases"]:
        (shown,) = panels.rows("case: Results", case=case["name"])
        assert shown["verdict"] == case["verdict"]
        (duration,) = panels.frames("case: Duration", case=case["name"])
        assert duration.values == [pytest.approx(case["duration_seconds"], rel=1e-6)]
    assert [frame.values for frame in panels.frames("fleet: Workers")] == [[2.0]]
    (status,) = [json.loads(stack.dtf("store", "status", "--json"))]
    assert status["rejected"] == 0
    assert status["series"]["cases"] == 5
    assert text_of(panels.frames("system: How far each stream has come")[0])["stream"]
