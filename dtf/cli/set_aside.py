"""History that the log goes on without: moved out of the way, never deleted.

    1 copy       spool and snapshots into a directory of their own, forced to the disk
    2 accept     LeaderElected with the loss, appended to the log
    3 remove     what was copied from where it lay

A repair that was interrupted before 2 has changed nothing; after 2, the next repair finds the note of
what is to be removed and that the log has accepted it, and does the rest.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dtf.adapters.file_snapshots import sync_directory
from dtf.coordinator.loss import Loss
from dtf.coordinator.recovery import LogReader, known_snapshots, message_at
from dtf.core.events import parse_commit
from dtf.ports.snapshot_store import SnapshotName, SnapshotStore
from dtf.settings.project import make_private_dir, write_private

_NOTE = "loss.json"


@dataclass(frozen=True, slots=True)
class Note:
    """What was copied, and where the log says that it goes on without."""

    after_sequence: int
    through_sequence: int
    through_hash: str
    accepted_at_sequence: int
    lines: list[str]
    spool_files: list[str] = field(default_factory=list)
    snapshots: list[tuple[int, str]] = field(default_factory=list)
    is_done: bool = False


@dataclass(frozen=True, slots=True)
class SetAside:
    """Where a namespace's spool and snapshots lie, and where they go."""

    directory: Path
    spool: Path
    stores: Sequence[SnapshotStore]

    async def copy(self, loss: Loss, accepted_at_sequence: int) -> Path:
        """Step 1; the directory it is in."""
        name = f"{loss.after_sequence}-{loss.through.sequence}-{loss.through.message_id[:12]}"
        target = make_private_dir(self.directory / name)
        snapshots = [
            (found, store)
            for found, store in await known_snapshots(self.stores)
            if found.sequence > loss.after_sequence
        ]
        for found, store in snapshots:
            (target / f"{found.sequence:020d}-{found.hash}.snapshot").write_bytes(await store.load(found))
        files = self._spool_files()
        for path in files:
            shutil.copy2(path, target / path.name)
        for path in target.iterdir():
            with path.open("rb+") as copied:
                os.fsync(copied.fileno())
        sync_directory(target)
        note = Note(
            after_sequence=loss.after_sequence,
            through_sequence=loss.through.sequence,
            through_hash=loss.through.message_id,
            accepted_at_sequence=accepted_at_sequence,
            lines=loss.lines(),
            spool_files=[path.name for path in files],
            snapshots=sorted({(found.sequence, found.hash) for found, _ in snapshots}),
        )
        _write_note(target, note)
        return target

    async def finish(self, event_log: LogReader) -> list[Path]:
        """Step 3, for every loss that the log has accepted; the directories that were finished."""
        finished: list[Path] = []
        for directory in sorted(self.directory.iterdir()) if self.directory.is_dir() else []:
            note = _read_note(directory)
            if note is not None and not note.is_done and await _is_accepted(event_log, note):
                await self._remove(note)
                _write_note(directory, Note(**{**asdict(note), "is_done": True}))
                finished.append(directory)
        return finished

    async def _remove(self, note: Note) -> None:
        for name in note.spool_files:
            (self.spool / name).unlink(missing_ok=True)
        for sequence, digest in note.snapshots:
            for store in self.stores:
                await store.remove(SnapshotName(sequence, digest))

    def _spool_files(self) -> list[Path]:
        if not self.spool.is_dir():
            return []
        return [path for path in sorted(self.spool.iterdir()) if path.suffix in {".spool", ".mark"}]


async def _is_accepted(event_log: LogReader, note: Note) -> bool:
    found = await message_at(event_log, note.accepted_at_sequence)
    commit = parse_commit(found.payload, found.message_id) if found is not None else None
    return commit is not None and any(
        event.leader_elected.accepted_loss.through_hash.hex() == note.through_hash
        for event in commit.events
        if event.HasField("leader_elected")
    )


def _read_note(directory: Path) -> Note | None:
    try:
        return Note(**json.loads((directory / _NOTE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _write_note(directory: Path, note: Note) -> None:
    write_private(directory / _NOTE, json.dumps(asdict(note), indent=1))
    sync_directory(directory)
