"""The worker: keeps a session with the coordinator and runs what it leases, until told to leave.

The launcher is started before anything of gRPC, and everything that runs user code is a descendant
of the launcher. Whatever ends this process, the launcher ends the rest.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING

from dtf.api.v1 import worker_service_pb2
from dtf.api.v1.worker_service_pb2_grpc import WorkerServiceStub
from dtf.ports.clock import Clock
from dtf.rpc.channel import Peer, open_channel, parse_addresses
from dtf.rpc.invitation import JOIN_SCHEME, session_credential
from dtf.runner import process_tree
from dtf.settings.model import WorkerSettings
from dtf.worker.detect import detect_gpus, detect_labels, detect_resources
from dtf.worker.engagement import DrainTimedOut, Engagement
from dtf.worker.launcher_client import LauncherClient, LauncherLost
from dtf.worker.session import Metadata, SessionLost, SessionRefused, open_session
from dtf.worker.spot_notices import SpotNotices

if TYPE_CHECKING:
    from dtf.api.v1.worker_service_pb2_grpc import WorkerServiceAsyncStub

START_PATIENCE_SECONDS = 30.0
"""How long a worker that never had a session looks for a coordinator."""
EXIT_DONE = 0
EXIT_FORCED = 2

_log = logging.getLogger(__name__)
Opened = worker_service_pb2.CreateSessionResponse


class Worker:
    """One worker process."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        token: str,
        clock: Clock,
        on_session: Callable[[Opened], None] = lambda opened: None,
        peer: Peer | None = None,
    ) -> None:
        """`peer`: the coordinator that a join token names; None: the one of the settings, with `token`."""
        self._settings = settings
        self._peer = peer or Peer(
            parse_addresses(settings.server), token, settings.certificate_authority_file
        )
        self._session_metadata: Metadata = ()
        """What proves the last session, once there was one."""
        self._clock = clock
        self._on_session = on_session
        self._launcher = LauncherClient(self._launcher_died)
        self._engagement: Engagement | None = None
        self._main: asyncio.Task[int] | None = None
        self._stop_count = 0
        self._is_launcher_lost = False

    async def run(self) -> int:
        """Work until told to leave; return the exit code.

        Raises SessionRefused, NoCoordinator, SessionReplaced, RunnersBroken, LauncherLost.
        """
        process_tree.become_subreaper()
        self._launcher.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._main = tasks.create_task(self._work())
                if self._settings.spot_notices:
                    listener = tasks.create_task(self._heed_notice())
                    self._main.add_done_callback(lambda _: listener.cancel())
            return self._main.result()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        except asyncio.CancelledError:
            if not self._stop_count:
                raise
            return EXIT_FORCED
        finally:
            await self._launcher.stop()
            process_tree.kill_until_none(lambda: process_tree.descendants(os.getpid()))

    def request_stop(self) -> None:
        """Once: drain, then leave. Twice: stop at once."""
        self._stop_count += 1
        if self._stop_count == 1 and self._engagement is not None:
            self._engagement.drain()
        elif self._main is not None:
            self._main.cancel()

    async def _heed_notice(self) -> None:
        """Leave in time when the cloud takes this machine away."""
        notice = await SpotNotices(self._settings.spot_notices, self._clock).wait()
        _log.warning("leaving: %s", notice)
        if not self._stop_count:
            self.request_stop()

    def _launcher_died(self) -> None:
        self._is_launcher_lost = True
        if self._main is not None:
            self._main.cancel()

    async def _work(self) -> int:
        # Before the channel is opened, because it asks tools, and forking beside gRPC's threads is unsafe.
        request = await asyncio.to_thread(self._introduce)
        channel = open_channel(self._peer, [("grpc.enable_retries", 0)])
        try:
            stub: WorkerServiceAsyncStub = WorkerServiceStub(channel)
            return await self._engage(stub, request)
        except asyncio.CancelledError:
            if self._is_launcher_lost:
                raise LauncherLost("the launcher died, and with it everything that ran") from None
            if self._stop_count:
                return EXIT_DONE if self._engagement is None else EXIT_FORCED
            raise
        except DrainTimedOut as error:
            _log.warning("stopping at once: %s", error)
            return EXIT_FORCED
        finally:
            await channel.close(None)

    async def _engage(
        self, stub: "WorkerServiceAsyncStub", request: worker_service_pb2.CreateSessionRequest
    ) -> int:
        """Open sessions, one after the other, until one ends in good order."""
        patience: float | None = START_PATIENCE_SECONDS
        while True:
            request.request_id = self._clock.new_id()
            opened = await self._open_session(stub, request, patience)
            patience = None
            self._session_metadata = _metadata_of(opened)
            request.worker_id = opened.worker_id
            _log.info("session open worker=%s incarnation=%d", opened.worker_id, opened.incarnation)
            self._engagement = Engagement(
                settings=self._settings,
                opened=opened,
                stub=stub,
                metadata=self._session_metadata,
                launcher=self._launcher,
                clock=self._clock,
            )
            self._on_session(opened)
            try:
                await self._engagement.run()
            except SessionLost as error:
                _log.warning("the session is lost, opening a new one: %s", error)
                self._engagement = None
                if self._stop_count:
                    return EXIT_DONE
                continue
            return EXIT_DONE

    async def _open_session(
        self,
        stub: "WorkerServiceAsyncStub",
        request: worker_service_pb2.CreateSessionRequest,
        patience: float | None,
    ) -> Opened:
        """A session, by the secret of the last one or by what this worker came with. Raises SessionError.

        A join token may be spent or have expired since; an operator's token is as good as ever.
        """
        if self._session_metadata and self._peer.token.startswith(JOIN_SCHEME):
            try:
                return await open_session(stub, request, self._session_metadata, self._clock, patience)
            except SessionRefused as error:
                _log.warning("the last session opens no other, joining again: %s", error)
        return await open_session(stub, request, self._peer.metadata, self._clock, patience)

    def _introduce(self) -> worker_service_pb2.CreateSessionRequest:
        """What this worker is and has."""
        gpus = detect_gpus()
        return worker_service_pb2.CreateSessionRequest(
            worker_id=self._settings.name,
            pool=self._settings.pool,
            labels=detect_labels(gpus, self._settings.labels),
            resources=detect_resources(gpus),
            slots=self._settings.slots,
            host=socket.gethostname(),
            process_id=os.getpid(),
            version=version("dtf"),
            launch_id=self._settings.launch_id,
        )


def _metadata_of(opened: Opened) -> Metadata:
    """What every call of a session carries."""
    credential = session_credential(opened.worker_id, opened.incarnation, opened.session_token)
    return (("authorization", f"Bearer {credential}"),)
