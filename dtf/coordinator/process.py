"""The coordinator: one reign over one namespace, from the replay of the log to its end.

    start: (a standby: wait for its turn) ─▶ replay, election ─▶ writer, hub, relays ─▶ listener
    stop:  the reverse

The listener opens only when the election is durable, and closes before anything else stops.
"""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence

from dtf.api.v1 import (
    fleet_service_pb2_grpc,
    resource_service_pb2_grpc,
    run_service_pb2_grpc,
    token_service_pb2_grpc,
    worker_service_pb2_grpc,
)
from dtf.coordinator.admission import Admission
from dtf.coordinator.bell import Bell
from dtf.coordinator.blob_keeper import BlobKeeper
from dtf.coordinator.commit_feed import CommitFeed
from dtf.coordinator.conductor import Conductor
from dtf.coordinator.desk import Desk
from dtf.coordinator.figures import Figures, figures_of
from dtf.coordinator.fleet_service import FleetService
from dtf.coordinator.heartbeat_rule import HeartbeatRule
from dtf.coordinator.lease_keeper import LeaseKeeper
from dtf.coordinator.meters import Meters
from dtf.coordinator.output_rights import OutputRights
from dtf.coordinator.pipeline import LogTailLost, WriterStopped
from dtf.coordinator.placement_review import PlacementReview
from dtf.coordinator.recovery import HistoryLost, restore
from dtf.coordinator.reign import Reign, begin_reign
from dtf.coordinator.resource_service import ResourceService
from dtf.coordinator.retirement import Retirement
from dtf.coordinator.run_service import RunService
from dtf.coordinator.scaling_relay import ScalingRelay
from dtf.coordinator.session_hub import SessionHub
from dtf.coordinator.session_secrets import SessionSecrets
from dtf.coordinator.sessions import SessionRules, Sessions
from dtf.coordinator.snapshot_keeper import SnapshotKeeper, SnapshotLauncher, SnapshotRules
from dtf.coordinator.standby import Identity, Standby, refuse_shortened
from dtf.coordinator.telemetry_relay import TelemetryRelay
from dtf.coordinator.token_service import TokenService
from dtf.coordinator.worker_service import WorkerService
from dtf.coordinator.writer import Writer, WriterLimits
from dtf.core.run.commands import ExpireWorkers
from dtf.ports.blob_store import BlobStore
from dtf.ports.clock import Clock
from dtf.ports.event_log import EventLog, RecordStream
from dtf.ports.leader_lease import LeaderLease, LeaderPhase, LeaseUnavailable
from dtf.ports.preparation import PreparationProcess
from dtf.ports.snapshot_store import SnapshotStore
from dtf.ports.spool import CommitSpool
from dtf.rpc.addresses import reachable_address
from dtf.rpc.certificates import ServerCertificates, certificates_of
from dtf.rpc.channel import parse_addresses
from dtf.rpc.server import ListenAddress, RpcServer, Service
from dtf.settings.blobs import BlobSettings
from dtf.settings.code_version import code_version
from dtf.settings.model import CoordinatorSettings

log = logging.getLogger(__name__)

CODE_VERSION = code_version()
NO_LIMITS = BlobSettings(max_bytes=0, max_age_days=0.0)


class Stopped(WriterStopped):
    """The coordinator was asked to stop."""


class Coordinator:
    """The process. `start` returns when it leads and listens; `wait` raises what ends the reign."""

    def __init__(
        self,
        settings: CoordinatorSettings,
        *,
        log: EventLog,
        telemetry: RecordStream,
        scaling: RecordStream,
        blobs: BlobStore,
        clock: Clock,
        token: str,
        lease: LeaderLease | None = None,
        snapshots: Sequence[SnapshotStore] = (),
        spool: CommitSpool | None = None,
        snapshot_launcher: SnapshotLauncher | None = None,
        certificates: ServerCertificates | None = None,
        blob_rules: BlobSettings = NO_LIMITS,
        preparation: PreparationProcess | None = None,
    ) -> None:
        """`certificates`: what the listener shows; None: the settings' files, if they name any."""
        self._settings = settings
        self._certificates = certificates or certificates_of(settings)
        self._meters = Meters()
        self._secrets = SessionSecrets(token, settings.namespace)
        self._admission = Admission(token, self._secrets)
        self._access = self._admission if token else None
        self._log = log
        self._telemetry = telemetry
        self._scaling = scaling
        self._blobs = blobs
        self._blob_rules = blob_rules
        self._clock = clock
        self._token = token
        self._lease = lease
        self._snapshots = snapshots
        self._spool = spool
        self._launch_snapshot = snapshot_launcher
        self._preparation = preparation
        self._snapshot_keeper: SnapshotKeeper | None = None
        self._keeper: LeaseKeeper | None = None
        self._nonce = secrets.token_bytes(8)
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._tasks: asyncio.TaskGroup | None = None
        self._running: list[asyncio.Task[None]] = []
        self._over: asyncio.Future[BaseException] | None = None
        self._server: RpcServer | None = None
        self._desk: Desk | None = None
        self._is_history_lost = False
        self.address = ""

    @property
    def desk(self) -> Desk:
        """State, writer and the rest of the reign. Raises RuntimeError before `start`."""
        if self._desk is None:
            raise RuntimeError("the coordinator has not started")
        return self._desk

    def figures(self) -> Figures:
        """The coordinator at this moment. Raises RuntimeError before `start`."""
        return figures_of(self.desk, self._meters)

    async def start(self, on_standby: Callable[[str], None] | None = None) -> None:
        """Take the port, replay the log, be elected, serve.

        With `on_standby` it holds the port, says so, and waits for its turn first. Raises
        ListenError, LogError, ChainBroken, WriterStopped.

        The port comes first: a coordinator that could not listen must not depose one that does.
        """
        server = self._server = RpcServer(self._listen_address(), access=self._access)
        try:
            reign = Reign()
            if on_standby is not None:
                await self._await_turn(server, on_standby, reign)
            else:
                await self._heed_word()
            self.address = server.bind()
            await self._lead(server, reign)
        except HistoryLost as lost:
            if self._keeper is not None and lost.known is not None:
                self._keeper.know(lost.known.sequence, lost.known.message_id)
            self._is_history_lost = True
            await self.stop()
            raise
        except BaseException:
            await self.stop()
            raise

    async def _await_turn(self, server: RpcServer, on_standby: Callable[[str], None], reign: Reign) -> None:
        if self._lease is None:
            raise RuntimeError("a standby needs the lease of the leader")
        self.address = server.reserve()
        await restore(self._log, self._snapshots, None, reign, self._preparation)
        on_standby(self.address)
        log.info("standing by", extra={"address": self.address, "sequence": reign.chain.sequence})
        standby = Standby(self._log, self._lease, self._clock, self._identity(), reign)
        await self._keep(await standby.turn())

    async def _heed_word(self) -> None:
        """Raises HistoryLost where a leader left word that the log lacks what it had acknowledged."""
        if self._lease is None:
            return
        try:
            record = (await self._lease.read()).record
        except LeaseUnavailable:
            return  # a broker without key-value buckets, or none yet: the log will tell
        if record is not None and record.phase is LeaderPhase.LOST:
            await refuse_shortened(self._log, record)

    async def _keep(self, keeper: LeaseKeeper) -> None:
        self._keeper = keeper
        await self._open_tasks()
        self._run(keeper.run())

    async def _open_tasks(self) -> None:
        if self._tasks is None:
            self._over = asyncio.get_running_loop().create_future()
            self._tasks = await asyncio.TaskGroup().__aenter__()

    def _run(self, part: Awaitable[None]) -> None:
        if self._tasks is None:
            raise RuntimeError("the coordinator has not started")
        self._running.append(self._tasks.create_task(self._guard(part)))

    def _identity(self) -> Identity:
        return Identity(
            f"{self._name}:{self._nonce.hex()}", self.address, self._settings.leader_lease_seconds
        )

    async def _lead(self, server: RpcServer, reign: Reign) -> None:
        nonce = self._nonce
        reign = await begin_reign(
            self._log,
            self._clock,
            leader=self._name,
            lease_seconds=self._settings.lease_seconds,
            nonce=nonce,
            code_version=CODE_VERSION,
            reign=reign,
            snapshots=self._snapshots,
            spool=self._spool,
            preparation=self._preparation,
        )
        self._snapshot_keeper = self._make_snapshot_keeper(reign)
        strangers = len(reign.chain.stranger_sequences)
        log.info(
            "leading",
            extra={"epoch": reign.chain.epoch, "sequence": reign.chain.sequence, "strangers": strangers},
        )
        bell = Bell()
        telemetry = TelemetryRelay(self._telemetry, reign.state, self._clock, self._settings.namespace)
        scaling = ScalingRelay(self._scaling, self._clock, bell)
        desk = self._desk = self._make_desk(reign, nonce, telemetry, scaling, bell)
        self._admission.bind(reign.state)
        await self._open_tasks()
        review = PlacementReview(desk)
        writer = desk.writer
        parts = (writer.run(), writer.watch(), desk.hub.reap(), review.run(), telemetry.run(), scaling.run())
        for part in (*parts, Retirement(desk).run(), desk.blob_keeper.run()):
            self._run(part)
        # Before any session is served: the reign before may have ended in the middle of a decision.
        writer.post(ExpireWorkers(()))
        if self._snapshot_keeper is not None:
            self._run(self._snapshot_keeper.run())
        await self._take_lease(desk, reign.chain.epoch)
        await server.start(
            [
                _service("RunService", run_service_pb2_grpc, RunService(desk)),
                _service("FleetService", fleet_service_pb2_grpc, FleetService(desk)),
                _service("ResourceService", resource_service_pb2_grpc, ResourceService(desk)),
                _service("WorkerService", worker_service_pb2_grpc, WorkerService(desk, self._access)),
                _service("TokenService", token_service_pb2_grpc, TokenService(desk, self._advertised())),
            ]
        )

    async def _take_lease(self, desk: Desk, epoch: int) -> None:
        """Say that this process leads. Whoever says so of an earlier epoch is gone, or about to learn it."""
        if self._lease is None:
            return
        if self._keeper is None:
            record = self._identity().record(epoch, LeaderPhase.LEADING)
            await self._keep(LeaseKeeper(self._lease, self._clock, record))
        if self._keeper is not None:
            self._keeper.lead(epoch, lambda: (desk.writer.durable_sequence, desk.writer.durable_hash))
            desk.writer.confirm = self._keeper.confirm

    def _make_desk(
        self, reign: Reign, nonce: bytes, telemetry: TelemetryRelay, scaling: ScalingRelay, bell: Bell
    ) -> Desk:
        settings, state = self._settings, reign.state
        heartbeats = HeartbeatRule(
            settings.heartbeat_seconds,
            settings.lease_seconds,
            settings.heartbeats_per_second,
            settings.lease_heartbeats,
        )
        rules = SessionRules(heartbeats, settings.max_credits, self._secrets)
        sessions = Sessions(state, self._clock, rules)
        hub = SessionHub(sessions, telemetry.take)
        feed = CommitFeed(reign.chain.sequence, bell)
        output_bell = Bell()
        output_rights = OutputRights(state)
        writer = Writer(
            self._log,
            self._clock,
            state,
            reign.chain,
            nonce=nonce,
            code_version=CODE_VERSION,
            limits=WriterLimits(settings.max_commit_bytes, settings.max_commits_in_flight),
            listener=Conductor(
                hub,
                feed,
                output_bell,
                output_rights,
                self._meters,
                self._clock,
                self._snapshot_keeper,
            ),
            spool=self._spool,
        )
        hub.bind(writer)
        return Desk(
            settings=settings,
            state=state,
            writer=writer,
            sessions=sessions,
            hub=hub,
            feed=feed,
            scaling=scaling,
            event_log=self._log,
            blobs=self._blobs,
            blob_keeper=BlobKeeper(self._blobs, state, self._clock, self._blob_rules),
            clock=self._clock,
            certificates=self._certificates,
            bell=bell,
            output_bell=output_bell,
            output_rights=output_rights,
            strangers=frozenset(reign.chain.stranger_sequences),
            code_version=CODE_VERSION,
            leading_since_at=self._clock.now_ns() / 1e9,
        )

    async def wait(self) -> None:
        """Return when `stop` was called. Raises WriterStopped, or whatever broke a part, when the reign is over."""
        if self._over is None:
            raise RuntimeError("the coordinator has not started")
        error = await asyncio.shield(self._over)
        if not isinstance(error, Stopped):
            raise error

    async def stop(self) -> None:
        """Close the listener, tell whoever waits, stop every part. Idempotent."""
        if self._over is not None and not self._over.done():
            self._over.set_result(Stopped("the coordinator was asked to stop"))
        if self._desk is not None:
            reason = self._reason_of_end()
            self._desk.dismiss(
                reason if isinstance(reason, WriterStopped) else Stopped("this coordinator is stopping")
            )
        if self._keeper is not None:
            is_lost = self._is_history_lost or isinstance(self._reason_of_end(), LogTailLost)
            await self._keeper.release(LeaderPhase.LOST if is_lost else LeaderPhase.RELEASED)
            self._keeper = None
        if self._server is not None:
            await self._server.stop()
            self._server = None
        for task in self._running:
            task.cancel()
        self._running.clear()
        if self._tasks is not None:
            await self._tasks.__aexit__(None, None, None)
            self._tasks = None

    def _reason_of_end(self) -> BaseException | None:
        return self._over.result() if self._over is not None else None

    async def take_last_snapshot(self, timeout_seconds: float) -> None:
        """After `stop` in good order: a snapshot, if the next start gains by it."""
        if self._snapshot_keeper is not None:
            await self._snapshot_keeper.finish(timeout_seconds)

    def _make_snapshot_keeper(self, reign: Reign) -> SnapshotKeeper | None:
        if self._launch_snapshot is None:
            return None
        rules = SnapshotRules(self._settings.snapshot_events, self._settings.snapshot_bytes)
        pending = reign.chain.sequence - reign.snapshot_sequence
        return SnapshotKeeper(self._launch_snapshot, self._spool, self._clock, rules, pending_commits=pending)

    async def _guard(self, part: Awaitable[None]) -> None:
        """Run a part; its end is the end of the reign."""
        try:
            await part
        except Exception as error:
            log.error("a part of the coordinator ended", extra={"cause": str(error)})
            if self._over is not None and not self._over.done():
                self._over.set_result(error)

    def _listen_address(self) -> ListenAddress:
        return ListenAddress(self._settings.listen, self._token, self._certificates)

    def _advertised(self) -> Sequence[str]:
        """Where workers find this coordinator, and those that stand by for it where the settings name them."""
        if self._settings.advertise:
            return parse_addresses(self._settings.advertise)
        return (reachable_address(self.address),)


def _service(name: str, module: object, servicer: object) -> Service:
    return f"dtf.api.v1.{name}", getattr(module, f"add_{name}Servicer_to_server"), servicer
