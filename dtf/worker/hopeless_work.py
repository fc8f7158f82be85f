"""Work that cannot be run on this worker, and why; until its run ends it is not tried again."""

from collections.abc import Container
from dataclasses import dataclass

from dtf.worker.leases import Key

MAX_FRUITLESS_DEATHS = 2
"""Deaths in a row that no case can be charged with, after which the work itself is at fault."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why work cannot be run, as its cases say it."""

    message: str
    output: str
    is_of_machine: bool = False
    """Whether it is not for the work to answer for: its attempts end as crashed, and another worker may do better."""


class HopelessWork:
    """Kinds of work that failed here, and how often processes of others died before they ran a case."""

    def __init__(self) -> None:
        self._failures: dict[Key, Failure] = {}
        self._deaths: dict[Key, int] = {}

    def failure_of(self, key: Key) -> Failure | None:
        """Why work of this kind cannot be run; None: it may be tried."""
        return self._failures.get(key)

    def give_up(self, key: Key, failure: Failure) -> None:
        """Work of this kind cannot be run."""
        self._failures[key] = failure

    def count_death(self, key: Key) -> bool:
        """A process died before it ran a case; whether that was once too often."""
        self._deaths[key] = self._deaths.get(key, 0) + 1
        return self._deaths[key] >= MAX_FRUITLESS_DEATHS

    def ran(self, key: Key) -> None:
        """A case of it was run: what dies now is not the work's fault."""
        self._deaths.pop(key, None)

    def forget_runs(self, run_ids: Container[str]) -> None:
        """These runs are over."""
        self._failures = {key: why for key, why in self._failures.items() if key[0] not in run_ids}
        self._deaths = {key: count for key, count in self._deaths.items() if key[0] not in run_ids}
