"""Which work a slot takes and how much of it: rules 1, 2 and 4 of slots.py, as questions that change nothing."""

from collections.abc import Callable, Sequence

from dtf.ports.clock import Clock
from dtf.worker.leases import Key, LeaseBook
from dtf.worker.slot import Slot
from dtf.worker.warm_process import WarmProcess

MINIMUM_SERVICE_SECONDS = 5.0


class SlotRules:
    """What the slots hold and what waits, looked at by the rules."""

    def __init__(
        self,
        slots: Sequence[Slot],
        book: LeaseBook,
        clock: Clock,
        can_start: Callable[[Key], bool] = lambda key: True,
    ) -> None:
        """`can_start`: whether work of a kind waits for nothing but a slot."""
        self._can_start = can_start
        self._slots = slots
        self._book = book
        self._clock = clock

    def next_key(self) -> Key | None:
        """The kind of work a free slot should take (rule 1)."""
        for key in self._book.waiting_keys():
            if not self._can_start(key):
                continue
            getting_ready = sum(
                slot.process is not None and slot.process.key == key and not slot.process.leases
                for slot in self._slots
            )
            if self._book.waiting_count(key) > getting_ready:
                return key
        return None

    def most_to_give(self, process: WarmProcess, key: Key) -> tuple[int, int]:
        """How many leases of `key` a process may be given now, and how many of them whatever they hold (rule 2)."""
        at_hand = 2 if process.needs_successor else 1
        held = len(process.leases)
        share = max(at_hand, self._fair_share(key)) - held
        return min(share, self._book.waiting_count(key)), at_hand - held

    def _fair_share(self, key: Key) -> int:
        """Leases of `key`, given or waiting, for each slot that serves it."""
        serving = [slot.process for slot in self._slots if slot.process and slot.process.key == key]
        total = self._book.waiting_count(key) + sum(len(process.leases) for process in serving)
        return -(-total // max(1, len(serving)))

    def must_yield(self, slot: Slot, key: Key) -> bool:
        """Whether a slot gives `key` nothing more, for older work that has no slot (rule 4)."""
        if self._clock.monotonic() - slot.bound_at < MINIMUM_SERVICE_SECONDS:
            return False
        other = self.next_key()
        own_order = self._book.oldest_order(key)
        if other is None or other == key or own_order is None:
            return False
        is_served = any(each.process is not None and each.process.key == other for each in self._slots)
        return not is_served and (self._book.oldest_order(other) or 0) < own_order

    def will_be_given(self, process: WarmProcess, key: Key) -> bool:
        """Whether a successor is at hand; what waits is none for a process that gets nothing more (rule 4)."""
        slot = next((slot for slot in self._slots if slot.process is process), None)
        return bool(self._book.waiting_count(key)) and not (slot is not None and self.must_yield(slot, key))
