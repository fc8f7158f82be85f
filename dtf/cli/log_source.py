"""Where a command reads the event log from: the live broker, an exported file, or an archive.

    (nothing)          the live log of the namespace, and its archive before it where it was purged;
                       where the project's stack is down, its broker is started for the command
    --from FILE        a file of `dtf events export` or `dtf capsule`
    --from DIRECTORY   archived segments, and after them the live log if a broker is known

A file may be a slice: it then begins at a sequence above 1, with a snapshot of the state there (a
capsule) or without one. Readers check the chain; where archive and stream meet, the source itself
checks that one continues the other.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from dtf.adapters.archived_log import ArchivedLog
from dtf.adapters.file_snapshots import FileSnapshots
from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.log_archive import ArchiveError, LogArchive, is_archive, open_archive
from dtf.adapters.object_store_snapshots import ObjectStoreSnapshots
from dtf.adapters.stream_file import StreamFile, StreamFileError, StreamFileHeader
from dtf.adapters.stream_transfer import TransferError
from dtf.adapters.system_clock import SystemClock
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.log_paths import archive_dir, snapshots_dir
from dtf.cli.project_broker import broker_of, find_broker, project_broker
from dtf.core.chain import ChainBroken
from dtf.core.snapshot import read_snapshot
from dtf.ports.event_log import LogError, LogFull, LogHead, LogUnavailable, StoredCommit
from dtf.ports.snapshot_store import SnapshotName, SnapshotStore, SnapshotStoreError
from dtf.settings.model import NatsSettings

SNAPSHOT_ATTACHMENT = "snapshot"
"""What a slice brings along so that it can be folded: the state before its first message."""
_BATCH = 512
Result = TypeVar("Result")
Command = TypeVar("Command", bound=Callable[..., Any])


class LogSource(Protocol):
    """A log to read. Every call may raise LogError, StreamFileError, ArchiveError."""

    @property
    def name(self) -> str:
        """What is read, in words."""
        ...

    @property
    def namespace(self) -> str:
        """Whose log it is."""
        ...

    @property
    def broker(self) -> NatsSettings | None:
        """The broker that it is read from, which may run for this reader alone; None: there is none."""
        ...

    async def head(self) -> LogHead:
        """Where the log ends, and its first sequence."""
        ...

    def read(self, after: int, until: int | None = None) -> AsyncIterator[Sequence[StoredCommit]]:
        """Batches of what has `after` < sequence <= `until` (None: the head now)."""
        ...

    async def snapshots(self) -> Sequence[int]:
        """The sequences that snapshots of this log were taken at, in any order."""
        ...

    async def load_snapshot(self, sequence: int) -> bytes:
        """The snapshot of one of them, as dtf.core.snapshot has it; it may be damaged."""
        ...


@dataclass(slots=True)
class FileSource:
    """A file of `dtf events export` or `dtf capsule`, whole or a slice."""

    path: Path
    header: StreamFileHeader
    attachments: Mapping[str, bytes]
    _head: LogHead | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        """What is read, in words."""
        return str(self.path)

    @property
    def namespace(self) -> str:
        """Whose log it was."""
        return self.header.namespace

    @property
    def broker(self) -> None:
        """A file has none."""
        return None

    async def head(self) -> LogHead:
        """Where the file ends; the whole of it is read once, and its digest checked."""
        if self._head is None:
            first, last, last_id = 0, 0, ""
            with StreamFile(self.path) as stream:
                for message in stream:
                    first, last, last_id = first or message.sequence, message.sequence, message.message_id
            self._head = LogHead(last, last_id, max(first, 1))
        return self._head

    async def read(self, after: int, until: int | None = None) -> AsyncIterator[Sequence[StoredCommit]]:
        """Batches of what the file holds. Reading to the end checks the file's digest."""
        with StreamFile(self.path) as stream:
            batch: list[StoredCommit] = []
            for message in stream:
                if until is not None and message.sequence > until:
                    break
                if message.sequence > after:
                    batch.append(message)
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
            if batch:
                yield batch

    async def snapshots(self) -> Sequence[int]:
        """The sequence of the snapshot it brings along, if it does."""
        data = self.attachments.get(SNAPSHOT_ATTACHMENT)
        return [] if data is None else [read_snapshot(data).last_sequence]

    async def load_snapshot(self, sequence: int) -> bytes:
        """That snapshot."""
        return self.attachments[SNAPSHOT_ATTACHMENT]


@dataclass(slots=True)
class StreamSource:
    """The live log with its archive before it, or an archive alone."""

    namespace: str
    log: ArchivedLog | None
    archive: LogArchive
    stores: Sequence[SnapshotStore] = ()
    broker: NatsSettings | None = None

    @property
    def name(self) -> str:
        """What is read, in words; one thing, whatever it is put together from."""
        if self.log is None:
            return f"the archive {self.archive.directory}"
        beginning = f", archived in {self.archive.directory}," if self.archive.segments else ""
        return f"the log of namespace {self.namespace}{beginning}"

    async def head(self) -> LogHead:
        """Where the log ends; its first sequence is the archive's where the stream was purged."""
        return self.archive.head() if self.log is None else await self.log.head()

    def read(self, after: int, until: int | None = None) -> AsyncIterator[Sequence[StoredCommit]]:
        """Batches: archived ones as far as the stream was purged, then the stream's."""
        return (self.archive if self.log is None else self.log).read(after, until)

    async def snapshots(self) -> Sequence[int]:
        """The sequences of the snapshots in every store that answers."""
        return sorted({name.sequence for _, name in await self._kept_snapshots()})

    async def load_snapshot(self, sequence: int) -> bytes:
        """The snapshot from the first store that has it. Raises SnapshotStoreError."""
        for store, name in await self._kept_snapshots():
            if name.sequence == sequence:
                return await store.load(name)
        raise SnapshotStoreError(f"the snapshot of sequence {sequence} is gone; try again")

    async def _kept_snapshots(self) -> list[tuple[SnapshotStore, SnapshotName]]:
        kept: list[tuple[SnapshotStore, SnapshotName]] = []
        for store in self.stores:
            with suppress(SnapshotStoreError):  # a store that is not there spares nothing but time
                kept.extend((store, name) for name in await store.names())
        return kept


@asynccontextmanager
async def open_log_source(
    invocation: Invocation, source: Path | None, namespace: str | None, *, starts_broker: bool = True
) -> AsyncIterator[LogSource]:
    """The log to read; see the module.

    Without `starts_broker` the broker must run: who waits for what comes would keep the stack from
    starting. Raises CommandError, LogError, StreamFileError, ArchiveError."""
    if source is not None and not _is_directory(source):
        yield open_file(source, namespace)
        return
    name = namespace or (open_archive(source, "").namespace if source else namespace_of(invocation, None))
    archive = open_archive(source or archive_dir(invocation, name), name)
    if find_broker(invocation) is None and source is not None:
        yield StreamSource(name, None, archive)
        return
    async with AsyncExitStack() as stack:
        starting = project_broker(invocation) if starts_broker else nullcontext(broker_of(invocation))
        nats = await stack.enter_async_context(starting)
        live = await JetStreamLog.attach(nats, name, SystemClock())
        stack.push_async_callback(live.close)
        stores = snapshot_stores(invocation, nats, name)
        for store in stores:
            stack.push_async_callback(store.close)
        yield StreamSource(name, ArchivedLog(live, archive.directory, name), archive, stores, nats)


def _is_directory(source: Path) -> bool:
    """Whether the source is an archive. Raises CommandError for a directory that is none."""
    if not source.is_dir():
        return False
    if not is_archive(source):
        raise CommandError(
            f"{source} is a directory without manifest.json, so no archive of a log",
            "`dtf log archive` makes one; a file of `dtf events export` is named itself",
            exit_code=ExitCode.USAGE,
        )
    return True


def open_file(path: Path, namespace: str | None = None) -> FileSource:
    """A file as a source. Raises CommandError, StreamFileError, OSError."""
    with StreamFile(path) as stream:
        header, attachments = stream.header, stream.attachments
    if header.kind != "events":
        raise CommandError(
            f"{path} holds a stream of {header.kind}, not an event log",
            "`dtf events export` writes one",
            exit_code=ExitCode.USAGE,
        )
    if namespace and namespace != header.namespace:
        raise CommandError(
            f"{path} is of namespace {header.namespace}, not of {namespace}", exit_code=ExitCode.USAGE
        )
    return FileSource(path, header, attachments)


def source_options(command: Command) -> Command:
    """`--from` and `--namespace` of a command that reads a log: its parameters `source` and `namespace`."""
    namespace = click.option("--namespace", default=None, help="Namespace, if not the settings'.")
    source = click.option(
        "--from",
        "source",
        type=click.Path(path_type=Path, exists=True),
        default=None,
        metavar="FILE",
        help="Read this export, capsule or archive directory instead of the live log.",
    )
    return source(namespace(command))


def with_log_source(
    invocation: Invocation,
    source: Path | None,
    namespace: str | None,
    use: Callable[[LogSource], Awaitable[Result]],
    *,
    starts_broker: bool = True,
) -> Result:
    """What `use` makes of the source; faults of log and file become a CommandError."""

    async def work() -> Result:
        async with open_log_source(invocation, source, namespace, starts_broker=starts_broker) as opened:
            return await use(opened)

    return run_log_work(work())


def run_log_work(work: Coroutine[Any, Any, Result]) -> Result:
    """Run what reads or writes a log; its faults become a CommandError."""
    try:
        return asyncio.run(work)
    except LogError as error:
        known = isinstance(error, LogUnavailable | LogFull)
        raise CommandError(
            str(error), exit_code=ExitCode.UNAVAILABLE if known else ExitCode.FAILED
        ) from error
    except (
        ChainBroken,
        StreamFileError,
        TransferError,
        ArchiveError,
        SnapshotStoreError,
        ValueError,
    ) as error:
        raise CommandError(str(error)) from error
    except BrokenPipeError:
        raise  # the reader went away, which main() knows how to end
    except OSError as error:
        raise CommandError(f"{error.filename or 'input or output'}: {error.strerror or error}") from error


def namespace_of(invocation: Invocation, namespace: str | None) -> str:
    """The namespace asked for, or the settings'."""
    return namespace or invocation.load().settings.coordinator.namespace


def snapshot_stores(invocation: Invocation, nats: NatsSettings, namespace: str) -> Sequence[SnapshotStore]:
    """Where snapshots of a namespace's log are kept: this project's directory, the broker's bucket."""
    return (
        FileSnapshots(snapshots_dir(invocation, namespace)),
        ObjectStoreSnapshots(nats, namespace, SystemClock()),
    )
