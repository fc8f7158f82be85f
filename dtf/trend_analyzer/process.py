"""The trend analyzer as a process: four intakes, one store, one search for findings, one gRPC service.

Start: each stream goes on from its checkpoint in the store. Of the log, the part since the oldest
run that was still open is read again first, without writing, because results name cases by number;
it goes on from where the search had come to, which is never further than the store, and points that
the store has already are written over themselves. The analysis stream is read from its beginning.
If the log is not the one the store followed (it was recreated, or lost its tail), all streams are
read from their beginning: a point's time follows from its commit, so what is there already is
written over itself.
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Protocol

from dtf.api.v1 import (
    analysis_service_pb2_grpc,
    events_pb2,
    findings_pb2,
    scaling_pb2,
    worker_service_pb2,
)
from dtf.core.trend.findings_book import FindingsBook
from dtf.core.trend.names import NameBook
from dtf.core.trend.record_folds import ScalingFold, TelemetryFold
from dtf.core.trend.series import RULE_VERSION
from dtf.core.trend.series_points import AnalyzedLogFold
from dtf.core.upcast import read_commit
from dtf.ports.clock import Clock
from dtf.ports.event_log import EventLog, RecordStream, StoredCommit
from dtf.ports.metric_store import Checkpoint, MetricStore
from dtf.ports.notifier import Notifier
from dtf.ports.series_vault import SeriesVault, VaultCheckpoint
from dtf.rpc.certificates import ServerCertificates, certificates_of
from dtf.rpc.server import ListenAddress, RpcServer
from dtf.settings.model import AnalyzerSettings
from dtf.settings.trends import NotifySettings, TrendsSettings
from dtf.trend_analyzer.confirmer import Confirmer
from dtf.trend_analyzer.findings_desk import FindingsDesk
from dtf.trend_analyzer.findings_keeper import FindingsKeeper
from dtf.trend_analyzer.intake import StreamIntake
from dtf.trend_analyzer.notices import NoticeKeeper
from dtf.trend_analyzer.reruns import Coordinator
from dtf.trend_analyzer.service import NAME, AnalysisService
from dtf.trend_analyzer.triage_follower import TriageFollower

LOG, TELEMETRY, SCALING, ANALYSIS = "log", "telemetry", "scaling", "analysis"
"""Names of the streams in checkpoints."""

_EVERY_SERIES = 2**31
_MOST_SHARE_USED = 0.8
_log = logging.getLogger(__name__)


class _Work(Protocol):
    async def run(self) -> None: ...


class TrendAnalyzer:
    """Follows the log, telemetry and scaling into the store, finds what changed, and serves AnalysisService.

    `start` and `stop` belong in one task, as `async with` around what runs meanwhile: the intakes
    live in a TaskGroup, and one that fails ends that task with its error.
    """

    def __init__(
        self,
        settings: AnalyzerSettings,
        *,
        log: EventLog,
        telemetry: RecordStream,
        scaling: RecordStream,
        analysis: RecordStream,
        store: MetricStore,
        vault: SeriesVault,
        clock: Clock,
        token: str,
        namespace: str = "default",
        notifiers: Sequence[Notifier] = (),
        notify: NotifySettings | None = None,
        certificates: ServerCertificates | None = None,
        coordinator: Coordinator | None = None,
        trends: TrendsSettings | None = None,
    ) -> None:
        """`certificates`: what the listener shows; None: the settings' files, if they name any.

        `coordinator`: who runs cases again where `trends` wants it; None: nobody.
        """
        self._certificates = certificates or certificates_of(settings)
        self.address = ""
        """host:port of AnalysisService, once started."""
        self._settings = settings
        self._event_log = log
        self._telemetry = telemetry
        self._scaling = scaling
        self._analysis = analysis
        self._store = store
        self._vault = vault
        self._namespace = namespace
        self._notifiers = notifiers
        self._notify = notify or NotifySettings()
        self._coordinator = coordinator
        self._trends = trends or TrendsSettings()
        self._clock = clock
        self._token = token
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "TrendAnalyzer":
        await self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Take up the streams and serve. Raises LogError, StoreError, VaultError or ListenError."""
        known = await self._store.series_names("", after=None, limit=_EVERY_SERIES)
        names = NameBook(
            await self._store.series_cases(), metrics=((name.suite, name.metric) for name in known)
        )
        if names.share_used > _MOST_SHARE_USED:
            _log.warning(
                "names of suites and cases are used up to %.0f %%: new ones go to groups",
                names.share_used * 100,
            )
        self._log_fold = AnalyzedLogFold(names)
        self._findings = FindingsBook(rule_version=RULE_VERSION)
        self._keeper = FindingsKeeper(
            self._vault, self._analysis, self._findings, self._namespace, self._clock
        )
        self._intake = self._make_log_intake()
        telemetry, scaling = self._make_record_intakes()
        self._analysis_intake = self._make_analysis_intake()
        checkpoints = {stream: await self._store.checkpoint(stream) for stream in (LOG, TELEMETRY, SCALING)}
        is_same_log = await self._is_same_log(checkpoints[LOG])
        await self._restore(checkpoints[LOG] if is_same_log else None)
        if is_same_log:
            for intake, checkpoint in ((telemetry, checkpoints[TELEMETRY]), (scaling, checkpoints[SCALING])):
                if checkpoint is not None:
                    intake.restore(checkpoint)
        await self._read_findings()
        stored = checkpoints[LOG] if is_same_log else None
        self._keeper.settle_at(stored.sequence if stored is not None else 0, self._findings.import_sequence)
        await self._serve()
        group = await self._stack.enter_async_context(asyncio.TaskGroup())
        intakes: list[_Work] = [self._intake, telemetry, scaling, self._analysis_intake]
        followers: list[_Work] = [self._keeper, self._make_follower(), *self._notices(), *self._confirmers()]
        self._tasks = [group.create_task(each.run()) for each in [*intakes, *followers]]

    async def stop(self) -> None:
        """Stop serving and reading. What was folded and not written is read again next time."""
        for task in self._tasks:
            task.cancel()
        await self._stack.aclose()

    async def wait(self) -> None:
        """Return when the intakes have ended, which they do by `stop` or by failing."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _make_follower(self) -> TriageFollower:
        return TriageFollower(self._findings, self._keeper, self._analysis, self._namespace, self._clock)

    def _notices(self) -> list[NoticeKeeper]:
        rest = (self._notify, self._findings, self._analysis, self._namespace, self._clock)
        return [NoticeKeeper(notifier, *rest) for notifier in self._notifiers]

    def _confirmers(self) -> list[Confirmer]:
        if self._coordinator is None or not self._trends.confirm:
            return []
        known = self._findings, self._keeper, self._log_fold
        return [
            Confirmer(self._coordinator, self._trends, *known, self._analysis, self._namespace, self._clock)
        ]

    def _make_log_intake(self) -> StreamIntake[events_pb2.Commit]:
        return StreamIntake(
            LOG,
            source=self._event_log.follow,
            parse=read_commit,
            fold=self._log_fold,
            store=self._store,
            clock=self._clock,
            gather=lambda: self._keeper.gather_log(self._log_fold),
        )

    def _make_analysis_intake(self) -> StreamIntake[findings_pb2.AnalysisEvent]:
        return StreamIntake(
            ANALYSIS,
            source=self._analysis.follow,
            parse=findings_pb2.AnalysisEvent.FromString,
            fold=self._findings,
            store=self._store,
            clock=self._clock,
            gather=lambda: self._keeper.gather_imports(self._findings),
        )

    def _make_record_intakes(
        self,
    ) -> tuple[StreamIntake[worker_service_pb2.TelemetrySample], StreamIntake[scaling_pb2.ScalingDecision]]:
        telemetry = StreamIntake(
            TELEMETRY,
            source=self._telemetry.follow,
            parse=worker_service_pb2.TelemetrySample.FromString,
            fold=TelemetryFold(),
            store=self._store,
            clock=self._clock,
        )
        scaling = StreamIntake(
            SCALING,
            source=self._scaling.follow,
            parse=scaling_pb2.ScalingDecision.FromString,
            fold=ScalingFold(),
            store=self._store,
            clock=self._clock,
        )
        return telemetry, scaling

    async def _is_same_log(self, checkpoint: Checkpoint | None) -> bool:
        """Whether the log still has, at the checkpoint's sequence, the commit the store saw there."""
        if checkpoint is None or checkpoint.sequence == 0:
            return True
        head = await self._event_log.head()
        if checkpoint.sequence < head.first_sequence:
            return True  # archived since: the log is longer than the store knows, never shorter
        seen = json.loads(checkpoint.state)["message_id"]
        async for batch in self._event_log.read(checkpoint.sequence - 1, checkpoint.sequence):
            if any(stored.message_id == seen for stored in batch):
                return True
        _log.warning(
            "the log is not the one this store followed: it is read from its beginning, what the store has stays: "
            "checkpoint=%d last_sequence=%d",
            checkpoint.sequence,
            head.last_sequence,
        )
        return False

    async def _restore(self, stored: Checkpoint | None) -> None:
        """Go on from where both the store and the search for findings have come to."""
        searched = await self._searched(stored)
        await self._keeper.start(searched)
        if stored is None or not searched.log_sequence:
            if stored is not None:
                self._intake.gate.advance(stored.sequence)
            return
        checkpoint = Checkpoint(LOG, searched.log_sequence, searched.log_state)
        replay_after = json.loads(checkpoint.state)["fold"]["replay_after"]
        if replay_after < checkpoint.sequence:
            async for batch in self._event_log.read(replay_after, checkpoint.sequence):
                await self._replay(batch)
        self._intake.restore(checkpoint)
        self._keeper.note_limit(self._log_fold)
        self._intake.gate.advance(stored.sequence)

    async def _searched(self, stored: Checkpoint | None) -> VaultCheckpoint:
        """The vault's checkpoint, as far as it fits the store's and the rules of now; else the vault is emptied."""
        searched = await self._vault.checkpoint()
        if searched == VaultCheckpoint():
            return searched
        is_ahead = searched.log_sequence > (stored.sequence if stored is not None else 0)
        if is_ahead or searched.rule_version != RULE_VERSION:
            why = "the store is behind them" if is_ahead else "they were searched by other rules"
            _log.warning("the series are read from the log again: %s", why)
            await self._vault.clear()
            return VaultCheckpoint()
        return searched

    async def _replay(self, batch: Sequence[StoredCommit]) -> None:
        for stored in batch:
            self._intake.fold_one(stored)
            self._log_fold.take()
            self._log_fold.take_series_points()
        await self._clock.sleep(0)

    async def _read_findings(self) -> None:
        async for batch in self._analysis.read(0):
            for stored in batch:
                self._analysis_intake.fold_one(stored)
            await self._clock.sleep(0)

    async def _serve(self) -> None:
        desk = FindingsDesk(
            self._findings,
            self._analysis_intake.gate,
            self._keeper,
            self._vault,
            self._analysis,
            self._namespace,
            self._clock,
        )
        service = AnalysisService(
            self._store, self._intake.gate, self._log_fold.runs, self._clock, desk, self._keeper.gate
        )
        add = analysis_service_pb2_grpc.add_AnalysisServiceServicer_to_server
        settings = self._settings
        listen = ListenAddress(settings.listen, self._token, self._certificates)
        server = RpcServer(listen, [(NAME, add, service)])
        self.address = await server.start()
        self._stack.push_async_callback(server.stop)
