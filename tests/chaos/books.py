"""The books of a round: what clients were told and what tasks did, held against the stored log.

Written apart from the coordinator and from `dtf check`: a fault that both share must not hide here.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.events import parse_commit
from dtf.ports.event_log import StoredCommit
from tests.chaos.load import Submitted

UNJUDGED = common_pb2.VERDICT_UNSPECIFIED


class Loss(Enum):
    """What may not happen."""

    VERDICT_LOST = "verdicts lost"
    VERDICT_TWICE = "verdicts twice"
    SUBMISSION_LOST = "submissions lost"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that happened and may not."""

    loss: Loss
    what: str
    sequence: int = 0
    """Of the commit; 0: of none."""
    at: float = 0.0
    """When, on the monotonic clock; 0: not known."""


@dataclass(slots=True)
class RunBook:
    """One run as the log has it."""

    names: list[str] = field(default_factory=list)
    judged: Counter[int] = field(default_factory=Counter)
    verdicts: dict[int, int] = field(default_factory=dict)
    grants: Counter[int] = field(default_factory=Counter)
    is_sealed: bool = False
    is_cancelled: bool = False
    is_finished: bool = False


class LogBook:
    """Every run of a log. Tasks of the load have one case each."""

    def __init__(self) -> None:
        self.runs: dict[str, RunBook] = {}
        self.findings: list[Finding] = []
        self._sequence = 0
        self._last_hash = b""

    def read(self, stored: StoredCommit) -> None:
        """The next message; strangers', old commits said again among them, are passed over."""
        commit = parse_commit(stored.payload, stored.message_id)
        if commit is None or commit.prev_hash != self._last_hash:
            return
        self._sequence, self._last_hash = stored.sequence, bytes.fromhex(stored.message_id)
        for event in commit.events:
            self._read(event)

    def _read(self, event: events_pb2.Event) -> None:
        match event.WhichOneof("event"):
            case "run_created":
                self.runs[event.run_created.run_id] = RunBook()
            case "tasks_submitted":
                submitted = event.tasks_submitted
                run = self.runs[submitted.run_id]
                if submitted.first_task != len(run.names):
                    self._find(Loss.OTHER, f"tasks of {submitted.run_id} go on at {submitted.first_task}")
                run.names += submitted.names
            case "submission_sealed":
                self.runs[event.submission_sealed.run_id].is_sealed = True
            case "run_cancel_requested":
                self.runs[event.run_cancel_requested.run_id].is_cancelled = True
            case "run_finished":
                self.runs[event.run_finished.run_id].is_finished = True
            case "leases_granted":
                self.runs[event.leases_granted.run_id].grants.update(event.leases_granted.tasks)
            case "results_accepted":
                self._accepted(event.results_accepted)
            case "attempts_ended":
                self._ended(event.attempts_ended)
            case _:
                pass

    def _accepted(self, event: events_pb2.ResultsAccepted) -> None:
        retried = set(event.retried)
        for position, task in enumerate(event.tasks):
            if position not in retried:
                verdict = event.verdicts[position] if event.verdicts else common_pb2.VERDICT_PASSED
                self._judge(event.run_id, task, verdict)

    def _ended(self, event: events_pb2.AttemptsEnded) -> None:
        for position, task in enumerate(event.tasks):
            for column in (event.verdicts, event.remaining_verdicts):
                verdict = column[position] if column else UNJUDGED
                if verdict:
                    self._judge(event.run_id, task, verdict)
                    break

    def _judge(self, run_id: str, task: int, verdict: int) -> None:
        run = self.runs[run_id]
        run.judged[task] += 1
        if run.judged[task] > 1:
            self._find(Loss.VERDICT_TWICE, f"task {task} of run {run_id} was judged {run.judged[task]} times")
        run.verdicts[task] = verdict

    def _find(self, loss: Loss, what: str) -> None:
        self.findings.append(Finding(loss, what, self._sequence))


def check_journal(book: LogBook, journal: Mapping[str, Submitted]) -> Iterable[Finding]:
    """What clients were told and the log does not have."""
    for submitted in journal.values():
        run = book.runs.get(submitted.run_id)
        if run is None:
            what = f"run {submitted.run_id} was acknowledged and is not in the log"
            yield Finding(Loss.SUBMISSION_LOST, what, at=submitted.created_at)
            continue
        yield from _check_tasks(run, submitted)
        yield from _check_end(run, submitted)


def _check_tasks(run: RunBook, submitted: Submitted) -> Iterable[Finding]:
    counted = Counter(run.names)
    for name, at in zip(submitted.names, submitted.acknowledged_at, strict=True):
        if name not in counted:
            what = f"task {name} of run {submitted.run_id} was acknowledged and is not in the log"
            yield Finding(Loss.SUBMISSION_LOST, what, at=at)
    for name, count in counted.items():
        if count > 1:
            what = f"task {name} of run {submitted.run_id} is in the log {count} times"
            yield Finding(Loss.OTHER, what, at=submitted.created_at)
    if submitted.sealed_at and not run.is_sealed:
        what = f"the seal of run {submitted.run_id} was acknowledged and is not in the log"
        yield Finding(Loss.SUBMISSION_LOST, what, at=submitted.sealed_at)


def _check_end(run: RunBook, submitted: Submitted) -> Iterable[Finding]:
    at = submitted.acknowledged_at[-1] if submitted.acknowledged_at else submitted.created_at
    if submitted.is_finished and not run.is_finished:
        yield Finding(
            Loss.VERDICT_LOST, f"the end of run {submitted.run_id} was told and is not in the log", at=at
        )
    for task in submitted.seen:
        if not run.judged[task]:
            what = f"the verdict of task {task} of run {submitted.run_id} was told and is not in the log"
            yield Finding(Loss.VERDICT_LOST, what, at=at)


def check_verdicts(book: LogBook, *, is_whole: bool) -> Iterable[Finding]:
    """Tasks without a verdict, and verdicts that nothing explains.

    A task must have one once its run has finished; if `is_whole`, once its run is sealed.
    """
    for run_id, run in book.runs.items():
        if run.is_cancelled:
            continue
        for task, name in enumerate(run.names):
            if (run.is_finished or (is_whole and run.is_sealed)) and not run.judged[task]:
                yield Finding(Loss.VERDICT_LOST, f"task {name} of run {run_id} has no verdict")
            verdict = run.verdicts.get(task, common_pb2.VERDICT_PASSED)
            if verdict not in (common_pb2.VERDICT_PASSED, common_pb2.VERDICT_FLAKY):
                said = common_pb2.Verdict.Name(common_pb2.Verdict.ValueType(verdict))
                yield Finding(Loss.OTHER, f"task {name} of run {run_id} got {said}; it can only pass")


def check_executions(book: LogBook, journal: Sequence[str], file: Path) -> Iterable[Finding]:
    """Verdicts of tasks that never ran to their end, and executions without a lease."""
    begun: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    for line in file.read_text(errors="replace").splitlines() if file.exists() else ():
        what, _, token = line.partition(" ")
        (begun if what == "begin" else ended)[token] += 1
    granted: Counter[str] = Counter()
    """By name: a probe whose submission failed is submitted again, as another run with tasks of the same names."""
    runs = [(run_id, run) for run_id in journal if (run := book.runs.get(run_id)) is not None]
    for run_id, run in runs:
        for task, name in enumerate(run.names):
            granted[name] += run.grants[task]
            if run.judged[task] and not ended[name] and not run.is_cancelled:
                yield Finding(Loss.OTHER, f"task {name} of run {run_id} has a verdict and never ended")
    for name, leases in granted.items():
        if begun[name] > leases:
            yield Finding(Loss.OTHER, f"task {name} began {begun[name]} times on {leases} leases")
