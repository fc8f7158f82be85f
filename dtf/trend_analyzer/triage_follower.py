"""Says of a finding what was said of the one in whose place it stands.

Rules that became others find a change under another identity, and a change may be found again elsewhere. Once
everything that was known is searched, each judged finding that does not stand any more is told to have the
successor that it has, if it has one: an event, so that the fold of the stream says the same to everyone.
"""

from dtf.api.v1 import findings_pb2 as pb
from dtf.core.trend.findings_book import FindingsBook
from dtf.ports.clock import Clock
from dtf.ports.event_log import RecordStream
from dtf.trend_analyzer.findings_keeper import FindingsKeeper, publish

LOOK_SECONDS = 0.5


class TriageFollower:
    """Looks for successors, without end."""

    def __init__(
        self,
        findings: FindingsBook,
        keeper: FindingsKeeper,
        stream: RecordStream,
        namespace: str,
        clock: Clock,
    ) -> None:
        self._findings = findings
        self._keeper = keeper
        self._stream = stream
        self._namespace = namespace
        self._clock = clock

    async def run(self) -> None:
        """Look whenever something was found, judged or searched."""
        seen = (-1, -1, -1)
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            keeper = self._keeper
            place = (self._findings.sequence, keeper.gate.sequence, keeper.import_gate.sequence)
            if place != seen and keeper.is_settled:
                seen = place
                await self._look()

    async def _look(self) -> None:
        sequence = self._findings.sequence
        for found in self._findings.successions():
            event = pb.AnalysisEvent(
                finding_succeeded=pb.FindingSucceeded(
                    finding_id=found.finding_id,
                    successor_id=found.successor_id,
                    now_unix_nanos=self._clock.now_ns(),
                )
            )
            identity = f"succession-{found.finding_id}-{found.successor_id}-{sequence}"
            await publish(self._stream, self._namespace, "succession", event, identity, self._clock)
