"""Runs that confirm changes: asked for once each, within the budget, until the change is confirmed or gone."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dtf.adapters.duckdb_store import DuckDbStore
from dtf.adapters.memory_vault import MemoryVault
from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import events_pb2, findings_pb2, run_service_pb2
from dtf.cli.trends_rebuild_command import rebuild, recorded_findings
from dtf.core.trend.confirmations import is_answered
from dtf.core.trend.finding_groups import group_findings
from dtf.settings.trends import TrendsSettings
from dtf.trend_analyzer import confirmer, intake
from dtf.trend_analyzer.reruns import CoordinatorAway, RerunRefused
from tests.analyzer_bench import CALL_SECONDS, AnalysisClient, Streams, analyzing
from tests.trend_histories import bench_history, bench_run, case_history, measured, noise, search, stepped

pytestmark = pytest.mark.trend_analyzer

STEP, SHOWN = 30, 33
"""Where the level changes, and how many values there are when the change is first seen."""
STEADY = noise(3, STEP + 40, 0.1, 0.002)
STEPPED = stepped(STEADY, STEP, 0.015)
ANY_AGE = TrendsSettings(confirm=True, confirm_max_age_hours=1e6, confirm_per_hour=1000)


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[DuckDbStore]:
    """An empty DuckDB store."""
    made = await DuckDbStore.open(tmp_path / "metrics.duckdb")
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody lingers."""
    monkeypatch.setattr(confirmer, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(intake, "PACE_SECONDS", 0.01)


class Bench:
    """A coordinator with one worker: whatever is asked for runs at once, and the log has it."""

    def __init__(self, streams: Streams, history: Sequence[float], again: Iterator[float]) -> None:
        self._streams = streams
        self._again = again
        self._count = len(history)
        self.commits = bench_history(history)
        self.asked: list[run_service_pb2.ConfirmFindingRequest] = []
        self.runs: dict[tuple[str, int], run_service_pb2.Run] = {}
        self.is_away = False
        self.refusal = ""
        streams.append(self.commits)

    @property
    def sequence(self) -> int:
        """Where the log ends."""
        return len(self.commits)

    async def confirm(self, request: run_service_pb2.ConfirmFindingRequest) -> run_service_pb2.Run:
        """The run of this finding and number."""
        copy = run_service_pb2.ConfirmFindingRequest()
        copy.CopyFrom(request)
        self.asked.append(copy)
        if self.is_away:
            raise CoordinatorAway("nobody listens")
        if self.refusal:
            raise RerunRefused(self.refusal)
        key = request.finding_id, request.number
        if key not in self.runs:
            self.runs[key] = self._run(request)
        return self.runs[key]

    def _run(self, request: run_service_pb2.ConfirmFindingRequest) -> run_service_pb2.Run:
        known = (event.run_created for commit in self.commits for event in commit.events)
        source = next((created for created in known if created.run_id == request.run_id), None)
        if source is None:
            raise RerunRefused(f"run {request.run_id} is of another machine")
        commits = bench_run(self._count, next(self._again), 500.0)
        created = commits[0].events[0].run_created
        created.revision = source.revision
        created.confirmation.CopyFrom(
            events_pb2.Confirmation(
                finding_id=request.finding_id, number=request.number, run_id=request.run_id
            )
        )
        self._count += 1
        first = len(self._streams.log.commits) + 1
        self.commits += commits
        self._streams.append(commits)
        created.confirmation.code_note = "with edits"
        return run_service_pb2.Run(
            run_id=created.run_id, first_sequence=first, confirmation=created.confirmation
        )


def events(streams: Streams) -> list[findings_pb2.AnalysisEvent]:
    """Every event of the analysis stream."""
    return [findings_pb2.AnalysisEvent.FromString(each.payload) for each in streams.analysis.records]


def requests(streams: Streams) -> list[tuple[str, int, str, str]]:
    """(finding, number, run, refusal) of every event about confirmations."""
    said = [
        each.confirmation_requested for each in events(streams) if each.HasField("confirmation_requested")
    ]
    return [(each.finding_id, each.number, each.run_id, each.refusal) for each in said]


def latencies(streams: Streams) -> list[findings_pb2.Finding]:
    """Every version of every finding of the latency."""
    found = [each.finding for each in events(streams) if each.HasField("finding")]
    return [each for each in found if each.series.metric == "latency"]


async def until(streams: Streams, state: "findings_pb2.FindingState.ValueType") -> findings_pb2.Finding:
    """The first version of a finding of the latency in that state."""
    async for batch in streams.analysis.follow(0):
        for stored in batch:
            finding = findings_pb2.AnalysisEvent.FromString(stored.payload).finding
            if finding.series.metric == "latency" and finding.state == state:
                return finding
    raise AssertionError("the stream ended")


async def answered(streams: Streams) -> None:
    """Wait for the first answer of the coordinator on the stream."""
    async for batch in streams.analysis.follow(0):
        for stored in batch:
            if is_answered(findings_pb2.AnalysisEvent.FromString(stored.payload).confirmation_requested):
                return


@asynccontextmanager
async def confirming(
    streams: Streams, store: DuckDbStore, bench: Bench, settings: TrendsSettings = ANY_AGE
) -> AsyncIterator[AnalysisClient]:
    """An analyzer that may ask `bench` for runs."""
    async with analyzing(streams, store, coordinator=bench, trends=settings) as client:
        yield client


async def searched(client: AnalysisClient, sequence: int) -> None:
    """Wait until everything up to `sequence` was searched."""
    request = pb.GetCheckpointRequest(wait_for_findings=sequence)
    await client.stub.GetCheckpoint(request, metadata=client.metadata, timeout=CALL_SECONDS)


async def test_a_step_is_confirmed_by_runs_of_the_run_that_showed_it(store: DuckDbStore) -> None:
    streams = Streams()
    bench = Bench(streams, STEPPED[:SHOWN], iter(STEPPED[SHOWN:]))
    async with confirming(streams, store, bench) as client:
        found = await until(streams, findings_pb2.FINDING_STATE_CONFIRMED)
        count = len(bench.runs)
        request = pb.GetFindingRequest(finding_id=found.finding_id)
        told = await client.stub.GetFinding(request, metadata=client.metadata, timeout=CALL_SECONDS)
    assert abs(found.index - STEP) <= 1
    assert {(each.run_id, each.task, each.case_name, each.pool) for each in bench.asked} == {
        (f"r{SHOWN - 1:04d}", 0, "load", "local")
    }
    own = [each for each in bench.asked if each.finding_id == found.finding_id]
    assert [each.number for each in own] == list(range(1, len(own) + 1))
    assert 6 <= count <= 10
    assert [each.run_id for each in told.finding.confirmations] == [
        bench.runs[each.finding_id, each.number].run_id for each in own
    ]
    assert {each.code_note for each in told.finding.confirmations} == {"with edits"}
    assert latencies(streams) == [
        each for each in search(bench.commits, MemoryVault())[1] if each.series.metric == "latency"
    ]
    rows = await store.query("SELECT count(*) FROM runs")
    assert rows == [(SHOWN + count,)]


async def test_what_noise_looked_like_goes_away(store: DuckDbStore) -> None:
    streams = Streams()
    bench = Bench(streams, STEPPED[:SHOWN], iter(STEADY[SHOWN:]))
    async with confirming(streams, store, bench):
        await until(streams, findings_pb2.FINDING_STATE_WENT_AWAY)
    assert 1 <= len(bench.runs) < 10


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        (TrendsSettings(confirm=True, confirm_max_age_hours=1e6, confirm_per_hour=3), 3),
        (TrendsSettings(confirm=True, confirm_max_age_hours=1e6, confirm_per_change=2), 2),
        (TrendsSettings(confirm=True), 0),
        (TrendsSettings(confirm=False, confirm_max_age_hours=1e6), 0),
    ],
    ids=["an hour's", "a change's", "too old", "off"],
)
async def test_no_more_runs_than_the_budget_allows(
    store: DuckDbStore, settings: TrendsSettings, most: int
) -> None:
    streams = Streams()
    bench = Bench(streams, STEPPED[:SHOWN], iter(STEPPED[SHOWN:]))
    for _start in range(2):
        async with confirming(streams, store, bench, settings) as client:
            while len(bench.runs) < most:
                await searched(client, bench.sequence)
            await searched(client, bench.sequence)
            for _ in range(30):  # looks, of which none may ask for more
                await client.checkpoint()
    assert len(bench.runs) == most
    assert len(bench.asked) == most


async def test_a_request_that_was_not_answered_is_asked_again_and_made_once(store: DuckDbStore) -> None:
    """As after kill -9 between the request on the stream and the coordinator's answer, or behind it."""
    streams = Streams()
    bench = Bench(streams, STEPPED[:SHOWN], iter(STEPPED[SHOWN:]))
    once = TrendsSettings(confirm=True, confirm_max_age_hours=1e6, confirm_per_change=1)
    bench.is_away = True
    async with confirming(streams, store, bench, once) as client:
        while not bench.asked:
            await searched(client, bench.sequence)
    (asked,) = requests(streams)
    assert asked[2:] == ("", "")
    bench.is_away = False
    await bench.confirm(bench.asked[0])  # it was heard, and the answer was lost
    async with confirming(streams, store, bench, once):
        await answered(streams)
    assert len(bench.runs) == 1
    assert requests(streams) == [asked, (asked[0], 1, next(iter(bench.runs.values())).run_id, "")]


async def test_what_is_refused_is_told_and_not_asked_again(store: DuckDbStore) -> None:
    streams = Streams()
    bench = Bench(streams, STEPPED[:SHOWN], iter(STEPPED[SHOWN:]))
    bench.refusal = "the workspace of run r0032 was removed"
    for _start in range(2):
        async with confirming(streams, store, bench) as client:
            await answered(streams)
            for _ in range(30):
                await client.checkpoint()
    assert len(bench.asked) == 1
    assert requests(streams)[-1][3] == bench.refusal


async def test_a_search_from_the_beginning_finds_what_was_found_as_it_went(store: DuckDbStore) -> None:
    """With runs to confirm, judgements, restarts, a group and a run that is unusual only taken together."""
    rows = measured("shared", 8, 170)
    rows[130] = [1.03, 0.776, 1e8]
    rows[150:] *= 1.2
    streams = Streams()
    streams.append(case_history(rows, "c"))
    bench = Bench(streams, STEPPED[:SHOWN], iter(STEPPED[SHOWN:]))
    async with confirming(streams, store, bench) as client:
        await until(streams, findings_pb2.FINDING_STATE_CONFIRMED)
    verdicts = (findings_pb2.TRIAGE_VERDICT_REJECTED, findings_pb2.TRIAGE_VERDICT_MUTED)
    async with confirming(streams, store, bench) as client:
        last = len(streams.log.commits)
        await searched(client, last)
        call: dict[str, Any] = {"metadata": client.metadata, "timeout": CALL_SECONDS}
        found = (await client.stub.ListFindings(pb.ListFindingsRequest(), **call)).findings
        groups = group_findings(each.finding for each in found)
        for each, verdict in zip(found, verdicts, strict=False):
            identity = each.finding.finding_id
            await client.stub.TriageFinding(
                pb.TriageFindingRequest(finding_id=identity, verdict=verdict), **call
            )
        streams.append(bench_run(900, 0.2, 500.0))
    async with confirming(streams, store, bench) as client:
        await searched(client, len(streams.log.commits))
    await streams.analysis.publish("findings", b"\xff a stranger")
    log: Any = streams.log
    rebuilt = await rebuild(log)
    recorded, others = await recorded_findings(streams.analysis, rebuilt.last_sequence)
    assert (others, len(bench.runs) > 0, len(groups) > 0) == (0, True, True)
    assert findings_pb2.FINDING_KIND_MULTIVARIATE in {each.kind for each in recorded.values()}
    assert rebuilt.findings == recorded
