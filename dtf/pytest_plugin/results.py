"""Turns the run's events into reports: each case is reported once, whatever became of it."""

from collections.abc import Sequence

from dtf.api.v1 import common_pb2, events_pb2
from dtf.pytest_plugin.link import Link
from dtf.pytest_plugin.replay import Replay, StopRequest, crash_report

_DEFAULT_VERDICT = common_pb2.VERDICT_PASSED


class RunEnded(Exception):
    """The run is over."""

    def __init__(self, was_cancelled: bool) -> None:
        super().__init__("the run is over")
        self.was_cancelled = was_cancelled


class Results:
    """What is known of a run's cases."""

    def __init__(
        self, replay: Replay, link: Link, tasks: Sequence[common_pb2.TaskSpec], flaky: list[str]
    ) -> None:
        self._replay = replay
        self._link = link
        self._positions = [list(task.positions) for task in tasks]
        self._flaky = flaky
        self._retried: set[int] = set()
        self._notes: list[str] = []
        self._items = replay.session.items
        self.stop: StopRequest | None = None
        """A request of the session's, once a case made one."""

    def take(self, event: events_pb2.Event) -> None:
        """Report what an event tells. Raises RunEnded."""
        match event.WhichOneof("event"):
            case "results_accepted":
                self._accept(event.results_accepted)
            case "attempts_ended":
                self._end(event.attempts_ended)
            case "tasks_abandoned":
                self._abandon(event.tasks_abandoned)
            case "placement_changed":
                self._note_placement(event.placement_changed)
            case "run_finished":
                self._finish(event.run_finished)
            case _:
                pass

    def take_notes(self) -> list[str]:
        """What people should know of the run, each once."""
        notes, self._notes = self._notes, []
        return notes

    def _accept(self, event: events_pb2.ResultsAccepted) -> None:
        retried = frozenset(event.retried)
        details, cases, verdicts = event.details, event.cases, event.verdicts
        for index, task in enumerate(event.tasks):
            position = self._positions[task][cases[index] if cases else 0]
            if index in retried:
                self._retried.add(position)
                continue
            verdict = verdicts[index] if verdicts else _DEFAULT_VERDICT
            if position in self._retried and verdict in (
                common_pb2.VERDICT_PASSED,
                common_pb2.VERDICT_FLAKY,
            ):
                self._flaky.append(self._items[position].nodeid)
            self._replay_case(position, details[index] if details else b"", event.worker_id)
            if self._must_stop():
                return

    def _replay_case(self, position: int, encoded: bytes, worker_id: str) -> None:
        detail = events_pb2.CaseDetail.FromString(encoded)
        reports_json = self._reports_of(detail)
        if not reports_json:
            why = detail.message or "it gave a verdict and no reports"
            self._report_lost(position, f"worker {worker_id}: {why}", detail.output_tail)
            return
        self.stop = self._replay.case(position, reports_json, worker_id)

    def _must_stop(self) -> bool:
        session = self._replay.session
        return bool(self.stop is not None or session.shouldfail or session.shouldstop)

    def _reports_of(self, detail: events_pb2.CaseDetail) -> bytes:
        if detail.reports_blob.digest:
            return self._link.fetch_blob(detail.reports_blob.digest)
        return detail.reports_json

    def _end(self, event: events_pb2.AttemptsEnded) -> None:
        for index, task in enumerate(event.tasks):
            running = event.running_cases[index] if event.running_cases else 0
            verdict = event.verdicts[index] if event.verdicts else common_pb2.VERDICT_UNSPECIFIED
            remaining = (
                event.remaining_verdicts[index]
                if event.remaining_verdicts
                else common_pb2.VERDICT_UNSPECIFIED
            )
            reason = event.reasons[index] if event.reasons else ""
            detail = events_pb2.CaseDetail.FromString(event.details[index] if event.details else b"")
            if running and verdict:
                duration = event.durations_seconds[index] if event.durations_seconds else 0.0
                position = self._positions[task][running - 1]
                text = f"{ended_how(event.outcomes[index])} on worker {event.worker_id}: {reason}"
                self._report_lost(position, text, detail.output_tail or detail.message, duration)
            if remaining:
                for position in self._positions[task]:
                    text = f"not run: worker {event.worker_id}: {reason}"
                    self._report_lost(position, text, detail.output_tail)
            if self._must_stop():
                return

    def _abandon(self, event: events_pb2.TasksAbandoned) -> None:
        for task in event.tasks:
            for position in self._positions[task]:
                self._report_lost(position, f"not run: {event.reason}", "")
                if self._must_stop():
                    return

    def _report_lost(self, position: int, text: str, output: str, duration: float = 0.0) -> None:
        item = self._items[position]
        self._replay.reports(position, [crash_report(item, text, output, duration)])

    def _note_placement(self, event: events_pb2.PlacementChanged) -> None:
        if event.waiting:
            self._notes.append(event.reason)

    def _finish(self, event: events_pb2.RunFinished) -> None:
        was_cancelled = event.state == common_pb2.RUN_STATE_CANCELLED
        if not was_cancelled:
            for position in list(self._replay.unreported):
                self._report_lost(position, "the run ended and no worker reported this case", "")
        raise RunEnded(was_cancelled)


def ended_how(outcome: "common_pb2.Outcome.ValueType") -> str:
    """How an attempt ended, in words that begin a sentence."""
    match outcome:
        case common_pb2.OUTCOME_TIMED_OUT:
            return "timed out"
        case common_pb2.OUTCOME_LOST:
            return "lost while running"
        case common_pb2.OUTCOME_CANCELLED:
            return "cancelled while running"
        case _:
            return "crashed while running"
