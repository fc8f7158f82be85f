"""The story of a worker: its sessions, what it was given and reported, how each session ended."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.run.portrait import verdict
from dtf.core.run.story import StoryLine, cause_of_end, entry, lost_text, outcome_word, plural

_QUIET = frozenset({common_pb2.VERDICT_PASSED, common_pb2.VERDICT_SKIPPED})


@dataclass(slots=True)
class _Work:
    """What was given and reported of one run since it was last told."""

    granted: int = 0
    released: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    first_sequence: int = 0
    first_ns: int = 0

    def text(self, run_id: str) -> str:
        """In words."""
        told = [f"{plural(self.granted, 'lease')} of run {run_id}"]
        told += [f"{count} {word}" for word, count in self.verdicts.items()]
        told += [f"{self.released} given back unstarted"] if self.released else []
        return ", ".join(told)


@dataclass(slots=True)
class WorkerStory:
    """One worker, through all its incarnations."""

    worker_id: str
    lines: list[StoryLine] = field(default_factory=list)
    _work: dict[str, _Work] = field(default_factory=dict)

    def take(self, sequence: int, commit: events_pb2.Commit) -> None:
        """The next commit."""
        for event in commit.events:
            kind = event.WhichOneof("event")
            said = getattr(event, kind) if kind else None
            if event.HasField("run_finished"):
                self._flush(event.run_finished.run_id)
            elif said is not None and getattr(said, "worker_id", "") == self.worker_id:
                for text in self._tell(sequence, commit, event):
                    self.lines.append(StoryLine(sequence, commit.now_unix_nanos, text))

    def finish(self) -> None:
        """The log ends here."""
        for run_id in list(self._work):
            self._flush(run_id)

    def _flush(self, run_id: str) -> None:
        work = self._work.pop(run_id, None)
        if work is not None:
            self.lines.append(StoryLine(work.first_sequence, work.first_ns, work.text(run_id)))

    def _of(self, run_id: str, sequence: int, commit: events_pb2.Commit) -> _Work:
        if run_id not in self._work:
            self._work[run_id] = _Work(first_sequence=sequence, first_ns=commit.now_unix_nanos)
        return self._work[run_id]

    def _tell(self, sequence: int, commit: events_pb2.Commit, event: events_pb2.Event) -> Iterator[str]:
        match event.WhichOneof("event"):
            case "leases_granted":
                granted = event.leases_granted
                self._of(granted.run_id, sequence, commit).granted += len(granted.tasks)
            case "results_accepted":
                yield from self._accepted(self._of(event.results_accepted.run_id, sequence, commit), event)
            case "leases_released":
                released = event.leases_released
                self._of(released.run_id, sequence, commit).released += len(released.tasks)
            case "attempts_ended":
                yield from self._ended(commit, event.attempts_ended)
            case "results_refused":
                refused = event.results_refused
                yield f"{plural(len(refused.fences), 'result')} refused: {refused.reason}"
            case _:
                self.finish()
                yield from self._tell_session(event)

    def _accepted(self, work: _Work, event: events_pb2.Event) -> Iterator[str]:
        said = event.results_accepted
        retried = set(said.retried)
        for index, task in enumerate(said.tasks):
            number = entry(said.verdicts, index, common_pb2.VERDICT_PASSED)
            work.verdicts["to be tried again" if index in retried else verdict(number)] += 1
            if number not in _QUIET or index in retried:
                case = entry(said.cases, index)
                yield f"case {case} of task {task} of run {said.run_id}: {verdict(number)}"

    def _ended(self, commit: events_pb2.Commit, said: events_pb2.AttemptsEnded) -> Iterator[str]:
        groups: dict[tuple[str, str], int] = {}
        for index in range(len(said.tasks)):
            key = (outcome_word(entry(said.outcomes, index)), cause_of_end(commit, said, index))
            groups[key] = groups.get(key, 0) + 1
        for (outcome, cause), count in groups.items():
            because = f", because {cause}" if cause else ""
            yield f"{plural(count, 'attempt')} of run {said.run_id} {outcome}{because}"

    def _tell_session(self, event: events_pb2.Event) -> Iterator[str]:
        match event.WhichOneof("event"):
            case "worker_registered":
                said = event.worker_registered
                yield (
                    f"registered as incarnation {said.incarnation} in pool {said.pool or 'of no name'}: "
                    f"{plural(said.slots, 'slot')}, {said.host}:{said.process_id}, dtf {said.version}"
                )
            case "worker_drain_requested":
                asked = event.worker_drain_requested
                yield f"told to take nothing new by {asked.requested_by or 'nobody named'}: {asked.reason}"
            case "worker_quarantined":
                told = event.worker_quarantined
                yield f"quarantined by {told.requested_by or 'nobody named'}: {told.reason}"
            case "worker_released":
                yield f"released by {event.worker_released.requested_by or 'nobody named'}: it may work again"
            case "worker_lost":
                yield f"lost: {lost_text(event.worker_lost)}"
            case "worker_left":
                yield f"left: {event.worker_left.reason or 'it closed its session'}"
            case _:
                pass
