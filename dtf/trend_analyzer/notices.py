"""Tells people of findings: together, each once on each way, not too often, again where it did not go out.

What was told is an event on the analysis stream, so that a restart tells nothing twice; a process that
dies between the two tells a message again, which is better than never.
"""

import logging
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

from dtf.api.v1 import findings_pb2 as pb
from dtf.core.trend.finding_groups import FindingGroup, group_findings, groups_by_finding
from dtf.core.trend.finding_text import finding_sentence
from dtf.core.trend.findings_book import FindingsBook
from dtf.core.trend.findings_kept import Known
from dtf.core.trend.group_text import group_sentence
from dtf.ports.clock import Clock
from dtf.ports.event_log import RecordStream
from dtf.ports.notifier import Notice, Notifier, NotifierError
from dtf.settings.trends import NotifySettings
from dtf.trend_analyzer.findings_keeper import publish
from dtf.trend_analyzer.intake import FIRST_RETRY_SECONDS

MOST_ATTEMPTS = 8
"""Of one message; some five minutes, then its findings wait for the next one."""
LONGEST_RETRY_SECONDS = 60.0
MOST_NAMED = 10
"""Identities that the line of a moved cost names; the message's findings and `dtf trends --all` have all."""
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
        followers = {each.successor_id for each in self._findings.successions()}
        found = [
            known
            for known in self._findings.findings.values()
            if known.finding.finding_id not in followers  # told, maybe, by another identity
            and known.finding.caused_unix_nanos >= oldest_ns
            and self._is_wanted(known.finding)
            and self._mark(known) not in known.notified
            and (known.finding.finding_id, known.finding.version) not in self._given_up
            and self._findings.is_raised(known, required)
        ]
        return sorted(found, key=_worst_first)

    def _raised_near(self, news: Sequence[Known]) -> list[pb.Finding]:
        """What is raised of the same suites at the same time, the size of the location intervals counted in."""
        required = self._findings.required_confidences()
        spans: dict[str, tuple[int, int]] = {}
        for known in news:
            suite, (begin, end) = known.finding.series.suite, _span(known.finding)
            low, high = spans.get(suite, (begin, end))
            spans[suite] = min(low, begin), max(high, end)
        found = []
        for known in self._findings.findings.values():
            low, high = spans.get(known.finding.series.suite, (0, -1))
            begin, end = _span(known.finding)
            if begin <= high and low <= end and self._findings.is_raised(known, required):
                found.append(known.finding)
        return found

    def _is_wanted(self, finding: pb.Finding) -> bool:
        if finding.state == pb.FINDING_STATE_PROVISIONAL and not self._settings.provisional:
            return False
        if finding.impact == pb.FINDING_IMPACT_IMPROVEMENT:
            return self._settings.improvements
        return finding.impact == pb.FINDING_IMPACT_REGRESSION or self._settings.changes

    def _mark(self, known: Known) -> str:
        state = pb.FindingState.Name(known.finding.state).removeprefix("FINDING_STATE_").lower()
        return f"{self._notifier.name} {state}"

    async def _tell(self, news: Sequence[Known]) -> bool:
        """Send one message, as often as it takes; whether it went out."""
        by_mark: dict[str, list[str]] = {}
        for known in news:
            by_mark.setdefault(self._mark(known), []).append(known.finding.finding_id)
        versions = {(known.finding.finding_id, known.finding.version) for known in news}
        if not await self._send(make_notice([known.finding for known in news], self._raised_near(news))):
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


def make_notice(findings: Sequence[pb.Finding], raised: Sequence[pb.Finding] = ()) -> Notice:
    """The message for these findings, a line for each group; cost that moved comes last.

    `raised` is what is raised near them, told before or not wanted: cost may have moved from there.
    What is not confirmed on both sides is told as what it is on this side.
    """
    told = {finding.finding_id for finding in findings}
    everything = [*findings, *(each for each in raised if each.finding_id not in told)]
    groups = [group for group in group_findings(everything) if group.is_confirmed or not group.is_moved]
    group_of = groups_by_finding(_news_of(group, told) for group in groups)
    moved = [finding for finding in findings if _is_proven(group_of.get(finding.finding_id))]
    rest = [finding for finding in findings if not _is_proven(group_of.get(finding.finding_id))]
    suites = sorted({finding.series.suite for finding in findings})
    impacts = [finding.impact for finding in rest]
    counts = (
        (impacts.count(pb.FINDING_IMPACT_REGRESSION), "became worse"),
        (impacts.count(pb.FINDING_IMPACT_IMPROVEMENT), "became better"),
        (impacts.count(pb.FINDING_IMPACT_CHANGE), "changed"),
    )
    parts = [f"{count} {what}" for count, what in counts if count]
    parts += ["cost moved"] if moved else []
    title = f"dtf: {', '.join(parts)} in {', '.join(suites[:3])}{' …' if len(suites) > 3 else ''}"
    return Notice(title, _lines([*rest, *moved], group_of), findings)


def _span(finding: pb.Finding) -> tuple[int, int]:
    """Times between which the finding may lie."""
    time = finding.time_unix_nanos
    return finding.before_unix_nanos or time, max(time, finding.last_unix_nanos)


def _news_of(group: FindingGroup, told: Set[str]) -> FindingGroup:
    """The group as it is told: what is shared without those told before, moved cost with both of its sides."""
    if group.is_moved:
        return group
    return replace(group, findings=tuple(each for each in group.findings if each.finding_id in told))


def _is_proven(group: FindingGroup | None) -> bool:
    return group is not None and group.is_proven


def _lines(findings: Sequence[pb.Finding], group_of: Mapping[str, FindingGroup]) -> list[str]:
    """A line for each finding, or for the group of which it is the first."""
    said: set[str] = set()
    lines = []
    for finding in findings:
        group = group_of.get(finding.finding_id)
        if group is None or len(group.findings) == 1:
            lines.append(f"{finding_sentence(finding)} [{finding.finding_id}]")
        elif finding.finding_id not in said:
            said.update(each.finding_id for each in group.findings)
            identities = " ".join(each.finding_id for each in group.targets[:MOST_NAMED])
            lines.append(group_sentence(group) + (f" [{identities}]" if group.is_moved else ""))
    return lines


def _worst_first(known: Known) -> tuple[bool, float, str]:
    finding = known.finding
    is_worse = finding.impact == pb.FINDING_IMPACT_REGRESSION
    return (not is_worse, -abs(finding.relative), finding.finding_id)
