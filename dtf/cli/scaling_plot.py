"""Workers and queue over time: as blocks in the terminal, as SVG, as a page, or as PNG."""

import html
import importlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.core.simulation.scaling.outcome import Outcome
from dtf.report.axis import round_step, tick_text
from dtf.report.output import plain_line

BLOCKS = " ▁▂▃▄▅▆▇█"
COLUMNS = 72
WIDTH, HEIGHT, MARGIN, LEGEND = 960, 240, 56, 150
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")
"""Okabe and Ito 2008: told apart by the colour-blind too."""
DASHES = ("", "6 3", "2 2", "8 3 2 3", "1 3", "10 4", "4 4", "12 2 2 2")
"""Nothing is told by colour alone."""
Curve = list[tuple[float, float]]


def plot_lines(outcomes: Sequence[Outcome], columns: int = COLUMNS) -> list[str]:
    """Each policy's workers over time on one scale, the most of each column."""
    end = max((outcome.sizes[-1][0] for outcome in outcomes if outcome.sizes), default=0.0) or 1.0
    rows = [_columns(outcome, end, columns) for outcome in outcomes]
    most = max((max(row) for row in rows), default=0) or 1
    width = max((len(plain_line(outcome.policy)) for outcome in outcomes), default=0)
    lines = [f"workers over {_duration(end)}, up to {most}"]
    for outcome, row in zip(outcomes, rows, strict=True):
        blocks = "".join(BLOCKS[-(-size * (len(BLOCKS) - 1) // most)] for size in row)
        lines.append(f"{plain_line(outcome.policy):{width}} │{blocks}│ most {max(row)}")
    return lines


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def _columns(outcome: Outcome, end: float, columns: int) -> list[int]:
    """The most workers in each of so many equal parts of the time."""
    row = [0] * columns
    size, reached = 0, 0
    for at, workers, _ in outcome.sizes:
        column = min(columns - 1, int(at / end * columns))
        for passed in range(reached, column + 1):
            row[passed] = max(row[passed], size)
        size, reached = workers, column
        row[column] = max(row[column], workers)
    return row


def check_plot(path: Path) -> None:
    """Raises CommandError if no plot is written under such a name."""
    if path.suffix.lower() not in KINDS:
        raise CommandError(
            f"--plot {path}: expected a name that ends in .svg, .html or .png", exit_code=ExitCode.USAGE
        )


def save_plot(path: Path, title: str, outcomes: Sequence[Outcome]) -> None:
    """Write a plot of the kind that the file's name asks for. Raises CommandError."""
    check_plot(path)
    data = KINDS[path.suffix.lower()](title, outcomes)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from error


def draw_svg(title: str, outcomes: Sequence[Outcome]) -> str:
    """Two charts on one time axis: workers, and tasks in the queue."""
    end = max((outcome.sizes[-1][0] for outcome in outcomes if outcome.sizes), default=0.0) or 1.0
    workers = [[(at, float(size)) for at, size, _ in outcome.sizes] for outcome in outcomes]
    queues = [[(at, float(queued)) for at, _, queued in outcome.sizes] for outcome in outcomes]
    total = 2 * HEIGHT + 3 * MARGIN
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + LEGEND} {total}" '
        f'font-family="sans-serif" font-size="12" role="img">',
        f"<title>{html.escape(plain_line(title))}</title>",
        f'<rect width="{WIDTH + LEGEND}" height="{total}" fill="#fff"/>',
        *_chart("workers", workers, end, MARGIN),
        *_chart("tasks in the queue", queues, end, HEIGHT + 2 * MARGIN),
        *_legend(outcomes),
        "</svg>",
    ]
    return "\n".join(body)


def _chart(name: str, curves: Sequence[Curve], end: float, top: int) -> list[str]:
    most = max((value for curve in curves for _, value in curve), default=0.0) or 1.0
    span = WIDTH - 2 * MARGIN

    def x(at: float) -> float:
        return MARGIN + at / end * span

    def y(value: float) -> float:
        return top + HEIGHT - value / most * HEIGHT

    parts = [f'<text x="{MARGIN}" y="{top - 8}" font-weight="bold">{name}</text>']
    step = round_step(most / 4)
    for index in range(int(most / step + 1e-9) + 1):
        value = index * step
        parts.append(
            f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>'
        )
        parts.append(f'<text x="{MARGIN - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    step = round_step(end / 8)
    instants = [index * step for index in range(int(end / step + 1e-9) + 1)]
    parts += [
        f'<text x="{x(at):.1f}" y="{top + HEIGHT + 16}" text-anchor="middle">{tick_text(at, step)}</text>'
        for at in instants
    ]
    for number, curve in enumerate(curves):
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in _steps(curve))
        parts.append(f'<polyline points="{points}" fill="none" stroke-width="1.5" {_stroke(number)}/>')
    return parts


def _steps(curve: Curve) -> Curve:
    """A value holds until the next one."""
    steps: Curve = []
    for at, value in curve:
        if steps and steps[-1][1] != value:
            steps.append((at, steps[-1][1]))
        steps.append((at, value))
    return steps


def _stroke(number: int) -> str:
    dash = DASHES[number % len(DASHES)]
    return f'stroke="{COLORS[number % len(COLORS)]}"' + (f' stroke-dasharray="{dash}"' if dash else "")


def _legend(outcomes: Sequence[Outcome]) -> list[str]:
    parts = []
    for number, outcome in enumerate(outcomes):
        y = MARGIN + 20 * number
        left = WIDTH - MARGIN + 16
        parts.append(
            f'<line x1="{left}" x2="{left + 30}" y1="{y}" y2="{y}" stroke-width="2" {_stroke(number)}/>'
        )
        parts.append(f'<text x="{left + 36}" y="{y + 4}">{html.escape(plain_line(outcome.policy))}</text>')
    return parts


def _page(title: str, outcomes: Sequence[Outcome]) -> bytes:
    heading = html.escape(plain_line(title))
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{heading}</title>'
        f"<body><h1>{heading}</h1>{draw_svg(title, outcomes)}</body></html>\n"
    )
    return page.encode()


def _png(title: str, outcomes: Sequence[Outcome]) -> bytes:
    try:
        figures = importlib.import_module("matplotlib.figure")
        canvases = importlib.import_module("matplotlib.backends.backend_agg")
    except ImportError:
        raise CommandError(
            "a PNG needs matplotlib, which is not installed",
            "pip install matplotlib, or name a file that ends in .svg or .html",
            exit_code=ExitCode.USAGE,
        ) from None
    figure: Any = figures.Figure(figsize=(11, 7))
    canvases.FigureCanvasAgg(figure)
    for row, (name, column) in enumerate((("workers", 1), ("tasks in the queue", 2)), start=1):
        axes: Any = figure.add_subplot(2, 1, row)
        axes.set_ylabel(name)
        for outcome in outcomes:
            axes.step(
                [point[0] for point in outcome.sizes],
                [point[column] for point in outcome.sizes],
                where="post",
                label=outcome.policy,
            )
        axes.legend()
    figure.suptitle(plain_line(title))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


KINDS: Mapping[str, Callable[[str, Sequence[Outcome]], bytes]] = {
    ".svg": lambda title, outcomes: draw_svg(title, outcomes).encode(),
    ".html": _page,
    ".png": _png,
}
"""How a plot is written, by the end of its file's name."""
