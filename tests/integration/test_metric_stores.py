"""What goes wrong with a metric store, and what each says of it."""

import gzip
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import duckdb
import pytest

from dtf.adapters.duckdb_store import SCHEMA_VERSION, DuckDbStore
from dtf.adapters.influx_connection import InfluxAddress
from dtf.adapters.influx_store import InfluxStore
from dtf.adapters.system_clock import SystemClock
from dtf.core.trend.measurements import FLEET
from dtf.core.trend.points import Points
from dtf.ports.metric_store import (
    Checkpoint,
    MetricStore,
    StoreCorrupt,
    StoreError,
    StoreMismatch,
    StoreUnavailable,
)
from tests.fakes import FakeClock
from tests.influxd import Influxd
from tests.trend_events import START_NS

pytestmark = pytest.mark.trend_analyzer


def fleet_points(time_ns: int = START_NS) -> list[Points]:
    """One point."""
    points = Points(FLEET)
    points.add(time_ns, {"workers": 1, "slots": 1, "queued": 0, "leased": 0, "open_runs": 0})
    return [points]


async def test_a_new_duckdb_file_is_its_owners_alone(tmp_path: Path) -> None:
    store = await DuckDbStore.open(tmp_path / "new" / "metrics.duckdb")
    await store.close()
    assert (tmp_path / "new" / "metrics.duckdb").stat().st_mode & 0o077 == 0


async def test_a_duckdb_store_keeps_what_it_has_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.duckdb"
    for sequence in (1, 2):
        store = await DuckDbStore.open(path)
        await store.write(fleet_points(START_NS + sequence), Checkpoint("log", sequence, "{}"))
        await store.close()
    store = await DuckDbStore.open(path)
    assert [sample.time_ns - START_NS for sample in await store.fleet(since_ns=0, until_ns=2**62)] == [1, 2]
    await store.write(fleet_points(START_NS + 1), Checkpoint("log", 3, "{}"))
    assert len(await store.fleet(since_ns=0, until_ns=2**62)) == 2, "a point written again after a restart"
    await store.close()


async def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.duckdb"
    content = b"not a database" * 1_000
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt, match="is not a metric store"):
        await DuckDbStore.open(path)
    assert path.read_bytes() == content


async def test_a_database_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE theirs (x INTEGER)")
    with pytest.raises(StoreCorrupt, match="meta does not exist"):
        await DuckDbStore.open(path)


async def test_what_a_crash_left_of_a_store_in_the_making_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "metrics.duckdb"
    path.write_bytes(b"")
    path.with_name("metrics.duckdb.new").write_bytes(b"half a header")
    store = await DuckDbStore.open(path)
    assert await store.checkpoint("log") is None
    await store.close()
    assert not path.with_name("metrics.duckdb.new").exists()


async def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.duckdb"
    await (await DuckDbStore.open(path)).close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE meta SET schema_version = 99")
    with pytest.raises(StoreMismatch, match=f"has schema version 99, this dtf writes {SCHEMA_VERSION}"):
        await DuckDbStore.open(path)


async def test_a_measurement_newer_than_the_file_gets_its_table_and_a_field_its_column(
    tmp_path: Path,
) -> None:
    path = tmp_path / "metrics.duckdb"
    await (await DuckDbStore.open(path)).close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP TABLE findings")
        connection.execute("ALTER TABLE fleet DROP COLUMN leased")
        connection.execute("INSERT INTO fleet BY NAME SELECT 7 AS time_ns, 3 AS workers")
    store = await DuckDbStore.open(path)
    assert await store.query("SELECT count(*) FROM findings") == [(0,)]
    assert await store.query("SELECT workers, leased FROM fleet") == [(3, None)]
    await store.write(fleet_points(), Checkpoint("log", 1, "{}"))
    assert await store.query("SELECT count(leased) FROM fleet") == [(1,)]
    await store.close()


async def test_a_write_that_fails_leaves_neither_points_nor_checkpoint(tmp_path: Path) -> None:
    store = await DuckDbStore.open(tmp_path / "metrics.duckdb")
    good = fleet_points()
    with pytest.raises(StoreMismatch):
        await store.write(good, Checkpoint("log", 2**63, "{}"))
    assert await store.checkpoint("log") is None
    assert await store.fleet(since_ns=0, until_ns=2**62) == []
    await store.write(good, Checkpoint("log", 1, "{}"))
    assert len(await store.fleet(since_ns=0, until_ns=2**62)) == 1
    await store.close()


class _Answers(http.server.BaseHTTPRequestHandler):
    """Answers every request as its server was told."""

    status = 503
    retry_after = "7"

    allowed: ClassVar[list[int]] = []
    """Sizes of the requests that were let through."""
    allowance = 0
    """Requests that are let through before one is refused, again and again."""

    def do_POST(self) -> None:
        """Refuse a write, unless it is allowed."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answers = type(self)
        if answers.allowance:
            answers.allowance -= 1
            answers.allowed.append(gzip.decompress(body).count(b"\n") + 1)
            self._answer(200, b"")
        else:
            self._answer(self.status, b'{"code": "unavailable", "message": "compacting"}')

    def do_GET(self) -> None:
        """Say that the bucket is there."""
        self._answer(200, b'{"buckets": [{"id": "1", "name": "dtf", "retentionRules": []}]}')

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status != 200:
            self.send_header("Retry-After", self.retry_after)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def refusing_server() -> Iterator[tuple[str, type[_Answers]]]:
    """URL of a server that refuses writes, and what it answers with."""
    answers = type("Answers", (_Answers,), {"allowed": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", answers
        server.shutdown()
        thread.join()


async def open_at(url: str, token: str = "t", bucket: str = "dtf") -> MetricStore:
    """An InfluxDB store at a URL."""
    return await InfluxStore.open(InfluxAddress(url, token, "tests", bucket), clock=SystemClock())


async def test_influxdb_is_left_alone_for_as_long_as_it_asks(
    refusing_server: tuple[str, type[_Answers]],
) -> None:
    store = await open_at(refusing_server[0])
    with pytest.raises(StoreUnavailable, match="answers 503: compacting") as refused:
        await store.write(fleet_points(), Checkpoint("log", 1, "{}"))
    assert refused.value.retry_after_seconds == 7.0
    assert refused.value.is_retryable
    await store.close()


async def test_what_influxdb_has_taken_of_a_write_is_not_sent_again(
    refusing_server: tuple[str, type[_Answers]],
) -> None:
    """Else a limit that is smaller than what an outage left to write would never be passed."""
    url, answers = refusing_server
    store = await open_at(url)
    points = Points(FLEET)
    for number in range(12_000):
        points.add(number, {"workers": 1})
    batch = [points]
    refusals = 0
    while refusals < 10:
        answers.allowance = 1
        try:
            await store.write(batch, Checkpoint("log", 1, "{}"))
            break
        except StoreUnavailable:
            refusals += 1
    assert (answers.allowed, refusals) == ([5_000, 5_000, 2_000, 1], 3)
    answers.allowance = 10
    await store.write(batch, Checkpoint("log", 1, "{}"))
    assert answers.allowed[4:] == [5_000, 5_000, 2_000, 1], "another write is all of it"
    await store.close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, StoreUnavailable), (500, StoreUnavailable), (401, StoreUnavailable), (400, StoreMismatch)],
)
async def test_what_influxdb_refuses_for_good_is_told_from_what_may_pass(
    refusing_server: tuple[str, type[_Answers]], status: int, kind: type[StoreError]
) -> None:
    url, answers = refusing_server
    answers.status, answers.retry_after = status, "Wed, 21 Oct 2026 07:28:00 GMT"
    store = await open_at(url)
    with pytest.raises(kind, match="compacting"):
        await store.write(fleet_points(), Checkpoint("log", 1, "{}"))
    await store.close()


async def test_an_influxdb_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable, match=r"InfluxDB at http://127\.0\.0\.1:9 does not answer"):
        await open_at("http://127.0.0.1:9")


@pytest.mark.influxdb
async def test_a_token_that_influxdb_does_not_know_is_named_as_the_fault(influxd: Influxd) -> None:
    with pytest.raises(StoreUnavailable, match="check INFLUXDB_V2_TOKEN"):
        await open_at(influxd.url, token="wrong")


@pytest.mark.influxdb
async def test_points_older_than_the_bucket_keeps_do_not_stop_the_rest(
    influxd: Influxd, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = influxd.make_bucket("short", keep_seconds=3_600)
    store = await influxd.open_store(bucket)
    now_ns = SystemClock().now_ns()
    await store.write([*fleet_points(START_NS), *fleet_points(now_ns)], Checkpoint("log", 5, "{}"))
    assert [sample.time_ns for sample in await store.fleet(since_ns=0, until_ns=2**62)] == [now_ns]
    assert await store.checkpoint("log") == Checkpoint("log", 5, "{}")
    assert "older than the bucket keeps (1h0m0s)" in caplog.text
    await store.close()


@pytest.mark.influxdb
async def test_a_checkpoint_larger_than_a_field_comes_back_whole(influxd: Influxd) -> None:
    store = await influxd.open_store()
    large = Checkpoint("log", 1, '{"workers": "' + 'w-1 "quoted" \\ ' * 20_000 + '"}')
    await store.write([], large)
    assert await store.checkpoint("log") == large
    small = Checkpoint("log", 2, "{}")
    await store.write([], small)
    assert await store.checkpoint("log") == small
    await store.close()


@pytest.mark.influxdb
async def test_the_newest_checkpoint_is_the_last_one_written_though_the_clock_was_set_back(
    influxd: Influxd,
) -> None:
    address = InfluxAddress.from_environment(influxd.environment("set-back"))
    for hour, sequence in ((100, 1), (3, 2), (2, 3)):
        store = await InfluxStore.open(address, clock=FakeClock(hour * 3_600 * 10**9))
        known = await store.checkpoint("log")
        assert (known.sequence if known else 0) == sequence - 1
        await store.write([], Checkpoint("log", sequence, "{}"))
        known = await store.checkpoint("log")
        assert known == Checkpoint("log", sequence, "{}")
        await store.close()


def test_the_environment_describes_influxdb_and_the_token_is_never_shown() -> None:
    environment = {"INFLUXDB_V2_URL": "http://i", "INFLUXDB_V2_TOKEN": "secret", "INFLUXDB_V2_ORG": "qa"}
    address = InfluxAddress.from_environment(environment)
    assert (address.url, address.org, address.bucket) == ("http://i", "qa", "dtf")
    assert "secret" not in repr(address)
    with pytest.raises(StoreMismatch, match="needs INFLUXDB_V2_URL and INFLUXDB_V2_ORG in"):
        InfluxAddress.from_environment({"INFLUXDB_V2_TOKEN": "secret"})
