"""What a decision will have changed, while it is being made.

`decide` may not change the state, and yet the last result of a run must bring RunFinished with
it. So each rule notes here what its events will do to a run, and `finishing` looks at the sum.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.run.state import VERDICTS, Run


@dataclass(slots=True)
class Outlook:
    """Changes that the events of one decision make to one run."""

    run: Run
    sealed: bool = False
    cancelling: bool = False
    submitted_tasks: int = 0
    submitted_cases: int = 0
    finished_tasks: int = 0
    ended_leases: int = 0
    infrastructure_failures: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * VERDICTS)


class Outlooks:
    """The outlooks of one decision, by run."""

    def __init__(self) -> None:
        self._by_run: dict[str, Outlook] = {}

    def of(self, run: Run) -> Outlook:
        """The outlook of a run, begun if there is none."""
        outlook = self._by_run.get(run.run_id)
        if outlook is None:
            outlook = self._by_run[run.run_id] = Outlook(run)
        return outlook

    def finishing(self) -> list[events_pb2.Event]:
        """RunFinished for each run that ends by this decision."""
        return [event for event in map(_finished, self._outlooks()) if event is not None]

    def _outlooks(self) -> Iterable[Outlook]:
        return self._by_run.values()


def _finished(outlook: Outlook) -> events_pb2.Event | None:
    run = outlook.run
    if run.is_terminal:
        return None
    if run.is_cancelling or outlook.cancelling:
        if run.leased_count - outlook.ended_leases > 0:
            return None
        return _event(outlook, common_pb2.RUN_STATE_CANCELLED)
    if not (run.is_sealed or outlook.sealed):
        return None
    if run.finished_count + outlook.finished_tasks < run.task_count + outlook.submitted_tasks:
        return None
    return _event(outlook, common_pb2.RUN_STATE_FINISHED)


def _event(outlook: Outlook, state: "common_pb2.RunState.ValueType") -> events_pb2.Event:
    run = outlook.run
    counts = [before + more for before, more in zip(run.counts, outlook.counts, strict=True)]
    finished = events_pb2.RunFinished(
        run_id=run.run_id,
        state=state,
        counts=verdict_counts(counts),
        first_sequence=run.first_sequence,
        unjudged=max(run.case_count + outlook.submitted_cases - sum(counts), 0),
        infrastructure_failures=run.infrastructure_failures + outlook.infrastructure_failures,
    )
    return events_pb2.Event(run_finished=finished)


def verdict_counts(counts: list[int]) -> common_pb2.VerdictCounts:
    """Counts by number of Verdict as the message that people read."""
    return common_pb2.VerdictCounts(
        passed=counts[common_pb2.VERDICT_PASSED],
        failed=counts[common_pb2.VERDICT_FAILED],
        error=counts[common_pb2.VERDICT_ERROR],
        skipped=counts[common_pb2.VERDICT_SKIPPED],
        flaky=counts[common_pb2.VERDICT_FLAKY],
    )
