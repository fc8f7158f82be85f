"""What a client or a worker was told, noted line by line beside the log, for `dtf check --journal`.

Off unless DTF_JOURNAL names a directory. A process appends to one file of its own there, each line by
one write, so that kill -9 cuts at most the last. The lines are described in dtf/core/check/journal.py.
"""

import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from dtf.api.v1 import run_service_pb2, worker_service_pb2

VARIABLE = "DTF_JOURNAL"


class JournalWriter:
    """Appends lines to a file."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)

    def note(self, what: str, **said: object) -> None:
        """Append one line; it outlives this process, though not its machine."""
        line = json.dumps({"what": what, **said}, separators=(",", ":")) + "\n"
        os.write(self._file, line.encode())

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    # What clients note.

    def created(self, run: run_service_pb2.Run, request_id: str) -> None:
        """A run is durable."""
        self.note("run", run_id=run.run_id, request_id=request_id)

    def submitted(
        self, request: run_service_pb2.SubmitTasksRequest, response: run_service_pb2.SubmitTasksResponse
    ) -> None:
        """A batch is durable, and the seal with it if it was asked for."""
        if request.tasks:
            self.note(
                "batch",
                run_id=request.run_id,
                batch=request.batch,
                first_task=response.first_task,
                tasks=len(request.tasks),
            )
        if request.seal:
            total = response.first_task + response.task_count
            self.note("sealed", run_id=request.run_id, task_count=total)

    # What workers note.

    def leased(
        self,
        worker_id: str,
        incarnation: int,
        batches: Iterable[worker_service_pb2.Assignments],
        now_ns: int,
    ) -> None:
        """Leases came."""
        for batch in batches:
            self.note(
                "leased",
                run_id=batch.run_id,
                worker_id=worker_id,
                incarnation=incarnation,
                tasks=list(batch.tasks),
                fences=list(batch.fences),
                at=now_ns / 1e9,
            )

    def acknowledged(
        self, worker_id: str, incarnation: int, message: worker_service_pb2.AttachRequest
    ) -> None:
        """What a message said is durable."""
        for entry in message.results:
            self.note(
                "acknowledged",
                run_id=entry.run_id,
                worker_id=worker_id,
                incarnation=incarnation,
                fences=list(entry.fences),
                cases=list(entry.cases),
            )
        if message.ends:
            fences = [end.fence for end in message.ends]
            self.note("acknowledged_ends", worker_id=worker_id, incarnation=incarnation, fences=fences)


@cache
def open_journal(kind: str) -> JournalWriter | None:
    """This process's journal as a client or worker; None unless DTF_JOURNAL names a directory."""
    directory = os.environ.get(VARIABLE)
    if not directory:
        return None
    path = Path(directory)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return JournalWriter(path / f"{kind}-{os.uname().nodename}-{os.getpid()}.jsonl")
