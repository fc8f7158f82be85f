"""Channels to the coordinator and the trend analyzer, for clients and workers.

Why these values: with keepalive alone a frozen peer is seen after 65 s; together with
ping_timeout_ms after keepalive time plus timeout. Messages above 1 MiB are never sent on purpose;
the receive limit leaves room for one that is. The back-off is gRPC's own, with jitter.

Who knows several coordinators expects one of them to take over within seconds: it notices a frozen
one in two seconds instead of thirty, and tries all addresses again twice a second. gRPC's
pick_first does the rest (measured: moved over .1 to .5 s after the next one listens).
"""

import ipaddress
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio

from dtf.api.v1 import run_service_pb2, worker_service_pb2
from dtf.rpc.addresses import parse_addresses as parse_addresses

KEEPALIVE_SECONDS = 20.0
KEEPALIVE_TIMEOUT_SECONDS = 10.0
SEVERAL_KEEPALIVE_SECONDS = 0.7
SEVERAL_KEEPALIVE_TIMEOUT_SECONDS = 0.8
MINIMUM_PING_INTERVAL_SECONDS = 10.0
TOLERATED_PING_INTERVAL_SECONDS = 0.5
"""What a server tolerates; below every keepalive of a client, or it would close the connection."""
RECEIVE_LIMIT_BYTES = 16 * 2**20
SEND_TARGET_BYTES = 2**20
FIRST_RECONNECT_SECONDS = 0.2
LONGEST_RECONNECT_SECONDS = 5.0
SEVERAL_FIRST_RECONNECT_SECONDS = 0.1
SEVERAL_LONGEST_RECONNECT_SECONDS = 0.5
NEXT_ADDRESS_SECONDS = 0.1
"""How long an address may take to answer before the next one is tried beside it."""


def _service_config() -> str:
    """What gRPC repeats by itself: calls of one request, when the server went away before it answered.

    Not streams of requests: when one is repeated while it is being written, gRPC (1.85.1) may leave a
    message out (docs/reliability.md). Who opens one repeats it.
    """
    streams = [
        {"service": service.full_name, "method": method.name}
        for file in (run_service_pb2.DESCRIPTOR, worker_service_pb2.DESCRIPTOR)
        for service in file.services_by_name.values()
        for method in service.methods
        if method.client_streaming
    ]
    retry = {
        "maxAttempts": 5,
        "initialBackoff": "0.2s",
        "maxBackoff": "3s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],  # see errors.SERVER_WENT
    }
    return json.dumps({"methodConfig": [{"name": streams}, {"name": [{}], "retryPolicy": retry}]})


_SERVICE_CONFIG = _service_config()

Option = tuple[str, int | str]


def channel_options(address_count: int = 1) -> list[Option]:
    """Options of every channel that dtf opens."""
    several = address_count > 1
    keepalive = SEVERAL_KEEPALIVE_SECONDS if several else KEEPALIVE_SECONDS
    timeout = SEVERAL_KEEPALIVE_TIMEOUT_SECONDS if several else KEEPALIVE_TIMEOUT_SECONDS
    first = SEVERAL_FIRST_RECONNECT_SECONDS if several else FIRST_RECONNECT_SECONDS
    longest = SEVERAL_LONGEST_RECONNECT_SECONDS if several else LONGEST_RECONNECT_SECONDS
    return [
        ("grpc.keepalive_time_ms", int(keepalive * 1000)),
        ("grpc.keepalive_timeout_ms", int(timeout * 1000)),
        ("grpc.http2.ping_timeout_ms", int(timeout * 1000)),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.max_receive_message_length", RECEIVE_LIMIT_BYTES),
        ("grpc.initial_reconnect_backoff_ms", int(first * 1000)),
        ("grpc.min_reconnect_backoff_ms", int(first * 1000)),
        ("grpc.max_reconnect_backoff_ms", int(longest * 1000)),
        ("grpc.happy_eyeballs_connection_attempt_delay_ms", int(NEXT_ADDRESS_SECONDS * 1000)),
        ("grpc.enable_retries", 1),
        ("grpc.service_config", _SERVICE_CONFIG),
    ]


def server_options() -> list[Option]:
    """Options of every server that dtf starts."""
    return [
        ("grpc.keepalive_time_ms", int(KEEPALIVE_SECONDS * 1000)),
        ("grpc.keepalive_timeout_ms", int(KEEPALIVE_TIMEOUT_SECONDS * 1000)),
        ("grpc.http2.ping_timeout_ms", int(KEEPALIVE_TIMEOUT_SECONDS * 1000)),
        ("grpc.http2.min_ping_interval_without_data_ms", int(MINIMUM_PING_INTERVAL_SECONDS * 1000)),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", int(TOLERATED_PING_INTERVAL_SECONDS * 1000)),
        ("grpc.max_receive_message_length", RECEIVE_LIMIT_BYTES),
        ("grpc.so_reuseport", 0),
    ]


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom to call and how to prove who calls."""

    addresses: tuple[str, ...]
    """host:port of each; the first that answers is used."""
    token: str = field(default="", repr=False)
    """What proves who calls: the operators' token, or what a worker shows (dtf.rpc.invitation)."""
    certificate_authority_file: str = ""
    """PEM file; when given the connection is TLS."""
    roots: bytes | None = None
    """Certificates to trust, in PEM, in the place of the file; None: the file says. Never empty: see below."""
    server_name: str = ""
    """Name that the certificates must carry; empty: that of the host."""

    def __post_init__(self) -> None:
        """Raises ValueError if TLS is asked for and nothing is trusted: it must not become a plain connection."""
        if self.roots is not None and not self.roots.strip():
            raise ValueError(
                f"a TLS connection to {', '.join(self.addresses)} is asked for, and no certificate is trusted; "
                "give the authority's certificate, or None for a connection without TLS"
            )

    @property
    def is_secure(self) -> bool:
        """Whether the connection is TLS."""
        return self.roots is not None or bool(self.certificate_authority_file)

    @property
    def target(self) -> str:
        """gRPC's name of the addresses."""
        if len(self.addresses) == 1:
            return self.addresses[0]
        found = [resolved for address in self.addresses for resolved in _resolve(address)]
        if not found:
            return self.addresses[0]  # gRPC tries the name again and again, and says so
        family = "ipv6" if found[0].startswith("[") else "ipv4"
        return f"{family}:{','.join(item for item in found if item.startswith('[') == (family == 'ipv6'))}"

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()


def _resolve(address: str) -> list[str]:
    """The numeric addresses that a host:port stands for now; none if its name is not known."""
    host, _, port = address.rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
        return [address]
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError:
        return []
    hosts = [str(item[4][0]) for item in found]
    return [f"[{one}]:{port}" if ":" in one else f"{one}:{port}" for one in hosts]


def _options(peer: Peer, extra: Sequence[Option]) -> list[Option]:
    options: dict[str, int | str] = dict(channel_options(len(peer.addresses)))
    options.update(extra)  # gRPC takes the first of two options of one name
    if peer.server_name:
        options["grpc.ssl_target_name_override"] = peer.server_name
    elif len(peer.addresses) > 1 and peer.is_secure:
        # A list of addresses has no name of its own: every certificate must be good for the first host's.
        options["grpc.ssl_target_name_override"] = peer.addresses[0].rpartition(":")[0].strip("[]")
    return list(options.items())


def _secure(peer: Peer) -> grpc.ChannelCredentials | None:
    if not peer.is_secure:
        return None
    roots = Path(peer.certificate_authority_file).read_bytes() if peer.roots is None else peer.roots
    return grpc.ssl_channel_credentials(roots)


def open_channel(peer: Peer, extra: Sequence[Option] = ()) -> grpc.aio.Channel:
    """An asyncio channel. Pass `peer.metadata` with each call."""
    options = _options(peer, extra)
    credentials = _secure(peer)
    if credentials is None:
        return grpc.aio.insecure_channel(peer.target, options=options)
    return grpc.aio.secure_channel(peer.target, credentials, options=options)


def open_sync_channel(peer: Peer, extra: Sequence[Option] = ()) -> grpc.Channel:
    """A blocking channel. Pass `peer.metadata` with each call."""
    options = _options(peer, extra)
    credentials = _secure(peer)
    if credentials is None:
        return grpc.insecure_channel(peer.target, options=options)
    return grpc.secure_channel(peer.target, credentials, options=options)
