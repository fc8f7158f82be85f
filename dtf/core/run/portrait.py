"""A state as a document: queue, leases, workers, runs and verdicts, as `dtf state` shows them.

Made of plain values, so that it prints as JSON, and two of them can be compared entry by entry.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dtf.api.v1 import common_pb2
from dtf.core.fleet.pool_wish import PoolWish
from dtf.core.fleet.worker import Worker
from dtf.core.run.placement import queued_by_template
from dtf.core.run.state import Run, State

Document = dict[str, Any]


def word_of(name: str, prefix: str) -> str:
    """ "TASK_STATE_QUEUED" → "queued"."""
    return name.removeprefix(prefix).lower()


def task_state(number: int) -> str:
    """A TaskState in a word."""
    return word_of(common_pb2.TaskState.Name(common_pb2.TaskState.ValueType(number)), "TASK_STATE_")


def verdict(number: int) -> str:
    """A Verdict in a word; "" while there is none."""
    if not number:
        return ""
    return word_of(common_pb2.Verdict.Name(common_pb2.Verdict.ValueType(number)), "VERDICT_")


def portrait(state: State) -> Document:
    """The whole state, but for its tasks: they are counted by state."""
    return {
        "sequence": state.last_sequence,
        "now_unix_nanos": state.now_ns,
        "epoch": state.epoch,
        "leader": state.leader,
        "next_fence": state.next_fence,
        "queued": state.queued_count,
        "leased": state.leased_count,
        "runs": {run.run_id: run_portrait(run) for run in state.runs.values()},
        "retired_runs": len(state.retired_runs),
        "workers": {worker.worker_id: worker_portrait(worker) for worker in state.workers.values()},
        "pools": {wish.pool: pool_portrait(wish) for _, wish in sorted(state.pools.items())},
    }


def run_portrait(run: Run) -> Document:
    """One run."""
    states = Counter(run.task_states)
    counts = {verdict(number): count for number, count in enumerate(run.counts) if number and count}
    document: Document = {
        "suite": run.created.suite,
        "owner": run.created.owner,
        "state": word_of(common_pb2.RunState.Name(run.state), "RUN_STATE_"),
        "created_unix_nanos": run.created_at_ns,
        "finished_unix_nanos": run.finished_at_ns,
        "first_sequence": run.first_sequence,
        "last_sequence": run.last_sequence,
        "is_sealed": run.is_sealed,
        "priority": run.created.priority,
        "tasks": {task_state(number): count for number, count in sorted(states.items())},
        "cases": run.case_count,
        "verdicts": counts,
        "infrastructure_failures": run.infrastructure_failures,
        "waiting": {
            str(template.index): template.waiting_reason for template in run.templates if template.is_waiting
        },
        "queued_by_template": {str(index): count for index, count in sorted(queued_by_template(run).items())},
    }
    if run.cancel_requested_by:
        document["cancelled_by"] = run.cancel_requested_by
        document["cancel_reason"] = run.cancel_reason
    return document


def worker_portrait(worker: Worker) -> Document:
    """One worker."""
    return {
        "incarnation": worker.incarnation,
        "state": word_of(common_pb2.WorkerState.Name(worker.state), "WORKER_STATE_"),
        "pool": worker.pool,
        "host": worker.host,
        "process_id": worker.process_id,
        "slots": worker.slots,
        "labels": dict(worker.labels),
        "leases": worker.lease_count,
        "cases_done": worker.completed_count,
        "reason": worker.reason,
        "registered_unix_nanos": worker.registered_at_ns,
    }


def pool_portrait(wish: PoolWish) -> Document:
    """What is wished of one pool; what is not wished is left out."""
    sizes = {"min_workers": wish.min_workers, "max_workers": wish.max_workers, "workers": wish.workers}
    return {
        **{name: value for name, value in sizes.items() if value is not None},
        "is_paused": wish.is_paused,
        "requested_by": wish.requested_by,
        "reason": wish.reason,
        "changed_unix_nanos": wish.changed_at_ns,
    }


def leases(state: State, run_id: str = "", worker_id: str = "") -> Iterator[Document]:
    """Every lease held, of one run and one worker if they are named."""
    for worker in state.workers.values():
        if worker_id and worker.worker_id != worker_id:
            continue
        for of_run, held in worker.leases.items():
            run = state.runs.get(of_run)
            if run is None or (run_id and of_run != run_id):
                continue
            for fence, task in held.items():
                yield {
                    "run": of_run,
                    "task": task,
                    "name": run.names[task],
                    "attempt": run.attempts[task],
                    "fence": fence,
                    "worker": worker.worker_id,
                    "incarnation": worker.incarnation,
                }


def task_portrait(state: State, run: Run, task: int) -> Document:
    """One task with its cases."""
    cases = run.case_range(task)
    held = [lease for lease in leases(state, run.run_id) if lease["task"] == task]
    template = run.template_of(task)
    return {
        "run": run.run_id,
        "task": task,
        "name": run.names[task],
        "state": task_state(run.task_states[task]),
        "attempts": run.attempts[task],
        "priority": run.priority_of(task),
        "template": template.index,
        "waiting": template.waiting_reason,
        "lease": held[0] if held else None,
        "cases": [
            {
                "case": index - cases.start,
                "name": run.case_name(task, index - cases.start),
                "verdict": verdict(run.verdicts[index]),
                "failed_before": run.test_failures.get(index, 0),
                "infrastructure_charges": run.infrastructure_charges.get(index, 0),
            }
            for index in cases
        ],
    }


def judged_cases(run: Run, verdicts: Iterable[int]) -> Iterator[Document]:
    """The cases of a run that have one of these verdicts."""
    wanted = frozenset(verdicts)
    if wanted.isdisjoint(number for number, count in enumerate(run.counts) if count):
        return
    for task in range(run.task_count):
        for index in run.case_range(task):
            if run.verdicts[index] in wanted:
                case = index - run.case_range(task).start
                yield {
                    "task": task,
                    "case": case,
                    "name": run.case_name(task, case),
                    "verdict": verdict(run.verdicts[index]),
                }


def differences(before: Document, after: Document, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two portraits differ: path, value before, value after; None stands for nothing there."""
    for key in [*before, *(key for key in after if key not in before)]:
        old, new = before.get(key), after.get(key)
        where = f"{path}.{key}" if path else str(key)
        if isinstance(old, Mapping) or isinstance(new, Mapping):
            yield from differences(dict(old or {}), dict(new or {}), where)
        elif old != new:
            yield where, old, new
