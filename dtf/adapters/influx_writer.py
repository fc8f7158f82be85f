"""Lines into a bucket: what InfluxDB takes is written, what it refuses for good is kept aside.

InfluxDB 2.7 answers a request that holds a bad point in one of three ways, and names the first fault only:

    422  "partial write": a field of another type than the shard has, or older than the bucket keeps;
         the rest of the request was written; `dropped` may be too low, where faults of both kinds meet
    400  "unable to parse": a line is not line protocol; nothing of the request was written
    413  the request is too large; nothing was written

So a refused request is halved until the refusal is of single points, or counts every point of a piece.
Writing a point again replaces it, which makes the halves harmless. n bad points in a row cost about
2 log2(LINES_PER_REQUEST) requests more.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from influxdb_client.rest import ApiException

from dtf.adapters.rejected_points import RejectedPoints

LINES_PER_REQUEST = 5_000
"""What InfluxData recommends (Optimize writes to InfluxDB)."""

_DROPPED = re.compile(r"\bdropped=(\d+)")
_CONFLICT = re.compile(r"field type conflict: (.*?)(?: dropped=\d+.*)?$", re.DOTALL)
_RETENTION = re.compile(r"outside retention policy of duration (\S+)")
_UNPARSABLE = re.compile(r"unable to parse '.*?': (.*)", re.DOTALL)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request was not taken whole."""

    reason: str
    dropped: int = 0
    """Points that were certainly not written; 0: unknown."""


class InfluxWriter:
    """Writes lines by `send`, one request a call, which raises ApiException. Blocks."""

    def __init__(self, send: Callable[[bytes], None], rejected: RejectedPoints | None) -> None:
        self._send = send
        self._rejected = rejected

    def write(self, lines: Iterable[str]) -> None:
        """Write each line or set it aside. Raises ApiException when the fault is not the points'."""
        for _count in self.write_by_chunk(lines):
            pass

    def write_by_chunk(self, lines: Iterable[str]) -> Iterator[int]:
        """The same, chunk by chunk: how many lines each was, once it is written."""
        waiting = iter(lines)
        while chunk := list(islice(waiting, LINES_PER_REQUEST)):
            self._write_chunk(chunk)
            yield len(chunk)

    def _write_chunk(self, chunk: list[str]) -> None:
        pieces = [chunk]
        while pieces:
            piece = pieces.pop()
            refusal = self._try(piece)
            if refusal is None:
                continue
            if len(piece) == 1 or refusal.dropped == len(piece):
                self._set_aside(piece, refusal.reason)
            else:
                middle = len(piece) // 2
                pieces += [piece[middle:], piece[:middle]]

    def _try(self, piece: Sequence[str]) -> Refusal | None:
        try:
            self._send("\n".join(piece).encode())
        except ApiException as error:
            refusal = refusal_of(error.status, error.message or "")
            if refusal is None:
                raise
            return refusal
        return None

    def _set_aside(self, points: Sequence[str], reason: str) -> None:
        if self._rejected is not None:
            self._rejected.keep(points, reason)
        where = f"kept in {self._rejected.path}" if self._rejected is not None else "left out"
        _log.warning(
            "InfluxDB refuses points, the rest is written: points=%d reason=%r first=%.200r %s",
            len(points),
            reason,
            points[0],
            where,
        )


def refusal_of(status: int, message: str) -> Refusal | None:
    """What an answer says of the points; None: it says nothing of them."""
    if status == 413:
        return Refusal("too large for one request")
    if status == 400 and (unparsable := _UNPARSABLE.search(message)):
        return Refusal(f"not line protocol: {unparsable.group(1)[:200]}")
    if status != 422:
        return None
    counted = _DROPPED.search(message)
    dropped = int(counted.group(1)) if counted else 0
    if conflict := _CONFLICT.search(message):
        return Refusal(conflict.group(1), dropped)
    if retention := _RETENTION.search(message):
        return Refusal(f"older than the bucket keeps ({retention.group(1)})", dropped)
    return Refusal(message[:200], dropped)
