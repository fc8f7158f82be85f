"""The workers of a fork: those that were there, those that join, and those that come in their place."""

from dataclasses import dataclass, field

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.fleet.registration import registration_of
from dtf.core.run.commands import ExpireWorkers, RegisterWorker
from dtf.core.simulation.agenda import MILLISECOND, SECOND
from dtf.core.simulation.coordinator import SimulatedCoordinator, World
from dtf.core.simulation.messages import Assigned
from dtf.core.simulation.recording import Activity, Recording
from dtf.core.simulation.worker import SimulatedWorker

STARTUP_NS = 2 * SECOND
"""How long a worker takes to come in the place of one that is gone."""


@dataclass(slots=True)
class Staff:
    """Whoever works in a fork; stands in for the resource manager where one would act."""

    _recording: Recording
    _at: int
    """Sequence of the fork."""
    _world: World
    _coordinator: SimulatedCoordinator
    _spare_count: int = field(init=False, default=0)
    _spare_pending: int = field(init=False, default=0)

    def seat(self) -> None:
        """The workers that are there at the fork, with what they hold, some of it begun."""
        specs, began = self._specs(), self._begun()
        for known in self._coordinator.state.workers.values():
            if not known.is_present or known.worker_id not in specs:
                continue
            worker = self._new_worker(specs[known.worker_id])
            worker.incarnation = known.incarnation
            worker.is_attached = True
            self._world.workers[known.worker_id] = worker
            leases = [
                Assigned(run_id, task, fence, tuple(self._unreported(run_id, task)))
                for run_id, held in known.leases.items()
                for fence, task in held.items()
            ]
            leases.sort(key=lambda lease: lease.fence)
            for lease in leases:
                worker.assign([lease], began.get(lease.fence, self._world.agenda.now_ns))
            if known.state == common_pb2.WORKER_STATE_DRAINING:
                self._world.agenda.after(MILLISECOND, worker.drain)

    def _begun(self) -> dict[int, int]:
        """Fence → when a lease that is held at the fork began to run, if it has."""
        activity = Activity()
        for each in self._recording.until(self._at):
            for event in each.commit.events:
                activity.observe(event, each.commit.now_unix_nanos)
        workers = self._coordinator.state.workers.values()
        return {
            fence: activity.began_ns(fence, worker.worker_id)
            for worker in workers
            for leases in worker.leases.values()
            for fence in leases
        }

    def _unreported(self, run_id: str, task: int) -> list[int]:
        run = self._coordinator.state.runs[run_id]
        return [case for case in run.unjudged_cases(task) if case not in run.retry_pending.get(task, ())]

    def join(self, name: str, command: RegisterWorker) -> None:
        """A worker registers, as it was recorded; the one of its name that was there is gone."""
        spec = registration_of(name, 0, "", command.request)
        before = self._world.workers.get(name)
        if before is not None and before.is_alive and not before.has_left:
            before.kill()
        self._start(spec)

    def lose_as_recorded(self, name: str, seconds: float) -> None:
        """A worker that the recording lost: it is dead, and that is noticed now."""
        worker = self._world.workers.get(name)
        if worker is None or worker.is_silent:
            return
        worker.kill()
        known = self._coordinator.state.workers.get(name)
        if known is not None and known.is_present:
            self._coordinator.submit(
                ExpireWorkers([(name, known.incarnation, seconds)], "as it was recorded")
            )

    def is_staffed(self) -> bool:
        """Whether any worker takes work, or is on its way."""
        state = self._coordinator.state
        for name, worker in self._world.workers.items():
            known = state.workers.get(name)
            if not worker.is_silent and (known is None or not known.is_present or known.takes_work):
                return True
        return self._spare_pending > 0

    def replace_later(self, like: str = "") -> None:
        """A worker comes, as the resource manager would see to it."""
        specs = {worker.name: worker.spec for worker in self._world.workers.values()} or self._specs()
        spec = specs.get(like) or next(iter(specs.values()), None)
        if spec is None:
            return
        self._spare_pending += 1
        self._spare_count += 1
        new = events_pb2.WorkerRegistered()
        new.CopyFrom(spec)
        new.worker_id = f"{spec.pool or 'worker'}-fork-{self._spare_count}"
        new.launch_id = ""

        def start() -> None:
            self._spare_pending -= 1
            self._start(new)

        self._world.agenda.after(STARTUP_NS, start)

    def _start(self, spec: events_pb2.WorkerRegistered) -> None:
        worker = self._new_worker(spec)
        self._world.workers[spec.worker_id] = worker
        self._coordinator.register(worker)

    def _new_worker(self, spec: events_pb2.WorkerRegistered) -> SimulatedWorker:
        return SimulatedWorker(spec, self._world.agenda, self._world.oracle, self._coordinator)

    def _specs(self) -> dict[str, events_pb2.WorkerRegistered]:
        specs: dict[str, events_pb2.WorkerRegistered] = {}
        for each in self._recording.until(self._at):
            for event in each.commit.events:
                if event.HasField("worker_registered"):
                    specs[event.worker_registered.worker_id] = event.worker_registered
        return specs
