"""What the coordinator leased to this worker and what of it is still to be reported.

waiting ──▶ given to a warm process, or started as a command ──▶ reported ──▶ forgotten
   │                     │
   ├── released          ├── released, if the process had not begun it
   └── cancelled         ├── ended: timed out, crashed, cancelled
                         └── waiting again, in front, if its process died of another attempt
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import msgspec

from dtf.api.v1 import worker_service_pb2
from dtf.runner.channel import CaseItem

Key: TypeAlias = tuple[str, int]
"""A run and a template of it: what one warm process serves."""


class LeasedCase(msgspec.Struct, gc=False):
    """One case of an attempt."""

    name: str
    position: int
    """In the submitter's collection; -1: unknown."""


class Lease(msgspec.Struct, gc=False):
    """The right to one attempt."""

    fence: int
    key: Key
    task: int
    attempt: int
    name: str
    payload: str
    cases: dict[int, LeasedCase] | None
    """Cases not yet reported, by their index in the task; None: the one case 0, named as the task."""
    order: int
    """Rises with each lease that came."""
    is_cancelled: bool = False
    has_begun: bool = False
    """A case of it was reported."""
    output_bytes: int = 0
    """How much of its output was uploaded, or is being."""
    uploading: int = 0
    """Results of it that wait for an upload before they can be said."""

    @property
    def case_count(self) -> int:
        """Cases still to be reported."""
        return 1 if self.cases is None else len(self.cases)

    def items(self, timeout_seconds: float) -> list[CaseItem]:
        """The cases still to be reported, as a warm process takes them."""
        if self.cases is None:
            return [CaseItem(self.fence, 0, self.name, -1, self.payload, timeout_seconds, True)]
        last = len(self.cases) - 1
        return [
            CaseItem(self.fence, index, case.name, case.position, self.payload, timeout_seconds, n == last)
            for n, (index, case) in enumerate(self.cases.items())
        ]

    def has_case(self, index: int) -> bool:
        """Whether a case is still to be reported."""
        return index == 0 if self.cases is None else index in self.cases

    def take_case(self, index: int) -> bool:
        """A case was reported; True: it was the last."""
        self.has_begun = True
        if self.cases is None:
            return True
        del self.cases[index]
        return not self.cases

    def indexes(self) -> list[int]:
        """Indexes of the cases still to be reported."""
        return [0] if self.cases is None else list(self.cases)


class LeaseBook:
    """Every lease held, by fence, and those that wait, by what can run them."""

    def __init__(self) -> None:
        self._held: dict[int, Lease] = {}
        self._waiting: dict[Key, deque[Lease]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, fence: int) -> bool:
        return fence in self._held

    def get(self, fence: int) -> Lease | None:
        """The lease with this fence, if it is held."""
        return self._held.get(fence)

    @property
    def fences(self) -> list[int]:
        """Of every lease held."""
        return list(self._held)

    def add(
        self, batch: worker_service_pb2.Assignments, is_over: Callable[[int], bool] = lambda fence: False
    ) -> list[Lease]:
        """Leases came; they wait now. Those already held, or over, are left as they are."""
        added = [
            lease
            for lease in self._unpack(batch)
            if lease.fence not in self._held and not is_over(lease.fence)
        ]
        for lease in added:
            self._held[lease.fence] = lease
            queue = self._waiting.get(lease.key)
            if queue is None:
                queue = self._queue(lease.key)
            queue.append(lease)
        return added

    def _unpack(self, batch: worker_service_pb2.Assignments) -> Iterator[Lease]:
        """One lease an entry of the columns. Raises IndexError if they differ in length."""
        run_id, attempts, templates = batch.run_id, batch.attempts, batch.templates
        payloads, cases, names = batch.payloads, batch.cases, batch.names
        for n, (fence, task) in enumerate(zip(batch.fences, batch.tasks, strict=True)):
            self._count += 1
            yield Lease(
                fence,
                (run_id, templates[n] if templates else 0),
                task,
                attempts[n] if attempts else 1,
                names[n] if names else "",
                payloads[n] if payloads else "",
                (leased_cases(cases[n]) or None) if cases else None,
                self._count,
            )

    def _queue(self, key: Key) -> deque[Lease]:
        return self._waiting.setdefault(key, deque())

    def forget(self, lease: Lease) -> None:
        """It is reported, ended or given back."""
        del self._held[lease.fence]

    @property
    def added_count(self) -> int:
        """How many leases ever came."""
        return self._count

    def uploading(self) -> list[int]:
        """Fences of leases of which a result waits for an upload."""
        return [lease.fence for lease in self._held.values() if lease.uploading]

    def waiting_count(self, key: Key) -> int:
        """How many leases wait for a process of `key`."""
        return len(self._waiting.get(key, ()))

    @property
    def total_waiting(self) -> int:
        """How many leases wait."""
        return sum(map(len, self._waiting.values()))

    def waiting_keys(self) -> list[Key]:
        """The keys with leases that wait, that of the longest-waiting lease first."""
        keys = [key for key, queue in self._waiting.items() if queue]
        return sorted(keys, key=lambda key: self._waiting[key][0].order)

    def oldest_order(self, key: Key) -> int | None:
        """Order of the longest-waiting lease of `key`."""
        queue = self._waiting.get(key)
        return queue[0].order if queue else None

    def take(self, key: Key) -> Lease:
        """The next waiting lease of `key`, which waits no longer."""
        return self._waiting[key].popleft()

    def put_back(self, leases: Iterable[Lease]) -> None:
        """Leases whose process died of another attempt wait again, in front and in their old order."""
        for lease in reversed(list(leases)):
            self._queue(lease.key).appendleft(lease)

    def take_waiting(self, fences: Iterable[int]) -> list[Lease]:
        """Those of `fences` that wait, taken out of their queues."""
        wanted = set(fences) & self._held.keys()
        taken = []
        for key in {self._held[fence].key for fence in wanted}:
            queue = self._waiting.get(key, deque())
            found = [lease for lease in queue if lease.fence in wanted]
            if found:
                taken += found
                self._waiting[key] = deque(lease for lease in queue if lease.fence not in wanted)
        return taken

    def take_all_waiting(self, key: Key | None = None) -> list[Lease]:
        """Every lease that waits (for `key`), taken out of its queue."""
        keys = list(self._waiting) if key is None else [key]
        return [lease for each in keys for lease in self._waiting.pop(each, ())]

    def forget_run(self, run_id: str) -> None:
        """The run ended: its empty queues go."""
        for key in [key for key, queue in self._waiting.items() if key[0] == run_id and not queue]:
            del self._waiting[key]

    def clear(self) -> None:
        """Forget everything: the session is gone."""
        self._held.clear()
        self._waiting.clear()


def leased_cases(cases: worker_service_pb2.CaseList) -> dict[int, LeasedCase]:
    """The cases of one lease by index."""
    positions = cases.positions or [-1] * len(cases.indexes)
    return {
        index: LeasedCase(name, position)
        for index, name, position in zip(cases.indexes, cases.names, positions, strict=True)
    }
