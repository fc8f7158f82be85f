"""What a server shows to whoever connects: a key, its certificate, and how callers trust it.

Asked anew at each handshake, so that a certificate that was renewed or replaced is served without a
restart; connections that are open stay as they are.
"""

import logging
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dtf.rpc.invitation import SYSTEM_ROOTS, Trust
from dtf.rpc.pinning import fingerprint_of, split_chain

log = logging.getLogger(__name__)


class CertificateError(Exception):
    """There is no certificate to show; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class CertificatePair:
    """A key and the certificates that go with it, in PEM, the server's own first."""

    key: bytes = field(repr=False)
    chain: bytes


class ServerCertificates(Protocol):
    """Where a server's certificates come from."""

    def current(self) -> CertificatePair:
        """What to show now. Raises CertificateError."""
        ...

    def trust(self) -> Trust:
        """How callers trust what is shown now. Raises CertificateError."""
        ...


class TlsFiles(Protocol):
    """The part of a server's settings that names the operator's certificate."""

    @property
    def tls_certificate_file(self) -> str: ...

    @property
    def tls_key_file(self) -> str: ...


def certificates_of(settings: TlsFiles) -> "FileCertificates | None":
    """The operator's own certificates, where settings name their files."""
    if not settings.tls_certificate_file and not settings.tls_key_file:
        return None
    has_system_trust = getattr(settings, "tls_trust", "") == "system"
    return FileCertificates(
        settings.tls_certificate_file, settings.tls_key_file, has_system_trust=has_system_trust
    )


class FileCertificates:
    """The operator's own: two PEM files, read again when they change.

    While they cannot be read, or do not hold what they should, the last that could are shown.
    """

    def __init__(self, certificate_file: str, key_file: str, *, has_system_trust: bool = False) -> None:
        self._paths = (Path(key_file), Path(certificate_file))
        self._has_system_trust = has_system_trust
        self._stamps: tuple[tuple[int, int], ...] = ()
        self._pair: CertificatePair | None = None

    def current(self) -> CertificatePair:
        """The files' content. Raises CertificateError if it never could be read."""
        if not all(path.name for path in self._paths):
            raise CertificateError(
                "TLS needs both files: set tls_certificate_file and tls_key_file, or neither"
            )
        try:
            stamps = tuple((found.st_mtime_ns, found.st_size) for found in (p.stat() for p in self._paths))
            if self._pair is None or stamps != self._stamps:
                key, chain = (path.read_bytes() for path in self._paths)
                split_chain(chain)
                self._check()
                self._pair, self._stamps = CertificatePair(key, chain), stamps
        except (OSError, ValueError) as error:
            if self._pair is None:
                raise CertificateError(f"a TLS file cannot be read: {error}") from error
            log.warning("the TLS files cannot be read, the earlier ones are still served: %s", error)
        return self._pair

    def _check(self) -> None:
        """Raises ssl.SSLError, an OSError, unless key and certificate belong together."""
        key, certificate = self._paths
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: b"")

    def trust(self) -> Trust:
        """The topmost certificate that is sent, unless machines trust its authority anyway."""
        if self._has_system_trust:
            return Trust(SYSTEM_ROOTS)
        return Trust(fingerprint_of(split_chain(self.current().chain)[-1]))
