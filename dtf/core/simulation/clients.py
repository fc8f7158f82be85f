"""The clients of a fork: each asks until it is answered, whatever becomes of the coordinator meanwhile."""

from collections import deque
from dataclasses import dataclass, field

from dtf.core.run.commands import Command, Rejection
from dtf.core.simulation.agenda import MILLISECOND, SECOND, Agenda
from dtf.core.simulation.coordinator import SimulatedCoordinator


@dataclass(slots=True)
class Clients:
    """What clients ask for, one after the other."""

    _agenda: Agenda
    _coordinator: SimulatedCoordinator
    _asked: deque[Command] = field(init=False, default_factory=deque)

    @property
    def are_waiting(self) -> bool:
        """Whether something was asked and is not answered."""
        return bool(self._asked)

    def ask(self, command: Command) -> None:
        """A client asks, and asks again until it is answered: a restart between loses nothing."""
        self._asked.append(command)
        if len(self._asked) == 1:
            self._ask()

    def _ask(self) -> None:
        """Clients are served one after the other, so that none overtakes what it builds on."""
        restarts, command = self._coordinator.restart_count, self._asked[0]

        def answered(_refusal: Rejection | None) -> None:
            self._asked.popleft()
            if self._asked:
                self._ask()

        def again() -> None:
            if self._coordinator.is_down:
                self._agenda.after(SECOND // 4, again)
            elif self._coordinator.restart_count != restarts and self._asked and self._asked[0] is command:
                self._ask()

        self._coordinator.submit(command, answered)
        self._agenda.after(10 * MILLISECOND, again)
