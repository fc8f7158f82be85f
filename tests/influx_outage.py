"""A real broker, a real `dtf trend-analyzer` and a real influxd under load, and what must be in the bucket afterwards.

Used by tests/integration/test_influx_outage.py, and for a whole minute by bench/influx_outage_bench.py.
"""

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.records import JetStreamRecords
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import events_pb2, findings_pb2, scaling_pb2, worker_service_pb2
from dtf.core.trend.findings_book import FindingsBook
from dtf.core.trend.log_fold import LogFold
from dtf.core.trend.measurements import MEASUREMENTS
from dtf.core.trend.names import NameBook
from dtf.core.trend.record_folds import ScalingFold, TelemetryFold
from dtf.ports.subjects import RecordKind, scaling_subject, telemetry_subject
from dtf.settings.model import NatsSettings
from tests.analyzer_bench import TOKEN, AnalysisClient, calling
from tests.trend_events import (
    PASSED,
    SECOND_NS,
    START_NS,
    accepted,
    commit,
    finished,
    granted,
    registered,
    run_created,
    shard_submitted,
)
from tests.trend_stores import Content, PointTable, influx_content

if TYPE_CHECKING:
    from dtf.adapters.influx_store import InfluxStore

Row = tuple[object, ...]
Versions = dict[Row, set[Row]]
"""Every row that a point, by its key, ever was."""

READY_SECONDS = 60.0
WORKERS = 4


class Load:
    """Runs of one suite in the log, with telemetry and scaling decisions beside it, one a `pause_seconds`.

    It keeps the points that follow from what it appended.
    """

    def __init__(
        self, nats: NatsSettings, namespace: str, *, cases: int = 40, pause_seconds: float = 0.02
    ) -> None:
        self._nats = nats
        self._namespace = namespace
        self._names = [f"tests/test_load.py::test_case[{number}]" for number in range(cases)]
        self._pause_seconds = pause_seconds
        self._clock = SystemClock()
        self._stack = AsyncExitStack()
        self._folds = LogFold(NameBook()), TelemetryFold(), ScalingFold()
        self._moved = asyncio.Condition()
        self._expected = PointTable()
        self._is_stopped = False
        self.run_count = 0
        self.sequences = {"log": 0, "telemetry": 0, "scaling": 0}
        """Last sequence appended to each stream."""

    async def __aenter__(self) -> "Load":
        self._log = await JetStreamLog.open(self._nats, self._namespace, self._clock)
        self._stack.push_async_callback(self._log.close)
        self._telemetry = await self._open(RecordKind.TELEMETRY)
        self._scaling = await self._open(RecordKind.SCALING)
        await self._append(commit(0, *(registered(f"w{number}") for number in range(WORKERS))))
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._stack.aclose()

    async def run(self) -> None:
        """Append until `stop`."""
        while not self._is_stopped:
            await self._append_run()
            async with self._moved:
                self.run_count += 1
                self._moved.notify_all()
            await self._clock.sleep(self._pause_seconds)

    def stop(self) -> None:
        """End `run` behind the present run."""
        self._is_stopped = True

    async def wait_for_runs(self, more: int) -> None:
        """Return when `more` runs were appended from now."""
        aim = self.run_count + more
        async with self._moved:
            await self._moved.wait_for(lambda: self.run_count >= aim)

    async def _open(self, kind: RecordKind) -> JetStreamRecords:
        records = await JetStreamRecords.open(self._nats, kind, self._namespace, self._clock)
        self._stack.push_async_callback(records.close)
        return records

    async def _append_run(self) -> None:
        number, run_id = self.run_count, f"r{self.run_count}"
        at, worker = 1.0 + number, f"w{number % WORKERS}"
        count = len(self._names)
        results = [(0, case, PASSED, self._seconds(number, case)) for case in range(count)]
        created = run_created(run_id, "load", revision=f"rev{number}")
        for each in (
            commit(at, created, shard_submitted(*self._names, run_id=run_id)),
            commit(at + 0.1, granted(0, run_id=run_id, worker_id=worker)),
            commit(at + 0.2, accepted(*results, run_id=run_id, worker_id=worker, completed=[count])),
            commit(at + 0.3, finished(run_id, passed=count)),
        ):
            await self._append(each)
        await self._publish(number, worker)

    @staticmethod
    def _seconds(number: int, case: int) -> float:
        """No two alike; the first three cases take twice as long in every other twenty runs, which is found."""
        jitter = (number * 7919 + case * 104_729) % 1_009 / 2**20
        return (0.02 if case < 3 and number // 20 % 2 else 0.01) + jitter

    async def _append(self, each: events_pb2.Commit) -> None:
        payload = each.SerializeToString()
        self.sequences["log"] = await self._log.append(
            payload,
            message_id=hashlib.sha256(payload).hexdigest(),
            previous_message_id=None,
            expected_last_sequence=None,
            headers={},
        )
        self._folds[0].apply(each, self.sequences["log"])

    async def _publish(self, number: int, worker: str) -> None:
        time_ns = START_NS + (number + 1) * SECOND_NS
        sample = worker_service_pb2.TelemetrySample(worker_id=worker, pool="local", heard_unix_nanos=time_ns)
        sample.telemetry.running = number
        self.sequences["telemetry"] = await self._telemetry.publish(
            telemetry_subject(self._namespace, worker), sample.SerializeToString()
        )
        decision = scaling_pb2.ScalingDecision(
            decision_id=f"local-{number}", pool="local", desired=number, now_unix_nanos=time_ns
        )
        self.sequences["scaling"] = await self._scaling.publish(
            scaling_subject(self._namespace, "local"), decision.SerializeToString()
        )
        self._folds[1].apply(sample, self.sequences["telemetry"])
        self._folds[2].apply(decision, self.sequences["scaling"])

    async def findings(self, until: int) -> tuple[Content, Versions]:
        """Points of the findings published up to a sequence of the analysis stream, and all there ever were."""
        analysis = await self._open(RecordKind.ANALYSIS)
        book, table = FindingsBook(), PointTable()
        versions: Versions = {}
        async for batch in analysis.read(0):
            for stored in batch:
                book.apply(findings_pb2.AnalysisEvent.FromString(stored.payload), stored.sequence)
                points, said = book.take(), PointTable()
                said.write(points)
                if stored.sequence <= until:
                    table.write(points)
                for key, row in _by_key(said.content()).items():
                    versions.setdefault(key, set()).add(row)
        return table.content(), versions

    def expected_content(self) -> Content:
        """What the bucket must hold of all that was appended so far, but for findings."""
        for fold in self._folds:
            self._expected.write(fold.take())
        return self._expected.content()


@asynccontextmanager
async def analyzer_process(
    directory: Path, nats: NatsSettings, namespace: str, influx: Mapping[str, str]
) -> AsyncIterator[AnalysisClient]:
    """`dtf trend-analyzer --store influxdb` as a process, and a client of it; its log is in analyzer.log."""
    (directory / "token").write_text(TOKEN, encoding="utf-8")
    with (directory / "analyzer.log").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "dtf.cli.main", "--project", str(directory)),
            *("--set", f"nats.url={nats.url}", "--set", f"nats.credentials_file={nats.credentials_file}"),
            *("--set", f"nats.max_log_bytes={nats.max_log_bytes}"),
            *("--set", f"analyzer.token_file={directory / 'token'}"),
            *("trend-analyzer", "--namespace", namespace, "--store", "influxdb"),
            env={**os.environ, **influx},
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), READY_SECONDS)
        assert line, (directory / "analyzer.log").read_text(encoding="utf-8")
        async with calling(json.loads(line)["address"]) as client:
            yield client
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is in the bucket, held against what must be there; counts of points."""

    expected: int
    missing: int
    different: int
    beyond: int
    """Points that nobody expects: doubled at another time, or made up."""
    findings: int
    """How many of the expected are findings."""

    @property
    def is_exact(self) -> bool:
        """Whether every point is there, once, as it was."""
        return not (self.missing or self.different or self.beyond)


async def compare(store: "InfluxStore", bucket: str, load: Load) -> Comparison:
    """Hold a bucket against what must be there, once no analyzer writes to it. Measurement, tags and time are a point's key.

    Findings are held against the analysis stream: those up to the stored checkpoint must be there, and none that
    the stream does not have.
    """
    found = await influx_content(store, bucket)
    reached = await store.checkpoint("analysis")
    stored, published = await load.findings(reached.sequence if reached is not None else 0)
    theirs = {_key(name, row): row for name, rows in found.items() for row in rows}
    ours = _by_key({**load.expected_content(), **stored})
    return Comparison(
        expected=len(ours),
        missing=len(ours.keys() - theirs.keys()),
        different=sum(
            theirs[key] not in published.get(key, {row}) for key, row in ours.items() if key in theirs
        ),
        beyond=len(theirs.keys() - ours.keys() - published.keys())
        + sum(map(len, found.values()))
        - len(theirs),
        findings=sum(map(len, stored.values())),
    )


def _by_key(content: Content) -> dict[Row, Row]:
    return {_key(name, row): row for name, rows in content.items() for row in rows}


def _key(name: str, row: Row) -> Row:
    return (name, *row[: 1 + len(MEASUREMENTS[name].tags)])


async def wait_until_stored(store: "InfluxStore", sequences: Mapping[str, int]) -> None:
    """Return when the checkpoints of the streams have come so far."""
    clock = SystemClock()
    for stream, sequence in sequences.items():
        while (reached := await store.checkpoint(stream)) is None or reached.sequence < sequence:
            await clock.sleep(0.1)
