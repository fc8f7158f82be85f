"""Where the fold of a log begins, and how far it has come.

A log that has its first message is folded from there. Of one that was purged, and of a slice, the
state before its first message comes from a snapshot; without one nothing can be said of its states.
"""

import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dtf.adapters.system_clock import SystemClock
from dtf.cli.errors import CommandError
from dtf.cli.log_source import LogSource
from dtf.core.chain import ChainBroken, ChainReader
from dtf.core.run.evolve import evolve
from dtf.core.run.state import State
from dtf.core.snapshot import SnapshotUnusable, last_commit_sequence, open_snapshot
from dtf.ports.event_log import LogHead, StoredCommit

_PATIENCE_SECONDS = 2.0


@dataclass(slots=True)
class Fold:
    """State and chain, as far as they were folded."""

    state: State = field(default_factory=State)
    chain: ChainReader = field(default_factory=ChainReader)

    def take(self, message: StoredCommit) -> None:
        """Fold the next message. Raises ChainBroken."""
        commit = self.chain.accept(message.sequence, message.payload, message.message_id)
        if commit is not None:
            for event in commit.events:
                evolve(self.state, event, commit.now_unix_nanos, message.sequence)


async def earliest_fold(source: LogSource) -> Fold:
    """The fold to begin with so that as much of the log as can be is read. Raises CommandError."""
    head = await source.head()
    if head.first_sequence <= 1:
        return Fold()
    for sequence in sorted(await source.snapshots()):
        if sequence >= head.first_sequence - 1:
            found = await _fold_at(source, head, sequence)
            if found is not None:
                return found
    raise _no_beginning(source, head)


async def nearest_fold(source: LogSource, at: int) -> Fold:
    """The fold nearest below `at`: from the newest snapshot there, else from the log's beginning."""
    head = await source.head()
    for sequence in sorted(await source.snapshots(), reverse=True):
        if head.first_sequence - 1 <= sequence <= at:
            found = await _fold_at(source, head, sequence)
            if found is not None:
                return found
    if head.first_sequence <= 1:
        return Fold()
    raise _no_beginning(source, head)


async def fold_to(source: LogSource, fold: Fold, until: int) -> Fold:
    """Fold what has sequences up to `until`, with a progress bar. Raises ChainBroken, LogError."""
    with progress(max(until - fold.chain.sequence, 0), "folding the log") as bar:
        async for batch in source.read(fold.chain.sequence, until):
            for message in batch:
                fold.take(message)
            bar.advance(len(batch))
    return fold


def raise_at_gap(source: LogSource, head: LogHead, sequence: int) -> None:
    """Raise CommandError unless the source has the sequence."""
    if sequence < head.first_sequence or sequence > head.last_sequence:
        raise CommandError(
            f"{source.name} has sequences {head.first_sequence} to {head.last_sequence}, not {sequence}"
        )


async def _fold_at(source: LogSource, head: LogHead, sequence: int) -> Fold | None:
    """State and chain of a snapshot that is whole and the log's own; None if it is not."""
    try:
        state, chain = open_snapshot(await source.load_snapshot(sequence))
    except SnapshotUnusable:
        return None
    of_commit = last_commit_sequence(chain)
    if head.first_sequence <= of_commit <= head.last_sequence:
        async for batch in source.read(of_commit - 1, of_commit):
            if batch[0].message_id != chain.last_hash.hex():
                raise ChainBroken(
                    f"the snapshot of sequence {of_commit} is of a commit {chain.last_hash.hex()}, the log has "
                    f"{batch[0].message_id}: they are of different logs"
                )
    return Fold(state, chain)


def _no_beginning(source: LogSource, head: LogHead) -> CommandError:
    return CommandError(
        f"{source.name} begins at {head.first_sequence}, and no snapshot says what was before",
        "name the archive with --from DIRECTORY, or an export that begins at 1; `dtf capsule` writes "
        "slices that bring their snapshot",
    )


class Bar:
    """How far something has come; drawn on a terminal once it has taken two seconds."""

    def __init__(self, total: int, label: str) -> None:
        self._clock = SystemClock()
        self._begun = self._clock.monotonic()
        self._total, self._label = total, label
        self._done = 0
        self._progress: Progress | None = None

    def advance(self, count: int) -> None:
        """So many more are done."""
        self._done += count
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=self._done)
        elif sys.stderr.isatty() and self._clock.monotonic() - self._begun > _PATIENCE_SECONDS:
            self._draw()

    def _draw(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._progress.start()
        self._progress.add_task(self._label, total=self._total, completed=self._done)

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self._progress is not None:
            self._progress.stop()


@contextmanager
def progress(total: int, label: str) -> Iterator[Bar]:
    """A bar for the time of the block."""
    bar = Bar(total, label)
    try:
        yield bar
    finally:
        bar.close()


async def messages_of(
    batches: AsyncIterator[Sequence[StoredCommit]],
) -> AsyncIterator[StoredCommit]:
    """One by one."""
    async for batch in batches:
        for message in batch:
            yield message
