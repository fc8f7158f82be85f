"""The common case of grants and results in a few passes over their columns, where nothing is at fault.

Each function looks first and changes nothing unless everything is as it must be; if not, it says so, and the
columns are looked at entry by entry (grants.py, results.py), which notes what is wrong.
"""

from collections import deque
from collections.abc import Sequence

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.check.books import ENDED, LEASED, Books, Lease, RunBook

_PASSED = common_pb2.VERDICT_PASSED


def grant(books: Books, run: RunBook, said: events_pb2.LeasesGranted, *, is_fresh: bool) -> bool:
    """Whether these are first attempts at queued tasks by a known worker; they have begun then.

    `is_fresh`: their fences are higher than every one before.
    """
    tasks, worker = said.tasks, books.workers.get(said.worker_id)
    if said.attempts or not is_fresh or worker is None or not _are_whole(run, tasks):
        return False
    states, attempts = run.tasks, run.attempts
    if any(states[task] or attempts[task] for task in tasks):
        return False
    run_id, worker_id, incarnation = run.run_id, worker.worker_id, said.incarnation
    for fence, task in enumerate(tasks, said.first_fence):
        states[task], attempts[task] = LEASED, 1
        books.leases[fence] = Lease(run_id, task, worker_id, incarnation)
    worker.held += len(tasks)
    run.leased += len(tasks)
    return True


def accept(books: Books, run: RunBook, said: events_pb2.ResultsAccepted) -> bool:
    """Whether these are single cases that passed at once, reported by who holds them; they have ended then."""
    tasks, worker = said.tasks, books.workers.get(said.worker_id)
    is_odd = said.verdicts or said.cases or said.retried or said.requeued or not said.all_completed
    has_past = run.reported or run.failures or run.deaths
    if is_odd or has_past or run.offsets is not None or any(needs.are_any for needs in run.needs):
        return False
    if worker is None or not worker.presence.is_present or not _are_whole(run, tasks):
        return False
    expected = [(run.run_id, task, worker.worker_id, worker.incarnation) for task in tasks]
    verdicts, leases = run.verdicts, books.leases
    if list(map(leases.get, said.fences)) != expected or any(verdicts[task] for task in tasks):
        return False
    for task in tasks:
        verdicts[task], run.tasks[task] = _PASSED, ENDED
    deque(map(leases.pop, said.fences), maxlen=0)
    worker.held -= len(tasks)
    run.leased -= len(tasks)
    run.ended += len(tasks)
    return True


def _are_whole(run: RunBook, tasks: Sequence[int]) -> bool:
    """Whether they are tasks of the run, each once."""
    return bool(tasks) and max(tasks) < len(run.tasks) and len(set(tasks)) == len(tasks)
