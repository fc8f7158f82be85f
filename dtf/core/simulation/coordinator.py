"""The coordinator of the simulation: the real decide and evolve, a log, sessions and grants around them.

What leaves it follows the durability of the commit it rests on, as in the real one
(dtf/coordinator/writer.py). It may die with commits in flight and be elected anew.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from dtf.api.v1 import common_pb2, events_pb2, worker_service_pb2
from dtf.core.run.commands import (
    CloseSession,
    Command,
    ElectLeader,
    ExpireWorkers,
    GrantLeases,
    ReconcileLeases,
    RegisterWorker,
    Rejection,
    ReportResults,
    ReviewPlacement,
)
from dtf.core.run.decide import decide
from dtf.core.run.evolve import evolve
from dtf.core.run.state import Run, State
from dtf.core.simulation.agenda import MILLISECOND, SECOND, Agenda
from dtf.core.simulation.ledger import Ledger
from dtf.core.simulation.links import LINK_NS, Links
from dtf.core.simulation.messages import Assigned, Report
from dtf.core.simulation.oracle import Oracle
from dtf.core.simulation.randomness import SplitMix64
from dtf.core.simulation.recording import Recorded
from dtf.core.simulation.worker import SimulatedWorker

Answer = Callable[[Rejection | None], None]
COMMIT_NS = MILLISECOND
MOST_DEATHS = 10


@dataclass(slots=True)
class World:
    """What the coordinator lives in."""

    agenda: Agenda
    oracle: Oracle
    random: SplitMix64
    workers: dict[str, SimulatedWorker]
    """Processes by name, the newest of each."""


class SimulatedCoordinator:
    """One namespace's coordinator, over all its reigns."""

    def __init__(
        self,
        world: World,
        ledger: Ledger,
        before: Recorded | None,
        restore: Callable[[], State],
        *,
        credits: int,
    ) -> None:
        self._world = world
        self._agenda = world.agenda
        self.ledger = ledger
        self._before = before
        self._restore = restore
        self._credits = credits
        self.state = restore()
        self.is_down = False
        self.restart_count = 0
        self.doom = 0.0
        """Chance that it dies after a commit."""
        self._reign = 0
        self._heard_ns: dict[str, int] = {}
        self._links = Links(world.agenda, world.random, world.workers)

    # -- commands

    def submit(self, command: Command, answer: Answer = lambda refusal: None) -> None:
        """Decide now; `answer` hears when what it rests on is durable, never if the coordinator dies before."""
        if self.is_down:
            return
        now_ns = self.ledger.time(self._agenda.now_ns)
        try:
            events = decide(self.state, command, now_ns)
        except Rejection as refusal:
            self._when_durable(partial(answer, refusal))
            return
        if events:
            self._commit(command, events, now_ns)
        self._when_durable(partial(answer, None))

    def _commit(self, command: Command, events: list[events_pb2.Event], now_ns: int) -> None:
        for cut in self.ledger.append(self.state, command, events, now_ns):
            self._when_durable(partial(self._landed, cut))
        if self.doom and self.restart_count < MOST_DEATHS and self._world.random.chance(self.doom):
            self.crash(self._world.random.below(2 * SECOND))

    def _landed(self, cut: Recorded) -> None:
        for each in self.ledger.land(cut):
            self._durable(each.commit)

    def _when_durable(self, action: Callable[[], None]) -> None:
        reign = self._reign

        def act() -> None:
            if self._reign == reign:
                action()

        self._agenda.after(COMMIT_NS, act)

    def _durable(self, commit: events_pb2.Commit) -> None:
        """A commit is durable: whom it concerns is told."""
        for event in commit.events:
            self._world.oracle.observe(event)
            match event.WhichOneof("event"):
                case "leases_granted":
                    self._announce(event.leases_granted)
                case "run_cancel_requested":
                    self._stop_attempts(event.run_cancel_requested.run_id)
                case "worker_quarantined":
                    self._stop_all(event.worker_quarantined.worker_id)
                case "worker_drain_requested":
                    self._tell_drain(event.worker_drain_requested.worker_id)
                case _:
                    pass

    # -- to workers

    def _announce(self, said: events_pb2.LeasesGranted) -> None:
        leases = self._assigned(said.run_id, enumerate(said.tasks, said.first_fence), said.worker_id)
        self._links.down(said.worker_id, lambda worker: worker.assign(leases))

    def _assigned(self, run_id: str, leases: Iterable[tuple[int, int]], worker_id: str) -> list[Assigned]:
        """The leases that are still held, as a worker is told of them."""
        run, worker = self.state.runs.get(run_id), self.state.workers.get(worker_id)
        if run is None or worker is None:
            return []
        held = worker.leases.get(run_id, {})
        return [
            Assigned(run_id, task, fence, tuple(run.unjudged_cases(task)))
            for fence, task in leases
            if fence in held
        ]

    def _stop_attempts(self, run_id: str) -> None:
        for worker in self.state.workers.values():
            fences = list(worker.leases.get(run_id, {}))
            if fences:
                self._links.down(worker.worker_id, partial(SimulatedWorker.cancel, fences=fences))

    def _stop_all(self, name: str) -> None:
        self._links.down(name, lambda worker: worker.cancel(list(worker.held)))

    def _tell_drain(self, name: str) -> None:
        self._links.down(name, lambda worker: worker.drain())

    # -- from workers (worker.Upstream)

    def run(self, run_id: str) -> Run | None:
        """A run; while the coordinator is down its workers know it still."""
        return self.state.runs.get(run_id)

    def send(self, worker: SimulatedWorker, report: Report) -> None:
        """A report is on its way."""
        arrived = partial(self._arrived, worker, report, worker.life)
        for _ in range(2 if worker.traits.repeats else 1):
            self._links.up(worker, arrived)

    def _arrived(self, worker: SimulatedWorker, report: Report, life: int) -> None:
        """A report came. What was on its way when its worker died, or was cut off, may still come."""
        if self.is_down or worker.traits.is_cut_off:
            return
        known = self.state.workers.get(worker.name)
        if known is None:
            return
        is_current = known.is_present and known.incarnation == report.incarnation
        if is_current:
            self._heard_ns[worker.name] = self._agenda.now_ns

        def answer(refusal: Rejection | None) -> None:
            if worker.life == life and refusal is None and is_current:
                self._links.down(worker.name, lambda told: told.acknowledge(report.number))
            self.dispatch()

        command = ReportResults(worker.name, report.incarnation, report.results, report.ends, report.released)
        self.submit(command, answer)
        if not is_current and worker.life == life and worker.incarnation == report.incarnation:
            self._agenda.after(LINK_NS, lambda: self._end_session(worker, life))
        self.dispatch()

    def _end_session(self, worker: SimulatedWorker, life: int) -> None:
        if worker.life == life and not worker.is_silent:
            worker.lose_session()
            self.register(worker)

    def leave(self, worker: SimulatedWorker) -> None:
        """A worker that is drained closes its session."""
        incarnation, life = worker.incarnation, worker.life

        def answer(refusal: Rejection | None) -> None:
            if refusal is None and worker.life == life:
                worker.has_left = True
                worker.is_attached = False

        self._agenda.after(
            LINK_NS, lambda: self.submit(CloseSession(worker.name, incarnation, "drained"), answer)
        )

    def register(self, worker: SimulatedWorker, request_id: str = "") -> None:
        """A worker opens a session, trying under one request id until the coordinator answers."""
        if worker.is_silent:
            return
        request_id = request_id or f"simulated-{self._world.random.next():016x}"
        if self.is_down:
            self._agenda.after(SECOND // 4, lambda: self.register(worker, request_id))
            return
        spec, life = worker.spec, worker.life
        request = worker_service_pb2.CreateSessionRequest(
            worker_id=spec.worker_id,
            pool=spec.pool,
            labels=spec.labels,
            resources=spec.resources,
            slots=spec.slots,
            host=spec.host,
            process_id=spec.process_id,
            version=spec.version,
            launch_id=spec.launch_id,
            request_id=request_id,
        )
        reign = self._reign

        def answer(refusal: Rejection | None) -> None:
            known = self.state.workers.get(worker.name)
            if refusal is None and known is not None and worker.life == life and not worker.is_silent:
                self._world.workers[worker.name] = worker
                worker.incarnation = known.incarnation
                self._welcome(worker)

        def retry() -> None:
            if self._reign != reign and worker.life == life and not worker.incarnation:
                self.register(worker, request_id)

        self.submit(RegisterWorker(worker.name, request), answer)
        self._agenda.after(SECOND, retry)

    def attach(self, worker: SimulatedWorker) -> None:
        """A worker with a session comes (back): what both sides hold is compared."""
        if self.is_down or worker.is_silent or worker.has_left:
            return
        life = worker.life
        held = {*worker.held, *_said(worker)}

        def answer(refusal: Rejection | None) -> None:
            if worker.life != life or worker.is_silent:
                return
            if refusal is not None:
                self._end_session(worker, life)
            else:
                self._welcome(worker, held)

        self.submit(ReconcileLeases(worker.name, worker.incarnation, sorted(held)), answer)

    def _welcome(self, worker: SimulatedWorker, held: Iterable[int] = ()) -> None:
        """It is attached: it gets what it lacks, drops what is not its own, and says again what was not heard."""
        known = self.state.workers[worker.name]
        if known.incarnation != worker.incarnation:
            return
        worker.is_attached = True
        self._heard_ns[worker.name] = self._agenda.now_ns
        right = {fence for leases in known.leases.values() for fence in leases}
        strange = sorted(set(held) - right - _said(worker))
        if strange:
            self._links.down(worker.name, lambda told: told.cancel(strange))
        for run_id, leases in known.leases.items():
            missing = self._assigned(
                run_id, [pair for pair in leases.items() if pair[0] not in held], worker.name
            )
            if missing:
                self._links.down(worker.name, partial(SimulatedWorker.assign, leases=missing))
        for report in list(worker.unacknowledged):
            self.send(worker, report)
        if known.state == common_pb2.WORKER_STATE_DRAINING:
            self._tell_drain(worker.name)
        self.dispatch()

    # -- of its own accord

    def dispatch(self) -> None:
        """Hand out what is queued to whoever can take it."""
        if self.is_down or not self.state.queued_count:
            return
        credits: dict[str, int] = {}
        for name, worker in self._world.workers.items():
            known = self.state.workers.get(name)
            if known is None or not known.takes_work or not worker.is_attached or worker.is_draining:
                continue
            room = max(1, known.slots) + self._credits - known.lease_count
            if room > 0:
                credits[name] = room
        if credits:
            self.submit(GrantLeases(credits))

    def sweep(self) -> None:
        """Hear who lives, lose who does not, and look at what cannot be placed."""
        if self.is_down:
            return
        now_ns = self._agenda.now_ns
        limit_ns = round(self.state.lease_seconds * SECOND)
        silent: list[tuple[str, int, float]] = []
        for known in self.state.workers.values():
            if not known.is_present:
                continue
            worker = self._world.workers.get(known.worker_id)
            is_heard = (
                worker is not None
                and worker.is_attached
                and not worker.is_silent
                and worker.incarnation == known.incarnation
                and worker.traits.delay_ns <= limit_ns
            )
            heard_ns = self._heard_ns.setdefault(known.worker_id, now_ns)
            if is_heard:
                self._heard_ns[known.worker_id] = now_ns
            elif now_ns - heard_ns > limit_ns:
                silent.append((known.worker_id, known.incarnation, (now_ns - heard_ns) / SECOND))
        if silent:
            self.submit(ExpireWorkers(silent))
        if self.state.queued_count:
            self.submit(ReviewPlacement())
        self.dispatch()

    # -- dying and coming back

    def crash(self, down_ns: int) -> None:
        """It dies; some of the commits in flight land. A new reign begins after `down_ns`."""
        if self.is_down:
            return
        self._reign += 1
        self.is_down = True
        self.restart_count += 1
        landing = self._world.random.below(len(self.ledger.pending) + 1)
        known = len(self.ledger.durable)
        self.ledger.cut_off(landing, self._before)
        for each in self.ledger.durable[known:]:
            for event in each.commit.events:
                self._world.oracle.observe(event)
        for worker in self._world.workers.values():
            worker.is_attached = False
        self._agenda.after(down_ns, self._elect)

    def _elect(self) -> None:
        self.state = self._restore()
        for each in self.ledger.durable:
            for event in each.commit.events:
                evolve(self.state, event, each.commit.now_unix_nanos, each.sequence)
        self.is_down = False
        self._heard_ns.clear()
        self.ledger.succeed(self.state.epoch + 1, self._world.random.eight_bytes())
        self.submit(
            ElectLeader("simulated:1", self.state.lease_seconds), lambda refusal: self._reattach_all()
        )
        self.submit(ExpireWorkers(()))

    def _reattach_all(self) -> None:
        for worker in list(self._world.workers.values()):
            if worker.incarnation:
                delay_ns = self._world.random.below(SECOND // 2)
                self._agenda.after(delay_ns, partial(self.attach, worker))


def _said(worker: SimulatedWorker) -> set[int]:
    """Fences that its reports tell of: they need no cancelling."""
    return {fence for report in worker.unacknowledged for fence in report.fences}
