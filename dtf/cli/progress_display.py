"""Shows a run's progress: one region, redrawn, on a terminal; a plain line now and then elsewhere.

Failures and moves of the pool are told as they come; in JSON mode nothing is shown at all.
"""

import sys
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dtf.api.v1 import common_pb2
from dtf.cli.run_progress import CaseNote, RunProgress, ScalingNote
from dtf.ports.clock import Clock
from dtf.report.output import plain_line

PLAIN_SECONDS = 3.0
"""How often a plain line is printed at least, when something changed."""
_REDRAWS_PER_SECOND = 5
_SHOWN_FAILURES = 5


class ProgressDisplay:
    """What `dtf run` shows while it waits. `stream` None: nothing."""

    def __init__(
        self, run_id: str, suite: str, stream: TextIO | None, clock: Clock, *, as_lines: bool = False
    ) -> None:
        self._title = plain_line(f"run {run_id}  {suite}")
        self._stream = stream
        self._clock = clock
        self._live: Live | None = None
        self._said_at = clock.monotonic()
        self._said = ""
        self._moves_told = 0
        if stream is not None and stream.isatty() and not as_lines:
            console = Console(file=stream)
            self._live = Live(console=console, refresh_per_second=_REDRAWS_PER_SECOND, transient=True)

    def start(self) -> None:
        """Begin to show."""
        if self._live is not None:
            self._live.start()

    def stop(self) -> None:
        """Leave the terminal as it was; what was told as lines stays."""
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        """Tell one line, above the region if there is one."""
        if self._live is not None:
            self._live.console.print(Text(line))
        elif self._stream is not None:
            print(line, file=self._stream, flush=True)

    def show(self, progress: RunProgress, notes: list[CaseNote]) -> None:
        """Show how far the run is; `notes` are new failures."""
        if self._stream is None:
            return
        if self._live is not None:
            self._live.update(region(self._title, progress))
            return
        for note in notes:
            self.say(failure_line(note))
        for move in _new_moves(progress, self._moves_told):
            self.say(f"pool      {move_text(move)}")
        self._moves_told = len(progress.pool_moves)
        line = f"{self._title}  {summary_line(progress)}"
        if self._clock.monotonic() - self._said_at >= PLAIN_SECONDS and line != self._said:
            self._said_at, self._said = self._clock.monotonic(), line
            self.say(line)


def _new_moves(progress: RunProgress, told: int) -> Iterator[ScalingNote]:
    moves = list(progress.pool_moves)
    yield from moves[told:]


def summary_line(progress: RunProgress) -> str:
    """ "231/320   226 passed  3 failed  2 skipped   00:14, about 6 s left"."""
    total = f"{progress.done}/{progress.cases}{'' if progress.is_sealed else '+'}"
    parts = [total, counts_text(progress), f"{clock_text(progress.elapsed_seconds)}{_left(progress)}"]
    if progress.waiting:
        parts.append(next(iter(progress.waiting.values())))
    return "   ".join(filter(None, parts))


def _left(progress: RunProgress) -> str:
    remaining = progress.remaining_seconds
    if remaining is None or progress.finished is not None:
        return ""
    return f", about {duration_text(remaining)} left"


COUNTED = (
    (common_pb2.VERDICT_PASSED, "passed"),
    (common_pb2.VERDICT_FAILED, "failed"),
    (common_pb2.VERDICT_ERROR, "error"),
    (common_pb2.VERDICT_FLAKY, "flaky"),
    (common_pb2.VERDICT_SKIPPED, "skipped"),
)


def counts_text(progress: RunProgress) -> str:
    """ "226 passed  3 failed"; only what there is."""
    return "  ".join(
        f"{progress.counts[verdict]} {name}" for verdict, name in COUNTED if progress.counts[verdict]
    )


def clock_text(seconds: float) -> str:
    """ "01:05", or "1:01:05" from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def duration_text(seconds: float) -> str:
    """ "0.35 s", "6 s", "4 min", "2.5 h": no more digits than help."""
    if seconds < 9.95:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def failure_line(note: CaseNote) -> str:
    """ "FAILED    test_io.py::test_rename  OSError: …"."""
    word = "FAILED" if note.verdict == common_pb2.VERDICT_FAILED else "ERROR"
    return plain_line(f"{word:<8}  {note.name}  {note.message}".rstrip())


def move_text(move: ScalingNote) -> str:
    """ "+2 at 00:05: backlog 48 s of work for 2 workers, aim 15 s"."""
    return f"{move.change:+d} at {clock_text(move.at_seconds)}: {move.reason}"


def workers_text(progress: RunProgress) -> str:
    """ "4 busy, 1 starting (4 wanted)   queue 89 tasks, 21 s of work"."""
    parts = [f"{progress.busy_workers} busy"]
    if progress.scaling is not None:
        parts.append(f"{progress.scaling.requested} starting")
        parts.append(f"{progress.scaling.desired} wanted")
    queue = f"queue {progress.queue_depth} tasks"
    if progress.queue_depth:
        queue += f", {duration_text(progress.backlog_seconds)} of work"
    return f"{', '.join(parts)}   {queue}"


def region(title: str, progress: RunProgress) -> RenderableType:
    """Everything about the run at a glance, in a few lines."""
    head = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=max(progress.cases, 1), completed=progress.done, width=36)
    head.add_row(Text(title), bar, Text(summary_line(progress)))
    lines: list[RenderableType] = [head, Text(f"workers   {workers_text(progress)}")]
    if progress.pool_moves:
        lines.append(
            Text(f"pool      {move_text(progress.pool_moves[-1])}", overflow="ellipsis", no_wrap=True)
        )
    if progress.longest is not None:
        seconds, case, worker = progress.longest
        lines.append(
            Text(f"longest   {plain_line(case)}  {duration_text(seconds)} on {worker}", no_wrap=True)
        )
    lines += [
        Text(failure_line(note), style="red", overflow="ellipsis", no_wrap=True)
        for note in list(progress.failures)[-_SHOWN_FAILURES:]
    ]
    return Group(*lines)


def standard_stream(*, is_quiet: bool) -> TextIO | None:
    """Where progress goes: standard error, so that standard output holds results alone."""
    return None if is_quiet else sys.stderr
