"""Wrong credentials, by the address they came from: after a few, that address has to wait.

Each address may fail BURST times, and once more for every REFILL_SECONDS that pass. One that has used
that up is barred until the next is due: its calls are refused unread, right credentials included, or
a short token could be found by trying. Workers whose session is open are known by a secret that
cannot be found so, and are never barred; nor are callers on this machine, which could read the token's file.

At most MOST_ADDRESSES are remembered, those that failed last. The addresses of one IPv6 network
(/64) are one.
"""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

BURST = 20
REFILL_SECONDS = 3.0
MOST_ADDRESSES = 4096


@dataclass(slots=True)
class _Record:
    tokens: float
    """Failures that are still allowed."""
    at: float


class FailedAttempts:
    """Counts failures; not for several threads."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def note(self, peer: str) -> bool:
        """A call from `peer` (as gRPC writes it) had wrong credentials; whether it is the first of late."""
        source = source_of(peer)
        if not source:
            return True
        now = self._monotonic()
        record = self._records.pop(source, None)
        is_first = record is None
        record = record or _Record(BURST, now)
        self._refill(record, now)
        record.tokens = max(record.tokens - 1, 0.0)
        self._records[source] = record
        while len(self._records) > MOST_ADDRESSES:
            self._records.popitem(last=False)
        return is_first

    def wait_seconds(self, peer: str) -> float:
        """How long `peer` has to wait; 0: it need not."""
        source = source_of(peer)
        record = self._records.get(source)
        if record is None:
            return 0.0
        self._refill(record, self._monotonic())
        if record.tokens >= BURST:
            del self._records[source]
        return 0.0 if record.tokens >= 1 else (1 - record.tokens) * REFILL_SECONDS

    @staticmethod
    def _refill(record: _Record, now: float) -> None:
        record.tokens = min(BURST, record.tokens + (now - record.at) / REFILL_SECONDS)
        record.at = now


def source_of(peer: str) -> str:
    """The address, or IPv6 network, behind "ipv4:192.0.2.7:4711"; "" for this machine's own."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return "" if kind == "unix" else peer
    host = unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            network = ipaddress.ip_network((address, 64), strict=False)
            return "" if address.is_loopback else str(network)
        address = address.ipv4_mapped
    return "" if address.is_loopback else str(address)
