"""Says in the worker's log what everything waits for, once nothing has begun or ended for a while.

A worker that stands still sends heartbeats like any other, so nobody takes its leases away. While a
case or a command runs this is no standstill: those have timeouts of their own.
"""

import logging
from collections.abc import Iterator, Sequence

from dtf.worker.leases import LeaseBook
from dtf.worker.outbound import Outbound
from dtf.worker.slot import Slot
from dtf.worker.warm_process import State, WarmProcess

STANDSTILL_SECONDS = 30.0
"""Told first after this long, then each time when it has doubled."""
MAX_NAMED_FENCES = 8

_log = logging.getLogger(__name__)


class Standstill:
    """Looks at what is held; call `look` some times a second."""

    def __init__(self, slots: Sequence[Slot], book: LeaseBook, outbound: Outbound, now: float) -> None:
        self._slots = slots
        self._book = book
        self._outbound = outbound
        self._seen: tuple[int, ...] = ()
        self._since = now
        self._tell_after = STANDSTILL_SECONDS

    def look(self, now: float) -> None:
        """Note what moved; tell of it when nothing did for long."""
        seen = self._progress()
        is_idle = not len(self._book) and self._outbound.is_settled
        if seen != self._seen or is_idle or self._is_running():
            self._seen, self._since, self._tell_after = seen, now, STANDSTILL_SECONDS
        elif now - self._since >= self._tell_after:
            self._tell_after *= 2
            _log.warning(
                "nothing began or ended for %.0f s, leases held: %d; %s",
                now - self._since,
                len(self._book),
                "; ".join(self._reasons()),
            )

    def _progress(self) -> tuple[int, ...]:
        """Numbers of which one at least changes when something begins, ends or is acknowledged."""
        outstanding = sum(slot.process.outstanding for slot in self._slots if slot.process is not None)
        return self._book.added_count, len(self._book), outstanding, self._outbound.unacknowledged_count

    def _is_running(self) -> bool:
        for slot in self._slots:
            if slot.command is not None:
                return True
            if slot.process is not None and slot.process.running_case() is not None:
                return True
        return False

    def _reasons(self) -> Iterator[str]:
        """What waits, and for what."""
        for number, slot in enumerate(self._slots):
            if slot.process is not None:
                yield f"slot {number}: {_words(slot.process)}"
            else:
                yield f"slot {number}: free"
        for key in self._book.waiting_keys():
            yield f"{self._book.waiting_count(key)} of run {key[0]} template {key[1]} wait for a slot"
        uploading = self._book.uploading()
        if uploading:
            yield f"{_fences(uploading)} wait for the coordinator to store their output"
        if self._outbound.unacknowledged_count:
            yield (
                f"{self._outbound.unacknowledged_count} messages wait to be acknowledged, the first is number"
                f" {self._outbound.first_unacknowledged}"
            )


def _words(process: WarmProcess) -> str:
    """A warm process, and what it waits for."""
    name = (
        f"process {process.process.process_id}" if process.process is not None else "a process being launched"
    )
    key = f" of run {process.key[0]} template {process.key[1]}" if process.key is not None else ""
    match process.state:
        case State.STARTING:
            waits = "is starting"
        case State.WARM:
            waits = "is warm and waits for a run"
        case State.PREPARING:
            waits = "collects or imports its suite"
        case State.SERVING if process.leases:
            waits = _held(process)
        case State.SERVING:
            waits = "waits for leases"
        case State.FINISHING:
            waits = "tears down"
        case State.DEAD:
            waits = "is dead"
    ending = f", being ended: {process.stop_reason.words}" if process.stop_reason is not None else ""
    return f"{name}{key} {waits}{ending}"


def _held(process: WarmProcess) -> str:
    """What a process was given that it does not run."""
    given = f"was given {_fences(list(process.leases))}, {process.outstanding} cases, and runs none of them"
    if process.needs_successor and not process.is_flushed:
        return f"{given}: it holds its last case back until another comes"
    return f"{given}: user code that is no case may block it, as a hook or a signal handler"


def _fences(fences: Sequence[int]) -> str:
    shown = ", ".join(map(str, fences[:MAX_NAMED_FENCES]))
    more = len(fences) - MAX_NAMED_FENCES
    return f"fences {shown}" + (f" and {more} more" if more > 0 else "")
