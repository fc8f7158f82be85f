"""The trend analyzer over real gRPC: it reads on where it stopped, and loses and doubles nothing."""

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dtf.adapters.duckdb_store import DuckDbStore
from dtf.adapters.jetstream_log import JetStreamLog
from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import common_pb2, events_pb2, scaling_pb2, worker_service_pb2
from dtf.ports.metric_store import StoreReplaced, StoreUnavailable
from dtf.rpc.channel import Peer, open_channel
from dtf.rpc.errors import parse
from dtf.settings.model import NatsSettings
from tests.analyzer_bench import CALL_SECONDS, TOKEN, AnalysisClient, Streams, analyzing, calling
from tests.fakes import FakeClock
from tests.influxd import Influxd
from tests.trend_events import START_NS, commit, registered, run_created, shard_submitted, story
from tests.trend_stores import WatchedStore, duckdb_content, expected_content, influx_content
from tests.unit.test_log_fold import long_story

pytestmark = pytest.mark.trend_analyzer


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[DuckDbStore]:
    """An empty DuckDB store."""
    made = await DuckDbStore.open(tmp_path / "metrics.duckdb")
    yield made
    await made.close()


@pytest.fixture
def streams() -> Streams:
    """Empty streams."""
    return Streams()


def runs(count: int) -> list[events_pb2.Commit]:
    """Runs r0, r1 … of one suite with cases a, b, c; a takes as many tenths of a second as the run's number."""
    return [each for run in range(count) for each in story(f"r{run}", run * 10, [0.1 * (run + 1), 0.2, 0.3])]


async def test_the_log_ends_up_in_the_store(streams: Streams, store: DuckDbStore) -> None:
    commits = long_story()
    async with analyzing(streams, store) as client:
        answer = await client.checkpoint(wait_for=streams.append(commits))
    assert (answer.log_sequence, answer.store) == (len(commits), "duckdb")
    assert await duckdb_content(store) == expected_content(commits)


async def test_telemetry_and_scaling_decisions_end_up_in_the_store(
    streams: Streams, store: DuckDbStore
) -> None:
    sample = worker_service_pb2.TelemetrySample(worker_id="w1", pool="local", heard_unix_nanos=START_NS)
    decision = scaling_pb2.ScalingDecision(decision_id="local-1", pool="local", now_unix_nanos=START_NS)
    for _ in range(2):
        await streams.telemetry.publish("t", sample.SerializeToString())
        await streams.scaling.publish("s", decision.SerializeToString())
    written = WatchedStore(store, until={"telemetry": 2, "scaling": 2})
    async with analyzing(streams, written):
        await written.wait(CALL_SECONDS)
    assert await store.query("SELECT worker, slot FROM workers") == [("w1", "0")]
    assert await store.query("SELECT decision, time_ns FROM scaling ORDER BY time_ns") == [
        ("local-1", START_NS),
        ("local-1", START_NS + 1),
    ]


async def test_a_caller_that_waits_is_answered_when_the_commit_is_in_the_store(
    streams: Streams, store: DuckDbStore
) -> None:
    async with analyzing(streams, store) as client, asyncio.TaskGroup() as group:
        waiting = group.create_task(client.checkpoint(wait_for=1))
        assert (await client.checkpoint()).log_sequence == 0
        streams.append([commit(0, registered())])
        assert (await waiting).log_sequence == 1
    assert await store.query("SELECT workers FROM fleet") == [(1,)]


async def test_a_caller_that_waits_beyond_its_deadline_is_told_so(
    streams: Streams, store: DuckDbStore
) -> None:
    async with analyzing(streams, store) as client:
        with pytest.raises(grpc.RpcError) as refused:
            await client.checkpoint(wait_for=1, deadline_seconds=0.2)
    assert parse(refused.value).code is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("at", range(1, len(long_story()), 3))
async def test_an_analyzer_started_again_at_any_sequence_leaves_the_same_store(
    streams: Streams, store: DuckDbStore, at: int
) -> None:
    commits = long_story()
    async with analyzing(streams, store) as client:
        await client.checkpoint(wait_for=streams.append(commits[:at]))
    async with analyzing(streams, store) as client:
        assert (await client.checkpoint()).log_sequence == at
        await client.checkpoint(wait_for=streams.append(commits[at:]))
    assert await duckdb_content(store) == expected_content(commits)


async def test_a_message_from_a_stranger_is_passed_over(streams: Streams, store: DuckDbStore) -> None:
    commits = runs(1)
    streams.append(commits[:2])
    streams.log.inject(b"\xff not ours")
    async with analyzing(streams, store) as client:
        await client.checkpoint(wait_for=streams.append(commits[2:]))
    assert await store.query('SELECT "case" FROM cases ORDER BY 1') == [("a",), ("b",), ("c",)]


async def test_another_log_is_read_from_its_beginning_and_the_history_stays(
    streams: Streams, store: DuckDbStore
) -> None:
    async with analyzing(streams, store) as client:
        await client.checkpoint(wait_for=streams.append(runs(2)))
    other = Streams()
    last = other.append(story("x", 1_000, [0.5]))
    async with analyzing(other, store) as client:
        await client.checkpoint(wait_for=last)
    assert await store.query("SELECT run FROM runs ORDER BY time_ns") == [("r0",), ("r1",), ("x",)]


async def test_a_write_that_fails_is_made_again_no_sooner_than_the_store_asks(
    streams: Streams, store: DuckDbStore, clock: FakeClock
) -> None:
    watched = WatchedStore(store)
    watched.failures = [StoreUnavailable("away", retry_after_seconds=7.0), StoreUnavailable("still away")]
    async with analyzing(streams, watched, clock) as client:
        last = streams.append(runs(1))
        await asyncio.wait_for(watched.failed.wait(), CALL_SECONDS)
        await clock.advance(6.9)
        assert len(watched.failures) == 1
        watched.failed.clear()
        await clock.advance(0.2)
        await asyncio.wait_for(watched.failed.wait(), CALL_SECONDS)
        assert watched.failures == []
        assert (await client.checkpoint()).log_sequence == 0
        await clock.advance(1.0)
        await client.checkpoint(wait_for=last)
    assert await duckdb_content(store) == expected_content(runs(1))


@pytest.mark.influxdb
async def test_influxdb_gets_every_point_once_though_the_analyzer_dies_before_its_checkpoint(
    streams: Streams, influxd: Influxd
) -> None:
    """Points are written, the checkpoint is not: as kill -9 between the two requests leaves it."""
    commits = long_story()
    bucket = "crashed-before-checkpoint"
    store = await influxd.open_store(bucket)
    try:
        async with analyzing(streams, store) as client:
            await client.checkpoint(wait_for=streams.append(commits[:9]))
        old = await store.checkpoint("log")
        assert old is not None
        async with analyzing(streams, store) as client:
            await client.checkpoint(wait_for=streams.append(commits[9:]))
        await store.write([], old)
        async with analyzing(streams, store) as client:
            assert (await client.checkpoint()).log_sequence == 9
            await client.checkpoint(wait_for=len(commits))
        assert await influx_content(store, bucket) == expected_content(commits)
    finally:
        await store.close()


@pytest.mark.influxdb
async def test_a_bucket_that_is_deleted_while_it_is_written_is_filled_again_from_the_beginning(
    streams: Streams, influxd: Influxd
) -> None:
    commits = long_story()
    bucket = "deleted"
    store = await influxd.open_store(bucket)
    with pytest.raises(ExceptionGroup) as ended:
        async with analyzing(streams, store) as client:
            await client.checkpoint(wait_for=streams.append(commits[:9]))
            await asyncio.to_thread(influxd.delete_bucket, bucket)
            await client.checkpoint(wait_for=streams.append(commits[9:]))
    await store.close()
    (reason,) = {str(each) for each in leaves(ended.value) if isinstance(each, StoreReplaced)}
    assert "was deleted, and there is a new one; start again" in reason
    store = await influxd.open_store(bucket)
    async with analyzing(streams, store) as client:
        await client.checkpoint(wait_for=len(commits))
    assert await influx_content(store, bucket) == expected_content(commits)
    await store.close()


async def test_a_store_that_lost_what_it_had_while_it_was_away_is_not_gone_on_with(
    streams: Streams, store: DuckDbStore, tmp_path: Path
) -> None:
    """As where an older copy was put back: what lies between it and now would be missing for ever."""
    watched = WatchedStore(store)
    old = await DuckDbStore.open(tmp_path / "old.duckdb")
    with pytest.raises(ExceptionGroup) as ended:
        async with analyzing(streams, watched) as client:
            last = streams.append(runs(2))
            await client.checkpoint(wait_for=last)
            watched.replace(old)
            watched.failures = [StoreUnavailable("away")]
            await client.checkpoint(wait_for=streams.append(runs(3)[last:]))
    await old.close()
    (reason,) = {str(each) for each in leaves(ended.value) if isinstance(each, StoreReplaced)}
    assert f"it had the stream log up to {last} and has it up to 0" in reason


def leaves(errors: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """What is in the group, and in those in it."""
    return [
        leaf
        for each in errors.exceptions
        for leaf in (leaves(each) if isinstance(each, BaseExceptionGroup) else [each])
    ]


@pytest.mark.influxdb
async def test_an_outage_of_influxdb_loses_and_doubles_nothing(
    streams: Streams, own_influxd: Influxd
) -> None:
    commits = long_story()
    bucket = "outage"
    store = await own_influxd.open_store(bucket)
    watched = WatchedStore(store)
    try:
        async with analyzing(streams, watched) as client:
            await client.checkpoint(wait_for=streams.append(commits[:6]))
            await asyncio.to_thread(own_influxd.kill)
            last = streams.append(commits[6:])
            with pytest.raises(grpc.RpcError) as refused:
                await client.stub.ListSeries(
                    pb.ListSeriesRequest(), metadata=client.metadata, timeout=CALL_SECONDS
                )
            assert parse(refused.value).reason == "STORE_UNAVAILABLE"
            assert (await client.checkpoint()).log_sequence == 6
            await asyncio.to_thread(own_influxd.start)
            await client.checkpoint(wait_for=last)
        assert await influx_content(store, bucket) == expected_content(commits)
    finally:
        await store.close()


def command_line(project: Path, nats: NatsSettings, namespace: str) -> list[str]:
    """`dtf trend-analyzer` on a broker, with its store in the project."""
    return [
        *(sys.executable, "-P", "-m", "dtf.cli.main", "--project", str(project)),
        *("--set", f"nats.url={nats.url}", "--set", f"nats.credentials_file={nats.credentials_file}"),
        *("--set", f"nats.max_log_bytes={nats.max_log_bytes}"),
        *("--set", f"analyzer.token_file={project / 'token'}"),
        *("trend-analyzer", "--namespace", namespace, "--path", str(project / "metrics.duckdb")),
    ]


async def append_all(log: JetStreamLog, commits: Sequence[events_pb2.Commit]) -> None:
    """Append commits as a coordinator would."""
    for each in commits:
        payload = each.SerializeToString()
        await log.append(
            payload,
            message_id=hashlib.sha256(payload).hexdigest(),
            previous_message_id=None,
            expected_last_sequence=None,
            headers={},
        )


class AnalyzerProcess:
    """`dtf trend-analyzer` as its own process."""

    def __init__(
        self, project: Path, nats: NatsSettings, namespace: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self._project = project
        (project / "token").write_text(TOKEN, encoding="utf-8")
        self._arguments = command_line(project, nats, namespace)
        self._environment = {**os.environ, **(environment or {})}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def path(self) -> Path:
        """File of its store."""
        return self._project / "metrics.duckdb"

    async def start(self) -> str:
        """Start it; its address once it serves."""
        self._process = await asyncio.create_subprocess_exec(
            *self._arguments,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 90)
        if not line:
            err = await self._error_output()
            raise AssertionError(f"the analyzer did not start: {err}")
        ready = json.loads(line)
        assert ready["ready"] is True
        return str(ready["address"])

    async def _error_output(self) -> str:
        assert self._process is not None
        assert self._process.stderr is not None
        output = (await asyncio.wait_for(self._process.stderr.read(), 90)).decode()
        # A signal to a process that has just ended would take its exit code away from asyncio.
        await asyncio.wait_for(self._process.wait(), 90)
        return output

    async def end(self, how: signal.Signals) -> int:
        """Send it a signal; its exit code."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(how)
        _out, _err = await asyncio.wait_for(self._process.communicate(), 90)
        assert self._process.returncode is not None
        return self._process.returncode


MakeProcess = Callable[..., AnalyzerProcess]


@pytest_asyncio.fixture
async def make_process(
    nats_settings: NatsSettings, namespace: str, tmp_path: Path
) -> AsyncIterator[MakeProcess]:
    """Makes analyzers as processes; none outlives the test."""
    made: list[AnalyzerProcess] = []

    def make(environment: Mapping[str, str] | None = None) -> AnalyzerProcess:
        made.append(AnalyzerProcess(tmp_path, nats_settings, namespace, environment))
        return made[-1]

    yield make
    for process in made:
        await process.end(signal.SIGKILL)


async def test_kill_9_of_the_process_loses_and_doubles_nothing(
    event_log: JetStreamLog, make_process: MakeProcess
) -> None:
    commits = long_story()
    process = make_process()
    for start, end in ((0, 5), (5, 11), (11, len(commits))):
        address = await process.start()
        async with calling(address) as client:
            await append_all(event_log, commits[start:end])
            await client.checkpoint(wait_for=end)
        is_last = end == len(commits)
        code = await process.end(signal.SIGTERM if is_last else signal.SIGKILL)
    assert code == 0
    store = await DuckDbStore.open(process.path)
    assert await duckdb_content(store) == expected_content(commits)
    await store.close()


@pytest.mark.influxdb
async def test_the_command_writes_to_the_influxdb_that_the_environment_names(
    event_log: JetStreamLog, make_process: MakeProcess, influxd: Influxd
) -> None:
    commits, bucket = long_story(), "by-command"
    environment = {
        "DTF_STORE_KIND": "influxdb",
        "INFLUXDB_V2_URL": influxd.url,
        "INFLUXDB_V2_TOKEN": influxd.token,
        "INFLUXDB_V2_ORG": influxd.org,
        "INFLUXDB_V2_BUCKET": bucket,
    }
    process = make_process(environment)
    for start, end in ((0, 9), (9, len(commits))):
        address = await process.start()
        await append_all(event_log, commits[start:end])
        async with calling(address) as client:
            assert (await client.checkpoint(wait_for=end)).store == "influxdb"
        await process.end(signal.SIGKILL)
    store = await influxd.open_store(bucket)
    assert await influx_content(store, bucket) == expected_content(commits)
    await store.close()


async def test_an_influxdb_that_is_not_described_is_asked_for_by_name(make_process: MakeProcess) -> None:
    environment = {"DTF_STORE_KIND": "influxdb", "INFLUXDB_V2_URL": "http://127.0.0.1:9"}
    process = make_process(environment)
    with pytest.raises(
        AssertionError, match="needs INFLUXDB_V2_TOKEN and INFLUXDB_V2_ORG in the environment"
    ):
        await process.start()


async def test_a_second_analyzer_on_the_same_file_is_told_who_has_it(
    make_process: MakeProcess, store: DuckDbStore
) -> None:
    process = make_process()
    with pytest.raises(
        AssertionError, match=r"error: .*metrics\.duckdb is open in another process"
    ) as failed:
        await process.start()
    assert "Traceback" not in str(failed.value)
    assert await process.end(signal.SIGKILL) == 6


async def refusal(call: Any) -> tuple[grpc.StatusCode, list[str]]:
    """Status and fields at fault of a call that must fail."""
    with pytest.raises(grpc.RpcError) as refused:
        await call
    failure = parse(refused.value)
    return failure.code, [violation.field for violation in failure.violations]


@pytest_asyncio.fixture
async def client(streams: Streams, store: DuckDbStore) -> AsyncIterator[AnalysisClient]:
    """A client of an analyzer that has six runs behind it."""
    last = streams.append(runs(6))
    async with analyzing(streams, store) as made:
        await made.checkpoint(wait_for=last)
        yield made


async def test_statistics_of_cases_come_in_pages(client: AnalysisClient) -> None:
    token, names = "", []
    while True:
        request = pb.ListCaseStatisticsRequest(suite="suite", page_size=2, page_token=token, window=5)
        page = await client.stub.ListCaseStatistics(request, metadata=client.metadata, timeout=CALL_SECONDS)
        names += [(case.case_name, case.count) for case in page.cases]
        token = page.next_page_token
        if not token:
            break
    assert names == [("a", 5), ("b", 5), ("c", 5)]


async def test_series_come_in_pages(client: AnalysisClient) -> None:
    token, keys = "", []
    while True:
        request = pb.ListSeriesRequest(suite="suite", page_size=4, page_token=token)
        page = await client.stub.ListSeries(request, metadata=client.metadata, timeout=CALL_SECONDS)
        keys += [(key.case_name, key.metric) for key in page.series]
        token = page.next_page_token
        if not token:
            break
    assert keys == [
        ("", "busy_seconds"),
        ("", "cpu_seconds"),
        ("", "duration_seconds"),
        ("a", "duration_seconds"),
        ("b", "duration_seconds"),
        ("c", "duration_seconds"),
    ]


async def test_points_of_a_series_carry_where_they_came_from(client: AnalysisClient) -> None:
    key = pb.SeriesKey(suite="suite", case_name="a", metric="duration_seconds")
    answer = await client.stub.QuerySeries(
        pb.QuerySeriesRequest(series=key, limit=2), metadata=client.metadata, timeout=CALL_SECONDS
    )
    assert [(point.run_id, point.revision, point.worker_id, point.verdict) for point in answer.points] == [
        ("r4", "4f2a91c", "w1", common_pb2.VERDICT_PASSED),
        ("r5", "4f2a91c", "w1", common_pb2.VERDICT_PASSED),
    ]
    assert answer.points[1].value == pytest.approx(0.6)


async def test_a_run_is_compared_with_the_runs_before_it_slowest_case_first(client: AnalysisClient) -> None:
    answer = await client.stub.CompareRun(
        pb.CompareRunRequest(run_id="r5"), metadata=client.metadata, timeout=CALL_SECONDS
    )
    assert answer.run_count == 5
    assert [case.case_name for case in answer.cases] == ["a", "c", "b"]
    slowest = answer.cases[0]
    assert slowest.ratio == pytest.approx(0.6 / 0.3)
    assert list(slowest.recent_seconds) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert not slowest.is_unusual, "its history is as wide as the difference"
    assert slowest.verdict == common_pb2.VERDICT_PASSED
    assert slowest.history.count == 5


async def test_an_open_run_is_compared_too(client: AnalysisClient, streams: Streams) -> None:
    last = streams.append(story("open", 100, [3.0, 0.2, 0.3])[:4])
    await client.checkpoint(wait_for=last)
    answer = await client.stub.CompareRun(
        pb.CompareRunRequest(run_id="open"), metadata=client.metadata, timeout=CALL_SECONDS
    )
    assert [(case.case_name, case.is_unusual) for case in answer.cases] == [
        ("a", True),
        ("c", False),
        ("b", False),
    ]


async def test_the_fleet_is_told_over_a_span(client: AnalysisClient) -> None:
    since = START_NS / 1e9 + 10
    answer = await client.stub.QueryFleet(
        pb.QueryFleetRequest(since_at=since, until_at=since + 10),
        metadata=client.metadata,
        timeout=CALL_SECONDS,
    )
    assert [(point.time_at - since, point.leased) for point in answer.points] == [(0.0, 1), (1.0, 0)]


async def test_requests_at_fault_are_refused_with_the_field_named(client: AnalysisClient) -> None:
    stub = client.stub
    rest: dict[str, Any] = {"metadata": client.metadata, "timeout": CALL_SECONDS}
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    statistics, series = pb.ListCaseStatisticsRequest, pb.QuerySeriesRequest
    key = pb.SeriesKey(suite="s", metric="m")
    assert await refusal(stub.ListCaseStatistics(statistics(), **rest)) == (invalid, ["suite"])
    too_many = statistics(suite="s", page_size=100_001)
    assert await refusal(stub.ListCaseStatistics(too_many, **rest)) == (invalid, ["page_size"])
    bad_token = statistics(suite="s", page_token="Zm9v")
    assert await refusal(stub.ListCaseStatistics(bad_token, **rest)) == (invalid, ["page_token"])
    assert await refusal(stub.QuerySeries(series(), **rest)) == (invalid, ["series.suite"])
    bad_since = series(series=key, since_at=float("nan"))
    assert await refusal(stub.QuerySeries(bad_since, **rest)) == (invalid, ["since_at"])
    unknown = pb.CompareRunRequest(run_id="no-such-run")
    assert await refusal(stub.CompareRun(unknown, **rest)) == (grpc.StatusCode.NOT_FOUND, [])


async def test_calls_need_the_token_and_probes_do_not(streams: Streams, store: DuckDbStore) -> None:
    async with analyzing(streams, store) as client:
        call = client.stub.GetCheckpoint(pb.GetCheckpointRequest(), timeout=CALL_SECONDS)
        assert await refusal(call) == (grpc.StatusCode.UNAUTHENTICATED, [])
    streams.append([commit(0, run_created(), shard_submitted("a"))])


async def test_health_is_served(make_process: MakeProcess) -> None:
    process = make_process()
    address = await process.start()
    async with open_channel(Peer((address,))) as channel:
        make_stub: Any = health_pb2_grpc.HealthStub
        request = health_pb2.HealthCheckRequest(service="dtf.api.v1.AnalysisService")
        answer = await make_stub(channel).Check(request, timeout=CALL_SECONDS)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert await process.end(signal.SIGTERM) == 0
