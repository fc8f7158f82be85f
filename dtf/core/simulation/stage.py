"""What faults do to a fork (faults.Stage)."""

from dataclasses import dataclass
from functools import partial

from dtf.api.v1 import common_pb2
from dtf.core.run.commands import CancelRun, DrainWorker, QuarantineWorker
from dtf.core.simulation.agenda import MILLISECOND
from dtf.core.simulation.clients import Clients
from dtf.core.simulation.coordinator import SimulatedCoordinator, World
from dtf.core.simulation.faults import FaultError
from dtf.core.simulation.staff import Staff


@dataclass(frozen=True, slots=True)
class ForkStage:
    """Everything of a fork that a fault can strike."""

    _at: int
    """Sequence of the fork."""
    _world: World
    _coordinator: SimulatedCoordinator
    _staff: Staff
    _clients: Clients

    def busiest(self, name: str) -> str:
        """The worker of this name, or the one with the most leases. Raises FaultError."""
        state = self._coordinator.state
        there = [
            known
            for known in state.workers.values()
            if known.is_present and known.worker_id in self._world.workers
        ]
        if name:
            if not any(known.worker_id == name for known in there):
                names = ", ".join(known.worker_id for known in there) or "none"
                raise FaultError(f"no worker {name!r} is there at sequence {self._at}; there are: {names}")
            return name
        if not there:
            raise FaultError(f"no worker is there at sequence {self._at}")
        return max(there, key=lambda known: known.lease_count).worker_id

    def kill(self, name: str) -> None:
        """A worker's process dies; another starts in its place."""
        self._world.workers[name].kill()
        self._staff.replace_later(name)

    def kill_all(self) -> None:
        """Every worker's process dies; others start in their places."""
        for name in list(self._world.workers):
            self.kill(name)

    def slow(self, name: str, factor: float) -> None:
        """What a worker begins from now on takes longer."""
        self._world.workers[name].traits.slowness = factor

    def repeat_messages(self) -> None:
        """Each message of each worker comes twice."""
        for worker in self._world.workers.values():
            worker.traits.repeats = True

    def delay_messages(self, name: str, delay_ns: int) -> None:
        """A worker's messages come later."""
        self._world.workers[name].traits.delay_ns = delay_ns

    def cut_off(self, name: str, duration_ns: int) -> None:
        """Nothing comes from or to a worker for some time."""
        worker = self._world.workers[name]
        worker.traits.is_cut_off = True
        worker.is_attached = False

        def heal() -> None:
            worker.traits.is_cut_off = False
            if worker.is_alive and worker.incarnation:
                self._coordinator.attach(worker)

        self._world.agenda.after(duration_ns, heal)

    def restart_coordinator(self, down_ns: int) -> None:
        """The coordinator dies with commits in flight, a little later."""
        self._world.agenda.after(
            self._world.random.below(20 * MILLISECOND), partial(self._coordinator.crash, down_ns)
        )

    def doom_coordinator(self, chance: float) -> None:
        """The coordinator dies after each commit with this chance."""
        self._coordinator.doom = chance

    def crash_case(self, times: int) -> None:
        """A case that has yet to run kills its process."""
        waiting = [
            (run.run_id, task, case)
            for run in self._coordinator.state.active_runs.values()
            for task in range(run.task_count)
            if run.task_states[task] == common_pb2.TASK_STATE_QUEUED
            for case in run.unjudged_cases(task)
        ]
        if not waiting:
            raise FaultError(f"no case waits at sequence {self._at}")
        self._world.oracle.crashes_left[waiting[self._world.random.below(len(waiting))]] = times

    def cancel(self, run_id: str) -> None:
        """A run (empty: each that is active) is cancelled."""
        runs = [run.run_id for run in self._coordinator.state.active_runs.values()]
        if run_id and run_id not in runs:
            raise FaultError(
                f"no run {run_id!r} is active at sequence {self._at}; there are: {', '.join(runs) or 'none'}"
            )
        for each in [run_id] if run_id else runs:
            self._world.agenda.after(
                0, partial(self._clients.ask, CancelRun(each, "fork", "cancelled by the fork"))
            )

    def add_workers(self, count: int) -> None:
        """More workers like those there are."""
        for _ in range(count):
            self._staff.replace_later(next(iter(self._world.workers), ""))

    def drain(self, name: str) -> None:
        """An operator drains a worker; another starts in its place."""
        self._world.agenda.after(
            0, partial(self._clients.ask, DrainWorker(name, "fork", "drained by the fork"))
        )
        self._staff.replace_later(name)

    def quarantine(self, name: str) -> None:
        """An operator quarantines a worker; another starts in its place."""
        self._world.agenda.after(
            0, partial(self._clients.ask, QuarantineWorker(name, "fork", "quarantined by the fork"))
        )
        self._staff.replace_later(name)

    def give_back(self, name: str) -> None:
        """A worker gives back every lease that it has not begun."""
        self._world.workers[name].give_back(len(self._world.workers[name].held))
