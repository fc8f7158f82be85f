"""Work that cannot be run on this worker, and why; until its run ends it is not tried again."""

from collections.abc import Container
from dataclasses import dataclass

from dtf.api.v1 import common_pb2
from dtf.worker.leases import Key, LeaseBook
from dtf.worker.reporter import Reporter

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

    def __init__(self, book: LeaseBook, reporter: Reporter) -> None:
        self._book = book
        self._reporter = reporter
        self._failures: dict[Key, Failure] = {}
        self._deaths: dict[Key, int] = {}

    def give_up(self, key: Key, failure: Failure) -> None:
        """Work of this kind cannot be run: what waits of it says so."""
        self._failures[key] = failure
        self.fail_waiting(key)

    def fail_waiting(self, key: Key) -> None:
        """What waits of work that cannot be run says why; work that may be tried goes on waiting."""
        failure = self._failures.get(key)
        if failure is None:
            return
        for lease in self._book.take_all_waiting(key):
            if failure.is_of_machine:
                outcome = common_pb2.OUTCOME_CRASHED
                self._reporter.end(lease, outcome, failure.message, output=failure.output)
            else:
                self._reporter.error(lease, failure.message, failure.output)

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
