"""Points of series in, findings on the analysis stream out.

    log intake ──points, once they are in the store──▶ queue ──▶ search ──▶ publish ──▶ vault, checkpoint
    analysis intake ──imported points──────────────────▲

A batch is searched, its findings are published, then its series and the checkpoint are saved. So the
vault never knows more than the stream, nor more than the store: a process that dies anywhere searches
the same points again and finds the same, and what was published already is not published again (a
message's id follows from its finding and version, and the fold of the stream knows what it has).
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from dtf.api.v1 import findings_pb2 as pb
from dtf.core.trend.finding_words import KIND_NAMES
from dtf.core.trend.findings_book import FindingsBook
from dtf.core.trend.imported import imported_points
from dtf.core.trend.scarcity import together_text
from dtf.core.trend.series import RULE_VERSION
from dtf.core.trend.series_book import SeriesBook
from dtf.core.trend.series_points import AnalyzedLogFold, SeriesPoint
from dtf.ports.clock import Clock
from dtf.ports.event_log import LogError, RecordStream
from dtf.ports.metric_store import Checkpoint
from dtf.ports.series_vault import SeriesVault, VaultCheckpoint, VaultUnavailable
from dtf.ports.subjects import analysis_subject
from dtf.trend_analyzer.gate import CheckpointGate
from dtf.trend_analyzer.intake import FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS, Handover

MOST_WAITING_POINTS = 200_000
"""Points of series beyond which the log is not read further."""
POINTS_A_TURN = 16
"""Points searched before calls are answered, more where they are of one series: some milliseconds."""
MOST_IN_BLOCK = 64
"""Points of one series that are searched at once: a look at what is appended costs as much as many values that say nothing."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Batch:
    points: Sequence[SeriesPoint]
    checkpoint: VaultCheckpoint


class FindingsKeeper:
    """Searches series and publishes what it finds; `gate` says how far into the log it has come."""

    def __init__(
        self,
        vault: SeriesVault,
        stream: RecordStream,
        known: FindingsBook,
        namespace: str,
        clock: Clock,
    ) -> None:
        self.gate = CheckpointGate(lambda: None)
        self.import_gate = CheckpointGate(lambda: None)
        """How far into the analysis stream imported points have been searched."""
        self.book = SeriesBook(vault)
        self.published_sequence = 0
        """Sequence of the last finding put on the stream; what the stream's fold has not reached is not known yet."""
        self._vault = vault
        self._stream = stream
        self._known = known
        self._namespace = namespace
        self._clock = clock
        self._batches: list[_Batch] = []
        self._has_news = asyncio.Event()
        self._has_room = asyncio.Event()
        self._searched_count = 0
        """Points of the first batch that are searched."""
        self._checkpoint = VaultCheckpoint()
        """Of the newest batch that was handed over."""
        self._settled_at = (0, 0)
        """Sequences of the log and of the analysis stream up to which other rules had searched, or this process has to."""
        self.together_limit = 0
        """Sets of metrics that are looked at together at most, where the log has more; 0: it has not."""

    async def start(self, checkpoint: VaultCheckpoint) -> None:
        """Go on from the vault's checkpoint."""
        self._checkpoint = replace(checkpoint, rule_version=RULE_VERSION)
        self.gate.advance(checkpoint.log_sequence)
        self.import_gate.advance(checkpoint.analysis_sequence)

    def settle_at(self, log_sequence: int, import_sequence: int) -> None:
        """What was found up to these sequences is found anew: until then, what is missing may yet come."""
        self._settled_at = log_sequence, import_sequence

    @property
    def is_settled(self) -> bool:
        """Whether everything that was there at the start is searched by the rules of now, and its findings are known."""
        log_sequence, import_sequence = self._settled_at
        return (
            self.gate.sequence >= log_sequence
            and self.import_gate.sequence >= import_sequence
            and self._known.sequence >= self.published_sequence
        )

    @property
    def waiting_point_count(self) -> int:
        """Points that were handed over and are not searched yet."""
        return sum(len(batch.points) for batch in self._batches) - self._searched_count

    def gather_log(self, fold: AnalyzedLogFold) -> Handover:
        """The points of series that the fold has gathered, to be searched once their points are stored."""
        points = fold.take_series_points()
        self.note_limit(fold)

        async def hand_over(checkpoint: Checkpoint) -> None:
            await self._receive(points, log_sequence=checkpoint.sequence, log_state=checkpoint.state)

        return hand_over

    def note_limit(self, fold: AnalyzedLogFold) -> None:
        """Tell, once a start, where not every set of metrics is looked at together."""
        if fold.together_limit and not self.together_limit:
            _log.warning("%s", together_text(fold.together_limit))
        self.together_limit = fold.together_limit

    def gather_imports(self, book: FindingsBook) -> Handover:
        """The imported points that the analysis stream brought."""
        imports, book.imports = book.imports, []

        async def hand_over(checkpoint: Checkpoint) -> None:
            for sequence, imported in imports:
                if sequence > self._checkpoint.analysis_sequence:
                    await self._receive(imported_points(imported), analysis_sequence=sequence)

        return hand_over

    async def run(self) -> None:
        """Search without end. Raises VaultError, and LogErrors that waiting cannot mend."""
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            while self._batches:
                await self._search(self._batches[0])
                self._batches.pop(0)
                self._searched_count = 0
                self._has_room.set()

    async def _receive(self, points: Sequence[SeriesPoint], **reached: int | str) -> None:
        self._checkpoint = replace(self._checkpoint, **reached)  # type: ignore[arg-type]  # names of its fields
        self._batches.append(_Batch(points, self._checkpoint))
        self._has_news.set()
        while sum(len(batch.points) for batch in self._batches) > MOST_WAITING_POINTS:
            self._has_room.clear()
            await self._has_room.wait()

    async def _search(self, batch: _Batch) -> None:
        since_turn = 0
        for block in blocks(batch.points):
            for finding in self.book.extend(block):
                await self._publish(finding)
            since_turn += len(block)
            self._searched_count += len(block)
            if since_turn >= POINTS_A_TURN or block[0].row:  # with a row, a forest may have grown
                since_turn = 0
                await self._clock.sleep(0)
        await self._clock.sleep(0)
        await self._save(batch.checkpoint)
        self.gate.advance(batch.checkpoint.log_sequence)
        self.import_gate.advance(batch.checkpoint.analysis_sequence)

    async def _save(self, checkpoint: VaultCheckpoint) -> None:
        """Save what changed, however long the disk is full."""
        series, delay = self.book.take(), FIRST_RETRY_SECONDS
        while True:
            try:
                return await self._vault.save(series, checkpoint)
            except VaultUnavailable as error:
                _log.warning("the series cannot be saved, trying again: seconds=%.2f %s", delay, error)
                await self._clock.sleep(delay)
                delay = min(delay * 2, LONGEST_RETRY_SECONDS)

    async def _publish(self, finding: pb.Finding) -> None:
        known = self._known.findings.get(finding.finding_id)
        if known is not None:
            before = known.finding
            if (before.rule_version, before.version) >= (finding.rule_version, finding.version):
                return
        event = pb.AnalysisEvent(finding=finding)
        identity = f"finding-{finding.finding_id}-{finding.rule_version}-{finding.version}"
        kind = KIND_NAMES[finding.kind]
        sequence = await publish(self._stream, self._namespace, kind, event, identity, self._clock)
        self.published_sequence = max(self.published_sequence, sequence)


def blocks(points: Sequence[SeriesPoint]) -> Iterator[Sequence[SeriesPoint]]:
    """The points in order, those of one series that follow each other together; one with a row is alone."""
    start = 0
    for end in range(1, len(points) + 1):
        is_more = end < len(points) and points[end].key == points[start].key
        if not is_more or points[end].row or points[start].row or end - start == MOST_IN_BLOCK:
            yield points[start:end]
            start = end


async def publish(
    stream: RecordStream,
    namespace: str,
    kind: str,
    event: pb.AnalysisEvent,
    message_id: str,
    clock: Clock,
) -> int:
    """Put an event on the analysis stream, however long its broker is away; return its sequence."""
    delay = FIRST_RETRY_SECONDS
    payload = event.SerializeToString(deterministic=True)
    while True:
        try:
            return await stream.publish(analysis_subject(namespace, kind), payload, message_id)
        except LogError as error:
            if not error.is_retryable:
                raise
            _log.warning("the analysis stream is away, trying again: seconds=%.2f %s", delay, error)
            await clock.sleep(delay)
            delay = min(delay * 2, LONGEST_RETRY_SECONDS)
