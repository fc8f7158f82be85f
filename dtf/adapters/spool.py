"""The spool on a local disk (spool_file.py says how it lies there).

    write ──▶ waiting ──▶ one thread: append, fdatasync ──▶ futures done
                 ▲                        │
                 └── gathers meanwhile ◀──┘          one fdatasync for all that gathered

A batch that fails (a full disk) is taken back: the segment is cut to where it was, and what was in
it is written again when its caller asks for it again, so that no record stands twice or half.

A batch that takes long is waited for: who gives an fsync up does not know what is on the disk. A warning
names the directory and its device, and everything that rests on the batch waits as well.
"""

import asyncio
import fcntl
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dtf.adapters.file_snapshots import sync_directory
from dtf.adapters.spool_file import (
    Segment,
    SpoolDamaged,
    encode_mark,
    encode_record,
    mark_path,
    marks,
    read_segment,
    segment_path,
    segments,
)
from dtf.ports.spool import SpoolContents, SpooledCommit, SpoolError, SpoolMark

log = logging.getLogger(__name__)

SLOW_SECONDS = 5.0
"""A batch that takes longer is warned of, and again each time as long has passed; it is never given up."""
SEGMENT_BYTES = 16 * 2**20
"""Trimming removes whole segments: small enough for the spool to end near a snapshot."""


@dataclass(slots=True)
class _Open:
    """The segment that is written."""

    path: Path
    descriptor: int
    size: int


class FileSpool:
    """The CommitSpool port on a directory."""

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._writer = ""
        self._waiting: list[tuple[SpooledCommit, asyncio.Future[None]]] = []
        self._batch: asyncio.Future[None] | None = None
        """The one being forced to the disk."""
        self._alarm: asyncio.TimerHandle | None = None
        self._device = ""
        self._thread: ThreadPoolExecutor | None = None
        self._segment: _Open | None = None
        self._mark: int | None = None
        self._lock: int | None = None
        self._acknowledged = (0, "")

    @property
    def description(self) -> str:
        """The directory."""
        return str(self._directory)

    async def read(self, after: int) -> SpoolContents:
        """What earlier reigns left above `after`, and every mark. Raises SpoolError."""
        try:
            return await asyncio.to_thread(read_directory, self._directory, after)
        except OSError as error:
            raise self._fault(error) from error

    def begin(self, writer: str) -> None:
        """Write under this name from now on: hexadecimal digits that no other reign has."""
        try:
            self._lock = lock_spool(self._directory, exclusive=False)
            device = self._directory.stat().st_dev
            self._device = f"{os.major(device)}:{os.minor(device)}"
            self._mark = os.open(mark_path(self._directory, writer), os.O_CREAT | os.O_WRONLY, 0o600)
        except OSError as error:
            raise self._fault(error) from error
        self._writer = writer
        self._thread = ThreadPoolExecutor(1, "dtf-spool")

    def write(self, commit: SpooledCommit) -> asyncio.Future[None]:
        """Add one commit; see the port."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._waiting.append((commit, future))
        self._force()
        return future

    def acknowledge(self, sequence: int, message_id: str) -> None:
        """Note how far the log acknowledged; see the port.

        A mark that cannot be written is passed over: records carry it as well, and without it a
        commit that the log lost is taken for one that never reached it, and sent again.
        """
        self._acknowledged = (sequence, message_id)
        if self._mark is not None:
            with suppress(OSError):
                os.pwrite(self._mark, encode_mark(sequence, message_id), 0)

    async def trim(self, through: int) -> None:
        """Remove the segments that end at or before `through`, and the marks that no segment goes with."""
        try:
            # In the spool's own thread, where no segment is begun meanwhile.
            await asyncio.get_running_loop().run_in_executor(self._thread, self._trim, through)
        except OSError as error:
            raise self._fault(error) from error

    async def close(self) -> None:
        """Finish what was added, and let go of the files."""
        while self._batch is not None:
            await asyncio.wait([self._batch])
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        for descriptor in (self._segment.descriptor if self._segment else None, self._mark, self._lock):
            if descriptor is not None:
                os.close(descriptor)
        self._segment = self._mark = self._lock = None

    # -- writing

    def _force(self) -> None:
        if self._batch is not None or not self._waiting:
            return
        if self._thread is None:
            raise SpoolError("the spool is not open for writing")
        batch, self._waiting = self._waiting, []
        commits = [commit for commit, _ in batch]
        job = asyncio.get_running_loop().run_in_executor(
            self._thread, self._write_batch, commits, *self._acknowledged
        )
        self._batch = job
        self._watch_for(SLOW_SECONDS)
        job.add_done_callback(lambda done: self._forced(done, batch))

    def _watch_for(self, seconds: float) -> None:
        """Warn when the batch under way has taken `seconds`."""

        def warn() -> None:
            where = {"directory": str(self._directory), "device": self._device, "seconds": seconds}
            log.warning("the spool's disk does not answer; commits wait for it", extra=where)
            self._watch_for(seconds + SLOW_SECONDS)

        self._alarm = asyncio.get_running_loop().call_later(SLOW_SECONDS, warn)

    def _forced(
        self, job: "asyncio.Future[None]", batch: Sequence[tuple[SpooledCommit, "asyncio.Future[None]"]]
    ) -> None:
        self._batch = None
        if self._alarm is not None:
            self._alarm.cancel()
        error = job.exception()
        if error is not None:  # what waits fails too: commits come to the disk in their order
            batch, self._waiting = [*batch, *self._waiting], []
        for _, future in batch:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(self._fault(error))
        self._force()

    def _write_batch(self, commits: Sequence[SpooledCommit], acknowledged: int, acknowledged_id: str) -> None:
        """In the spool's thread: append, and force to the disk; or leave the segment as it was."""
        segment = self._segment_for(commits[0].sequence)
        data = b"".join(encode_record(commit, acknowledged, acknowledged_id) for commit in commits)
        try:
            _write_all(segment.descriptor, data, segment.size)
            os.fdatasync(segment.descriptor)
        except OSError:
            # Whatever fsync failed on may be lost from the page cache too: these bytes are written anew.
            self._abandon(segment)
            raise
        segment.size += len(data)

    def _segment_for(self, sequence: int) -> _Open:
        segment = self._segment
        if segment is not None and segment.size < self._segment_bytes:
            return segment
        if segment is not None:
            os.close(segment.descriptor)
            self._segment = None
        path = segment_path(self._directory, sequence, self._writer)
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
        sync_directory(self._directory)
        self._segment = _Open(path, descriptor, 0)
        return self._segment

    def _abandon(self, segment: _Open) -> None:
        """Cut the segment to what is known to be on the disk, and begin another with the next batch.

        What cannot be cut off is a last record cut short, or one that is written a second time.
        """
        with suppress(OSError):
            os.ftruncate(segment.descriptor, segment.size)
        os.close(segment.descriptor)
        self._segment = None

    def _trim(self, through: int) -> None:
        if not self._directory.is_dir():
            return
        found = segments(self._directory)
        written = self._segment.path if self._segment is not None else None
        kept_writers = {self._writer}
        for index, segment in enumerate(found):
            later = next((other for other in found[index + 1 :] if other.writer == segment.writer), None)
            last = later.first_sequence - 1 if later is not None else _last_sequence(segment, through)
            if segment.path == written or last > through:
                kept_writers.add(segment.writer)
            else:
                segment.path.unlink(missing_ok=True)
        for mark in tuple(marks(self._directory)):
            if mark.writer not in kept_writers and mark.sequence <= through:
                mark_path(self._directory, mark.writer).unlink(missing_ok=True)

    def _fault(self, error: BaseException) -> SpoolError:
        said = (error.strerror if isinstance(error, OSError) else None) or str(error)
        return SpoolError(
            f"the spool in {self._directory} takes nothing: {said}; "
            "make room on its disk, and the coordinator goes on"
        )


def lock_spool(directory: Path, *, exclusive: bool) -> int:
    """A descriptor that holds the spool's lock: shared by those who write it, exclusive for a repair.

    Raises SpoolError if it is held otherwise, OSError.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SpoolError(
            f"a coordinator writes the spool in {directory}; stop it first (`dtf down`)"
            if exclusive
            else f"`dtf log repair` is at work on the spool in {directory}; start again when it is done"
        ) from None
    return descriptor


def read_directory(directory: Path, after: int) -> SpoolContents:
    """The contents of a spool that nobody writes. Raises OSError."""
    if not directory.is_dir():
        return SpoolContents((), (), ())
    commits: list[SpooledCommit] = []
    last_marks = {mark.writer: mark for mark in marks(directory)}
    damage: list[str] = []
    found = segments(directory)
    for index, segment in enumerate(found):
        later = next((other for other in found[index + 1 :] if other.writer == segment.writer), None)
        if later is not None and later.first_sequence <= after + 1:
            continue
        try:
            for commit, mark in read_segment(segment):
                if commit.sequence > after:
                    commits.append(commit)
                if mark is not None and _is_later(mark, last_marks.get(mark.writer)):
                    last_marks[mark.writer] = mark
        except SpoolDamaged as error:
            damage.append(str(error))
    commits.sort(key=lambda commit: commit.sequence)
    return SpoolContents(commits, tuple(last_marks.values()), tuple(damage))


def _is_later(mark: SpoolMark, known: SpoolMark | None) -> bool:
    return known is None or mark.sequence > known.sequence


def _last_sequence(segment: Segment, through: int) -> int:
    """The last sequence in a segment; one that cannot be read counts as needed."""
    last = 0
    try:
        for commit, _ in read_segment(segment):
            last = commit.sequence
    except (SpoolDamaged, OSError):
        return through + 1
    return last


def _write_all(descriptor: int, data: bytes, position: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, position)
        view, position = view[written:], position + written
