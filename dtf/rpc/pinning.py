"""Whom a worker talks to: the certificate behind a fingerprint, fetched before anything is said.

    connect, TLS without verifying ─▶ the server's certificates ─▶ one has the fingerprint ─▶ close
    a channel that trusts that certificate alone ─▶ the secret

The first connection carries nothing of ours. What it brings is public, and is believed only as far
as its SHA-256 is the one in the token; whoever shows another's certificate without its key fails
when the channel verifies.
"""

import hashlib
import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dtf.rpc.invitation import SYSTEM_ROOTS, Trust

FETCH_SECONDS = 5.0
_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.[0-9]+")
_PLAINTEXT_REASONS = frozenset(
    {"WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE"}
)


class TrustError(Exception):
    """Nothing was said to the server.

    TrustError
    ├── Unreachable      nobody answers there
    ├── SpeaksPlain      it answers, and does not speak TLS
    ├── Impostor         none of its certificates is the one that is to be trusted
    └── NoRoots          this machine trusts no authority
    """


class Unreachable(TrustError):
    """Nobody answers there."""


class SpeaksPlain(TrustError):
    """It answers, and does not speak TLS."""


class Impostor(TrustError):
    """None of its certificates is the one that is to be trusted."""


class NoRoots(TrustError):
    """The system's authorities are to be trusted, and this machine has none."""


def fingerprint_of(certificate: bytes) -> str:
    """SHA-256 of a certificate in DER, in hexadecimal digits."""
    return hashlib.sha256(certificate).hexdigest()


def split_chain(chain: bytes) -> list[bytes]:
    """The certificates of a PEM text, in DER. Raises ValueError if there is none, or one is no certificate."""
    end = "-----END CERTIFICATE-----"
    text = chain.decode("ascii", errors="replace")
    blocks = [part[part.index("-----BEGIN CERTIFICATE") :] + end for part in text.split(end)[:-1]]
    if not blocks:
        raise ValueError("it holds no certificate in PEM")
    return [ssl.PEM_cert_to_DER_cert(block) for block in blocks]


def trusted_roots(addresses: Sequence[str], trust: Trust) -> bytes | None:
    """The certificates, in PEM, that a channel to these addresses is to trust; None: no TLS. Raises TrustError.

    Blocks for some seconds an address at most. The first address that shows the right certificate
    is enough: the channel verifies each server that it meets.
    """
    if not trust.fingerprint:
        return None
    if trust.fingerprint == SYSTEM_ROOTS:
        return _system_roots()
    faults: list[TrustError] = []
    for address in addresses:
        try:
            return pinned_certificate(address, trust.fingerprint)
        except TrustError as error:
            faults.append(error)
    # What was seen says more than what did not answer.
    faults.sort(key=lambda fault: isinstance(fault, Unreachable))
    raise faults[0] if faults else Unreachable("the join token names no address")


def pinned_certificate(address: str, fingerprint: str) -> bytes:
    """The certificate, in PEM, with this fingerprint, of those that a server sends. Raises TrustError."""
    chain = served_chain(address)
    for certificate in chain:
        if fingerprint_of(certificate) == fingerprint:
            return ssl.DER_cert_to_PEM_cert(certificate).encode()
    raise Impostor(
        f"{address} is not the coordinator of this token: it shows the authority {fingerprint_of(chain[-1])[:16]}…, "
        f"the token says {fingerprint[:16]}…"
    )


def served_chain(address: str, timeout_seconds: float = FETCH_SECONDS) -> list[bytes]:
    """The certificates, in DER, that a server sends, its own first; not verified. Raises TrustError."""
    host, _, port = address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), timeout_seconds) as connection,
            context.wrap_socket(connection) as secured,
        ):
            return _unverified_chain(secured)
    except ssl.SSLError as error:
        if error.reason in _PLAINTEXT_REASONS or isinstance(error, ssl.SSLEOFError):
            raise SpeaksPlain(f"{address} answers, and does not speak TLS") from None
        raise SpeaksPlain(f"{address} answers, and TLS fails with it: {error.reason}") from None
    except ConnectionResetError:
        raise SpeaksPlain(f"{address} answers, and does not speak TLS") from None
    except ConnectionRefusedError:
        raise Unreachable(f"nobody listens at {address}: connection refused") from None
    except TimeoutError:
        raise Unreachable(f"{address} does not answer within {timeout_seconds:g} s") from None
    except OSError as error:
        raise Unreachable(f"{address} cannot be reached: {error.strerror or error}") from None


def _unverified_chain(secured: ssl.SSLSocket) -> list[bytes]:
    """What Python 3.13 calls SSLSocket.get_unverified_chain; before that the socket keeps it to itself."""
    public: Any = getattr(secured, "get_unverified_chain", None)
    if public is not None:
        return [bytes(certificate) for certificate in public()]
    private: Any = secured
    return [
        ssl.PEM_cert_to_DER_cert(certificate.public_bytes())
        for certificate in private._sslobj.get_unverified_chain()
    ]


def _system_roots() -> bytes:
    """What OpenSSL trusts on this machine, never nothing. Raises NoRoots."""
    found = ssl.create_default_context().get_ca_certs(binary_form=True) or list(
        dict.fromkeys(_in_directory())
    )
    if not found:
        raise NoRoots(
            "the coordinator is trusted by the system's certificate authorities, and this machine has none; "
            "nothing was sent"
        )
    return "".join(map(ssl.DER_cert_to_PEM_cert, found)).encode()


def _in_directory() -> Iterator[bytes]:
    """The authorities of OpenSSL's directory, which it reads one at a time and so does not list."""
    directory = ssl.get_default_verify_paths().capath
    for path in sorted(Path(directory).iterdir()) if directory else ():
        if _HASHED_NAME.fullmatch(path.name):
            try:
                yield from split_chain(path.read_bytes())
            except (OSError, ValueError):
                continue  # OpenSSL passes over it too
