"""Findings over real gRPC: found as points come in, the same after a restart, judged, compared, imported."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import pytest_asyncio

from dtf.adapters.duckdb_store import DuckDbStore
from dtf.adapters.memory_vault import MemoryVault
from dtf.adapters.sqlite_vault import SqliteVault
from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import findings_pb2
from dtf.cli import trends_client
from dtf.cli.errors import CommandError
from dtf.cli.trends_client import Analyzer
from dtf.core.trend import series_points
from dtf.core.trend.finding_groups import group_findings
from dtf.core.trend.findings_book import FindingsBook
from dtf.core.trend.group_text import group_sentence
from dtf.core.trend.series_points import SeriesKey
from dtf.ports.series_vault import VaultCheckpoint, VaultError, VaultUnavailable
from dtf.rpc.errors import parse
from tests.analyzer_bench import CALL_SECONDS, AnalysisClient, Streams, analyzing
from tests.grafana_frames import ask, filled, questions
from tests.influxd import Influxd
from tests.trend_histories import LATENCY, bench_history, bench_on_two_pools, noise, search, stepped
from tests.trend_stores import PointTable, WatchedStore, influx_content

pytestmark = pytest.mark.trend_analyzer

LATENCIES = stepped(noise(1, 80, 0.1, 0.002), 40, 0.02)


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[DuckDbStore]:
    """An empty DuckDB store."""
    made = await DuckDbStore.open(tmp_path / "metrics.duckdb")
    yield made
    await made.close()


async def searched(client: AnalysisClient, sequence: int) -> dict[str, Any]:
    """Wait until everything up to `sequence` was searched; what further calls carry."""
    call: dict[str, Any] = {"metadata": client.metadata, "timeout": CALL_SECONDS}
    await client.stub.GetCheckpoint(pb.GetCheckpointRequest(wait_for_findings=sequence), **call)
    return call


def recorded(streams: Streams) -> list[findings_pb2.Finding]:
    """Every version of every finding on the stream, in order."""
    return [event.finding for event in events(streams) if event.HasField("finding")]


def events(streams: Streams) -> list[findings_pb2.AnalysisEvent]:
    """Everything on the stream, in order."""
    return [findings_pb2.AnalysisEvent.FromString(each.payload) for each in streams.analysis.records]


async def test_findings_are_events_points_and_answers(store: DuckDbStore) -> None:
    streams = Streams()
    last = streams.append(bench_history(LATENCIES))
    async with analyzing(streams, store) as client:
        call = await searched(client, last)
        (found,) = (await client.stub.ListFindings(pb.ListFindingsRequest(), **call)).findings
        assert found.finding == recorded(streams)[-1]
        judged = await client.stub.TriageFinding(
            pb.TriageFindingRequest(
                finding_id=found.finding.finding_id[:4],
                verdict=findings_pb2.TRIAGE_VERDICT_REJECTED,
                reason="the machine was changed",
                requested_by="ann@host",
            ),
            **call,
        )
        assert (judged.finding.is_raised, judged.finding.triage.reason) == (False, "the machine was changed")
        assert not (await client.stub.ListFindings(pb.ListFindingsRequest(), **call)).findings
        (step, *_) = (await client.stub.ListRules(pb.ListRulesRequest(), **call)).rules
        assert (step.kind, step.rejected, step.precision) == (findings_pb2.FINDING_KIND_STEP, 1, 0.0)
    rows = await store.query(
        'SELECT "case", metric, state, triage, is_raised, impact FROM findings '
        "WHERE kind = 'step' AND state <> 'moved'"
    )
    assert rows == [("load", "latency", "confirmed", "rejected", False, "regression")]


@pytest.mark.parametrize("at", [100, 164, 170, 172, 200])
async def test_a_restart_goes_on_where_it_was_and_says_nothing_twice(store: DuckDbStore, at: int) -> None:
    commits = bench_history(LATENCIES[:55])
    streams = Streams()
    first = streams.append(commits[:at])
    async with analyzing(streams, store) as client:
        await searched(client, first)
    last = streams.append(commits[at:])
    async with analyzing(streams, store) as client:
        await searched(client, last)
    assert recorded(streams) == search(commits, MemoryVault())[1]


async def test_a_vault_that_is_lost_or_behind_is_filled_again_from_the_log(store: DuckDbStore) -> None:
    commits = bench_history(LATENCIES[:55])
    streams = Streams()
    first = streams.append(commits[:180])
    async with analyzing(streams, store) as client:
        await searched(client, first)
    old = streams.vault
    streams.vault = MemoryVault()
    last = streams.append(commits[180:])
    async with analyzing(streams, store) as client:
        await searched(client, last)
    assert recorded(streams) == search(commits, MemoryVault())[1]
    streams.vault = old  # as after a restore of an older copy
    async with analyzing(streams, store) as client:
        await searched(client, last)
    assert recorded(streams) == search(commits, MemoryVault())[1]


async def test_what_older_rules_found_is_searched_again_and_not_told_beside_what_those_of_now_find(
    store: DuckDbStore,
) -> None:
    """The same change may have another identity then: it is seen a run earlier, or at another place."""
    commits = bench_history(LATENCIES)
    streams = Streams()
    last = streams.append(commits)
    found = search(commits, MemoryVault())[1][-1]
    found.finding_id, found.rule_version = "0ld0ld0ld0", found.rule_version - 1
    await streams.analysis.publish("step", findings_pb2.AnalysisEvent(finding=found).SerializeToString())
    await streams.vault.save({}, VaultCheckpoint(last, "{}", 1, found.rule_version))
    async with analyzing(streams, store) as client:
        call = await searched(client, last)
        listed = (await client.stub.ListFindings(pb.ListFindingsRequest(), **call)).findings
        assert [each.finding.rule_version for each in listed] == [found.rule_version + 1]
        request = pb.ListFindingsRequest(include_all=True)
        every = (await client.stub.ListFindings(request, **call)).findings
        assert "0ld0ld0ld0" in {each.finding.finding_id for each in every}


async def test_a_judgement_follows_its_finding_to_what_newer_rules_find_or_is_said_to_be_an_orphan(
    store: DuckDbStore,
) -> None:
    commits = bench_history(LATENCIES)
    streams = Streams()
    last = streams.append(commits)
    found = search(commits, MemoryVault())[1][-1]
    rules = found.rule_version - 1
    for identity, index in (("0ld0ld0ld0", found.index + 2), ("0rphan0000", 3)):
        old = findings_pb2.Finding()
        old.CopyFrom(found)
        old.finding_id, old.index, old.rule_version = identity, index, rules
        if index == 3:
            old.time_unix_nanos = old.before_unix_nanos = old.last_unix_nanos = 3
        judged = findings_pb2.FindingTriaged(
            finding_id=identity, verdict=findings_pb2.TRIAGE_VERDICT_REJECTED, reason="other machine"
        )
        for event in (
            findings_pb2.AnalysisEvent(finding=old),
            findings_pb2.AnalysisEvent(finding_triaged=judged),
        ):
            await streams.analysis.publish("step", event.SerializeToString())
    await streams.vault.save({}, VaultCheckpoint(last, "{}", 1, rules))
    async with analyzing(streams, store) as client:
        call = await searched(client, last)
        await _followed(client, "0ld0ld0ld0", call)
        every = pb.ListFindingsRequest(include_all=True)
        listed = {
            each.finding.finding_id: each for each in (await client.stub.ListFindings(every, **call)).findings
        }
        now = listed[found.finding_id]
        assert (now.triage.reason, now.is_raised) == ("other machine", False)
        assert listed["0ld0ld0ld0"].successor_id == found.finding_id
        assert listed["0rphan0000"].is_orphaned and not listed["0ld0ld0ld0"].is_orphaned
        rules_now = await client.stub.ListRules(pb.ListRulesRequest(), **call)
        assert [each.finding.finding_id for each in rules_now.orphans] == ["0rphan0000"]
        assert sum(rule.rejected for rule in rules_now.rules) == 2, "each judgement once"
        undo = pb.TriageFindingRequest(finding_id="0ld0ld0ld0")
        again = (await client.stub.TriageFinding(undo, **call)).finding
        assert (again.finding.finding_id, again.is_raised) == (found.finding_id, True)
    async with analyzing(streams, store) as client:  # the same after a restart
        call = await searched(client, last)
        named = pb.GetFindingRequest(finding_id=found.finding_id)
        assert (await client.stub.GetFinding(named, **call)).finding.is_raised
    assert len([each for each in events(streams) if each.HasField("finding_succeeded")]) == 1


async def _followed(client: AnalysisClient, identity: str, call: dict[str, Any]) -> None:
    """Wait until the finding has a successor."""
    async with asyncio.timeout(CALL_SECONDS):
        while True:
            found = await client.stub.GetFinding(pb.GetFindingRequest(finding_id=identity), **call)
            if found.finding.successor_id:
                return


async def test_two_revisions_are_compared_by_the_changes_between_them(store: DuckDbStore) -> None:
    streams = Streams()
    last = streams.append(bench_history(LATENCIES))
    async with analyzing(streams, store) as client:
        call = await searched(client, last)
        request = pb.CompareRevisionsRequest(suite="bench", base="rev0010", head="rev0039")
        answer = await client.stub.CompareRevisions(request, **call)
        worst = answer.series[0]
        assert (worst.series.metric, worst.impact) == ("latency", findings_pb2.FINDING_IMPACT_REGRESSION)
        assert worst.relative_low < 0.2 < worst.relative_high
        assert (worst.base_count, worst.head_count) == (2, 2)
        assert {each.impact for each in answer.series[1:]} == {findings_pb2.FINDING_IMPACT_UNSPECIFIED}
        assert (answer.short_count, {each.point_count for each in answer.series}) == (0, {80})
        request = pb.CompareRevisionsRequest(suite="bench", base="rev0001", head="rev0004")
        early = await client.stub.CompareRevisions(request, **call)
        assert not any(each.impact for each in early.series)
        assert early.short_count == len(early.series), "each has ten points by then"
        known = await client.stub.CountSeries(pb.CountSeriesRequest(suite="bench"), **call)
        assert (known.series_count, known.short_count) == (len(answer.series), 0)
        request = pb.CompareRevisionsRequest(suite="bench", since_at=1.0)
        assert (await client.stub.CompareRevisions(request, **call)).series[0].series.metric == "latency"
        for wrong in (
            pb.CompareRevisionsRequest(suite="nothing"),
            pb.CompareRevisionsRequest(suite="bench", base="nowhere"),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                await client.stub.CompareRevisions(wrong, **call)
            assert parse(refused.value).code is grpc.StatusCode.NOT_FOUND


async def test_that_not_every_set_of_metrics_is_looked_at_together_is_told_once_a_start(
    store: DuckDbStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(series_points, "MOST_TOGETHER", 1)
    streams = Streams()
    last = streams.append([*bench_history(LATENCIES[:10]), *bench_on_two_pools("r9", 1e6)])
    for start in (1, 2):
        async with analyzing(streams, store) as client:
            call = await searched(client, last)
            known = await client.stub.CountSeries(pb.CountSeriesRequest(), **call)
            assert known.together_limit == 1
        assert caplog.text.count("sets of metrics of the log are looked at together") == start


async def test_imported_history_is_searched_stored_and_survives_a_restart(store: DuckDbStore) -> None:
    streams = Streams()
    imported = findings_pb2.PointsImported(
        series=findings_pb2.FindingSeries(suite="old", case_name="sort", metric="mean"),
        unit="s",
        is_lower_better=True,
        times_unix_nanos=[number * 10**12 for number in range(1, 81)],
        values=LATENCIES,
        revisions=[f"v{number}" for number in range(80)],
    )
    for _ in range(2):  # the second time every point is known
        async with analyzing(streams, store) as client:
            call: dict[str, Any] = {"metadata": client.metadata, "timeout": CALL_SECONDS}
            await client.stub.ImportPoints(pb.ImportPointsRequest(series=[imported]), **call)
            last = streams.append(bench_history(noise(5, 2, 1.0, 0.1)))
            await searched(client, last)
            (found,) = (await client.stub.ListFindings(pb.ListFindingsRequest(suite="old"), **call)).findings
            assert (found.finding.series.pool, found.finding.revision_last) == ("imported", "v40")
            for pool in ("", "imported"):
                key = pb.SeriesKey(suite="old", case_name="sort", metric="mean", pool=pool)
                shown = await client.stub.QuerySeries(pb.QuerySeriesRequest(series=key), **call)
                assert (len(shown.points), shown.unit, shown.is_lower_better) == (80, "s", True)
    assert await store.query("SELECT count(*) FROM benchmarks WHERE suite = 'old'") == [(80,)]
    versions = [(each.finding_id, each.version) for each in recorded(streams)]
    assert len(versions) == len(set(versions))


async def test_what_is_imported_again_while_it_is_searched_is_known_and_a_stalled_search_is_told(
    store: DuckDbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams, has_room = Streams(), asyncio.Event()
    save = streams.vault.save

    async def save_when_there_is_room(series: Mapping[SeriesKey, bytes], checkpoint: VaultCheckpoint) -> None:
        await has_room.wait()
        await save(series, checkpoint)

    monkeypatch.setattr(streams.vault, "save", save_when_there_is_room)
    imported = findings_pb2.PointsImported(
        series=findings_pb2.FindingSeries(suite="old", case_name="sort", metric="mean"),
        times_unix_nanos=range(1, 41),
        values=LATENCIES[:40],
    )
    other = findings_pb2.PointsImported()
    other.CopyFrom(imported)
    other.series.case_name = "search"
    async with analyzing(streams, store) as client:
        call: dict[str, Any] = {"metadata": client.metadata, "timeout": CALL_SECONDS}
        for each, expected in ((imported, (40, 0)), (other, (40, 0)), (other, (0, 40))):
            answer = await client.stub.ImportPoints(pb.ImportPointsRequest(series=[each]), **call)
            assert (answer.taken_count, answer.known_count) == expected
        asked = SimpleNamespace(has_analyzer=True, analysis=client.stub, metadata=client.metadata)
        analyzer = Analyzer(asked)  # type: ignore[arg-type]  # all that it asks a client for
        with monkeypatch.context() as soon:
            soon.setattr(trends_client, "LOOK_SECONDS", 0.05)
            soon.setattr(trends_client, "STALLED_SECONDS", 0.1)
            with pytest.raises(CommandError, match=r"not searched everything yet, .* points are left"):
                await analyzer.settle()
        has_room.set()
        assert not (await analyzer.settle()).is_importing


async def test_who_waits_for_imports_is_answered_when_they_were_searched(store: DuckDbStore) -> None:
    streams = Streams()
    values = [*noise(1, 3_000, 1.0, 0.1), *noise(2, 1_000, 2.0, 0.1)]
    imported = findings_pb2.PointsImported(
        series=findings_pb2.FindingSeries(suite="old", case_name="sort", metric="mean", pool="imported"),
        times_unix_nanos=[number * 10**9 for number in range(len(values))],
        values=values,
        revisions=[""] * len(values),
    )
    event = findings_pb2.AnalysisEvent(points_imported=imported)
    await streams.analysis.publish("import", event.SerializeToString())
    async with analyzing(streams, store) as client:
        call: dict[str, Any] = {"metadata": client.metadata, "timeout": CALL_SECONDS}
        now = await client.stub.GetCheckpoint(pb.GetCheckpointRequest(wait_for_imports=True), **call)
        assert not now.is_importing
        found = (await client.stub.ListFindings(pb.ListFindingsRequest(suite="old"), **call)).findings
        assert [each.finding.series.metric for each in found] == ["mean"]


async def test_messages_that_are_no_findings_stop_nothing(
    store: DuckDbStore, caplog: pytest.LogCaptureFixture
) -> None:
    streams = Streams()
    later = {"kind": 99, "rule_version": 10**6}
    strange = findings_pb2.Finding(finding_id="x", confidence=1.0, **later)  # type: ignore[arg-type]  # a later kind
    for payload in (
        b"\xff\xff",
        findings_pb2.AnalysisEvent(
            points_imported=findings_pb2.PointsImported(values=[1.0])
        ).SerializeToString(),
        findings_pb2.AnalysisEvent(finding=strange).SerializeToString(),
        findings_pb2.AnalysisEvent(
            finding_triaged=findings_pb2.FindingTriaged(finding_id="?")
        ).SerializeToString(),
        b"",
    ):
        await streams.analysis.publish("findings", payload)
    last = streams.append(bench_history(LATENCIES[:55]))
    async with analyzing(streams, store) as client:
        call = await searched(client, last)
        found = await client.stub.ListFindings(pb.ListFindingsRequest(), **call)
        assert [each.finding.series.metric for each in found.findings] == ["latency", ""]
        wrong = findings_pb2.PointsImported(
            series=findings_pb2.FindingSeries(suite="s", metric="m"),
            times_unix_nanos=[1],
            values=[1.0],
            weights=[0.0],
        )
        with pytest.raises(grpc.RpcError) as refused:
            await client.stub.ImportPoints(pb.ImportPointsRequest(series=[wrong]), **call)
        assert parse(refused.value).message == "weights: 0.0 is no positive finite number of measurements"
    assert caplog.text.count("passed over a message that is not ours: stream=analysis") == 2


@pytest.mark.influxdb
async def test_influxdb_holds_exactly_these_findings_and_grafana_shows_them_as_people_are_told(
    influxd: Influxd,
) -> None:
    streams, bucket = Streams(), "findings-service"
    last = streams.append(bench_history(LATENCIES, stepped(noise(3, 80, 500.0, 10.0), 40, -120.0)))
    store = await influxd.open_store(bucket)
    watched = WatchedStore(store)
    try:
        async with analyzing(streams, watched) as client:
            await searched(client, last)
            watched.wait_until({"analysis": len(streams.analysis.records)})
            await watched.wait(CALL_SECONDS)
            found = await client.stub.ListFindings(
                pb.ListFindingsRequest(), metadata=client.metadata, timeout=CALL_SECONDS
            )
        told = [group_sentence(each) for each in group_findings(each.finding for each in found.findings)]
        assert "confirmed regression of 2 series" in told[0]
        panels = {each.title: each.flux for each in questions() if each.board == "suites"}
        flux = filled(panels["Changes that several series share"], bucket, {"suite": ".*"})
        assert [row["group_text"] for frame in ask(influxd, flux) for row in frame.rows] == told
        book, table = FindingsBook(), PointTable()
        for each in streams.analysis.records:
            book.apply(findings_pb2.AnalysisEvent.FromString(each.payload), each.sequence)
        table.write(book.take())
        assert (await influx_content(store, bucket))["findings"] == table.content()["findings"]
    finally:
        await store.close()


async def test_a_sqlite_vault_keeps_what_it_was_given_and_begins_anew_where_it_is_damaged(
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.series.sqlite"
    vault = await SqliteVault.open(path)
    assert await vault.checkpoint() == VaultCheckpoint()
    await vault.save({LATENCY: b"\x00one"}, VaultCheckpoint(7, "{}", 3, 1))
    await vault.save({LATENCY: b"\x00two"}, VaultCheckpoint(8, "{}", 3, 1))
    await vault.close()
    vault = await SqliteVault.open(path)
    assert (vault.load(LATENCY), vault.keys("bench")) == (b"\x00two", [LATENCY])
    assert await vault.checkpoint() == VaultCheckpoint(8, "{}", 3, 1)
    await vault.clear()
    assert (vault.load(LATENCY), await vault.checkpoint()) == (None, VaultCheckpoint())
    await vault.close()
    path.write_bytes(b"this is no database, but long enough to be taken for one by its size" * 100)
    vault = await SqliteVault.open(path)
    assert vault.keys("bench") == []
    await vault.close()


async def test_a_vault_damaged_in_its_midst_is_removed_and_a_full_disk_waited_for(
    tmp_path: Path, store: DuckDbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.series.sqlite"
    vault = await SqliteVault.open(path)
    await vault.save({LATENCY: bytes(100_000)}, VaultCheckpoint(7, "{}", 3, 1))
    await vault.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)
    vault = await SqliteVault.open(path)
    with pytest.raises(VaultError, match=r"was damaged .* and is removed; start again"):
        vault.load(LATENCY)
    await vault.close()
    assert not path.exists()

    streams, full = Streams(), [VaultUnavailable("database or disk is full")] * 2
    save = streams.vault.save

    async def save_when_there_is_room(series: Mapping[SeriesKey, bytes], checkpoint: VaultCheckpoint) -> None:
        if full:
            raise full.pop()
        await save(series, checkpoint)

    monkeypatch.setattr(streams.vault, "save", save_when_there_is_room)
    commits = bench_history(LATENCIES[:46])
    last = streams.append(commits)
    async with analyzing(streams, store) as client:
        await searched(client, last)
    assert full == []
    assert recorded(streams) == search(commits, MemoryVault())[1]
    assert LATENCY in streams.vault.keys("bench")
