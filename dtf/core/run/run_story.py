"""The story of a run: what was asked, what got in its way, how it ended. What simply passed is counted."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.run.portrait import verdict, word_of
from dtf.core.run.story import (
    NANOS,
    StoryLine,
    cause_of_end,
    entry,
    message_of,
    outcome_word,
    plural,
    seconds,
)

_TOLD_FAILURES = 50
_NAMED_TASKS = 8
_TROUBLE = frozenset({common_pb2.VERDICT_FAILED, common_pb2.VERDICT_ERROR})


@dataclass(slots=True)
class RunStory:
    """One run."""

    run_id: str
    lines: list[StoryLine] = field(default_factory=list)
    _names: dict[int, str] = field(default_factory=dict)
    _cases: dict[int, list[str]] = field(default_factory=dict)
    _created_ns: int = 0
    _batches: int = 0
    _tasks: int = 0
    _leased: set[str] = field(default_factory=set)
    _attempts: int = 0
    _failures: int = 0
    _verdicts: Counter[str] = field(default_factory=Counter)
    _is_over: bool = False

    def take(self, sequence: int, commit: events_pb2.Commit) -> None:
        """The next commit."""
        for event in commit.events:
            for text in self._tell(commit, event):
                self.lines.append(StoryLine(sequence, commit.now_unix_nanos, text))

    def _tell(self, commit: events_pb2.Commit, event: events_pb2.Event) -> Iterator[str]:
        kind = event.WhichOneof("event")
        if kind == "leader_elected" and self._created_ns and not self._is_over:
            elected = event.leader_elected
            yield f"coordinator {elected.leader} began reign {elected.epoch}; leases got a fresh term"
        said = getattr(event, kind) if kind else None
        if said is None or getattr(said, "run_id", "") != self.run_id:
            return
        match kind:
            case "run_created":
                yield self._created(commit, event.run_created)
            case "tasks_submitted":
                yield from self._submitted(event.tasks_submitted)
            case "submission_sealed":
                yield f"{plural(self._tasks, 'task')} submitted in {plural(self._batches, 'event')}; no more will come"
            case "placement_changed":
                changed = event.placement_changed
                yield (
                    f"tasks of template {changed.template} {changed.reason}"
                    if changed.waiting
                    else f"a worker that can run tasks of template {changed.template} is there"
                )
            case "leases_granted":
                yield from self._granted(commit, event.leases_granted)
            case "results_accepted":
                yield from self._accepted(event.results_accepted)
            case "attempts_ended":
                yield from self._ended(commit, event.attempts_ended)
            case "leases_released":
                count = len(event.leases_released.tasks)
                yield f"{event.leases_released.worker_id} gave {plural(count, 'lease')} back before they started"
            case _:
                yield from self._ends(commit, event)

    def _created(self, commit: events_pb2.Commit, said: events_pb2.RunCreated) -> str:
        self._created_ns = commit.now_unix_nanos
        revision = f" at {said.revision}" if said.revision else ""
        priority = f", priority {said.priority}" if said.priority else ""
        why = f", {confirmation_text(said.confirmation)}" if said.HasField("confirmation") else ""
        return (
            f"run {said.run_id} of suite {said.suite}{revision} asked for by {said.owner or 'nobody named'}"
            f"{priority}{why}"
        )

    def _submitted(self, said: events_pb2.TasksSubmitted) -> Iterator[str]:
        self._batches += 1
        self._tasks += len(said.names)
        start = 0
        for offset, name in enumerate(said.names):
            task = said.first_task + offset
            self._names[task] = name
            if said.case_counts:
                stop = start + said.case_counts[offset]
                self._cases[task] = list(said.case_names[start:stop])
                start = stop
        yield from ()

    def _case_name(self, task: int, case: int) -> str:
        cases = self._cases.get(task)
        return (
            cases[case] if cases is not None and case < len(cases) else self._names.get(task, f"task {task}")
        )

    def _granted(self, commit: events_pb2.Commit, said: events_pb2.LeasesGranted) -> Iterator[str]:
        self._attempts += len(said.tasks)
        if said.worker_id not in self._leased:
            since = (commit.now_unix_nanos - self._created_ns) / NANOS
            first = "the first lease went" if not self._leased else "leases went"
            self._leased.add(said.worker_id)
            yield f"{first} to {said.worker_id} ({plural(len(said.tasks), 'task')}), {seconds(since)} after the run began"

    def _accepted(self, said: events_pb2.ResultsAccepted) -> Iterator[str]:
        retried = set(said.retried)
        if not said.verdicts:
            self._verdicts["passed"] += len(said.tasks)
            return
        for index, task in enumerate(said.tasks):
            number = said.verdicts[index]
            if index not in retried:
                self._verdicts[verdict(number)] += 1
            if number not in _TROUBLE and index not in retried:
                continue
            self._failures += 1
            if self._failures <= _TOLD_FAILURES:
                name = self._case_name(task, entry(said.cases, index))
                message = message_of(said.details, index)
                why = f": {message}" if message else ""
                again = "; it is tried again" if index in retried else ""
                yield f"{name} (task {task}) {verdict(number)} on {said.worker_id}{why}{again}"

    def _ended(self, commit: events_pb2.Commit, said: events_pb2.AttemptsEnded) -> Iterator[str]:
        groups: dict[tuple[str, str], list[int]] = {}
        for index in range(len(said.tasks)):
            outcome = outcome_word(entry(said.outcomes, index))
            groups.setdefault((outcome, cause_of_end(commit, said, index)), []).append(index)
        for (outcome, cause), indexes in groups.items():
            tasks = [str(said.tasks[index]) for index in indexes]
            named = ", ".join(tasks[:_NAMED_TASKS]) + (", …" if len(tasks) > _NAMED_TASKS else "")
            back = sum(entry(said.requeued, index) for index in indexes)
            judged = [index for index in indexes if entry(said.verdicts, index)]
            text = f"{plural(len(indexes), 'attempt')} {outcome} on {said.worker_id} (task{'s' if len(tasks) > 1 else ''} {named})"
            text += f", because {cause}" if cause else ""
            text += f"; {back} queued again" if back else ""
            text += f"; {plural(len(judged), 'case')} judged with it" if judged else ""
            yield text

    def _ends(self, commit: events_pb2.Commit, event: events_pb2.Event) -> Iterator[str]:
        if event.HasField("run_cancel_requested"):
            asked = event.run_cancel_requested
            yield f"cancelled by {asked.requested_by or 'nobody named'}: {asked.reason or 'no reason given'}"
        elif event.HasField("tasks_abandoned"):
            given_up = event.tasks_abandoned
            yield f"{plural(len(given_up.tasks), 'task')} given up with verdict ERROR: {given_up.reason}"
        elif event.HasField("run_finished"):
            yield self._finished(commit, event.run_finished)

    def _finished(self, commit: events_pb2.Commit, said: events_pb2.RunFinished) -> str:
        self._is_over = True
        took = (commit.now_unix_nanos - self._created_ns) / NANOS if self._created_ns else 0.0
        counts = [
            f"{count} {field.name}"
            for field, count in said.counts.ListFields()
            if isinstance(count, int) and count
        ]
        state = word_of(common_pb2.RunState.Name(said.state), "RUN_STATE_")
        lost = (
            f", {plural(said.infrastructure_failures, 'attempt')} lost or crashed"
            if said.infrastructure_failures
            else ""
        )
        unjudged = f", {said.unjudged} without verdict" if said.unjudged else ""
        return (
            f"{state} after {seconds(took)}: {', '.join(counts) or 'no cases'}{unjudged}; "
            f"{plural(self._attempts, 'lease')} on {plural(len(self._leased), 'worker')}{lost}"
        )


def confirmation_text(confirmation: events_pb2.Confirmation) -> str:
    """ "to confirm finding 635d259c51 (2): repeats a part of run 7f3k"."""
    said = f"to confirm finding {confirmation.finding_id} ({confirmation.number})"
    note = f"; {confirmation.code_note}" if confirmation.code_note else ""
    return f"{said}: repeats a part of run {confirmation.run_id}{note}"
