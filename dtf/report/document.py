"""The report for machines: one JSON object. Instants are seconds since 1970-01-01 UTC."""

from typing import Any

from dtf.api.v1 import common_pb2
from dtf.core.run.summary import CaseSummary, Try
from dtf.report.changes import changes_document, told_changes
from dtf.report.gather import RunReport
from dtf.report.text import performance_text, unusual_cases, verdict_sentence
from dtf.report.wording import outcome_word, verdict_word

FORMAT_VERSION = 1
_NANOS = 1e9


def report_document(report: RunReport) -> dict[str, Any]:
    """Everything the report knows, of every case."""
    run = report.run
    return {
        "format_version": FORMAT_VERSION,
        "run_id": run.run_id,
        "suite": run.suite,
        "revision": run.revision,
        "owner": run.owner,
        "labels": run.labels,
        "state": common_pb2.RunState.Name(run.state).removeprefix("RUN_STATE_").lower(),
        "sentence": verdict_sentence(report),
        "created_at": run.created_ns / _NANOS,
        "finished_at": run.finished_ns / _NANOS,
        "duration_seconds": run.seconds,
        "first_sequence": run.first_sequence,
        "last_sequence": run.last_sequence,
        "counts": {
            word: getattr(run.counts, word) for word in ("passed", "failed", "error", "flaky", "skipped")
        },
        "unjudged": run.unjudged,
        "infrastructure_failures": run.infrastructure_failures,
        "results_refused": run.refused_count,
        "cases": [_case(report, case) for case in run.cases],
        "pool": _pool(report),
        "queue": [
            {"time_at": point.at_ns / _NANOS, "queued": point.queued, "leased": point.leased}
            for point in run.queue
        ],
        "workers": [_worker(worker) for worker in report.workers],
        "history": _history(report),
    }


def _case(report: RunReport, case: CaseSummary) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": case.name,
        "task": case.task,
        "case": case.case,
        "verdict": verdict_word(case.verdict),
        "duration_seconds": case.seconds,
        "cpu_seconds": case.cpu_seconds,
        "peak_memory_bytes": case.peak_memory_bytes,
        "worker_id": case.worker_id,
    }
    if case.message:
        document["message"] = case.message
    if case.fault is not None:
        document["fault"] = case.fault.value
    if case.tries:
        document["tries"] = [_try(one) for one in case.tries]
    if parts := report.outputs.get((case.task, case.case)):
        document["output"] = [{"title": part.title, "text": part.text} for part in parts]
    return document


def _try(one: Try) -> dict[str, Any]:
    return {
        "attempt": one.attempt,
        "worker_id": one.worker_id,
        "outcome": outcome_word(one.outcome),
        "verdict": verdict_word(one.verdict),
        "duration_seconds": one.seconds,
        "reason": one.reason,
        "fault": one.fault.value if one.fault else None,
    }


def _pool(report: RunReport) -> dict[str, Any]:
    return {
        "peak_workers": report.peak_workers,
        "worker_seconds": report.worker_seconds,
        "busy_ratio": report.busy_ratio,
        "sizes": [{"time_at": point.at_ns / _NANOS, "workers": point.workers} for point in report.pool.sizes],
        "readings": [
            {
                "time_at": reading.at_ns / _NANOS,
                "desired": reading.desired,
                "requested": reading.requested,
                "backlog_seconds": reading.backlog_seconds,
            }
            for reading in report.pool.readings
        ],
        "scale_actions": [
            {
                "time_at": mark.at_ns / _NANOS,
                "pool": mark.pool,
                "action": mark.action,
                "change": mark.change,
                "desired": mark.desired,
                "reason": mark.reason,
            }
            for mark in report.pool.marks
        ],
    }


def _worker(worker: Any) -> dict[str, Any]:
    return {
        "worker_id": worker.worker_id,
        "pool": worker.pool,
        "host": worker.host,
        "slots": worker.slots,
        "cpus": worker.resources.cpus,
        "memory_bytes": worker.resources.memory_bytes,
        "gpus": worker.resources.gpus,
        "labels": dict(worker.labels),
        "version": worker.version,
    }


def _history(report: RunReport) -> dict[str, Any]:
    comparison = report.comparison
    if comparison is None:
        return {"available": False, "note": report.comparison_note}
    return {
        "available": True,
        "sentence": performance_text(report),
        "run_count": comparison.run_count,
        "unusual": [
            {
                "name": case.case_name,
                "duration_seconds": case.duration_seconds,
                "median_seconds": case.history.median_seconds,
                "mad_seconds": case.history.mad_seconds,
                "ratio": case.ratio,
                "runs": case.history.count,
            }
            for case in unusual_cases(comparison)
        ],
        "changes": changes_document(told_changes(report.findings, report.run.run_id)),
        "is_search_behind": report.is_search_behind,
    }
