"""The event log as it was before it was purged: the archive's part, then the stream's.

    after + 1 <  the stream's first sequence    read from the archive, as far as it goes
    from there on                               read from the stream

The archive's manifest is read anew at each call that needs it, for `dtf log archive` runs beside; and
at each such call it is checked that the stream goes on where the archive ends. Without an archive this
is the stream alone. Faults of the archive are LogMismatch: the log is not what it must be.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dtf.adapters.log_archive import ArchiveError, LogArchive, open_archive
from dtf.adapters.stream_file import StreamFileError
from dtf.core.events import parse_commit
from dtf.ports.event_log import EventLog, LogHead, LogMismatch, StoredCommit


class ArchivedLog:
    """The EventLog port over a live log and its archive."""

    def __init__(self, live: EventLog, directory: Path, namespace: str) -> None:
        """`directory` is where the archive of the namespace is, if there is one."""
        self.live = live
        self._directory = directory
        self._namespace = namespace

    async def head(self) -> LogHead:
        """Where the log ends; its first sequence is the archive's where the stream was purged."""
        head = await self.live.head()
        if head.first_sequence <= 1:
            return head
        archive = await self._joined(head)
        return replace(head, first_sequence=archive.first_sequence) if archive.segments else head

    def append(
        self,
        payload: bytes,
        *,
        message_id: str,
        previous_message_id: str | None,
        expected_last_sequence: int | None,
        headers: Mapping[str, str],
    ) -> asyncio.Future[int]:
        """Send one commit to the stream; see the port."""
        return self.live.append(
            payload,
            message_id=message_id,
            previous_message_id=previous_message_id,
            expected_last_sequence=expected_last_sequence,
            headers=headers,
        )

    async def read(self, after: int, until: int | None = None) -> AsyncIterator[Sequence[StoredCommit]]:
        """Batches of what is archived or stored; see the port."""
        position = after
        async for batch in self._read_archived(after, until):
            position = batch[-1].sequence
            yield batch
        if until is None or position < until:
            async for batch in self.live.read(position, until):
                yield batch

    async def follow(self, after: int) -> AsyncIterator[Sequence[StoredCommit]]:
        """Batches without end; see the port."""
        position = after
        async for batch in self._read_archived(after, None):
            position = batch[-1].sequence
            yield batch
        async for batch in self.live.follow(position):
            yield batch

    async def close(self) -> None:
        """Let go of the stream's connection."""
        await self.live.close()

    async def _read_archived(self, after: int, until: int | None) -> AsyncIterator[Sequence[StoredCommit]]:
        """What the stream no longer has."""
        head = await self.live.head()
        if after + 1 >= head.first_sequence:
            return
        archive = await self._joined(head)
        last = head.first_sequence - 1
        try:
            async for batch in archive.read(after, last if until is None else min(last, until)):
                yield batch
        except (ArchiveError, StreamFileError) as error:
            raise LogMismatch(str(error)) from error

    async def _joined(self, head: LogHead) -> LogArchive:
        """The archive as it is now. Raises LogMismatch if the stream does not go on from it."""
        try:
            archive = await asyncio.to_thread(open_archive, self._directory, self._namespace)
            if archive.segments:
                await self._check_joint(archive, head)
        except (ArchiveError, StreamFileError) as error:
            raise LogMismatch(str(error)) from error
        return archive

    async def _check_joint(self, archive: LogArchive, head: LogHead) -> None:
        """The stream goes on where the archive ends, or repeats its end. Raises ArchiveError."""
        end = archive.last_sequence
        if head.first_sequence > end + 1:
            raise ArchiveError(
                f"the archive {archive.directory} ends at {end} and the stream begins at "
                f"{head.first_sequence}: {head.first_sequence - end - 1} messages are in neither; find the "
                "missing segments"
            )
        if not await self._joins(archive, head):
            raise ArchiveError(
                f"the stream of namespace {self._namespace} does not continue the archive "
                f"{archive.directory} after {end}: they are of different logs"
            )

    async def _joins(self, archive: LogArchive, head: LogHead) -> bool:
        end = archive.last_sequence
        if head.last_sequence < head.first_sequence:  # purged to its end
            return head.last_sequence <= end
        if head.last_sequence < end:
            archived = [
                m async for batch in archive.read(head.last_sequence - 1, head.last_sequence) for m in batch
            ]
            return archived[0].message_id == head.last_message_id
        if head.first_sequence <= end:
            return (await self._one(end)).message_id == archive.segments[-1].last_message_id
        commit_of = await self._one(end + 1)
        commit = parse_commit(commit_of.payload, commit_of.message_id)
        # A stranger's message proves nothing either way; the chain of what follows does.
        return commit is None or commit.prev_hash.hex() == archive.segments[-1].chain_hash

    async def _one(self, sequence: int) -> StoredCommit:
        async for batch in self.live.read(sequence - 1, sequence):
            return batch[0]
        raise ArchiveError(f"the stream has no message {sequence}; `dtf log status` says what it has")
