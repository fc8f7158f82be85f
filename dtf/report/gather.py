"""Collects what a report of one finished run needs, from the coordinator and the trend analyzer.

The history is asked for once the analyzer's store has reached the run's last sequence; that wait is
bounded, and a report without it says so.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from dtf.api.v1 import analysis_service_pb2, common_pb2, events_pb2, fleet_service_pb2, run_service_pb2
from dtf.client.client import Client
from dtf.core.run.pool_summary import PoolSummary
from dtf.core.run.summary import CaseSummary, RunSummary
from dtf.core.run.summary_fold import RunFold
from dtf.report.output import OutputPart, output_parts

ANALYZER_TIMEOUT_SECONDS = 10.0
SEARCH_TIMEOUT_SECONDS = 3.0
"""How long a report waits for the search for changes, which comes after the store: it can be asked for again."""
FINDINGS_LIMIT = 10_000
READ_TIMEOUT_SECONDS = 120.0
OUTPUTS_LIMIT = 200
"""Cases whose output is kept; a run that fails more often than this fails for one reason."""
BLOBS_LIMIT = 50
BLOB_BYTES_LIMIT = 2 * 2**20
_FLEET_EVENTS = ("worker_registered", "worker_left", "worker_lost", "run_finished")
_ENDED = (common_pb2.RUN_STATE_FINISHED, common_pb2.RUN_STATE_CANCELLED)


class RunNotFinished(ValueError):
    """The run still goes on, so there is nothing final to report."""


@dataclass(slots=True)
class RunReport:
    """Everything that is said of a run."""

    run: RunSummary
    pool: PoolSummary
    workers: list[fleet_service_pb2.Worker] = field(default_factory=list)
    """Those that ran something of it, by name."""
    outputs: dict[tuple[int, int], list[OutputPart]] = field(default_factory=dict)
    """By task and case: what each failed or flaky case printed and why it failed."""
    comparison: analysis_service_pb2.CompareRunResponse | None = None
    comparison_note: str = ""
    """Why there is no comparison; empty if there is one."""
    findings: list[analysis_service_pb2.TrackedFinding] = field(default_factory=list)
    """What became slower or faster in the suite and is raised, the newest first."""
    is_search_behind: bool = False
    """Whether the search for changes had not reached the run yet."""

    @property
    def peak_workers(self) -> int:
        """The most workers there were while the run went on."""
        return self.pool.peak(self.run.finished_ns)

    @property
    def worker_seconds(self) -> float:
        """What the pool spent on the run's time."""
        return self.pool.worker_seconds(self.run.created_ns, self.run.finished_ns)

    @property
    def busy_ratio(self) -> float:
        """Share of the pool's slots in which a case of this run ran."""
        slots = max(
            (self.pool.slots.get(worker.worker_id, worker.slots) for worker in self.workers), default=1
        )
        available = self.worker_seconds * max(1, slots)
        return min(1.0, self.run.busy_seconds / available) if available else 0.0


async def gather_report(
    client: Client, run_id: str, *, analyzer_timeout_seconds: float = ANALYZER_TIMEOUT_SECONDS
) -> RunReport:
    """The report of a run that has ended. Raises RunNotFinished, or what gRPC says."""
    run = await client.get_run(run_id)
    if run.state not in _ENDED:
        raise RunNotFinished(f"run {run_id} still goes on")
    async with asyncio.timeout(READ_TIMEOUT_SECONDS):
        report = await _read_run(client, run_id)
        await _read_fleet(client, report)
        await _read_outputs(client, report)
    await _read_history(client, report, analyzer_timeout_seconds)
    return report


async def _read_run(client: Client, run_id: str) -> RunReport:
    fold, pool = RunFold(), PoolSummary()
    request = run_service_pb2.WatchRunRequest(run_id=run_id, include_scaling=True)
    async for watched in client.watch(request):
        if watched.scaling is not None:
            pool.decide(watched.scaling)
        elif watched.event is not None:
            fold.apply(watched.sequence, watched.now_unix_nanos, watched.event)
    run = fold.summary
    pool.keep_between(run.created_ns, run.finished_ns)
    return RunReport(run, pool)


async def _read_fleet(client: Client, report: RunReport) -> None:
    """Who was there, from the workers known now and the fleet's events while the run went on."""
    run, pool = report.run, report.pool
    known = {worker.worker_id: worker for worker in await client.list_workers(include_gone=True)}
    events = [event async for event in _fleet_events(client, run)]
    came = {event.worker_registered.worker_id for _, event in events if event.HasField("worker_registered")}
    went = {event.worker_left.worker_id for _, event in events if event.HasField("worker_left")}
    went |= {event.worker_lost.worker_id for _, event in events if event.HasField("worker_lost")}
    used = {bar.worker_id for bar in run.bars}
    there = {
        name
        for name, worker in known.items()
        if _is_present(worker) and worker.registered_at * 1e9 <= run.created_ns
    }
    pool.begin(run.created_ns, (there | went | used) - came)
    for now_ns, event in events:
        pool.apply(now_ns, event)
    report.workers = [known[name] for name in sorted(used & known.keys())]


def _is_present(worker: fleet_service_pb2.Worker) -> bool:
    return worker.state not in (common_pb2.WORKER_STATE_LEFT, common_pb2.WORKER_STATE_LOST)


async def _fleet_events(client: Client, run: RunSummary) -> AsyncIterator[tuple[int, events_pb2.Event]]:
    request = run_service_pb2.WatchRunRequest(
        after_sequence=run.first_sequence, omit_details=True, event_types=_FLEET_EVENTS
    )
    async for watched in client.watch(request):
        if watched.event is None:
            continue
        if watched.event.run_finished.run_id == run.run_id or watched.sequence > run.last_sequence:
            return
        yield watched.now_unix_nanos, watched.event


async def _read_outputs(client: Client, report: RunReport) -> None:
    interesting = [*report.run.failures, *report.run.flaky][:OUTPUTS_LIMIT]
    fetched = 0
    for case in interesting:
        parts: list[OutputPart] = []
        for detail in _details(case):
            reports = detail.reports_json
            if not reports and detail.reports_blob.digest and fetched < BLOBS_LIMIT:
                fetched += 1
                reports = await _fetch(client, detail.reports_blob)
            # Tries that failed in the same way say the same; it is read once.
            parts.extend(part for part in output_parts(detail, reports) if part not in parts)
        report.outputs[case.task, case.case] = parts


def _details(case: CaseSummary) -> Iterable[events_pb2.CaseDetail]:
    """Of the tries that failed, the last first, as that is the one people ask about."""
    for one in reversed(case.tries):
        if one.detail and one.fault is not None:
            yield events_pb2.CaseDetail.FromString(one.detail)


async def _fetch(client: Client, blob: common_pb2.Blob) -> bytes:
    if blob.size_bytes > BLOB_BYTES_LIMIT:
        return b""
    try:
        return await client.fetch_blob(blob.digest)
    except grpc.aio.AioRpcError:
        return b""  # the report goes on without what the store has lost


async def _read_findings(client: Client, report: RunReport, timeout_seconds: float) -> None:
    """The suite's findings; what was not searched in time is left out, which is said."""
    call: dict[str, Any] = {"metadata": client.metadata, "timeout": timeout_seconds}
    searched = analysis_service_pb2.GetCheckpointRequest(wait_for_findings=report.run.last_sequence)
    patience = call | {"timeout": min(timeout_seconds, SEARCH_TIMEOUT_SECONDS)}
    try:
        await client.analysis.GetCheckpoint(searched, **patience)
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
            raise
        report.is_search_behind = True
    request = analysis_service_pb2.ListFindingsRequest(suite=report.run.suite, page_size=FINDINGS_LIMIT)
    report.findings = list((await client.analysis.ListFindings(request, **call)).findings)


async def _read_history(client: Client, report: RunReport, timeout_seconds: float) -> None:
    try:
        analysis = client.analysis
    except LookupError as error:
        report.comparison_note = str(error)
        return
    sequence = report.run.last_sequence
    try:
        await analysis.GetCheckpoint(
            analysis_service_pb2.GetCheckpointRequest(wait_for_sequence=sequence),
            metadata=client.metadata,
            timeout=timeout_seconds,
        )
        report.comparison = await analysis.CompareRun(
            analysis_service_pb2.CompareRunRequest(run_id=report.run.run_id),
            metadata=client.metadata,
            timeout=timeout_seconds,
        )
        await _read_findings(client, report, timeout_seconds)
    except grpc.aio.AioRpcError as error:
        if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            report.comparison_note = (
                f"the trend analyzer has not reached this run (sequence {sequence:,}) within {timeout_seconds:g} s; "
                f"`dtf report {report.run.run_id}` asks again"
            )
        else:
            report.comparison_note = f"the trend analyzer did not answer: {error.details()}"
