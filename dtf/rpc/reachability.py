"""Why nobody answers at an address, in a few words for people."""

import socket
from collections.abc import Sequence

PROBE_SECONDS = 1.0


def why_unreachable(addresses: Sequence[str]) -> str:
    """What a plain connection to each address meets. Blocks for a second an address at most."""
    found = [(address, _probe(address)) for address in addresses]
    if len(found) == 1:
        return found[0][1]
    return "; ".join(f"{address}: {what}" for address, what in found)


def _probe(address: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS):
            return "something listens there, but it does not speak gRPC, or only over TLS"
    except ConnectionRefusedError:
        return "connection refused"
    except TimeoutError:
        return "no answer"
    except OSError as error:
        return (error.strerror or str(error)).lower()
