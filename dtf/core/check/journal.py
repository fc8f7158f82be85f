"""What clients and workers noted while they ran, one JSON object a line: witnesses beside the log.

    {"what": "run", "run_id": "7f3k", "request_id": "…"}                            a client was told: created
    {"what": "batch", "run_id": "7f3k", "batch": 1, "first_task": 0, "tasks": 256}  … these tasks are durable
    {"what": "sealed", "run_id": "7f3k", "task_count": 256}                         … the run is sealed
    {"what": "leased", "run_id": "7f3k", "worker_id": "w1", "incarnation": 1,
     "tasks": [4, 5], "fences": [12, 13], "at": 1763848800.25}                      a worker got leases
    {"what": "acknowledged", "worker_id": "w1", "incarnation": 1, "run_id": "7f3k",
     "fences": [12, 13], "cases": [0, 0]}                                           … was told: results durable
    {"what": "acknowledged_ends", "worker_id": "w1", "incarnation": 1, "fences": [14]}  … ends durable

Times are seconds since 1970 by the writer's clock. Other members are passed over, so that a test may
note more. A last line without its newline was cut off by a kill, and is passed over too.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dtf.core.check.properties import Source


class JournalError(ValueError):
    """A line of a journal cannot be read; the message says which and why."""


class Leased(NamedTuple):
    """A worker got a lease."""

    run_id: str
    task: int
    worker_id: str
    incarnation: int
    at_ns: int


@dataclass(slots=True)
class Journal:
    """Everything that was noted and is still to be found in the log."""

    sources: set[Source] = field(default_factory=set)
    """Whose notes there are."""
    runs: dict[str, str] = field(default_factory=dict)
    """Acknowledged run → request id."""
    batches: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    """Run and batch → first task and number of tasks."""
    seals: dict[str, int] = field(default_factory=dict)
    """Run → tasks it was sealed with."""
    leased: dict[int, list[Leased]] = field(default_factory=dict)
    """Fence → who got it."""
    results: set[tuple[int, int]] = field(default_factory=set)
    """Fence and case of acknowledged results."""
    ends: set[int] = field(default_factory=set)
    """Fences of acknowledged ends."""

    def read(self, lines: Iterable[str], name: str) -> None:
        """Add a journal's lines. Raises JournalError."""
        for number, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                return
            if not line.strip():
                continue
            try:
                self._add(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise JournalError(
                    f"{name}, line {number}, is no entry of a journal ({type(error).__name__}: {error}): "
                    f"{line.strip()[:120]!r}; docs/checker.md has the format"
                ) from error

    def _add(self, said: dict[str, Any]) -> None:
        match said["what"]:
            case "run":
                self._from(Source.CLIENT_JOURNAL)
                self.runs[str(said["run_id"])] = str(said.get("request_id", ""))
            case "batch":
                self._from(Source.CLIENT_JOURNAL)
                key = (str(said["run_id"]), int(said["batch"]))
                self.batches[key] = (int(said["first_task"]), int(said["tasks"]))
            case "sealed":
                self._from(Source.CLIENT_JOURNAL)
                self.seals[str(said["run_id"])] = int(said["task_count"])
            case "leased":
                self._from(Source.WORKER_JOURNAL)
                for fence, lease in _leased(said):
                    self.leased.setdefault(fence, []).append(lease)
            case "acknowledged":
                self._from(Source.WORKER_JOURNAL)
                fences = [int(fence) for fence in said["fences"]]
                cases = [int(case) for case in said.get("cases") or [0] * len(fences)]
                self.results.update(zip(fences, cases, strict=True))
            case "acknowledged_ends":
                self._from(Source.WORKER_JOURNAL)
                self.ends.update(int(fence) for fence in said["fences"])
            case str():
                pass
            case other:
                raise ValueError(f'"what" is {other!r}')

    def _from(self, source: Source) -> None:
        self.sources.add(source)


def _leased(said: dict[str, Any]) -> Iterator[tuple[int, Leased]]:
    run_id, worker_id, incarnation = str(said["run_id"]), str(said["worker_id"]), int(said["incarnation"])
    at_ns = round(float(said["at"]) * 1e9)
    for task, fence in zip(said["tasks"], said["fences"], strict=True):
        yield int(fence), Leased(run_id, int(task), worker_id, incarnation, at_ns)
