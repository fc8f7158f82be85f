"""What was asked for to confirm findings: requests for runs that measure a case again, as the stream tells them.

    requested (on the stream) ──▶ coordinator asked ──▶ answered: a run, or a refusal (on the stream)

A request without an answer is asked again under the same number, and the coordinator makes one run of it.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence

from dtf.api.v1 import findings_pb2 as pb

MOST_REQUESTS = 10_000
"""Newest requests that are known, of all findings."""


class ConfirmationBook:
    """The newest requests, each as it stands."""

    def __init__(self, most: int = MOST_REQUESTS) -> None:
        self._most = most
        self._requests: OrderedDict[tuple[str, int], pb.ConfirmationRequested] = OrderedDict()
        self._of_finding: dict[str, list[int]] = {}
        self._of_run: dict[str, tuple[str, int]] = {}
        self._times_ns: deque[int] = deque(maxlen=most)

    def apply(self, event: pb.ConfirmationRequested) -> None:
        """A request, or the answer to one. What is known already changes nothing."""
        key = (event.finding_id, event.number)
        known = self._requests.get(key)
        if known is None:
            self._of_finding.setdefault(event.finding_id, []).append(event.number)
            self._times_ns.append(event.now_unix_nanos)
        elif is_answered(known):
            return
        self._requests[key] = event
        if event.run_id:
            self._of_run[event.run_id] = key
        while len(self._requests) > self._most:
            self._forget(*self._requests.popitem(last=False))

    def of(self, finding_id: str) -> Sequence[pb.ConfirmationRequested]:
        """The requests for a finding, oldest first."""
        return [self._requests[finding_id, number] for number in self._of_finding.get(finding_id, ())]

    def newest(self) -> list[pb.ConfirmationRequested]:
        """The last request for each finding."""
        return [self._requests[finding_id, numbers[-1]] for finding_id, numbers in self._of_finding.items()]

    def of_run(self, run_id: str) -> pb.ConfirmationRequested | None:
        """The request that a run was made for; None: it was made for none."""
        key = self._of_run.get(run_id)
        return self._requests[key] if key is not None else None

    def about(self, run_id: str, task: int) -> Iterator[pb.ConfirmationRequested]:
        """Every request to have that task run again, whatever finding it is for."""
        return (
            each
            for each in self._requests.values()
            if (each.source_run_id, each.source_task) == (run_id, task)
        )

    def unanswered(self) -> list[pb.ConfirmationRequested]:
        """Requests of which it is not known what the coordinator made of them."""
        return [each for each in self._requests.values() if not is_answered(each)]

    def count_since(self, time_ns: int) -> int:
        """Requests made at or after that time, refused ones included."""
        return sum(each >= time_ns for each in self._times_ns)

    def _forget(self, key: tuple[str, int], event: pb.ConfirmationRequested) -> None:
        self._of_run.pop(event.run_id, None)
        numbers = self._of_finding[key[0]]
        numbers.remove(key[1])
        if not numbers:
            del self._of_finding[key[0]]


def is_answered(event: pb.ConfirmationRequested) -> bool:
    """Whether the coordinator said what it made of it."""
    return bool(event.run_id or event.refusal)


def confirmation_line(event: pb.ConfirmationRequested) -> str:
    """ "confirmation 2: run 9ab2 repeats task 0 of run 7f3k"."""
    what = f"task {event.source_task} of run {event.source_run_id}"
    if event.refusal:
        return f"confirmation {event.number}: refused, {what} does not run again: {event.refusal}"
    if event.run_id:
        note = f"; {event.code_note}" if event.code_note else ""
        return f"confirmation {event.number}: run {event.run_id} repeats {what}{note}"
    return f"confirmation {event.number}: asked for, to repeat {what}"
