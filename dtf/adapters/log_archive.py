"""A directory of archived segments of the event log.

    manifest.json                            what is archived, in order, with the digest of each file
    <namespace>-<first>-<last>.dtfstream     the messages with first <= sequence <= last (stream_file.py)

A segment counts once the manifest names it, and the manifest names it once it was read back; it is
replaced at once, so a crash leaves the archive as it was, and at most a segment that nobody names,
which the next run writes anew. Segments follow each other without a gap, each beginning with the
hash that the one before ends with.
"""

import asyncio
import hashlib
import itertools
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dtf.adapters.stream_file import StreamFile, StreamFileHeader, writing
from dtf.core.chain import ChainBroken, ChainReader
from dtf.ports.event_log import LogHead, StoredCommit

MANIFEST = "manifest.json"
_VERSION = 1
_BATCH = 512


class ArchiveError(ValueError):
    """The archive is damaged, or is not the log's; the message says what was seen and what to do."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of the archive and what it holds."""

    file: str
    first_sequence: int
    last_sequence: int
    sha256: str
    """Of the file, in hexadecimal digits."""
    size_bytes: int
    last_message_id: str
    """Id of its last message; "" if a stranger wrote that one."""
    chain_hash: str
    """SHA-256 of the last commit up to its end, in hexadecimal digits: what the next commit builds on."""
    epoch: int
    now_unix_nanos: int
    """Time of that commit."""
    commit_count: int
    """Commits from the log's beginning up to its end."""
    stranger_sequences: list[int] = field(default_factory=list)
    """Messages in it that are no commits."""

    def chain(self) -> ChainReader:
        """The chain at its end, to go on from. Strangers before are known by their sequences alone."""
        return ChainReader(
            sequence=self.last_sequence,
            last_hash=bytes.fromhex(self.chain_hash),
            epoch=self.epoch,
            now_ns=self.now_unix_nanos,
            commit_count=self.commit_count,
            stranger_sequences=set(self.stranger_sequences),
        )


class LogArchive:
    """The archived part of one namespace's log. Raises ArchiveError when the manifest is not sound."""

    def __init__(self, directory: Path, namespace: str, segments: Sequence[Segment]) -> None:
        """Use `open_archive`."""
        self.directory = directory
        self.namespace = namespace
        self._segments = list(segments)

    @property
    def segments(self) -> Sequence[Segment]:
        """The segments in order."""
        return tuple(self._segments)

    @property
    def first_sequence(self) -> int:
        """The first archived sequence; 1 for an empty archive."""
        return self._segments[0].first_sequence if self._segments else 1

    @property
    def last_sequence(self) -> int:
        """The last archived sequence; 0 for an empty archive."""
        return self._segments[-1].last_sequence if self._segments else 0

    def head(self) -> LogHead:
        """Where the archive ends."""
        last_id = self._segments[-1].last_message_id if self._segments else ""
        return LogHead(self.last_sequence, last_id, self.first_sequence)

    def chain(self) -> ChainReader:
        """The chain at the end of the archive."""
        return self._segments[-1].chain() if self._segments else ChainReader()

    def messages(self, after: int, until: int | None = None) -> Iterator[StoredCommit]:
        """The archived messages with `after` < sequence <= `until`."""
        end = self.last_sequence if until is None else min(until, self.last_sequence)
        for segment in self._segments:
            if segment.last_sequence <= after or segment.first_sequence > end:
                continue
            with StreamFile(self.directory / segment.file) as stream:
                for message in stream:
                    if after < message.sequence <= end:
                        yield message

    async def read(self, after: int, until: int | None = None) -> AsyncIterator[Sequence[StoredCommit]]:
        """The same in batches, as an EventLog reads; files are unpacked in a thread."""
        messages = self.messages(after, until)
        while batch := await asyncio.to_thread(lambda: list(itertools.islice(messages, _BATCH))):
            yield batch

    def verify(self, after: int = 0) -> None:
        """Read the files that have what follows `after`, and their chain. Raises ArchiveError."""
        chain: ChainReader | None = None
        for segment in self._segments:
            if segment.last_sequence > after:
                verify_segment(self.directory, segment, chain)
            chain = segment.chain()

    def add(self, messages: Sequence[StoredCommit], header: StreamFileHeader) -> Segment:
        """Write the messages as the next segment, read them back, and name them in the manifest.

        They must continue the archive. Raises ArchiveError, ChainBroken, OSError.
        """
        first, last = messages[0].sequence, messages[-1].sequence
        before = self.chain()
        chain = self.chain()
        strangers = [
            message.sequence
            for message in messages
            if chain.accept(message.sequence, message.payload, message.message_id) is None
        ]
        name = f"{self.namespace}-{first:012d}-{last:012d}.dtfstream"
        with writing(self.directory / name, header) as writer:
            for message in messages:
                writer.write(message)
        digest, size = _digest(self.directory / name)
        segment = Segment(
            file=name,
            first_sequence=first,
            last_sequence=last,
            sha256=digest,
            size_bytes=size,
            last_message_id=messages[-1].message_id,
            chain_hash=chain.last_hash.hex(),
            epoch=chain.epoch,
            now_unix_nanos=chain.now_ns,
            commit_count=chain.commit_count,
            stranger_sequences=strangers,
        )
        verify_segment(self.directory, segment, before)
        self._segments.append(segment)
        _write_manifest(self.directory, self.namespace, self._segments)
        return segment


def open_archive(directory: Path, namespace: str) -> LogArchive:
    """The archive in `directory`; an empty one if there is none yet. Raises ArchiveError."""
    try:
        text = (directory / MANIFEST).read_text()
    except FileNotFoundError:
        return LogArchive(directory, namespace, [])
    archive = _parse(directory, text)
    if namespace and archive.namespace != namespace:
        raise ArchiveError(
            f"{directory} is the archive of namespace {archive.namespace}, not of {namespace}; name another directory"
        )
    return archive


def is_archive(directory: Path) -> bool:
    """Whether a directory holds archived segments."""
    return (directory / MANIFEST).is_file()


def verify_segment(directory: Path, segment: Segment, chain: ChainReader | None) -> ChainReader:
    """Read a segment back after `chain` (None: it is the first); the chain at its end. Raises ArchiveError."""
    path = directory / segment.file
    try:
        digest, _ = _digest(path)
    except FileNotFoundError as error:
        raise ArchiveError(
            f"the archive's segment {path} is missing: sequences {segment.first_sequence} to "
            f"{segment.last_sequence} are nowhere else; restore the file"
        ) from error
    if digest != segment.sha256:
        raise ArchiveError(
            f"the archive's segment {path} was changed: its SHA-256 is {digest}, the manifest says "
            f"{segment.sha256}; restore the file"
        )
    reached = chain or ChainReader()
    try:
        with StreamFile(path) as stream:
            for message in stream:
                reached.accept(message.sequence, message.payload, message.message_id)
    except ChainBroken as error:
        raise ArchiveError(f"the archive's segment {path} does not continue the log: {error}") from error
    if (reached.sequence, reached.last_hash.hex()) != (segment.last_sequence, segment.chain_hash):
        raise ArchiveError(
            f"the archive's segment {path} ends at {reached.sequence} with hash {reached.last_hash.hex()}; "
            f"the manifest says {segment.last_sequence} and {segment.chain_hash}"
        )
    return reached


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


def _parse(directory: Path, text: str) -> LogArchive:
    try:
        document: dict[str, Any] = json.loads(text)
        if document["version"] != _VERSION:
            raise ArchiveError(
                f"{directory / MANIFEST} is of version {document['version']!r}, this dtf reads {_VERSION}; use a newer dtf"
            )
        segments = [Segment(**entry) for entry in document["segments"]]
        namespace = str(document["namespace"])
    except ArchiveError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise ArchiveError(f"{directory / MANIFEST} cannot be read: {error}; restore the file") from error
    for before, after in itertools.pairwise(segments):
        if after.first_sequence != before.last_sequence + 1:
            raise ArchiveError(
                f"{directory / MANIFEST} names no segment for {before.last_sequence + 1} to "
                f"{after.first_sequence - 1}; restore the manifest"
            )
    return LogArchive(directory, namespace, segments)


def _write_manifest(directory: Path, namespace: str, segments: Sequence[Segment]) -> None:
    document = {
        "version": _VERSION,
        "namespace": namespace,
        "segments": [asdict(segment) for segment in segments],
    }
    temporary = directory / f".{MANIFEST}.{os.getpid()}"
    with temporary.open("w") as file:
        file.write(json.dumps(document, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(directory / MANIFEST)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
