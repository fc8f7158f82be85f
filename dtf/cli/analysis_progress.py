"""How far an analysis is: one line at the end of a terminal's standard error, gone when it is done."""

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress

REDRAWS_PER_SECOND = 5


class AnalysisProgress:
    """Shows a stage at a time, with a share where it is known and the time that it took so far.

    Nothing at all is shown where `stream` is no terminal, or None.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._shown = _bar(stream) if stream is not None and stream.isatty() else None

    def __enter__(self) -> Self:
        if self._shown is not None:
            self._shown.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was, also where the work was interrupted."""
        if self._shown is not None:
            self._shown.stop()

    def stage(self, what: str, total: int | None = None) -> Callable[[int], None]:
        """Begin a stage in the place of the last; what is returned takes how much of `total` is done."""
        shown = self._shown
        if shown is None:
            return lambda done: None
        for earlier in shown.task_ids:
            shown.remove_task(earlier)
        task = shown.add_task(what, total=total, share="")

        def advance(done: int) -> None:
            share = f"{100 * done // total} %" if total else ""
            shown.update(task, completed=done, share=share)

        return advance


def _bar(stream: TextIO) -> "Progress":
    # Imported here because most analyses are written to pipes.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[share]}"),
        TimeElapsedColumn(),
        console=Console(file=stream),
        refresh_per_second=REDRAWS_PER_SECOND,
        transient=True,
    )
