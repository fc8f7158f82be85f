"""Which output a worker's session may write: that of attempts it was leased.

    the lease's grant is remembered ─▶ run, task, attempt and worker must be those of the grant
    it was granted before           ─▶ the worker must hold the lease, or have completed it of late

A worker sends output along with its results, so its lease may have ended by then. Grants are remembered as
they became durable in this reign, the newest of them; what was granted before is known by what the log's
state keeps of each worker: the leases it holds, and the fences of the attempts it completed of late. Of the
latter the state does not say which task each was, so there output of a task that another worker holds is
refused, and no more can be told.
"""

from bisect import bisect_right
from collections.abc import Iterable

from dtf.api.v1 import events_pb2, worker_service_pb2
from dtf.core.run.state import State
from dtf.rpc.errors import Forbidden

MOST_GRANTS = 16_384
"""Events remembered, each of up to 256 leases."""
_FORGOTTEN_AT_ONCE = 1024


class OutputRights:
    """Knows the grants of the reign; fences rise from one to the next."""

    def __init__(self, state: State, most_grants: int = MOST_GRANTS) -> None:
        self._state = state
        self._most_grants = most_grants
        self._first_fences: list[int] = []
        self._grants: list[events_pb2.LeasesGranted] = []

    def durable(self, events: Iterable[events_pb2.Event]) -> None:
        """Events are durable; those that grant leases are remembered."""
        for event in events:
            if event.WhichOneof("event") == "leases_granted":
                self._first_fences.append(event.leases_granted.first_fence)
                self._grants.append(event.leases_granted)
        if len(self._grants) >= self._most_grants + _FORGOTTEN_AT_ONCE:
            surplus = len(self._grants) - self._most_grants
            del self._first_fences[:surplus], self._grants[:surplus]

    def check(self, worker_id: str, target: worker_service_pb2.OutputTarget) -> None:
        """Raises Forbidden unless the worker may write this output."""
        granted = self._granted(target.fence)
        if granted is not None:
            if granted != (worker_id, target.run_id, target.task, target.attempt):
                raise _refusal(worker_id, target)
        elif not self._has_held(worker_id, target):
            raise _refusal(worker_id, target)

    def _granted(self, fence: int) -> tuple[str, str, int, int] | None:
        """Worker, run, task and attempt of a lease of which the grant is remembered."""
        place = bisect_right(self._first_fences, fence) - 1
        if place < 0:
            return None
        grant = self._grants[place]
        index = fence - grant.first_fence
        if index >= len(grant.tasks):
            return None
        attempt = grant.attempts[index] if grant.attempts else 1
        return grant.worker_id, grant.run_id, grant.tasks[index], attempt

    def _has_held(self, worker_id: str, target: worker_service_pb2.OutputTarget) -> bool:
        worker = self._state.workers.get(worker_id)
        if worker is None:
            return False
        held = worker.leases.get(target.run_id, {}).get(target.fence)
        if held is not None:
            return held == target.task and target.attempt == self._state.runs[target.run_id].attempts[held]
        return target.fence in worker.completed and not self._is_anothers(worker_id, target)

    def _is_anothers(self, worker_id: str, target: worker_service_pb2.OutputTarget) -> bool:
        run = self._state.runs.get(target.run_id)
        if run is None or target.task >= run.task_count or target.attempt != run.attempts[target.task]:
            return False
        return any(
            target.task in worker.leases.get(target.run_id, {}).values()
            for worker in self._state.workers.values()
            if worker.worker_id != worker_id
        )


def _refusal(worker_id: str, target: worker_service_pb2.OutputTarget) -> Forbidden:
    return Forbidden(
        f"attempt {target.attempt} of task {target.task} of run {target.run_id[:64]} is not one that worker "
        f"{worker_id!r} was leased under fence {target.fence}; it writes the output of its own attempts only"
    )
