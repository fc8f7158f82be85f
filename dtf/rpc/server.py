"""A gRPC server as both the coordinator and the trend analyzer run it.

Standard health and reflection beside the services given; a credential on everything else; TLS
where there are certificates; beyond loopback never without TLS and a token.
"""

import ipaddress
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from dtf.rpc.auth import Access, Gatekeeper, OperatorAccess
from dtf.rpc.certificates import CertificateError, CertificatePair, ServerCertificates
from dtf.rpc.channel import server_options
from dtf.rpc.open_calls import Health, SmallRequests
from dtf.rpc.soundness import SoundRequests

log = logging.getLogger(__name__)

STOP_GRACE_SECONDS = 1.0
"""How long calls may go on after the listener closed: watchers and sessions never end by themselves."""


class ListenError(Exception):
    """The server cannot listen as asked; the message says why and what to do."""


class UnsafeListen(ListenError):
    """Beyond loopback without TLS or without a token."""


class AddressInUse(ListenError):
    """Something else listens there."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen, and how safely."""

    text: str
    """host:port; port 0: any free one."""
    token: str = field(repr=False)
    """The bearer token every call must carry; empty: none, which only loopback allows."""
    certificates: ServerCertificates | None = None
    """What to show; None: no TLS, which only loopback allows."""

    @property
    def host(self) -> str:
        """The part before the port."""
        return self.text.rpartition(":")[0]

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        host = self.host.strip("[]")
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    def credentials(self) -> grpc.ServerCredentials | None:
        """TLS credentials, or None where there are no certificates. Raises ListenError."""
        if self.certificates is None:
            return None
        try:
            shown = _Shown(self.certificates)
        except CertificateError as error:
            raise ListenError(str(error)) from error
        return grpc.dynamic_ssl_server_credentials(shown.configuration, shown.refresh)

    def check(self) -> None:
        """Raises ListenError unless this may be listened on."""
        host, _, port = self.text.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ListenError(f"listen address {self.text!r} is not host:port (port 0: any free one)")
        if self.is_loopback:
            return
        missing = [name for name, value in (("TLS", self.certificates), ("a token", self.token)) if not value]
        if missing:
            raise UnsafeListen(
                f"refusing to listen on {self.text}, beyond loopback, without {' and '.join(missing)}: whoever can "
                f"submit can run code; {' and '.join(map(_REMEDIES.__getitem__, missing))}, or listen on 127.0.0.1"
            )


_REMEDIES = {
    "TLS": 'leave tls at "auto" (or set tls_certificate_file and tls_key_file)',
    "a token": "set token_file",
}


class _Shown:
    """What the server shows, asked for at each handshake, in threads of gRPC's own."""

    def __init__(self, certificates: ServerCertificates) -> None:
        self._certificates = certificates
        self._pair = certificates.current()
        self.configuration = _configuration(self._pair)

    def refresh(self) -> grpc.ServerCertificateConfiguration:
        """What to show now; what was shown before where that cannot be told."""
        try:
            pair = self._certificates.current()
        except CertificateError as error:
            log.warning("the earlier certificate is still served: %s", error)
            return self.configuration
        if pair != self._pair:
            log.info("another certificate is served from now on")
            self._pair, self.configuration = pair, _configuration(pair)
        return self.configuration


def _configuration(pair: CertificatePair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)])


Service = tuple[str, Callable[[Any, grpc.aio.Server], None], Any]
"""Full name, the generated add_…_to_server function, the servicer."""


class RpcServer:
    """One listener with its services. `start` gives the address, `stop` ends it.

    `bind` takes the port ahead of `start`, for a process that must know it can listen before it
    does anything that others see. `reserve` holds it without listening, for one that is not to
    serve yet: who calls is refused at once and tries another address.
    """

    def __init__(
        self, address: ListenAddress, services: Sequence[Service] = (), *, access: Access | None = None
    ) -> None:
        """`access` knows callers by their credentials; None: who has the address's token may do all."""
        self._address = address
        self._access = access or (OperatorAccess(address.token) if address.token else None)
        self._services = tuple(services)
        self._server: grpc.aio.Server | None = None
        self._bound = ""
        self._reserved: socket.socket | None = None
        self._health = Health()

    def reserve(self) -> str:
        """Hold the port without listening; return host:port. Raises ListenError."""
        self._address.check()
        self._address.credentials()
        try:
            _probe(self._address)
            self._reserved = _bound_socket(self._address)
        except OSError as error:
            raise _in_use(self._address.text, str(error)) from error
        port = self._reserved.getsockname()[1]
        self._address = replace(self._address, text=f"{self._address.host}:{port}")
        return self._address.text

    def bind(self) -> str:
        """Take the port; return host:port. Raises ListenError."""
        self._address.check()
        credentials = self._address.credentials()
        interceptors: list[grpc.aio.ServerInterceptor] = [SmallRequests(), SoundRequests()]
        if self._access is not None:
            interceptors.insert(0, Gatekeeper(self._access))
        server = grpc.aio.server(interceptors=interceptors, options=server_options())
        self._bound = f"{self._address.host}:{self._take_port(server, credentials)}"
        self._server = server
        return self._bound

    async def start(self, services: Sequence[Service] = ()) -> str:
        """Serve, with `services` beside those given before; return host:port. Raises ListenError."""
        if self._server is None:
            self.bind()
        server = self._server
        if server is None:
            raise RuntimeError("the server was stopped while it started")
        self._services += tuple(services)
        self._add_services(server)
        await server.start()
        await self._report(health_pb2.HealthCheckResponse.SERVING)
        return self._bound

    async def stop(self, grace_seconds: float = STOP_GRACE_SECONDS) -> None:
        """Close the listener, tell probes, let calls end within the grace."""
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        if self._server is None:
            return
        await self._report(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._server.stop(grace_seconds)
        self._server = None

    def _add_services(self, server: grpc.aio.Server) -> None:
        for _name, add, servicer in self._services:
            add(servicer, server)
        add_health: Any = health_pb2_grpc.add_HealthServicer_to_server
        add_health(self._health, server)
        names = [name for name, _add, _servicer in self._services]
        add_reflection: Any = reflection.enable_server_reflection
        add_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)

    def _take_port(self, server: grpc.aio.Server, credentials: grpc.ServerCredentials | None) -> int:
        text = self._address.text
        try:
            _probe(self._address)
            port = (
                server.add_insecure_port(text)
                if credentials is None
                else server.add_secure_port(text, credentials)
            )
        except (OSError, RuntimeError) as error:
            raise _in_use(text, str(error)) from error
        if port == 0:
            raise _in_use(text, "nothing was bound")
        return port

    async def _report(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in ("", *(name for name, _add, _servicer in self._services)):
            await self._health.set(name, status)


def _probe(address: ListenAddress) -> None:
    """Raises OSError if the port is taken: gRPC would say so too, in lines of its own on standard error."""
    with _bound_socket(address) as probe:
        probe.listen(1)


def _bound_socket(address: ListenAddress) -> socket.socket:
    """A socket that holds the port. It does not listen, so a server that sets SO_REUSEADDR, as gRPC's do, still may."""
    host, _, port = address.text.rpartition(":")
    family, kind, protocol, _name, target = socket.getaddrinfo(
        host.strip("[]"), int(port), type=socket.SOCK_STREAM
    )[0]
    held = socket.socket(family, kind, protocol)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(target)
    except OSError:
        held.close()
        raise
    return held


def _in_use(text: str, cause: str) -> AddressInUse:
    return AddressInUse(
        f"cannot listen on {text}: the port is taken or the address is not this machine's ({cause}); "
        "stop what listens there, or choose another with listen (port 0: any free one)"
    )
