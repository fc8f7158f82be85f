"""A recording, continued from one of its sequences in virtual time, with a fault or without."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from dtf.core.run.commands import (
    Command,
    DrainWorker,
    ElectLeader,
    ExpireWorkers,
    RegisterWorker,
)
from dtf.core.run.state import State
from dtf.core.simulation.agenda import SECOND, Agenda
from dtf.core.simulation.clients import Clients
from dtf.core.simulation.coordinator import SimulatedCoordinator, World
from dtf.core.simulation.faults import Fault, FaultError, Stage
from dtf.core.simulation.ledger import Arguments, Ledger
from dtf.core.simulation.oracle import Oracle
from dtf.core.simulation.randomness import SplitMix64
from dtf.core.simulation.recording import Activity, Outside, Recorded, Recording
from dtf.core.simulation.staff import Staff
from dtf.core.simulation.stage import ForkStage

RESOURCE_MANAGER = "resource-manager"
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
    """A fork while it runs."""

    recording: Recording
    at: int
    arguments: Arguments
    options: Options
    agenda: Agenda = field(init=False)
    oracle: Oracle = field(init=False)
    world: World = field(init=False)
    coordinator: SimulatedCoordinator = field(init=False)
    staff: Staff = field(init=False)
    clients: Clients = field(init=False)
    _activity: Activity = field(init=False, default_factory=Activity)
    _missed: list[str] = field(init=False, default_factory=list)
    _outside_left: int = field(init=False, default=0)
    _last_outside_ns: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        before = self.recording.until(self.at)
        last = before[-1] if before else None
        random = SplitMix64(self.options.seed)
        self.agenda = Agenda(last.commit.now_unix_nanos if last else 0)
        self.oracle = Oracle(SplitMix64(random.next()))
        self._read()
        self.world = World(self.agenda, self.oracle, random, {})
        self.coordinator = SimulatedCoordinator(
            self.world,
            Ledger.after(last, self.arguments, self.options.code_version, self.options.max_commit_bytes),
            last,
            partial(self.recording.state_at, self.at),
            credits=self.options.credits,
        )
        self.staff = Staff(self.recording, self.at, self.world, self.coordinator)
        self.clients = Clients(self.agenda, self.coordinator)

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
        self.staff.seat()
        for outside in list(self.recording.outside_after(self.at)):
            self._outside_left += 1
            self._last_outside_ns = outside.at_ns
            self.agenda.at(outside.at_ns, partial(self._from_outside, outside))
        self.agenda.after(0, self._sweep)
        stage = ForkStage(self.at, self.world, self.coordinator, self.staff, self.clients)
        for fault in faults:
            self._strike(fault, stage)
        self.agenda.after(0, self.coordinator.dispatch)
        limit_ns = max(self._last_outside_ns, self.agenda.now_ns) + LONGEST_NS
        steps = 0
        while not self._is_over() and steps < MOST_STEPS and self.agenda.now_ns < limit_ns:
            steps += 1
            if not self.agenda.step():
                break
        return self._result()

    def _strike(self, fault: Fault, stage: Stage) -> None:
        """At once; or later, if there is then still something for it to strike."""
        if not fault.delay_ns:
            fault.apply(stage)
            return

        def strike() -> None:
            if self.coordinator.is_down:
                self.agenda.after(SECOND // 4, strike)
                return
            try:
                fault.apply(stage)
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
            sum(worker.wasted_seconds for worker in self.world.workers.values()),
            self.agenda.now_ns,
            tuple(self._missed),
        )

    def _is_over(self) -> bool:
        coordinator = self.coordinator
        if (
            self._outside_left
            or self.clients.are_waiting
            or coordinator.is_down
            or coordinator.ledger.pending
        ):
            return False
        return not any(
            run.is_sealed or run.queued_count or run.leased_count
            for run in coordinator.state.active_runs.values()
        )

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
                self.staff.join(request.worker_id or command.worker_id, command)
            case ExpireWorkers(silent=silent):
                for name, _, seconds in silent:
                    self.staff.lose_as_recorded(name, seconds)
            case DrainWorker():
                is_idle = command.requested_by == RESOURCE_MANAGER
                self.coordinator.submit(
                    DrainWorker(command.worker_id, command.requested_by, command.reason, is_idle)
                )
            case ElectLeader():
                self.coordinator.crash(SECOND)
            case _:
                self.clients.ask(command)

    def _sweep(self) -> None:
        self.coordinator.sweep()
        state = self.coordinator.state
        if state.queued_count and not self._outside_left and not self.staff.is_staffed():
            self.staff.replace_later()
        period_ns = round(max(state.lease_seconds, 0.4) * SECOND / 4)
        self.agenda.after(period_ns, self._sweep)
