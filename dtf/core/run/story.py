"""The story of a task or a case, told from the events of its run, with causes.

A teller takes the commits of a log in order and keeps a line for whatever concerns its subject. Lines
say what happened, when, in which commit, and why: an attempt that was lost names the worker and how
long it was silent, because both are in the same commit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.message import DecodeError

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.run.portrait import verdict, word_of

NANOS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class StoryLine:
    """One thing that happened."""

    sequence: int
    at_ns: int
    text: str


class Teller(Protocol):
    """Takes commits in order; `lines` has what concerns its subject."""

    @property
    def lines(self) -> Sequence[StoryLine]:
        """The story so far."""
        ...

    def take(self, sequence: int, commit: events_pb2.Commit) -> None:
        """The next commit."""
        ...


def seconds(value: float) -> str:
    """ "0.31 s", "12.4 s"."""
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def plural(count: int, noun: str) -> str:
    """ "1 lease", "4 leases"."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def outcome_word(number: int) -> str:
    """An Outcome in words: "timed out", "lost"."""
    name = common_pb2.Outcome.Name(common_pb2.Outcome.ValueType(number))
    return word_of(name, "OUTCOME_").replace("_", " ")


def message_of(details: Sequence[bytes], index: int) -> str:
    """What a case said of its failure, in one line; "" if nothing."""
    try:
        return events_pb2.CaseDetail.FromString(details[index]).message if index < len(details) else ""
    except DecodeError:
        return ""


def entry(column: Sequence[int], index: int, default: int = 0) -> int:
    """An entry of a column that may be empty."""
    return column[index] if index < len(column) else default


def lost_text(lost: events_pb2.WorkerLost) -> str:
    """ "worker w3 was lost (silent 10.2 s)"; what its provider saw of its end says enough by itself."""
    name = f"worker {lost.worker_id}"
    if lost.silent_seconds > 0:
        return f"{name} was lost (silent {seconds(lost.silent_seconds)})"
    if lost.reason.startswith(name):
        return lost.reason
    return f"{name} was lost" + (f" ({lost.reason})" if lost.reason else "")


def cause_of_end(commit: events_pb2.Commit, ended: events_pb2.AttemptsEnded, index: int) -> str:
    """Why an attempt ended: the loss of its worker, if the same commit has it, else the reason given."""
    for event in commit.events:
        if event.HasField("worker_lost") and event.worker_lost.worker_id == ended.worker_id:
            held = sum(
                len(other.attempts_ended.tasks)
                for other in commit.events
                if other.HasField("attempts_ended") and other.attempts_ended.worker_id == ended.worker_id
            )
            return f"{lost_text(event.worker_lost)}, which held {plural(held, 'lease')}"
        if event.HasField("worker_quarantined") and event.worker_quarantined.worker_id == ended.worker_id:
            told = event.worker_quarantined
            return f"worker {told.worker_id} was quarantined by {told.requested_by or 'nobody named'}: {told.reason}"
    return ended.reasons[index] if index < len(ended.reasons) else ""


@dataclass(slots=True)
class TaskStory:
    """One task of a run; with `case`, that case of it alone."""

    run_id: str
    task: int
    case: int | None = None
    case_names: Sequence[str] = ()
    lines: list[StoryLine] = field(default_factory=list)
    _template: int = 0
    _fences: set[int] = field(default_factory=set)
    _attempt: int = 0
    _queued_at_ns: int = 0
    _is_over: bool = False

    def take(self, sequence: int, commit: events_pb2.Commit) -> None:
        """The next commit."""
        for event in commit.events:
            for text in self._tell(commit, event):
                self.lines.append(StoryLine(sequence, commit.now_unix_nanos, text))

    def _tell(self, commit: events_pb2.Commit, event: events_pb2.Event) -> Iterator[str]:
        kind = event.WhichOneof("event")
        if kind == "leader_elected":
            if self._queued_at_ns and not self._is_over:
                elected = event.leader_elected
                yield f"coordinator {elected.leader} began reign {elected.epoch}; leases got a fresh term"
            return
        if kind == "results_refused":
            late = [fence for fence in event.results_refused.fences if fence in self._fences]
            if late:
                yield f"a result under fence {late[0]} was refused: {event.results_refused.reason}"
            return
        said = getattr(event, kind) if kind else None
        if said is None or getattr(said, "run_id", "") != self.run_id:
            return
        match kind:
            case "tasks_submitted":
                yield from self._submitted(commit, event.tasks_submitted)
            case "placement_changed":
                yield from self._placement(event.placement_changed)
            case "leases_granted":
                yield from self._granted(commit, event.leases_granted)
            case "leases_released":
                yield from self._released(commit, event.leases_released)
            case "results_accepted":
                yield from self._accepted(commit, event.results_accepted)
            case "attempts_ended":
                yield from self._ended(commit, event.attempts_ended)
            case _:
                yield from self._run_ends(event)

    def _submitted(self, commit: events_pb2.Commit, said: events_pb2.TasksSubmitted) -> Iterator[str]:
        index = self.task - said.first_task
        if not 0 <= index < len(said.names):
            return
        self._template = entry(said.templates, index)
        self._queued_at_ns = commit.now_unix_nanos
        count = entry(said.case_counts, index, 1)
        expected = said.expected_seconds[index] if said.expected_seconds else 0.0
        about = [plural(count, "case")] if count != 1 else []
        about += [f"expected to take {seconds(expected)}"] if expected else []
        about += [f"priority {said.priorities[index]}"] if said.priorities else []
        what = f": {', '.join(about)}" if about else ""
        yield f"submitted as task {self.task} of run {self.run_id}, {said.names[index]}{what}"

    def _placement(self, said: events_pb2.PlacementChanged) -> Iterator[str]:
        if said.template != self._template or not self._queued_at_ns or self._is_over:
            return
        yield said.reason if said.waiting else "a worker that can run it is there"

    def _granted(self, commit: events_pb2.Commit, said: events_pb2.LeasesGranted) -> Iterator[str]:
        for index, task in enumerate(said.tasks):
            if task == self.task:
                fence = said.first_fence + index
                self._attempt = entry(said.attempts, index, 1)
                self._fences.add(fence)
                waited = (commit.now_unix_nanos - self._queued_at_ns) / NANOS
                yield (
                    f"attempt {self._attempt} granted to {said.worker_id} (incarnation {said.incarnation}, "
                    f"fence {fence}) after {seconds(waited)} in the queue"
                )

    def _released(self, commit: events_pb2.Commit, said: events_pb2.LeasesReleased) -> Iterator[str]:
        if self.task in said.tasks:
            self._queued_at_ns = commit.now_unix_nanos
            yield f"{said.worker_id} gave the lease back before it started; queued again, no attempt counted"

    def _accepted(self, commit: events_pb2.Commit, said: events_pb2.ResultsAccepted) -> Iterator[str]:
        retried = set(said.retried)
        is_named = self.case is None and len(self.case_names) > 1
        for index, task in enumerate(said.tasks):
            case = entry(said.cases, index)
            if task != self.task or (self.case is not None and case != self.case):
                continue
            number = entry(said.verdicts, index, common_pb2.VERDICT_PASSED)
            took = said.durations_seconds[index] if index < len(said.durations_seconds) else 0.0
            name = f"case {self._name(case)}: " if is_named else ""
            message = message_of(said.details, index)
            again = "; it is tried again" if index in retried else ""
            word = verdict(number) if index in retried else f"verdict {verdict(number).upper()}"
            why = f": {message}" if message else ""
            yield f"{name}{word} in {seconds(took)} on {said.worker_id} (attempt {self._attempt}){why}{again}"
        if self.task in said.requeued:
            self._queued_at_ns = commit.now_unix_nanos
            yield "queued again for the cases that are tried again"
        elif self._completes(said):
            self._is_over = True

    def _completes(self, said: events_pb2.ResultsAccepted) -> bool:
        if said.all_completed:
            return self.task in said.tasks
        return not self._fences.isdisjoint(said.completed)

    def _name(self, case: int) -> str:
        return self.case_names[case] if case < len(self.case_names) else str(case)

    def _ended(self, commit: events_pb2.Commit, said: events_pb2.AttemptsEnded) -> Iterator[str]:
        for index, task in enumerate(said.tasks):
            if task != self.task:
                continue
            running = entry(said.running_cases, index)
            during = f" while {self._name(running - 1)} ran" if running and self.case_names else ""
            number = entry(said.verdicts, index) or entry(said.remaining_verdicts, index)
            outcome = outcome_word(entry(said.outcomes, index))
            text = f"attempt {self._attempt} on {said.worker_id} {outcome}{during}"
            cause = cause_of_end(commit, said, index)
            text += f", because {cause}" if cause else ""
            if number:
                text += f"; verdict {verdict(number).upper()}"
            if entry(said.requeued, index):
                self._queued_at_ns = commit.now_unix_nanos
                text += "; queued again, at the front"
            else:
                self._is_over = True
            yield text

    def _run_ends(self, event: events_pb2.Event) -> Iterator[str]:
        if self._is_over or not self._queued_at_ns:
            return
        if event.HasField("run_cancel_requested"):
            asked = event.run_cancel_requested
            yield f"the run was cancelled by {asked.requested_by or 'nobody named'}: {asked.reason or 'no reason given'}"
        elif event.HasField("tasks_abandoned") and self.task in event.tasks_abandoned.tasks:
            self._is_over = True
            yield f"given up; verdict ERROR: {event.tasks_abandoned.reason}"
        elif event.HasField("run_finished"):
            yield "the run ended"
