"""A certificate authority of dtf's own, and the certificates of its servers.

    authority-key.pem    the authority's key and certificate: whoever has it can pose as the coordinator
    authority.pem        its certificate alone, for clients: [run] certificate_authority_file
    former.pem           after a rotation: the new authority, signed by the one before
    coordinator.pem      key and certificate of the coordinators on this machine
    analyzer.pem         the same of the trend analyzer

All in one directory (0700), the files 0600; each is replaced at once, under a lock, so that
several processes may ask. A server's certificate lives for 90 days and is renewed when two thirds
of that are over, when it lacks a name, or when the authority is another; the authority's for ten years.

The authority signs nothing but the servers of one cluster. So each carries SERVER_NAME beside the
names and addresses of its machine, and whoever trusts this authority alone may ask for that name:
it does not matter then by which name or address a server is reached.

    a rotation            server ◀── new authority ◀── signed by the former one (former.pem)

Servers send their own certificate and, above it, the authority's: after a rotation the one that the
former authority signed. Who trusts the former one still reaches the servers, and who has a token from
before is refused, because nothing that is sent has the token's fingerprint. `rotate(keeps_former=False)`
ends that trust as well.
"""

import contextlib
import fcntl
import ipaddress
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dtf.ports.clock import Clock
from dtf.rpc.certificates import CertificateError, CertificatePair
from dtf.rpc.invitation import Trust
from dtf.rpc.pinning import fingerprint_of
from dtf.settings.project import write_private

SERVER_NAME = "coordinator.dtf.internal"
AUTHORITY_LIFETIME = timedelta(days=3650)
SERVER_LIFETIME = timedelta(days=90)
RENEWAL_RATIO = 1 / 3
"""Of its lifetime is left when a certificate is renewed: as ACME clients do."""
SKEW = timedelta(days=1)
"""Certificates are valid from a day ago: clocks of other machines may be behind."""

Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Issued:
    """A key, its certificate, and those above it."""

    key: Key = field(repr=False)
    certificates: tuple[x509.Certificate, ...]

    @property
    def certificate(self) -> x509.Certificate:
        """The one that belongs to the key."""
        return self.certificates[0]

    @property
    def key_pem(self) -> bytes:
        """The key, in PEM."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def chain_pem(self) -> bytes:
        """The certificates, in PEM."""
        return b"".join(item.public_bytes(Encoding.PEM) for item in self.certificates)


class OwnAuthority:
    """The authority in a directory, made when it is first asked for."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.directory = directory
        self._clock = clock

    @property
    def certificate_file(self) -> Path:
        """The authority's certificate, for clients."""
        return self.directory / "authority.pem"

    @property
    def exists(self) -> bool:
        """Whether there is one."""
        return (self.directory / "authority-key.pem").exists()

    def load(self) -> Issued:
        """The authority; made if there is none. Raises CertificateError."""
        with self._locked():
            return self._authority()

    def former(self) -> x509.Certificate | None:
        """The authority's certificate as the one before signed it, as long as that one is trusted."""
        path = self.directory / "former.pem"
        if not path.exists():
            return None
        with _reading(path):
            return x509.load_pem_x509_certificate(path.read_bytes())

    def rotate(self, *, keeps_former: bool = True) -> Issued:
        """Another authority in the place of this one. Raises CertificateError.

        With `keeps_former` those who trust the one before still reach the servers.
        """
        with self._locked():
            before = self._authority()
            made = self._make_authority()
            former = self.directory / "former.pem"
            if keeps_former:
                cross = self._sign_authority(made.key, before)
                write_private(former, cross.public_bytes(Encoding.PEM))
            else:
                former.unlink(missing_ok=True)
            self._store_authority(made)
            return made

    def server(self, role: str, names: Sequence[str]) -> Issued:
        """The certificate of the servers of one role, renewed if it is time. Raises CertificateError."""
        path = self.directory / f"{role}.pem"
        with self._locked():
            authority = self._authority()
            above = self.former() or authority.certificate
            found = _read_issued(path) if path.exists() else None
            if found is not None and self._is_good(found, authority, above, names):
                return found
            had = _names_of(found.certificate) if found is not None else []
            made = self._make_server(authority, above, [*dict.fromkeys([SERVER_NAME, *names, *had])])
            write_private(path, made.key_pem + made.chain_pem)
            return made

    def servers(self) -> Iterator[tuple[str, x509.Certificate]]:
        """The certificates that were made for servers, by role."""
        for path in sorted(self.directory.glob("*.pem")):
            if path.name not in ("authority.pem", "authority-key.pem", "former.pem"):
                yield path.stem, _read_issued(path).certificate

    def _is_good(
        self, found: Issued, authority: Issued, above: x509.Certificate, names: Sequence[str]
    ) -> bool:
        own = found.certificate
        lifetime = own.not_valid_after_utc - own.not_valid_before_utc
        if own.not_valid_after_utc - self._now() < lifetime * RENEWAL_RATIO:
            return False
        is_ours = own.issuer == authority.certificate.subject and found.certificates[-1] == above
        return is_ours and set(names) <= set(_names_of(own))

    def _authority(self) -> Issued:
        path = self.directory / "authority-key.pem"
        if not path.exists():
            if self.certificate_file.exists():
                raise CertificateError(
                    f"{path} is missing, and {self.certificate_file.name} is there: put the key back from a copy, or "
                    "remove both and let dtf make another authority, which needs new join tokens"
                )
            made = self._make_authority()
            self._store_authority(made)
            return made
        found = _read_issued(path)
        if found.certificate.not_valid_after_utc <= self._now():
            raise CertificateError(
                f"the authority in {self.directory} expired on {found.certificate.not_valid_after_utc:%Y-%m-%d}; "
                "`dtf certificates rotate` makes another, and workers outside need new join tokens"
            )
        if not self.certificate_file.exists():
            write_private(self.certificate_file, found.chain_pem)
        return found

    def _store_authority(self, made: Issued) -> None:
        write_private(self.directory / "authority-key.pem", made.key_pem + made.chain_pem)
        write_private(self.certificate_file, made.chain_pem)

    def _make_authority(self) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        # A name of its own, so that no two authorities are taken for one another when chains are built.
        name = _name(f"dtf authority {_key_digest(key)[:12]}")
        certificate = _authority_builder(key, name, name, self._now(), AUTHORITY_LIFETIME)
        return Issued(key, (certificate.sign(key, hashes.SHA256()),))

    def _sign_authority(self, key: Key, signer: Issued) -> x509.Certificate:
        """The authority of `key`, as `signer` vouches for it."""
        name = _name(f"dtf authority {_key_digest(key)[:12]}")
        issuer = signer.certificate
        lifetime = min(AUTHORITY_LIFETIME, issuer.not_valid_after_utc - self._now())
        builder = _authority_builder(key, name, issuer.subject, self._now(), lifetime)
        return builder.sign(signer.key, hashes.SHA256())

    def _make_server(self, authority: Issued, above: x509.Certificate, names: Sequence[str]) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        now = self._now()
        until = min(now + SERVER_LIFETIME, authority.certificate.not_valid_after_utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name("dtf server"))
            .issuer_name(authority.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
            )
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(authority.key, hashes.SHA256())
        )
        return Issued(key, (certificate, above))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_ns() // 10**9, UTC)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among all processes that ask. Raises CertificateError."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (self.directory / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise CertificateError(f"the certificates in {self.directory} cannot be used: {error}") from error


class OwnCertificates:
    """What servers of one role show: signed by the own authority, renewed as they are asked for.

    May be asked by several threads. Files are read again when they change, and looked at for
    renewal once an hour: a handshake costs a look at their times.
    """

    def __init__(
        self, authority: OwnAuthority, role: str, names: Callable[[], Sequence[str]], clock: Clock
    ) -> None:
        self._authority = authority
        self._role = role
        self._names = names
        self._clock = clock
        self._lock = threading.Lock()
        self._issued: Issued | None = None
        self._stamp: tuple[int, ...] = ()
        self._looked_at = 0.0

    def current(self) -> CertificatePair:
        """The key and its certificates. Raises CertificateError."""
        issued = self._current()
        return CertificatePair(issued.key_pem, issued.chain_pem)

    def trust(self) -> Trust:
        """The authority as it is sent, and the name that it signs for."""
        above = self._current().certificates[-1]
        return Trust(fingerprint_of(above.public_bytes(Encoding.DER)), SERVER_NAME)

    def _current(self) -> Issued:
        with self._lock:
            now = self._clock.monotonic()
            if self._issued is None or self._times() != self._stamp or now - self._looked_at > _LOOK_SECONDS:
                self._issued = self._authority.server(self._role, self._names())
                self._stamp, self._looked_at = self._times(), now
            return self._issued

    def _times(self) -> tuple[int, ...]:
        found = []
        for name in ("authority-key.pem", "former.pem", f"{self._role}.pem"):
            with contextlib.suppress(OSError):
                found.append((self._authority.directory / name).stat().st_mtime_ns)
        return tuple(found)


_LOOK_SECONDS = 3600.0


def describe(certificate: x509.Certificate) -> dict[str, object]:
    """What people ask about a certificate."""
    return {
        "subject": certificate.subject.rfc4514_string().removeprefix("CN="),
        "fingerprint": fingerprint_of(certificate.public_bytes(Encoding.DER)),
        "expires": certificate.not_valid_after_utc.isoformat(),
        "names": _names_of(certificate),
    }


def _authority_builder(
    key: Key, subject: x509.Name, issuer: x509.Name, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_digest(key: Key) -> str:
    return fingerprint_of(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names_of(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(item.value) for item in names]


def _read_issued(path: Path) -> Issued:
    """A key and its certificates. Raises CertificateError."""
    with _reading(path):
        data = path.read_bytes()
        key = load_pem_private_key(data, None)
        certificates = tuple(x509.load_pem_x509_certificates(data))
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("its key is of another kind than dtf makes")
        if certificates[0].public_key() != key.public_key():
            raise ValueError("its key and its certificate do not belong together")
        return Issued(key, certificates)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError) as error:
        raise CertificateError(
            f"{path} cannot be used: {error}; put it back from a copy, or remove it and let dtf make another"
        ) from error
