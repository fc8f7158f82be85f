"""A recording, continued from one of its sequences in virtual time, with a fault or without."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.run.commands import (
    CancelRun,
    Command,
    DrainWorker,
    ElectLeader,
    ExpireWorkers,
    QuarantineWorker,
    RegisterWorker,
    Rejection,
)
from dtf.core.run.state import Run, State
from dtf.core.simulation.agenda import MILLISECOND, SECOND, Agenda
from dtf.core.simulation.coordinator import SimulatedCoordinator, World
from dtf.core.simulation.faults import Fault, FaultError
from dtf.core.simulation.ledger import Arguments, Ledger
from dtf.core.simulation.messages import Assigned
from dtf.core.simulation.oracle import Oracle
from dtf.core.simulation.randomness import SplitMix64
from dtf.core.simulation.recording import Activity, Outside, Recorded, Recording
from dtf.core.simulation.worker import SimulatedWorker

RESOURCE_MANAGER = "resource-manager"
STARTUP_NS = 2 * SECOND
"""How long a worker takes to come in the place of one that is gone."""
LONGEST_NS = 7 * 24 * 3600 * SECOND
"""Virtual time after which a fork is given up."""
MOST_STEPS = 5_000_000


@dataclass(frozen=True, slots=True)
class Options:
    """How a fork goes, beside its fault."""

    seed: int = 0
    code_version: str = "simulated"
    """What the simulated commits say decided them."""
    credits: int = 4
    """Leases a worker takes beyond its slots."""
    max_commit_bytes: int = 960 * 1024
    """Decisions with more are spread over several commits; small values try what happens between them."""


@dataclass(frozen=True, slots=True)
class Forked:
    """What became of a fork."""

    commits: tuple[Recorded, ...]
    """Those up to the fork, and the simulated ones."""
    forked_at: int
    state: State
    """As the commits lead to it."""
    is_over: bool
    """Whether every sealed run ended; if not, it was given up."""
    wasted_seconds: float
    """Time of work in the fork that was stopped or forgotten."""
    end_ns: int
    missed: tuple[str, ...] = ()
    """Faults that found nothing to strike when their time came."""


def fork(
    recording: Recording,
    at: int,
    faults: Sequence[Fault],
    arguments: Arguments,
    options: Options | None = None,
) -> Forked:
    """Continue `recording` after sequence `at`, with `faults`. Raises FaultError, NotDerivable."""
    return _Fork(recording, at, arguments, options or Options()).run(faults)


@dataclass(slots=True)
class _Fork:
    """A fork while it runs (faults.Stage)."""

    recording: Recording
    at: int
    arguments: Arguments
    options: Options
    agenda: Agenda = field(init=False)
    oracle: Oracle = field(init=False)
    workers: dict[str, SimulatedWorker] = field(init=False, default_factory=dict)
    coordinator: SimulatedCoordinator = field(init=False)
    random: SplitMix64 = field(init=False)
    _activity: Activity = field(init=False, default_factory=Activity)
    _missed: list[str] = field(init=False, default_factory=list)
    _outside_left: int = field(init=False, default=0)
    _asked: deque[Command] = field(init=False, default_factory=deque)
    _spare_count: int = field(init=False, default=0)
    _spare_pending: int = field(init=False, default=0)
    _last_outside_ns: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        before = self.recording.until(self.at)
        last = before[-1] if before else None
        self.random = SplitMix64(self.options.seed)
        self.agenda = Agenda(last.commit.now_unix_nanos if last else 0)
        self.oracle = Oracle(SplitMix64(self.random.next()))
        self._read()
        self.coordinator = SimulatedCoordinator(
            World(self.agenda, self.oracle, self.random, self.workers),
            Ledger.after(last, self.arguments, self.options.code_version, self.options.max_commit_bytes),
            last,
            partial(self.recording.state_at, self.at),
            credits=self.options.credits,
        )

    def _read(self) -> None:
        for each in self.recording.commits:
            for event in each.commit.events:
                now_ns = each.commit.now_unix_nanos
                self.oracle.record(event)
                self._activity.observe(event, now_ns)
                for key, seconds in self._activity.cut_short(event, now_ns):
                    self.oracle.least_seconds[key] = max(seconds, self.oracle.least_seconds.get(key, 0.0))
                if each.sequence <= self.at:
                    self.oracle.observe(event)

    def run(self, faults: Sequence[Fault]) -> Forked:
        """Go on to the end."""
        self._seat_workers()
        for outside in list(self.recording.outside_after(self.at)):
            self._outside_left += 1
            self._last_outside_ns = outside.at_ns
            self.agenda.at(outside.at_ns, partial(self._from_outside, outside))
        self.agenda.after(0, self._sweep)
        for fault in faults:
            self._strike(fault)
        self.agenda.after(0, self.coordinator.dispatch)
        limit_ns = max(self._last_outside_ns, self.agenda.now_ns) + LONGEST_NS
        steps = 0
        while not self._is_over() and steps < MOST_STEPS and self.agenda.now_ns < limit_ns:
            steps += 1
            if not self.agenda.step():
                break
        return self._result()

    def _strike(self, fault: Fault) -> None:
        """At once; or later, if there is then still something for it to strike."""
        if not fault.delay_ns:
            fault.apply(self)
            return

        def strike() -> None:
            if self.coordinator.is_down:
                self.agenda.after(SECOND // 4, strike)
                return
            try:
                fault.apply(self)
            except FaultError as missed:
                self._missed.append(f"{fault.text}: {missed}")

        self.agenda.after(fault.delay_ns, strike)

    def _result(self) -> Forked:
        commits = (*self.recording.until(self.at), *self.coordinator.ledger.durable)
        return Forked(
            commits,
            self.at,
            self.coordinator.state,
            self._is_over(),
            sum(worker.wasted_seconds for worker in self.workers.values()),
            self.agenda.now_ns,
            tuple(self._missed),
        )

    def _is_over(self) -> bool:
        coordinator = self.coordinator
        if self._outside_left or self._asked or coordinator.is_down or coordinator.ledger.pending:
            return False
        return not any(run.is_sealed or run.queued_count or run.leased_count for run in self._active())

    def _active(self) -> list[Run]:
        return list(self.coordinator.state.active_runs.values())

    # -- the beginning

    def _seat_workers(self) -> None:
        """The workers that are there at the fork, with what they hold, some of it begun."""
        specs, began = self._specs(), self._begun()
        for known in self.coordinator.state.workers.values():
            if not known.is_present or known.worker_id not in specs:
                continue
            worker = self._new_worker(specs[known.worker_id])
            worker.incarnation = known.incarnation
            worker.is_attached = True
            self.workers[known.worker_id] = worker
            leases = [
                Assigned(run_id, task, fence, tuple(self._unreported(run_id, task)))
                for run_id, held in known.leases.items()
                for fence, task in held.items()
            ]
            leases.sort(key=lambda lease: lease.fence)
            for lease in leases:
                worker.assign([lease], began.get(lease.fence, self.agenda.now_ns))
            if known.state == common_pb2.WORKER_STATE_DRAINING:
                self.agenda.after(MILLISECOND, worker.drain)

    def _begun(self) -> dict[int, int]:
        """Fence → when a lease that is held at the fork began to run, if it has."""
        activity = Activity()
        for each in self.recording.until(self.at):
            for event in each.commit.events:
                activity.observe(event, each.commit.now_unix_nanos)
        workers = self.coordinator.state.workers.values()
        return {
            fence: activity.began_ns(fence, worker.worker_id)
            for worker in workers
            for leases in worker.leases.values()
            for fence in leases
        }

    def _unreported(self, run_id: str, task: int) -> list[int]:
        run = self.coordinator.state.runs[run_id]
        return [case for case in run.unjudged_cases(task) if case not in run.retry_pending.get(task, ())]

    def _specs(self) -> dict[str, events_pb2.WorkerRegistered]:
        specs: dict[str, events_pb2.WorkerRegistered] = {}
        for each in self.recording.until(self.at):
            for event in each.commit.events:
                if event.HasField("worker_registered"):
                    specs[event.worker_registered.worker_id] = event.worker_registered
        return specs

    def _new_worker(self, spec: events_pb2.WorkerRegistered) -> SimulatedWorker:
        return SimulatedWorker(spec, self.agenda, self.oracle, self.coordinator)

    # -- what comes from outside

    def _from_outside(self, outside: Outside) -> None:
        if self.coordinator.is_down:
            self.agenda.after(SECOND // 4, partial(self._from_outside, outside))
            return
        self._outside_left -= 1
        self._give(outside.command)

    def _give(self, command: Command) -> None:
        match command:
            case RegisterWorker(request=request):
                self._join(request.worker_id or command.worker_id, command)
            case ExpireWorkers(silent=silent):
                for name, _, seconds in silent:
                    self._lose_as_recorded(name, seconds)
            case DrainWorker():
                is_idle = command.requested_by == RESOURCE_MANAGER
                self.coordinator.submit(
                    DrainWorker(command.worker_id, command.requested_by, command.reason, is_idle)
                )
            case ElectLeader():
                self.coordinator.crash(SECOND)
            case _:
                self._persist(command)

    def _persist(self, command: Command) -> None:
        """A client asks, and asks again until it is answered: a restart between loses nothing."""
        self._asked.append(command)
        if len(self._asked) == 1:
            self._ask()

    def _ask(self) -> None:
        """Clients are served one after the other, so that none overtakes what it builds on."""
        restarts, command = self.coordinator.restart_count, self._asked[0]

        def answered(_refusal: Rejection | None) -> None:
            self._asked.popleft()
            if self._asked:
                self._ask()

        def again() -> None:
            if self.coordinator.is_down:
                self.agenda.after(SECOND // 4, again)
            elif self.coordinator.restart_count != restarts and self._asked and self._asked[0] is command:
                self._ask()

        self.coordinator.submit(command, answered)
        self.agenda.after(10 * MILLISECOND, again)

    def _join(self, name: str, command: RegisterWorker) -> None:
        request = command.request
        spec = events_pb2.WorkerRegistered(
            worker_id=name,
            pool=request.pool,
            labels=request.labels,
            resources=request.resources,
            slots=request.slots,
            host=request.host,
            process_id=request.process_id,
            version=request.version,
            launch_id=request.launch_id,
        )
        before = self.workers.get(name)
        if before is not None and before.is_alive and not before.has_left:
            before.kill()
        self._start(spec)

    def _start(self, spec: events_pb2.WorkerRegistered) -> None:
        worker = self._new_worker(spec)
        self.workers[spec.worker_id] = worker
        self.coordinator.register(worker)

    def _lose_as_recorded(self, name: str, seconds: float) -> None:
        """A worker that the recording lost: it is dead, and that is noticed now."""
        worker = self.workers.get(name)
        if worker is None or worker.is_silent:
            return
        worker.kill()
        known = self.coordinator.state.workers.get(name)
        if known is not None and known.is_present:
            self.coordinator.submit(ExpireWorkers([(name, known.incarnation, seconds)], "as it was recorded"))

    def _sweep(self) -> None:
        self.coordinator.sweep()
        state = self.coordinator.state
        if state.queued_count and not self._outside_left and not self._is_staffed():
            self._replace_later()
        period_ns = round(max(state.lease_seconds, 0.4) * SECOND / 4)
        self.agenda.after(period_ns, self._sweep)

    def _is_staffed(self) -> bool:
        """Whether any worker takes work, or is on its way."""
        state = self.coordinator.state
        for name, worker in self.workers.items():
            known = state.workers.get(name)
            if not worker.is_silent and (known is None or not known.is_present or known.takes_work):
                return True
        return self._spare_pending > 0

    def _replace_later(self, like: str = "") -> None:
        """A worker comes, as the resource manager would see to it."""
        specs = {worker.name: worker.spec for worker in self.workers.values()} or self._specs()
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

        self.agenda.after(STARTUP_NS, start)

    # -- faults (faults.Stage)

    def busiest(self, name: str) -> str:
        """The worker of this name, or the one with the most leases. Raises FaultError."""
        state = self.coordinator.state
        there = [
            known for known in state.workers.values() if known.is_present and known.worker_id in self.workers
        ]
        if name:
            if not any(known.worker_id == name for known in there):
                names = ", ".join(known.worker_id for known in there) or "none"
                raise FaultError(f"no worker {name!r} is there at sequence {self.at}; there are: {names}")
            return name
        if not there:
            raise FaultError(f"no worker is there at sequence {self.at}")
        return max(there, key=lambda known: known.lease_count).worker_id

    def kill(self, name: str) -> None:
        """A worker's process dies; another starts in its place."""
        self.workers[name].kill()
        self._replace_later(name)

    def kill_all(self) -> None:
        """Every worker's process dies; others start in their places."""
        for name in list(self.workers):
            self.kill(name)

    def slow(self, name: str, factor: float) -> None:
        """What a worker begins from now on takes longer."""
        self.workers[name].traits.slowness = factor

    def repeat_messages(self) -> None:
        """Each message of each worker comes twice."""
        for worker in self.workers.values():
            worker.traits.repeats = True

    def delay_messages(self, name: str, delay_ns: int) -> None:
        """A worker's messages come later."""
        self.workers[name].traits.delay_ns = delay_ns

    def cut_off(self, name: str, duration_ns: int) -> None:
        """Nothing comes from or to a worker for some time."""
        worker = self.workers[name]
        worker.traits.is_cut_off = True
        worker.is_attached = False

        def heal() -> None:
            worker.traits.is_cut_off = False
            if worker.is_alive and worker.incarnation:
                self.coordinator.attach(worker)

        self.agenda.after(duration_ns, heal)

    def restart_coordinator(self, down_ns: int) -> None:
        """The coordinator dies with commits in flight, a little later."""
        self.agenda.after(self.random.below(20 * MILLISECOND), partial(self.coordinator.crash, down_ns))

    def doom_coordinator(self, chance: float) -> None:
        """The coordinator dies after each commit with this chance."""
        self.coordinator.doom = chance

    def crash_case(self, times: int) -> None:
        """A case that has yet to run kills its process."""
        waiting = [
            (run.run_id, task, case)
            for run in self._active()
            for task in range(run.task_count)
            if run.task_states[task] == common_pb2.TASK_STATE_QUEUED
            for case in run.unjudged_cases(task)
        ]
        if not waiting:
            raise FaultError(f"no case waits at sequence {self.at}")
        self.oracle.crashes_left[waiting[self.random.below(len(waiting))]] = times

    def cancel(self, run_id: str) -> None:
        """A run (empty: each that is active) is cancelled."""
        runs = [run.run_id for run in self._active()]
        if run_id and run_id not in runs:
            raise FaultError(
                f"no run {run_id!r} is active at sequence {self.at}; there are: {', '.join(runs) or 'none'}"
            )
        for each in [run_id] if run_id else runs:
            self.agenda.after(0, partial(self._persist, CancelRun(each, "fork", "cancelled by the fork")))

    def add_workers(self, count: int) -> None:
        """More workers like those there are."""
        for _ in range(count):
            self._replace_later(next(iter(self.workers), ""))

    def drain(self, name: str) -> None:
        """An operator drains a worker; another starts in its place."""
        self.agenda.after(0, partial(self._persist, DrainWorker(name, "fork", "drained by the fork")))
        self._replace_later(name)

    def quarantine(self, name: str) -> None:
        """An operator quarantines a worker; another starts in its place."""
        self.agenda.after(
            0, partial(self._persist, QuarantineWorker(name, "fork", "quarantined by the fork"))
        )
        self._replace_later(name)

    def give_back(self, name: str) -> None:
        """A worker gives back every lease that it has not begun."""
        self.workers[name].give_back(len(self.workers[name].held))
