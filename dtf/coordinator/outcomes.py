"""Who hears what became of a command: each of them once, and none of them stops the others."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from dtf.coordinator.commits import Outcome, PendingCommit, Settle, Step
from dtf.core.run.commands import Rejection

log = logging.getLogger(__name__)


class OutcomeResolver:
    """Resolves a future with an outcome, once: a caller told of a stalled log hears nothing later."""

    __slots__ = ("_future",)

    def __init__(self, future: "asyncio.Future[Outcome]") -> None:
        self._future = future

    def __call__(self, outcome: Outcome) -> None:
        if not self._future.done():
            self._future.set_result(outcome)


def tell(settle: Settle | None, outcome: Outcome) -> None:
    """Tell an outcome to the one that waits for it; what that one raises is logged."""
    if settle is None:
        return
    try:
        settle(outcome)
    except Exception:
        log.exception("an outcome could not be told", extra={"sequence": outcome.sequence})


def tell_all(steps: Iterable[Step], sequence: int) -> None:
    """Tell the outcomes of commands that rest on the commit at a sequence."""
    for step in steps:
        tell(step.settle, Outcome(sequence, step.events, step.error))


def abandon(commit: PendingCommit, refusal: Rejection, is_chosen: Callable[[Step], bool]) -> None:
    """Refuse the chosen commands of a commit, and whoever waits for its acknowledgement."""
    for step in commit.steps:
        if is_chosen(step):
            tell(step.settle, Outcome(0, (), refusal))
    for waiter in commit.waiters:
        if not waiter.done():
            waiter.set_exception(refusal)
