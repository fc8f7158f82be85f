"""Why nobody answers at an address, in a few words for people."""

import socket
from collections.abc import Sequence

from dtf.rpc.pinning import SpeaksPlain, TrustError, served_chain

PROBE_SECONDS = 1.0


def why_unreachable(addresses: Sequence[str], *, is_secure: bool = False) -> str:
    """What a connection to each address meets, for who calls over TLS or not. Blocks for some seconds an address."""
    found = [(address, _probe(address, is_secure)) for address in addresses]
    if len(found) == 1:
        return found[0][1]
    return "; ".join(f"{address}: {what}" for address, what in found)


def _probe(address: str, is_secure: bool) -> str:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS):
            pass
    except ConnectionRefusedError:
        return "connection refused"
    except TimeoutError:
        return "no answer"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return _with_tls(address) if is_secure else _without_tls(address)


def _without_tls(address: str) -> str:
    try:
        served_chain(address, PROBE_SECONDS)
    except TrustError:
        return "something listens there, but it does not speak gRPC, or only over TLS"
    return "it speaks TLS: certificate_authority_file must name its authority"


def _with_tls(address: str) -> str:
    try:
        served_chain(address, PROBE_SECONDS)
    except SpeaksPlain:
        return "it does not speak TLS: leave certificate_authority_file empty, or correct the address"
    except TrustError:
        return "something listens there, and does not answer"
    return "its certificate is of another authority than certificate_authority_file, or for another host"
