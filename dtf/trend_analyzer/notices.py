"""Tells people of findings: together, each once on each way, not too often, again where it did not go out.

What was told is an event on the analysis stream, so that a restart tells nothing twice; a process that
dies between the two tells a message again, which is better than never.
"""

import logging
from collections.abc import Sequence

from dtf.api.v1 import findings_pb2 as pb
from dtf.core.trend.finding_text import finding_sentence
from dtf.core.trend.findings_book import FindingsBook, Known
from dtf.ports.clock import Clock
from dtf.ports.event_log import RecordStream
from dtf.ports.notifier import Notice, Notifier, NotifierError
from dtf.settings.trends import NotifySettings
from dtf.trend_analyzer.findings_keeper import publish
from dtf.trend_analyzer.intake import FIRST_RETRY_SECONDS

MOST_ATTEMPTS = 8
"""Of one message; some five minutes, then its findings wait for the next one."""
LONGEST_RETRY_SECONDS = 60.0
_HOUR_SECONDS = 3600.0

_log = logging.getLogger(__name__)


class NoticeKeeper:
    """Tells one receiver of findings, without end."""

    def __init__(
        self,
        notifier: Notifier,
        settings: NotifySettings,
        findings: FindingsBook,
        stream: RecordStream,
        namespace: str,
        clock: Clock,
    ) -> None:
        self._notifier = notifier
        self._settings = settings
        self._findings = findings
        self._stream = stream
        self._namespace = namespace
        self._clock = clock
        self._given_up: set[tuple[str, int]] = set()

    async def run(self) -> None:
        """Look for news once in `linger_seconds`, so that what belongs together is told together."""
        pause = _HOUR_SECONDS / self._settings.messages_per_hour
        while True:
            await self._clock.sleep(max(self._settings.linger_seconds, 0.05))
            news = self.news()
            if news and await self._tell(news):
                await self._clock.sleep(pause)

    def news(self) -> list[Known]:
        """What this receiver is to be told and was not yet, the worst first."""
        required = self._findings.required_confidences()
        oldest_ns = self._clock.now_ns() - round(self._settings.max_age_hours * _HOUR_SECONDS * 1e9)
        found = [
            known
            for known in self._findings.findings.values()
            if known.finding.caused_unix_nanos >= oldest_ns
            and self._is_wanted(known.finding)
            and self._mark(known) not in known.notified
            and (known.finding.finding_id, known.finding.version) not in self._given_up
            and self._findings.is_raised(known, required)
        ]
        return sorted(found, key=_worst_first)

    def _is_wanted(self, finding: pb.Finding) -> bool:
        if finding.state == pb.FINDING_STATE_PROVISIONAL and not self._settings.provisional:
            return False
        if finding.impact == pb.FINDING_IMPACT_IMPROVEMENT:
            return self._settings.improvements
        return finding.impact == pb.FINDING_IMPACT_REGRESSION

    def _mark(self, known: Known) -> str:
        state = pb.FindingState.Name(known.finding.state).removeprefix("FINDING_STATE_").lower()
        return f"{self._notifier.name} {state}"

    async def _tell(self, news: Sequence[Known]) -> bool:
        """Send one message, as often as it takes; whether it went out."""
        by_mark: dict[str, list[str]] = {}
        for known in news:
            by_mark.setdefault(self._mark(known), []).append(known.finding.finding_id)
        versions = {(known.finding.finding_id, known.finding.version) for known in news}
        if not await self._send(make_notice([known.finding for known in news])):
            self._given_up |= versions
            return False
        for mark, identities in by_mark.items():
            event = pb.AnalysisEvent(
                findings_notified=pb.FindingsNotified(
                    channel=mark, finding_ids=identities, now_unix_nanos=self._clock.now_ns()
                )
            )
            identity = f"notice-{self._clock.new_id()}"
            await publish(self._stream, self._namespace, "notice", event, identity, self._clock)
        for known in news:  # known at once here; the fold of the stream says it again
            known.notified.add(self._mark(known))
        return True

    async def _send(self, notice: Notice) -> bool:
        delay = FIRST_RETRY_SECONDS
        for attempt in range(1, MOST_ATTEMPTS + 1):
            try:
                await self._notifier.send(notice)
            except NotifierError as error:
                if not error.is_retryable or attempt == MOST_ATTEMPTS:
                    _log.warning("findings were not told: way=%s %s", self._notifier.name, error)
                    return False
                wait = max(delay, error.retry_after_seconds)
                _log.warning(
                    "findings wait to be told: way=%s seconds=%.2f %s", self._notifier.name, wait, error
                )
                await self._clock.sleep(wait)
                delay = min(delay * 4, LONGEST_RETRY_SECONDS)
            else:
                return True
        return False


def make_notice(findings: Sequence[pb.Finding]) -> Notice:
    """The message for these findings."""
    suites = sorted({finding.series.suite for finding in findings})
    worse = sum(finding.impact == pb.FINDING_IMPACT_REGRESSION for finding in findings)
    better = len(findings) - worse
    parts = [f"{worse} became worse"] if worse else []
    parts += [f"{better} became better"] if better else []
    title = f"dtf: {', '.join(parts)} in {', '.join(suites[:3])}{' …' if len(suites) > 3 else ''}"
    lines = [f"{finding_sentence(finding)} [{finding.finding_id}]" for finding in findings]
    return Notice(title, lines, findings)


def _worst_first(known: Known) -> tuple[bool, float, str]:
    finding = known.finding
    is_worse = finding.impact == pb.FINDING_IMPACT_REGRESSION
    return (not is_worse, -abs(finding.relative), finding.finding_id)
