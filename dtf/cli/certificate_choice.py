"""Which certificates a server of this project shows: the operator's, those of dtf's own authority, or none."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from dtf.ports.clock import Clock
from dtf.rpc.addresses import is_loopback, names_of_machine, parse_addresses
from dtf.rpc.certificates import ServerCertificates, TlsFiles, certificates_of
from dtf.settings.model import Settings


class Listening(TlsFiles, Protocol):
    """The part of a server's settings that says where and how it listens."""

    @property
    def listen(self) -> str: ...

    @property
    def tls(self) -> str: ...


def certificates_dir(state: Path) -> Path:
    """Where the own authority keeps its files in a state directory."""
    return state / "secrets" / "tls"


def uses_own_authority(server: Listening) -> bool:
    """Whether the server shows a certificate of dtf's own authority."""
    if server.tls_certificate_file or server.tls_key_file or server.tls == "off":
        return False
    return server.tls == "own" or not is_loopback(server.listen)


def coordinator_certificates(settings: Settings, state: Path, clock: Clock) -> ServerCertificates | None:
    """What the coordinator shows; None: no TLS. Raises ValueError for a bad `advertise`."""
    own = settings.coordinator
    advertised = parse_addresses(own.advertise) if own.advertise else ()
    return _certificates(own, "coordinator", state, clock, advertised)


def analyzer_certificates(settings: Settings, state: Path, clock: Clock) -> ServerCertificates | None:
    """What the trend analyzer shows; None: no TLS."""
    return _certificates(settings.analyzer, "analyzer", state, clock)


def _certificates(
    server: Listening, role: str, state: Path, clock: Clock, advertised: Sequence[str] = ()
) -> ServerCertificates | None:
    if not uses_own_authority(server):
        return certificates_of(server)
    # Imported here, because nobody on loopback needs it and it takes a while.
    from dtf.adapters.certificates import OwnAuthority, OwnCertificates

    names = partial(names_of_machine, server.listen, advertised)
    return OwnCertificates(OwnAuthority(certificates_dir(state), clock), role, names, clock)
