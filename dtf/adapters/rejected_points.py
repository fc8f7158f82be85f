"""Points that the metric store refuses, kept in a file of JSON lines so that nothing is lost and nothing waits.

A line is {"at": RFC 3339, "reason": …, "point": line protocol}. The same point is refused again when it
is written again, after a crash or by an analyzer that reads the log anew: `read` has it once.
"""

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dtf.ports.clock import Clock

FILE_NAME = "rejected-points.jsonl"
MOST_BYTES = 64 * 2**20
"""Beyond this the file becomes FILE_NAME.old, and what was there before goes."""


@dataclass(frozen=True, slots=True)
class RejectedPoint:
    """One point in line protocol, and why it was refused last."""

    at: str
    reason: str
    point: str

    @property
    def measurement(self) -> str:
        """Its measurement."""
        return self.point.partition(",")[0].partition(" ")[0]


class RejectedPoints:
    """The file; made when the first point is refused."""

    def __init__(self, path: Path, clock: Clock, *, most_bytes: int = MOST_BYTES) -> None:
        self.path = path
        self._clock = clock
        self._most_bytes = most_bytes
        self._lock = threading.Lock()

    def keep(self, points: Sequence[str], reason: str) -> None:
        """Add points; they are on the disk on return."""
        at = datetime.fromtimestamp(self._clock.now_ns() / 1e9, UTC).isoformat(timespec="seconds")
        entries = (json.dumps({"at": at, "reason": reason, "point": point}) + "\n" for point in points)
        data = "".join(entries).encode()
        with self._lock:
            self._make_room(len(data))
            self._append(data)

    def read(self) -> list[RejectedPoint]:
        """What is there, each point once, oldest first; lines that a crash cut short are left out."""
        found: dict[str, RejectedPoint] = {}
        for path in (*self._earlier, self.path):
            if path.exists():
                for entry in filter(None, map(_parsed, path.read_text(encoding="utf-8").splitlines())):
                    found[entry.point] = entry
        return list(found.values())

    def take(self) -> list[RejectedPoint]:
        """What is there, to be written again; `forget_taken` drops it, and nothing that is refused meanwhile."""
        with self._lock:
            taken = self._earlier[1]
            if self.path.exists() and not taken.exists():
                self.path.replace(taken)
        return self.read()

    def forget_taken(self) -> None:
        """Drop what `take` returned."""
        for path in self._earlier:
            path.unlink(missing_ok=True)

    @property
    def _earlier(self) -> tuple[Path, Path]:
        """What the bound moved away, and what was taken and perhaps not forgotten because of a crash."""
        return self.path.with_name(f"{self.path.name}.old"), self.path.with_name(f"{self.path.name}.taken")

    def _make_room(self, size: int) -> None:
        if self.path.exists() and self.path.stat().st_size + size > self._most_bytes:
            self.path.replace(self._earlier[0])

    def _append(self, data: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def _parsed(line: str) -> RejectedPoint | None:
    try:
        entry = json.loads(line)
        return RejectedPoint(entry["at"], entry["reason"], entry["point"])
    except (ValueError, KeyError, TypeError):
        return None
