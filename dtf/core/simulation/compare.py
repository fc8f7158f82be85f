"""What a log says of its runs in numbers, and how two logs of the same runs differ."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.simulation.recording import Activity, Recorded

_INFRASTRUCTURE = (common_pb2.OUTCOME_CRASHED, common_pb2.OUTCOME_LOST)
_LISTED = 20
NAMES: Mapping[int, str] = {
    number: name.removeprefix("VERDICT_").lower() for name, number in common_pb2.Verdict.items()
}


@dataclass(slots=True)
class RunAccount:
    """One run."""

    run_id: str
    suite: str
    created_ns: int
    finished_ns: int = 0
    state: int = common_pb2.RUN_STATE_ACTIVE
    names: list[list[str]] = field(default_factory=list)
    """Of the cases of each task."""
    verdicts: dict[tuple[int, int], int] = field(default_factory=dict)
    """Final verdicts by task and case."""
    attempts: int = 0
    lost_or_crashed: int = 0
    busy_seconds: float = 0.0
    """Time of the cases whose results were accepted."""
    wasted_seconds: float = 0.0
    """Time of attempts up to their loss, crash, time-out or stop, as far as the log says when they began."""

    @property
    def makespan_seconds(self) -> float | None:
        """From its creation to its end; None: it has not ended."""
        return (self.finished_ns - self.created_ns) / 1e9 if self.finished_ns else None

    @property
    def counts(self) -> dict[str, int]:
        """Cases by the name of their verdict."""
        totals = Counter(self.verdicts.values())
        return {name: totals[number] for number, name in NAMES.items() if number and totals[number]}

    def case_name(self, key: tuple[int, int]) -> str:
        """The name of a case."""
        return self.names[key[0]][key[1]]

    def as_dict(self) -> dict[str, object]:
        """In plain data."""
        return {
            "state": common_pb2.RunState.keys()[self.state].removeprefix("RUN_STATE_").lower(),
            "makespan_seconds": self.makespan_seconds,
            "attempts": self.attempts,
            "lost_or_crashed": self.lost_or_crashed,
            "busy_seconds": round(self.busy_seconds, 6),
            "wasted_seconds": round(self.wasted_seconds, 6),
            "verdicts": self.counts,
        }


@dataclass(slots=True)
class LogAccount:
    """A whole log."""

    runs: dict[str, RunAccount] = field(default_factory=dict)
    refused: int = 0
    """Fences whose results came too late."""
    workers_lost: int = 0
    reigns: int = 0
    _activity: Activity = field(default_factory=Activity)

    def add(self, event: events_pb2.Event, now_ns: int) -> None:
        """The next event."""
        match event.WhichOneof("event"):
            case "leader_elected":
                self.reigns += 1
            case "run_created":
                said = event.run_created
                self.runs[said.run_id] = RunAccount(said.run_id, said.suite, now_ns)
            case "tasks_submitted":
                self._submitted(event.tasks_submitted)
            case "leases_granted":
                self.runs[event.leases_granted.run_id].attempts += len(event.leases_granted.tasks)
            case "leases_released":
                self.runs[event.leases_released.run_id].attempts -= len(event.leases_released.tasks)
            case "results_accepted":
                self._accepted(event.results_accepted)
            case "results_refused":
                self.refused += len(event.results_refused.fences)
            case "attempts_ended":
                self._ended(event.attempts_ended, now_ns)
            case "tasks_abandoned":
                for task in event.tasks_abandoned.tasks:
                    self._judge_rest(self.runs[event.tasks_abandoned.run_id], task, common_pb2.VERDICT_ERROR)
            case "worker_lost":
                self.workers_lost += 1
            case "run_finished":
                run = self.runs[event.run_finished.run_id]
                run.finished_ns, run.state = now_ns, event.run_finished.state
            case _:
                pass
        self._activity.observe(event, now_ns)

    def _submitted(self, said: events_pb2.TasksSubmitted) -> None:
        names, position = self.runs[said.run_id].names, 0
        for index, name in enumerate(said.names):
            count = said.case_counts[index] if said.case_counts else 1
            names.append(list(said.case_names[position : position + count]) if said.case_counts else [name])
            position += count

    def _accepted(self, said: events_pb2.ResultsAccepted) -> None:
        run, retried = self.runs[said.run_id], set(said.retried)
        run.busy_seconds += sum(said.durations_seconds)
        for index, task in enumerate(said.tasks):
            if index not in retried:
                case = said.cases[index] if said.cases else 0
                verdict = said.verdicts[index] if said.verdicts else common_pb2.VERDICT_PASSED
                run.verdicts[(task, case)] = verdict

    def _ended(self, said: events_pb2.AttemptsEnded, now_ns: int) -> None:
        run = self.runs[said.run_id]
        first = True
        for index, task in enumerate(said.tasks):
            outcome, running = said.outcomes[index], said.running_cases[index]
            run.lost_or_crashed += outcome in _INFRASTRUCTURE
            if running or (first and outcome == common_pb2.OUTCOME_CANCELLED):
                # Leases behind the one that ran had not started: nothing of theirs is wasted.
                run.wasted_seconds += (
                    now_ns - self._activity.began_ns(said.fences[index], said.worker_id)
                ) / 1e9
                first = False
            if running and said.verdicts[index]:
                run.verdicts[(task, running - 1)] = said.verdicts[index]
            if said.remaining_verdicts[index]:
                self._judge_rest(run, task, said.remaining_verdicts[index])

    @staticmethod
    def _judge_rest(run: RunAccount, task: int, verdict: int) -> None:
        for case in range(len(run.names[task])):
            run.verdicts.setdefault((task, case), verdict)


def account_of(commits: Iterable[Recorded]) -> LogAccount:
    """The account of a log."""
    account = LogAccount()
    for each in commits:
        for event in each.commit.events:
            account.add(event, each.commit.now_unix_nanos)
    return account


@dataclass(frozen=True, slots=True)
class Difference:
    """A case that ended otherwise in the other log."""

    run_id: str
    case: str
    recorded: str
    """Its verdict; "-": none."""
    forked: str


def differences(recorded: LogAccount, forked: LogAccount) -> tuple[list[Difference], int]:
    """The first cases whose verdicts differ, and how many there are."""
    found: list[Difference] = []
    count = 0
    for run_id, run in recorded.runs.items():
        other = forked.runs.get(run_id)
        ours, theirs = run.verdicts, other.verdicts if other is not None else {}
        for key in sorted({*ours, *theirs}):
            before, after = ours.get(key, 0), theirs.get(key, 0)
            if before != after:
                count += 1
                if len(found) < _LISTED:
                    names = run if key[0] < len(run.names) else other or run
                    found.append(Difference(run_id, names.case_name(key), _name(before), _name(after)))
    return found, count


def _name(verdict: int) -> str:
    return NAMES[verdict] if verdict else "-"
