"""Has cases measured again while a change in them is provisional for want of points.

    provisional change ─▶ request on the stream ─▶ coordinator asked ─▶ answer on the stream
            ▲                                                                   │
            └── points of the run, searched as any run's ◀── log ◀── run ◀──────┘

One run at a time for a case, each asked for when the one before it is over and searched, and only while
the change is still provisional. A process that dies anywhere finds the request on the stream and asks again
under the same number, of which the coordinator makes one run. Points of such a run are of the series that
the run it repeats is in, so they can raise no series of their own; what they cost is bounded by the change, by
the task that runs again, and by the hour.
"""

import logging

from dtf.api.v1 import findings_pb2 as pb
from dtf.api.v1 import run_service_pb2
from dtf.core.trend.confirmations import is_answered
from dtf.core.trend.finding_words import ANOMALIES
from dtf.core.trend.findings_book import FindingsBook
from dtf.core.trend.log_fold import LogFold
from dtf.core.trend.series import RULE_VERSION, Series
from dtf.core.trend.series_points import SeriesKey
from dtf.ports.clock import Clock
from dtf.ports.event_log import RecordStream
from dtf.settings.trends import TrendsSettings
from dtf.trend_analyzer.findings_keeper import FindingsKeeper, publish
from dtf.trend_analyzer.reruns import REQUESTER, Coordinator, CoordinatorAway, RerunRefused

LOOK_SECONDS = 0.5
ENOUGH_BEHIND = 12
"""Values behind a change from which on it lacks none: the engine confirms with ten (SETTLED_AFTER), at its next look."""
ENOUGH_OF_SPREAD = 22
"""The same for a change of the spread (SPREAD_SETTLED_AFTER)."""
_HOUR_NS = 3600 * 10**9

_Case = tuple[str, str, str]
"""Suite, case, pool."""

_log = logging.getLogger(__name__)


class Confirmer:
    """Looks after every provisional change, without end."""

    def __init__(
        self,
        coordinator: Coordinator,
        settings: TrendsSettings,
        findings: FindingsBook,
        keeper: FindingsKeeper,
        fold: LogFold,
        stream: RecordStream,
        namespace: str,
        clock: Clock,
    ) -> None:
        """`fold`: the log as it was read, ahead of the search; it says which runs are open."""
        self._coordinator = coordinator
        self._settings = settings
        self._findings = findings
        self._keeper = keeper
        self._fold = fold
        self._stream = stream
        self._namespace = namespace
        self._clock = clock
        self._over_at: dict[str, int] = {}
        """Sequence that the log's fold had reached when a run of ours was seen to be over."""
        self._is_held = False

    async def run(self) -> None:
        """Look whenever something was found or searched, or a look had to leave something for later."""
        seen = (-1, -1)
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            place = (self._findings.sequence, self._keeper.gate.sequence)
            if self._is_held or place != seen:
                seen = place
                await self.look()

    async def look(self) -> None:
        """Ask for what was not answered, then for what is wanted now."""
        self._is_held = False
        for request in self._findings.confirmations.unanswered():
            await self._ask(request)
        if self._is_held or self._findings.sequence < self._keeper.published_sequence:
            return  # what was found last is not known here yet
        busy = self._busy_cases()
        for finding in self._provisional():
            if _case_of(finding) in busy:
                continue
            wanted = self._request(finding)
            if wanted is None:
                continue
            if self._is_spent():
                self._is_held = True
                return
            busy.add(_case_of(finding))
            await self._record(wanted)
            await self._ask(wanted)

    def _provisional(self) -> list[pb.Finding]:
        """Changes that are raised, recent and not confirmed."""
        required = self._findings.required_confidences()
        return [
            known.finding
            for known in self._findings.findings.values()
            if known.finding.state == pb.FINDING_STATE_PROVISIONAL
            and known.finding.kind not in ANOMALIES
            and known.finding.rule_version == RULE_VERSION
            and self._is_recent(known.finding.caused_unix_nanos)
            and self._findings.is_raised(known, required)
        ]

    def _request(self, finding: pb.Finding) -> pb.ConfirmationRequested | None:
        """The next request for a finding; None: it lacks no points, or there is nothing to run again."""
        series = self._series_of(finding)
        if not finding.series.case_name or series is None or not series.positions:
            return None
        newest = series.positions[-1]
        enough = ENOUGH_OF_SPREAD if finding.kind == pb.FINDING_KIND_VARIANCE else ENOUGH_BEHIND
        if series.count - finding.index >= enough or not self._is_recent(newest.time_ns):
            return None
        ours = self._findings.confirmations.of_run(newest.run_id)
        run_id, task = (ours.source_run_id, ours.source_task) if ours else (newest.run_id, newest.task)
        if not run_id or task < 0:
            return None  # imported, or not a task's own
        before = self._findings.confirmations.of(finding.finding_id)
        about = list(self._findings.confirmations.about(run_id, task))
        if max(len(before), len(about)) >= self._settings.confirm_per_change:
            return None
        if any(each.refusal for each in about):
            return None
        return pb.ConfirmationRequested(
            finding_id=finding.finding_id,
            now_unix_nanos=self._clock.now_ns(),
            number=before[-1].number + 1 if before else 1,
            source_run_id=run_id,
            source_task=task,
        )

    def _series_of(self, finding: pb.Finding) -> Series | None:
        own = finding.series
        return self._keeper.book.peek(SeriesKey(own.suite, own.case_name, own.metric, own.pool))

    def _is_recent(self, time_ns: int) -> bool:
        return time_ns >= self._clock.now_ns() - round(self._settings.confirm_max_age_hours * _HOUR_NS)

    def _is_spent(self) -> bool:
        made = self._findings.confirmations.count_since(self._clock.now_ns() - _HOUR_NS)
        return made >= self._settings.confirm_per_hour

    def _busy_cases(self) -> set[_Case]:
        """Cases of which a run of ours is not over and searched."""
        unsettled = filter(self._is_unsettled, self._findings.confirmations.newest())
        known = (self._findings.findings.get(each.finding_id) for each in unsettled)
        return {_case_of(each.finding) for each in known if each is not None}

    def _is_unsettled(self, request: pb.ConfirmationRequested) -> bool:
        if not is_answered(request):
            return True
        if not request.run_id:
            return False
        searched = self._keeper.gate.sequence
        if request.log_sequence > searched or request.run_id in self._fold.runs:
            return True
        return searched < self._over_at.setdefault(request.run_id, self._fold.sequence)

    async def _ask(self, request: pb.ConfirmationRequested) -> None:
        known = self._findings.findings.get(request.finding_id)
        series = known.finding.series if known is not None else pb.FindingSeries()
        asked = run_service_pb2.ConfirmFindingRequest(
            finding_id=request.finding_id,
            number=request.number,
            run_id=request.source_run_id,
            task=request.source_task,
            case_name=series.case_name,
            pool=series.pool,
            requested_by=REQUESTER,
        )
        answer = pb.ConfirmationRequested()
        answer.CopyFrom(request)
        answer.now_unix_nanos = self._clock.now_ns()
        try:
            run = await self._coordinator.confirm(asked)
        except CoordinatorAway as error:
            _log.warning("a run to confirm a finding waits for the coordinator: %s", error)
            self._is_held = True
            return
        except RerunRefused as error:
            answer.refusal = str(error)
            _log.warning("finding %s is not measured again: %s", request.finding_id, error)
        else:
            answer.run_id, answer.log_sequence = run.run_id, run.first_sequence
            answer.code_note = run.confirmation.code_note
        await self._record(answer)

    async def _record(self, event: pb.ConfirmationRequested) -> None:
        """On the stream first; known at once here, though the fold of the stream says it again."""
        step = "answer" if is_answered(event) else "request"
        identity = f"confirm-{event.finding_id}-{event.number}-{step}"
        message = pb.AnalysisEvent(confirmation_requested=event)
        await publish(self._stream, self._namespace, "confirmation", message, identity, self._clock)
        self._findings.confirmations.apply(event)


def _case_of(finding: pb.Finding) -> _Case:
    own = finding.series
    return own.suite, own.case_name, own.pool
