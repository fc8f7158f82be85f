"""`dtf store`: buckets, retention, tasks and what was refused, on a real influxd through the command line."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dtf.adapters.influx_admin import InfluxAdmin
from dtf.adapters.influx_connection import InfluxAddress, make_client
from dtf.adapters.influx_rollups import ROLLUPS, long_term_bucket, task_name
from dtf.adapters.rejected_points import FILE_NAME, RejectedPoints
from dtf.adapters.system_clock import SystemClock
from dtf.cli.main import cli
from dtf.core.trend.measurements import CASES, POOLS
from dtf.core.trend.points import Points, Value
from dtf.ports.metric_store import Checkpoint
from tests.influxd import Influxd

pytestmark = [pytest.mark.trend_analyzer, pytest.mark.influxdb]

DAY_NS = 86_400 * 10**9
Dtf = Callable[..., Result]


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> str:
    """A bucket of the test's own."""
    return f"setup-{request.node.name[-40:]}"


@pytest.fixture
def dtf(influxd: Influxd, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dtf:
    """`dtf store …` on that bucket."""
    for name, value in influxd.environment(bucket).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["--project", str(tmp_path), "store", *arguments])

    return run


def done(result: Result) -> dict[str, str]:
    """What `store setup --json` did, by thing."""
    assert result.exit_code == 0, (result.output, result.exception)
    changes = [json.loads(line) for line in result.output.splitlines()]
    return {change["what"]: change["done"] for change in changes}


def status(dtf: Dtf) -> Any:
    """`store status --json`."""
    result = dtf("status", "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def test_what_is_missing_is_made_once_and_what_differs_is_changed_in_place(
    influxd: Influxd, dtf: Dtf, bucket: str
) -> None:
    tasks = {f"task {task_name(rollup, bucket)}" for rollup in ROLLUPS}
    buckets = {f"bucket {bucket}", f"bucket {long_term_bucket(bucket)}"}
    first = done(dtf("setup", "--keep-days", "90", "--json"))
    assert first == dict.fromkeys(tasks | buckets, "made")
    assert set(done(dtf("setup", "--json")).values()) == {"unchanged"}
    assert status(dtf)["keep_days"] == {bucket: 90, long_term_bucket(bucket): 0}

    api = make_client(InfluxAddress.from_environment(influxd.environment(bucket))).tasks_api()
    altered = next(task for task in api.find_tasks(limit=500) if task.name == task_name(ROLLUPS[0], bucket))
    altered.flux = altered.flux.replace("-3d", "-2d")
    api.update_task(altered)
    assert [task["is_current"] for task in status(dtf)["tasks"]].count(False) == 1
    again = done(dtf("setup", "--json"))
    assert [what for what, how in again.items() if how == "changed"] == [f"task {altered.name}"]
    assert next(t.id for t in api.find_tasks(limit=500) if t.name == altered.name) == altered.id


def test_a_bucket_forgets_more_only_when_that_is_said(dtf: Dtf, bucket: str) -> None:
    done(dtf("setup", "--keep-days", "30", "--json"))
    refused = dtf("setup", "--keep-days", "7")
    assert "deletes what is older" in str(refused.exception)
    assert status(dtf)["keep_days"][bucket] == 30
    assert done(dtf("setup", "--keep-days", "7", "--shorten", "--json"))[f"bucket {bucket}"] == "changed"
    assert done(dtf("setup", "--keep-days", "0", "--json"))[f"bucket {bucket}"] == "changed", "longer is free"
    assert status(dtf)["keep_days"][bucket] == 0


def test_the_installed_tasks_run_and_what_they_sum_up_is_right(
    influxd: Influxd, dtf: Dtf, bucket: str
) -> None:
    """Run by influxd itself, by hand; then the days before by `dtf store downsample`."""
    done(dtf("setup", "--json"))
    now = SystemClock().now_ns()
    asyncio.run(_write_days(influxd, bucket, now))
    address = InfluxAddress.from_environment(influxd.environment(bucket))
    asyncio.run(_run_tasks(address))
    sums = asyncio.run(_sums(influxd, bucket))
    today, long_ago = now // DAY_NS * DAY_NS, (now - 40 * DAY_NS) // DAY_NS * DAY_NS
    assert sums[("cases", "duration_seconds_median", today)] == 2.0
    assert sums[("cases", "duration_seconds_max", today)] == 9.0
    assert sums[("cases", "results", today)] == 3
    assert sums[("cases", "failed", today)] == 1
    assert not any(time == long_ago for _, _, time in sums)
    assert dtf("downsample", "--since", "2020-01-01", "--until", "2020-01-01").exit_code != 0
    since, until = (_day(long_ago + offset * DAY_NS) for offset in (-1, 2))
    assert dtf("downsample", "--since", since, "--until", until).exit_code == 0
    sums = asyncio.run(_sums(influxd, bucket))
    assert sums[("cases", "duration_seconds_median", long_ago)] == 2.0
    assert [task["last_run"] for task in status(dtf)["tasks"]] == ["success"] * len(ROLLUPS)


def _day(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d")


async def _write_days(influxd: Influxd, bucket: str, now: int) -> None:
    store = await influxd.open_store(bucket)
    cases, pools = Points(CASES), Points(POOLS)
    for day in (0, 40):
        at = (now - day * DAY_NS) // DAY_NS * DAY_NS
        for index, (seconds, verdict) in enumerate([(1.0, "passed"), (2.0, "failed"), (9.0, "passed")]):
            row: dict[str, Value] = {
                "suite": "s",
                "case": "c",
                "pool": "p",
                "verdict": verdict,
                "duration_seconds": seconds,
            }
            cases.add(at + index, row)
    pools.add(now, {"pool": "p", "workers": 3, "leased": 1})
    await store.write([cases, pools], Checkpoint("log", 5, "{}"))
    await store.close()


async def _run_tasks(address: InfluxAddress) -> None:
    """Let influxd run each task now, and wait for the end of the runs."""
    api = make_client(address).tasks_api()
    clock = SystemClock()
    for task in [task for task in api.find_tasks(limit=500) if task.name.endswith(f"({address.bucket})")]:
        api.run_manually(task.id)
        async with asyncio.timeout(60):
            while (state := api.find_task_by_id(task.id).last_run_status) not in ("success", "failed"):
                await clock.sleep(0.05)
        assert state == "success", api.find_task_by_id(task.id).last_run_error


async def _sums(influxd: Influxd, bucket: str) -> dict[tuple[str, str, int], float]:
    store = await influxd.open_store(long_term_bucket(bucket))
    rows = await store.query(
        f'from(bucket: "{long_term_bucket(bucket)}") |> range(start: 0, stop: 2200-01-01T00:00:00Z) |> group()'
        " |> map(fn: (r) => ({measurement: r._measurement, field: r._field, time: int(v: r._time), value: r._value}))"
    )
    await store.close()
    return {(row["measurement"], row["field"], int(row["time"])): float(row["value"]) for row in rows}


def test_status_counts_series_and_says_where_the_streams_are(influxd: Influxd, dtf: Dtf, bucket: str) -> None:
    asyncio.run(_write_days(influxd, bucket, SystemClock().now_ns()))
    said = status(dtf)
    assert said["series"] == {"cases": 1, "pools": 1}
    assert said["sequences"] == {"log": 5}
    assert any("dtf store setup" in warning for warning in said["warnings"])


def test_refused_points_are_shown_and_written_again_once_the_bucket_takes_them(
    influxd: Influxd, dtf: Dtf, bucket: str, tmp_path: Path
) -> None:
    asyncio.run(_write_days(influxd, bucket, SystemClock().now_ns()))
    aside = RejectedPoints(tmp_path / ".dtf" / FILE_NAME, SystemClock())
    now = SystemClock().now_ns()
    aside.keep([f"pools,pool=q workers=4i {now}", f'pools,pool=q workers="text" {now + 1}'], "a conflict")
    assert "2  pools: a conflict" in dtf("rejected").output
    assert "wrote 1 points, 1 are refused still" in dtf("rejected", "--retry").output
    left = [json.loads(line) for line in dtf("rejected", "--json").output.splitlines()]
    assert [("is type string" in point["reason"]) for point in left] == [True]
    assert status(dtf)["rejected"] == 1
    assert "forgot 1" in dtf("rejected", "--clear").output
    assert "no point was refused" in dtf("rejected").output


def test_without_an_address_the_command_says_what_it_needs(dtf: Dtf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFLUXDB_V2_URL")
    assert "needs INFLUXDB_V2_URL in the environment" in str(dtf("setup").exception)


async def test_setup_is_the_same_through_the_adapter(influxd: Influxd, bucket: str) -> None:
    admin = InfluxAdmin(InfluxAddress.from_environment(influxd.environment(bucket)), SystemClock())
    for expected in ("made", "unchanged"):
        changes = await admin.set_up(keep_days=None, long_keep_days=365, may_shorten=False)
        assert {change.done for change in changes} == {expected}
    await admin.close()
