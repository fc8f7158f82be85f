"""Moves the old part of a live log into its archive.

    read the stream from where the archive ends ─▶ segment, fsynced ─▶ read back ─▶ manifest, fsynced
                                                                                      │
    purge the stream below the oldest kept snapshot, never above the archive's end ◀──┘

A message leaves the stream only after the archive that names it was read back from the disk, so that
a crash at any point loses nothing; the next run goes on where the manifest ends. The commit that the
oldest snapshot was taken at stays: a coordinator that starts compares its hash with the snapshot's.
"""

import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.log_archive import ArchiveError, LogArchive, open_archive
from dtf.adapters.stream_file import StreamFileHeader
from dtf.core.chain import ChainReader
from dtf.core.snapshot import SnapshotUnusable, last_commit_sequence, open_snapshot
from dtf.ports.clock import Clock
from dtf.ports.event_log import StoredCommit
from dtf.ports.snapshot_store import SnapshotStore, SnapshotStoreError

SEGMENT_MESSAGES = 65_536
SEGMENT_BYTES = 64 * 2**20
"""A segment closes at either: one is held in memory while it is made."""


@dataclass(frozen=True, slots=True)
class Archived:
    """What a run of the archiving did."""

    segment_count: int
    """Segments it added."""
    message_count: int
    archived_until: int
    """Where the archive ends now."""
    first_kept: int
    """Where the stream begins now."""
    purged_count: int


@contextmanager
def archive_lock(directory: Path) -> Iterator[None]:
    """Nobody else archives into the directory meanwhile. Raises ArchiveError if somebody does."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ArchiveError(f"somebody archives into {directory} now; wait for them") from error
        yield


async def oldest_kept(stores: Sequence[SnapshotStore], log: JetStreamLog) -> int | None:
    """Sequence of the last commit in the oldest snapshot that could be started from; None: there is none.

    Each is opened, and its commit compared with the log's own, so that what is purged is what some
    start needs no more.
    """
    head = await log.head()
    found: list[int] = []
    for store in stores:
        try:
            for name in await store.names():
                chain = open_snapshot(await store.load(name))[1]
                if await _is_of(log, head.first_sequence, head.last_sequence, chain):
                    found.append(last_commit_sequence(chain))
        except (SnapshotStoreError, SnapshotUnusable):
            continue
    return min(found, default=None)


async def _is_of(log: JetStreamLog, first: int, last: int, chain: ChainReader) -> bool:
    sequence = last_commit_sequence(chain)
    if not first <= sequence <= last:
        return False
    async for batch in log.read(sequence - 1, sequence):
        return batch[0].message_id == chain.last_hash.hex()
    return False


async def archive_log(
    log: JetStreamLog,
    directory: Path,
    *,
    namespace: str,
    clock: Clock,
    until: int,
    segment_messages: int = SEGMENT_MESSAGES,
    on_progress: Callable[[int], object] = lambda _count: None,
) -> LogArchive:
    """Add what the stream has up to `until` to the archive. Raises ArchiveError, ChainBroken, LogError."""
    archive = open_archive(directory, namespace)
    first = (await log.head()).first_sequence
    if first > archive.last_sequence + 1:
        raise ArchiveError(
            f"the stream begins at {first} and the archive {directory} ends at {archive.last_sequence}: what "
            "is between them is in neither; name the archive that goes on to there"
        )
    header = StreamFileHeader("events", namespace, version("dtf"), clock.now_ns())
    gathered: list[StoredCommit] = []
    size = 0
    if until > archive.last_sequence:
        async for batch in log.read(archive.last_sequence, until):
            for message in batch:
                gathered.append(message)
                size += len(message.payload)
                if len(gathered) >= segment_messages or size >= SEGMENT_BYTES:
                    archive.add(gathered, header)
                    gathered, size = [], 0
            on_progress(len(batch))
    if gathered:
        archive.add(gathered, header)
    return archive


async def purge_archived(log: JetStreamLog, archive: LogArchive, snapshot_at: int) -> tuple[int, int]:
    """Purge what the archive has below the snapshot's commit; the stream's first sequence before and after.

    Every segment that is to stand in for the stream is read back first. Raises ArchiveError, LogError.
    """
    first = (await log.head()).first_sequence
    keep_from = min(snapshot_at, archive.last_sequence + 1)
    if keep_from <= first:
        return first, first
    archive.verify(after=first - 1)
    await log.purge_below(keep_from)
    return first, (await log.head()).first_sequence
