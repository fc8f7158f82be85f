"""What a real InfluxDB refuses is kept aside, point by point, and never holds up the rest."""

import json
from pathlib import Path
from typing import Any

import pytest
from influxdb_client.rest import ApiException

from dtf.adapters.influx_connection import retry_after
from dtf.adapters.influx_writer import InfluxWriter, refusal_of
from dtf.adapters.rejected_points import RejectedPoints
from dtf.adapters.system_clock import SystemClock
from dtf.core.trend.measurements import POOLS
from dtf.core.trend.points import Points
from dtf.ports.metric_store import Checkpoint
from tests.analyzer_bench import Streams, analyzing
from tests.influxd import Influxd
from tests.trend_events import START_NS
from tests.trend_stores import expected_content, influx_content
from tests.unit.test_log_fold import long_story

pytestmark = pytest.mark.trend_analyzer

ALL = "range(start: 0, stop: 2200-01-01T00:00:00Z)"


@pytest.fixture
def rejected(tmp_path: Path) -> RejectedPoints:
    """An empty file for what is refused."""
    return RejectedPoints(tmp_path / "rejected.jsonl", SystemClock())


@pytest.mark.influxdb
async def test_exactly_the_points_that_influxdb_refuses_are_set_aside(
    influxd: Influxd, rejected: RejectedPoints
) -> None:
    """One request with faults of three kinds: InfluxDB names the first fault, and counts too few."""
    store = await influxd.open_store(influxd.make_bucket("three-faults", keep_seconds=3_600), rejected)
    now = SystemClock().now_ns()
    await store.write_lines([f"m value=1 {now}"])
    lines = [f"m value={number} {now + number}" for number in range(1, 200)]
    bad = {7: f'm value="text" {now}', 50: "m value=1 1000", 51: "m value=2 2000", 120: "m value= ,"}
    for index, line in bad.items():
        lines[index] = line
    await store.write_lines(lines)
    found = {entry.point: entry.reason for entry in rejected.read()}
    assert set(found) == set(bad.values())
    assert (
        found[bad[7]] == 'input field "value" on measurement "m" is type string, already exists as type float'
    )
    assert found[bad[50]] == "older than the bucket keeps (1h0m0s)"
    assert found[bad[120]].startswith("not line protocol: ")
    counted = await store.query(f'from(bucket: "three-faults") |> {ALL} |> count()')
    assert [int(row["_value"]) for row in counted] == [len(lines) - len(bad) + 1]
    await store.close()


@pytest.mark.influxdb
async def test_a_field_of_another_type_costs_its_own_points_and_the_checkpoint_goes_on(
    influxd: Influxd, rejected: RejectedPoints
) -> None:
    """Somebody else wrote `runs.owner` as a number into the bucket, in the week of the story."""
    bucket = "other-type"
    commits = long_story()
    expected = expected_content(commits)
    store = await influxd.open_store(bucket, rejected)
    await store.write_lines([f"runs owner=1 {START_NS}"])
    streams = Streams()
    async with analyzing(streams, store) as client:
        await client.checkpoint(wait_for=streams.append(commits))
    assert {entry.measurement for entry in rejected.read()} == {"runs"}
    assert len(rejected.read()) == len(expected["runs"])
    theirs = await influx_content(store, bucket)
    assert {name: rows for name, rows in theirs.items() if name != "runs"} == {
        name: rows for name, rows in expected.items() if name != "runs"
    }
    await store.close()


@pytest.mark.influxdb
async def test_a_flood_of_points_out_of_retention_costs_one_request_for_each_five_thousand(
    influxd: Influxd, rejected: RejectedPoints
) -> None:
    store = await influxd.open_store(influxd.make_bucket("flood", keep_seconds=3_600), rejected)
    points = Points(POOLS)
    for second in range(12_000):
        points.add(START_NS + second, {"pool": "p", "workers": 1})
    await store.write([points], Checkpoint("log", 1, "{}"))
    assert len(rejected.read()) == 12_000
    assert {entry.reason for entry in rejected.read()} == {"older than the bucket keeps (1h0m0s)"}
    await store.close()


class _Server:
    """Answers as InfluxDB would: refuses points that contain "bad", counts the requests."""

    def __init__(self, status: int) -> None:
        self.requests = 0
        self.taken: set[str] = set()
        self._status = status

    def send(self, body: bytes) -> None:
        """One request."""
        self.requests += 1
        lines = body.decode().split("\n")
        bad = [line for line in lines if "bad" in line]
        if self._status == 422 or not bad:
            self.taken |= set(lines) - set(bad)
        if bad:
            said = (
                f"partial write: dropped={len(bad)}"
                if self._status == 422
                else f"unable to parse '{bad[0]}': no"
            )
            raise _exception(self._status, said)


def _exception(status: int, message: str) -> ApiException:
    make: Any = ApiException  # the package has no types here
    error: ApiException = make(status=status)
    error.message = message
    return error


@pytest.mark.parametrize("status", [400, 422])
def test_a_bad_point_among_thousands_is_found_by_halves(rejected: RejectedPoints, status: int) -> None:
    server = _Server(status)
    lines = [f"m v={n}" for n in range(5_000)]
    lines[1_234] = "bad"
    InfluxWriter(server.send, rejected).write(lines)
    assert [entry.point for entry in rejected.read()] == ["bad"]
    assert server.taken == set(lines) - {"bad"}
    assert server.requests <= 30


def test_a_refusal_that_is_not_of_the_points_is_raised() -> None:
    def refuse(_body: bytes) -> None:
        raise _exception(400, "unknown precision")

    with pytest.raises(ApiException):
        InfluxWriter(refuse, None).write(["m v=1"])
    assert refusal_of(503, "partial write") is None


def test_what_was_set_aside_is_there_once_however_often_it_was_refused(rejected: RejectedPoints) -> None:
    rejected.keep(["a v=1", "b v=2"], "first")
    rejected.keep(["a v=1"], "second")
    with rejected.path.open("a", encoding="utf-8") as file:
        file.write('{"at": "cut by a cra')
    assert [(entry.point, entry.reason, entry.measurement) for entry in rejected.read()] == [
        ("a v=1", "second", "a"),
        ("b v=2", "first", "b"),
    ]
    assert rejected.path.stat().st_mode & 0o077 == 0
    assert [entry.point for entry in rejected.take()] == ["a v=1", "b v=2"]
    rejected.keep(["c v=3"], "while they were written again")
    assert len(rejected.read()) == 3, "until they are forgotten they stay"
    rejected.forget_taken()
    assert [entry.point for entry in rejected.read()] == ["c v=3"]


def test_the_file_of_rejected_points_is_bounded(tmp_path: Path) -> None:
    rejected = RejectedPoints(tmp_path / "rejected.jsonl", SystemClock(), most_bytes=1_000)
    for number in range(4):
        rejected.keep([f"{number}{'x' * 500}"], "large")
    assert [path.stat().st_size < 1_000 for path in tmp_path.iterdir()] == [True, True]
    assert [entry.point[0] for entry in rejected.read()] == ["2", "3"]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (None, 0.0),
        ("soon", 0.0),
        ("Thu, 01 Jan 1970 00:01:30 GMT", 30.0),
        ("-3", 0.0),
        ("nan", 0.0),
        ("inf", 900.0),
        ("31536000", 900.0),
        ("Thu, 01 Jan 2070 00:00:00 GMT", 900.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float) -> None:
    assert retry_after(header, 60 * 10**9) == seconds


def test_a_line_of_the_file_is_json_for_other_tools(rejected: RejectedPoints) -> None:
    rejected.keep(['fleet reason="ü \\" x" 1'], "why")
    (line,) = rejected.path.read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["point"] == 'fleet reason="ü \\" x" 1'
