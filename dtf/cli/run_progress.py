"""What a run looks like while it runs: a fold over its watched events, free of any terminal.

watched events ──observe──▶ RunProgress ──▶ progress_display.py (a region on a terminal, plain lines elsewhere)
"""

from collections import Counter, deque
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from dtf.api.v1 import common_pb2, events_pb2, scaling_pb2
from dtf.client.run import WatchedEvent

ASSUMED_SECONDS = 0.4
"""Expected time of a task of which nothing is known, until the run's own mean is."""
_BAD = (common_pb2.VERDICT_FAILED, common_pb2.VERDICT_ERROR)
_KEPT_NOTES = 200


@dataclass(frozen=True, slots=True)
class CaseNote:
    """A case worth a line of its own."""

    name: str
    verdict: "common_pb2.Verdict.ValueType"
    message: str
    worker_id: str
    task: int


@dataclass(frozen=True, slots=True)
class ScalingNote:
    """A move of the pool."""

    at_seconds: float
    """Since the run began."""
    change: int
    reason: str


@dataclass(slots=True)
class _Task:
    """What progress must know of one task."""

    name: str
    cases: tuple[str, ...]
    expected_seconds: float
    holder: str = ""
    unfinished: set[int] = field(default_factory=set)


class RunProgress:
    """Counts, queue and pool of one run as its events come in."""

    def __init__(self) -> None:
        self.cases = 0
        self.counts: Counter[int] = Counter()
        self.is_sealed = False
        self.finished: events_pb2.RunFinished | None = None
        self.cancelled_by = ""
        self.waiting: dict[int, str] = {}
        """Why tasks of a template wait, by template."""
        self.failures: deque[CaseNote] = deque(maxlen=_KEPT_NOTES)
        self.scaling: scaling_pb2.ScalingDecision | None = None
        self.pool_moves: deque[ScalingNote] = deque(maxlen=_KEPT_NOTES)
        self.longest: tuple[float, str, str] | None = None
        """Seconds, case and worker of the longest case that ended."""
        self.began_nanos = 0
        self.now_nanos = 0
        self._tasks: list[_Task] = []
        self._leases: Counter[str] = Counter()
        self._queued = 0
        self._judged_seconds = 0.0
        self._judged = 0

    @property
    def done(self) -> int:
        """Cases with a final verdict."""
        return sum(self.counts.values())

    @property
    def elapsed_seconds(self) -> float:
        """Time since the run began, as far as events tell."""
        return (self.now_nanos - self.began_nanos) / 1e9 if self.began_nanos else 0.0

    @property
    def busy_workers(self) -> int:
        """Workers that hold leases of this run."""
        return len(self._leases)

    @property
    def queue_depth(self) -> int:
        """Tasks that wait for a worker."""
        return self._queued

    @property
    def backlog_seconds(self) -> float:
        """Expected time of what waits, for one worker."""
        return sum(self._expected(task) for task in self._tasks if not task.holder and task.unfinished)

    @property
    def remaining_seconds(self) -> float | None:
        """Expected time to the end with the workers that are busy now; None: nobody can tell."""
        if not self._judged or not self.busy_workers:
            return None
        work = sum(self._expected(task) for task in self._tasks if task.unfinished)
        return work / self.busy_workers

    def _expected(self, task: _Task) -> float:
        mean = self._judged_seconds / self._judged if self._judged else ASSUMED_SECONDS
        share = len(task.unfinished) / len(task.cases)
        return share * (task.expected_seconds or mean * len(task.cases))

    def observe(self, watched: WatchedEvent) -> list[CaseNote]:
        """Take in one event; the failures it brought."""
        self.now_nanos = max(self.now_nanos, watched.now_unix_nanos)
        if watched.scaling is not None:
            self._scaled(watched.scaling)
            return []
        assert watched.event is not None
        return self._decided(watched.event)

    def _decided(self, event: events_pb2.Event) -> list[CaseNote]:
        match event.WhichOneof("event"):
            case "run_created":
                self.began_nanos = self.now_nanos
            case "tasks_submitted":
                self._submitted(event.tasks_submitted)
            case "submission_sealed":
                self.is_sealed = True
            case "leases_granted":
                self._granted(event.leases_granted)
            case "results_accepted":
                return self._accepted(event.results_accepted)
            case "attempts_ended":
                return self._ended(event.attempts_ended)
            case "leases_released":
                for task in event.leases_released.tasks:
                    self._give_back(task)
            case "tasks_abandoned":
                return self._abandoned(event.tasks_abandoned)
            case "placement_changed":
                self._placed(event.placement_changed)
            case "run_cancel_requested":
                self.cancelled_by = event.run_cancel_requested.requested_by
            case "run_finished":
                self.finished = event.run_finished
            case _:
                pass
        return []

    def _submitted(self, event: events_pb2.TasksSubmitted) -> None:
        position = 0
        for index, name in enumerate(event.names):
            cases: tuple[str, ...] = (name,)
            if event.case_counts:
                count = event.case_counts[index]
                cases = tuple(event.case_names[position : position + count])
                position += count
            expected = event.expected_seconds[index] if event.expected_seconds else 0.0
            self._tasks.append(_Task(name, cases, expected, unfinished=set(range(len(cases)))))
            self.cases += len(cases)
        self._queued += len(event.names)

    def _granted(self, event: events_pb2.LeasesGranted) -> None:
        for index in event.tasks:
            if self._tasks[index].holder:
                self._give_back(index)
            self._tasks[index].holder = event.worker_id
            self._queued -= 1
        self._leases[event.worker_id] += len(event.tasks)

    def _give_back(self, index: int) -> None:
        """A task's lease ended; unless it is finished the task waits again."""
        task = self._tasks[index]
        if not task.holder:
            return
        self._leases[task.holder] -= 1
        if self._leases[task.holder] <= 0:
            del self._leases[task.holder]
        task.holder = ""
        if task.unfinished:
            self._queued += 1

    def _accepted(self, event: events_pb2.ResultsAccepted) -> list[CaseNote]:
        retried = set(event.retried)
        notes: list[CaseNote] = []
        for position, index in enumerate(event.tasks):
            case = event.cases[position] if event.cases else 0
            seconds = event.durations_seconds[position] if event.durations_seconds else 0.0
            self._measured(index, case, seconds, event.worker_id)
            if position in retried:
                continue
            verdict = event.verdicts[position] if event.verdicts else common_pb2.VERDICT_PASSED
            detail = event.details[position] if event.details else b""
            notes += self._judge(index, case, verdict, event.worker_id, _message(detail))
        ended = set(event.tasks) if event.all_completed else set(event.requeued)
        for index in ended | {task for task in event.tasks if not self._tasks[task].unfinished}:
            self._give_back(index)
        return notes

    def _measured(self, index: int, case: int, seconds: float, worker_id: str) -> None:
        self._judged += 1
        self._judged_seconds += seconds
        if self.longest is None or seconds > self.longest[0]:
            self.longest = (seconds, self._tasks[index].cases[case], worker_id)

    def _judge(
        self, index: int, case: int, verdict: "common_pb2.Verdict.ValueType", worker_id: str, message: str
    ) -> list[CaseNote]:
        task = self._tasks[index]
        if case not in task.unfinished:
            return []
        task.unfinished.discard(case)
        self.counts[verdict] += 1
        if verdict not in _BAD:
            return []
        note = CaseNote(task.cases[case], verdict, message, worker_id, index)
        self.failures.append(note)
        return [note]

    def _ended(self, event: events_pb2.AttemptsEnded) -> list[CaseNote]:
        notes: list[CaseNote] = []
        for position, index in enumerate(event.tasks):
            reason = event.reasons[position] if event.reasons else ""
            running = event.running_cases[position] if event.running_cases else 0
            verdict = event.verdicts[position] if event.verdicts else common_pb2.VERDICT_UNSPECIFIED
            if running and verdict:
                notes += self._judge(index, running - 1, verdict, event.worker_id, reason)
            remaining = event.remaining_verdicts[position] if event.remaining_verdicts else 0
            if remaining:
                for case in sorted(self._tasks[index].unfinished):
                    notes += self._judge(
                        index, case, event.remaining_verdicts[position], event.worker_id, reason
                    )
            self._give_back(index)
        return notes

    def _abandoned(self, event: events_pb2.TasksAbandoned) -> list[CaseNote]:
        notes: list[CaseNote] = []
        for index in event.tasks:
            for case in sorted(self._tasks[index].unfinished):
                notes += self._judge(index, case, common_pb2.VERDICT_ERROR, "", event.reason)
            self._queued -= 1
        return notes

    def _placed(self, event: events_pb2.PlacementChanged) -> None:
        if event.waiting:
            self.waiting[event.template] = event.reason
        else:
            self.waiting.pop(event.template, None)

    def _scaled(self, decision: scaling_pb2.ScalingDecision) -> None:
        self.scaling = decision
        match decision.action:
            case scaling_pb2.SCALING_ACTION_SCALE_OUT | scaling_pb2.SCALING_ACTION_REPLACE:
                change = len(decision.launch_ids)
            case scaling_pb2.SCALING_ACTION_SCALE_IN:
                change = -len(decision.worker_ids)
            case _:
                return
        at = max(0.0, (decision.now_unix_nanos - self.began_nanos) / 1e9) if self.began_nanos else 0.0
        self.pool_moves.append(ScalingNote(at, change, decision.reason))


def _message(detail: bytes) -> str:
    """The line of a case's detail that says why it failed; "" if it has none or cannot be read."""
    if not detail:
        return ""
    try:
        return events_pb2.CaseDetail.FromString(detail).message
    except DecodeError:
        return ""
