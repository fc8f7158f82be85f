"""The trend analyzer as a process: three intakes, one store, one gRPC service.

Start: each stream goes on from its checkpoint in the store. Of the log, the part since the oldest
run that was still open is read again first, without writing, because results name cases by number.
If the log is not the one the store followed (it was recreated, or lost its tail), all streams are
read from their beginning: a point's time follows from its commit, so what is there already is
written over itself.
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack

from dtf.api.v1 import analysis_service_pb2_grpc, events_pb2, scaling_pb2, worker_service_pb2
from dtf.core.trend.log_fold import LogFold
from dtf.core.trend.names import NameBook
from dtf.core.trend.record_folds import ScalingFold, TelemetryFold
from dtf.core.upcast import read_commit
from dtf.ports.clock import Clock
from dtf.ports.event_log import EventLog, RecordStream, StoredCommit
from dtf.ports.metric_store import Checkpoint, MetricStore
from dtf.rpc.certificates import ServerCertificates, certificates_of
from dtf.rpc.server import ListenAddress, RpcServer
from dtf.settings.model import AnalyzerSettings
from dtf.trend_analyzer.intake import StreamIntake
from dtf.trend_analyzer.service import NAME, AnalysisService

LOG, TELEMETRY, SCALING = "log", "telemetry", "scaling"
"""Names of the streams in checkpoints."""

_log = logging.getLogger(__name__)


class TrendAnalyzer:
    """Follows the log, telemetry and scaling into the store, and serves AnalysisService.

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
        store: MetricStore,
        clock: Clock,
        token: str,
        certificates: ServerCertificates | None = None,
    ) -> None:
        """`certificates`: what the listener shows; None: the settings' files, if they name any."""
        self._certificates = certificates or certificates_of(settings)
        self.address = ""
        """host:port of AnalysisService, once started."""
        self._settings = settings
        self._event_log = log
        self._telemetry = telemetry
        self._scaling = scaling
        self._store = store
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
        """Take up the streams and serve. Raises LogError, StoreError or ListenError."""
        names = NameBook(await self._store.series_cases())
        self._log_fold = LogFold(names)
        self._intake = self._make_log_intake()
        telemetry, scaling = self._make_record_intakes()
        checkpoints = {stream: await self._store.checkpoint(stream) for stream in (LOG, TELEMETRY, SCALING)}
        if await self._is_same_log(checkpoints[LOG]):
            await self._restore(checkpoints[LOG])
            for intake, checkpoint in ((telemetry, checkpoints[TELEMETRY]), (scaling, checkpoints[SCALING])):
                if checkpoint is not None:
                    intake.restore(checkpoint)
        await self._serve()
        group = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._tasks = [group.create_task(intake.run()) for intake in (self._intake, telemetry, scaling)]

    async def stop(self) -> None:
        """Stop serving and reading. What was folded and not written is read again next time."""
        for task in self._tasks:
            task.cancel()
        await self._stack.aclose()

    async def wait(self) -> None:
        """Return when the intakes have ended, which they do by `stop` or by failing."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _make_log_intake(self) -> StreamIntake[events_pb2.Commit]:
        return StreamIntake(
            LOG,
            source=self._event_log.follow,
            parse=read_commit,
            fold=self._log_fold,
            store=self._store,
            clock=self._clock,
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

    async def _restore(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is None:
            return
        replay_after = json.loads(checkpoint.state)["fold"]["replay_after"]
        if replay_after < checkpoint.sequence:
            async for batch in self._event_log.read(replay_after, checkpoint.sequence):
                await self._replay(batch)
        self._intake.restore(checkpoint)

    async def _replay(self, batch: Sequence[StoredCommit]) -> None:
        for stored in batch:
            self._intake.fold_one(stored)
            self._log_fold.take()
        await self._clock.sleep(0)

    async def _serve(self) -> None:
        service = AnalysisService(self._store, self._intake.gate, self._log_fold.runs, self._clock)
        add = analysis_service_pb2_grpc.add_AnalysisServiceServicer_to_server
        settings = self._settings
        listen = ListenAddress(settings.listen, self._token, self._certificates)
        server = RpcServer(listen, [(NAME, add, service)])
        self.address = await server.start()
        self._stack.push_async_callback(server.stop)
