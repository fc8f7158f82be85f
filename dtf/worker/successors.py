"""Who is told that no successor comes: a process of pytest holds each case back until it knows what follows it."""

from collections.abc import Iterable, Sequence

from dtf.worker.slot import Slot
from dtf.worker.slot_rules import SlotRules
from dtf.worker.warm_process import WarmProcess

FLUSH_LINGER_SECONDS = 0.1


class Successors:
    """Of which runs more may come, and which processes in the slots wait in vain."""

    def __init__(self, slots: Sequence[Slot], rules: SlotRules) -> None:
        self._slots = slots
        self._rules = rules
        self._exhausted: set[str] = set()
        self.is_draining = False
        """Whether nothing new comes, of whatever run."""

    def run_exhausted(self, run_ids: Iterable[str], now: float) -> None:
        """Nothing of these runs is queued now."""
        self._exhausted.update(run_ids)
        self.flush_held_back(now)

    def more_came(self, run_id: str) -> None:
        """Leases of a run came, or it is over: what was said of it holds no longer."""
        self._exhausted.discard(run_id)

    def drain(self, now: float) -> None:
        """Nothing new will come: hold no case back for its successor."""
        self.is_draining = True
        self.flush_held_back(now)

    def flush_held_back(self, now: float) -> None:
        """Tell every process that waits in vain."""
        for slot in self._slots:
            if slot.process is not None:
                self.flush_if_due(slot.process, now)

    def flush_if_due(self, process: WarmProcess, now: float) -> None:
        """Tell a process that no successor comes, once nothing of its kind is to be had."""
        key = process.key
        if key is None or process.is_flushed or not process.leases or self._rules.will_be_given(process, key):
            return
        is_alone = self.is_draining or key[0] in self._exhausted
        if is_alone or now - process.given_at > FLUSH_LINGER_SECONDS:
            process.flush()
