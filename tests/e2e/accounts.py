"""What the log of a stack says of its runs: every case judged exactly once, on one unbroken chain."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.chain import ChainReader
from dtf.ports.event_log import StoredCommit

UNJUDGED = common_pb2.VERDICT_UNSPECIFIED


@dataclass
class RunAccount:
    """One run as its events have it."""

    cases: dict[int, list[str]] = field(default_factory=dict)
    """Names of the cases of each task."""
    judged: Counter[tuple[int, int]] = field(default_factory=Counter)
    """How often each case (task, case) got a final verdict."""
    verdicts: dict[tuple[int, int], int] = field(default_factory=dict)
    finished: events_pb2.RunFinished | None = None
    losses: int = 0
    """Attempts that ended otherwise than by reporting."""

    @property
    def names(self) -> set[tuple[int, int]]:
        """Every case there is."""
        return {(task, case) for task, names in self.cases.items() for case in range(len(names))}

    def faults(self) -> list[str]:
        """What is wrong with the run's books; nothing, if it went as it must."""
        found = [f"case {key} was judged {count} times" for key, count in self.judged.items() if count != 1]
        found += [f"case {key} was never judged" for key in sorted(self.names - set(self.judged))]
        found += [f"case {key} is none of the run's" for key in sorted(set(self.judged) - self.names)]
        if self.finished is None:
            found.append("the run never finished")
        return found


@dataclass
class LogAccount:
    """The whole log."""

    runs: dict[str, RunAccount] = field(default_factory=dict)
    commits: int = 0
    strangers: int = 0
    epochs: set[int] = field(default_factory=set)
    workers_lost: list[str] = field(default_factory=list)


def read_account(stored: Iterable[StoredCommit]) -> LogAccount:
    """The books of a whole log. Raises ChainBroken if its chain is."""
    account, chain = LogAccount(), ChainReader()
    for message in stored:
        commit = chain.accept(message.sequence, message.payload, message.message_id)
        if commit is None:
            continue
        account.epochs.add(commit.epoch)
        for event in commit.events:
            _enter(account, event)
    account.commits = chain.commit_count
    account.strangers = len(chain.stranger_sequences)
    return account


def _enter(account: LogAccount, event: events_pb2.Event) -> None:
    match event.WhichOneof("event"):
        case "run_created":
            account.runs[event.run_created.run_id] = RunAccount()
        case "tasks_submitted":
            _submitted(account.runs[event.tasks_submitted.run_id], event.tasks_submitted)
        case "results_accepted":
            _accepted(account.runs[event.results_accepted.run_id], event.results_accepted)
        case "attempts_ended":
            _ended(account.runs[event.attempts_ended.run_id], event.attempts_ended)
        case "run_finished":
            account.runs[event.run_finished.run_id].finished = event.run_finished
        case "worker_lost":
            account.workers_lost.append(event.worker_lost.worker_id)
        case _:
            pass


def _submitted(run: RunAccount, event: events_pb2.TasksSubmitted) -> None:
    position = 0
    for offset, name in enumerate(event.names):
        names = [name]
        if event.case_counts:
            names = list(event.case_names[position : position + event.case_counts[offset]])
            position += event.case_counts[offset]
        run.cases[event.first_task + offset] = names


def _accepted(run: RunAccount, event: events_pb2.ResultsAccepted) -> None:
    retried = set(event.retried)
    for position, task in enumerate(event.tasks):
        if position not in retried:
            case = event.cases[position] if event.cases else 0
            verdict = event.verdicts[position] if event.verdicts else common_pb2.VERDICT_PASSED
            _judge(run, task, case, verdict)


def _ended(run: RunAccount, event: events_pb2.AttemptsEnded) -> None:
    for position, task in enumerate(event.tasks):
        run.losses += 1
        running = event.running_cases[position] if event.running_cases else 0
        verdict = event.verdicts[position] if event.verdicts else UNJUDGED
        if running and verdict:
            _judge(run, task, running - 1, verdict)
        remaining = event.remaining_verdicts[position] if event.remaining_verdicts else UNJUDGED
        if remaining:
            for case in range(len(run.cases[task])):
                if (task, case) not in run.judged:
                    _judge(run, task, case, remaining)


def _judge(run: RunAccount, task: int, case: int, verdict: int) -> None:
    run.judged[(task, case)] += 1
    run.verdicts[(task, case)] = verdict
