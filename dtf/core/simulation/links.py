"""The links between the coordinator and its workers: a message takes a while, and none overtakes another."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dtf.core.simulation.agenda import MILLISECOND, Agenda
from dtf.core.simulation.randomness import SplitMix64
from dtf.core.simulation.worker import SimulatedWorker

LINK_NS = MILLISECOND // 2
"""What a message takes at least; at most it takes twice as long."""


@dataclass(slots=True)
class Links:
    """Every link of the simulation, in both directions."""

    _agenda: Agenda
    _random: SplitMix64
    _workers: Mapping[str, SimulatedWorker]
    _arrival_ns: dict[tuple[str, bool], int] = field(default_factory=dict)
    """Worker, and whether down to it → when the last message of it arrives."""

    def down(self, name: str, action: Callable[[SimulatedWorker], None]) -> None:
        """Do something at a worker, once the message is there; what it was then may be gone."""
        worker = self._workers.get(name)
        if worker is None or not worker.is_attached or worker.is_silent:
            return
        life = worker.life

        def arrive() -> None:
            if worker.life == life and worker.is_attached and not worker.is_silent:
                action(worker)

        self._agenda.at(self._next_ns(name, True, LINK_NS), arrive)

    def up(self, worker: SimulatedWorker, arrived: Callable[[], None]) -> None:
        """Call `arrived` when what a worker sends now is there."""
        self._agenda.at(self._next_ns(worker.name, False, LINK_NS + worker.traits.delay_ns), arrived)

    def _next_ns(self, name: str, is_down: bool, delay_ns: int) -> int:
        key = (name, is_down)
        jitter = self._random.below(LINK_NS)
        at_ns = max(self._agenda.now_ns + delay_ns + jitter, self._arrival_ns.get(key, 0) + 1)
        self._arrival_ns[key] = at_ns
        return at_ns
