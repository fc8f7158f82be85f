"""What leaves the working state: runs that ended and workers that went, so that memory does not grow with history.

Runs. The newest ended runs stay, as many as the command allows by number and by tasks, and every
run stays for its grace after it ended: until then a submitter that repeats its last message, or a
client that asks for tasks, is answered from memory. Then a run's outline takes its place, and its
tasks are read from the log. Of outlines, too, the newest stay. As long as a run's outline is there

- CreateRun with its key gives that run again, and another content under that key is a Conflict;
- its identity is given to no other run;
- tasks for it are refused, because it has ended, and results for it are stale, as no fence of it is held.

When its outline is gone the key would create a new run: it is that of a call 10,000 runs ago.

Workers. A worker whose session ended stays for a grace, and then while it is among the newest gone.
The highest incarnation of the forgotten is the floor above which any worker that is not known
begins: a session's token is made of worker and incarnation, and must never come again. A key of
CreateSession goes with its worker; keys of a present worker's earlier sessions, which keep a late
repetition from deposing it, go when there are very many. A repetition even later opens a session
that nobody attends and that expires.
"""

from collections.abc import Iterator
from itertools import chain, islice

from dtf.api.v1 import events_pb2
from dtf.core.fleet.worker import Worker
from dtf.core.run.commands import ForgetWorkers, RetireRuns
from dtf.core.run.state import Run, State

_RUNS_AN_EVENT = 2048
_WORKERS_AN_EVENT = 512
"""Identifiers have 128 characters at most; an event, 192 KiB."""
_SECOND_NS = 1_000_000_000


def retire_runs(state: State, command: RetireRuns, now_ns: int) -> list[events_pb2.Event]:
    """RunsRetired, oldest first; nothing if what ended is recent, or little."""
    leaving = list(islice(_runs_to_retire(state, command, now_ns), _RUNS_AN_EVENT))
    excess = len(state.retired_runs) + len(leaving) - command.kept_outlines
    if not leaving and excess <= 0:
        return []
    known = chain(state.retired_runs, leaving)
    retired = events_pb2.RunsRetired(
        run_ids=leaving,
        forgotten_run_ids=islice(known, min(max(excess, 0), _RUNS_AN_EVENT)),
    )
    return [events_pb2.Event(runs_retired=retired)]


def _runs_to_retire(state: State, command: RetireRuns, now_ns: int) -> Iterator[str]:
    """Identities of the runs that need not stay, those that ended first before others."""
    ended = sorted((run for run in state.runs.values() if run.is_terminal), key=_ended_at)
    tasks = sum(run.task_count for run in ended)
    latest = now_ns - int(command.grace_seconds * _SECOND_NS)
    for position, run in enumerate(ended):
        is_within = len(ended) - position <= command.kept_runs and tasks <= command.kept_tasks
        if is_within or run.finished_at_ns > latest:
            return
        tasks -= run.task_count
        yield run.run_id


def _ended_at(run: Run) -> tuple[int, int]:
    return run.last_sequence, run.finished_at_ns


def forget_workers(state: State, command: ForgetWorkers, now_ns: int) -> list[events_pb2.Event]:
    """WorkersForgotten, those longest gone first; nothing if few are gone, or lately."""
    leaving = list(islice(_workers_to_forget(state, command, now_ns), _WORKERS_AN_EVENT))
    request_ids = list(islice(_requests_to_forget(state, command), _WORKERS_AN_EVENT))
    if not leaving and not request_ids:
        return []
    forgotten = events_pb2.WorkersForgotten(
        worker_ids=[worker.worker_id for worker in leaving],
        incarnation_floor=max([state.incarnation_floor, *(worker.incarnation for worker in leaving)]),
        request_ids=request_ids,
    )
    return [events_pb2.Event(workers_forgotten=forgotten)]


def _workers_to_forget(state: State, command: ForgetWorkers, now_ns: int) -> Iterator[Worker]:
    gone = [worker for worker in state.workers.values() if not worker.is_present and not worker.lease_count]
    gone.sort(key=_gone_at)
    latest = now_ns - int(command.grace_seconds * _SECOND_NS)
    for worker in gone[: max(len(gone) - command.kept_workers, 0)]:
        if worker.gone_at_ns > latest:
            return
        yield worker


def _gone_at(worker: Worker) -> tuple[int, str]:
    return worker.gone_at_ns, worker.worker_id


def _requests_to_forget(state: State, command: ForgetWorkers) -> Iterator[str]:
    """Keys of sessions that later ones replaced, the oldest first, beyond the number to keep."""
    excess = len(state.session_requests) - len(state.workers) - command.kept_requests
    if excess <= 0:
        return
    replaced = (
        request_id
        for request_id, (worker_id, incarnation) in state.session_requests.items()
        if state.workers[worker_id].incarnation != incarnation
    )
    yield from islice(replaced, excess)
