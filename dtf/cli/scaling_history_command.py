"""`dtf scaling history`: how large the pools were wanted and seen, and why, over time."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from google.protobuf.json_format import MessageToDict

from dtf.adapters.event_lines import format_time
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import scaling_pb2
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.log_time import parse_instant
from dtf.cli.scaling_plot import BLOCKS, COLUMNS
from dtf.cli.scaling_records import read_decisions
from dtf.core.scaling.story import MOVES, headline
from dtf.report.output import plain_line
from dtf.report.wording import counted, seconds_text

_NANOS = 1e9


@click.command()
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="A file of `dtf scaling export`; else the broker of this project.",
)
@click.option("--since", metavar="TIME", help="From then on: a time ago (-10m, -2h) or an RFC 3339 time.")
@click.option("--pool", default="", metavar="NAME", help="Only this pool.")
@click.option("--all", "holds_too", is_flag=True, help="Also the decisions to change nothing.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The newest so many."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a decision, a line each.")
@click.pass_obj
def command(
    invocation: Invocation,
    source: Path | None,
    since: str | None,
    pool: str,
    holds_too: bool,
    limit: int,
    as_json: bool,
) -> int:
    """How many workers each pool was wanted and seen to have, its backlog, and what was decided why.

    \b
    Example:
        dtf scaling history --since -1h
        dtf scaling history --pool local --all --json
        dtf explain scaling local/12              the whole story of one decision
    """
    decisions = read_decisions(invocation, source, pool)
    if since is not None:
        begin = parse_instant(since, SystemClock().now_ns())
        decisions = [decision for decision in decisions if decision.now_unix_nanos >= begin]
    if not decisions:
        raise CommandError(
            "nothing was decided" + (f" since {since}" if since else " yet"), exit_code=ExitCode.EMPTY
        )
    told = [decision for decision in decisions if holds_too or decision.action in MOVES]
    if as_json:
        for decision in told[-limit:]:
            click.echo(json.dumps(decision_document(decision), ensure_ascii=False))
        return ExitCode.OK
    for name in dict.fromkeys(decision.pool for decision in decisions):
        of_pool = [decision for decision in decisions if decision.pool == name]
        click.echo("\n".join(plot(name, of_pool)))
    for decision in told[-limit:]:
        click.echo(line_of(decision))
    if len(told) > limit:
        click.echo(f"{counted(len(told) - limit, 'decision')} before these; --limit shows more")
    return ExitCode.OK


def decision_document(decision: scaling_pb2.ScalingDecision) -> dict[str, object]:
    """The decision as JSON has it, with the time in words."""
    document: dict[str, object] = MessageToDict(
        decision, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {"at": format_time(decision.now_unix_nanos), **document}


def line_of(decision: scaling_pb2.ScalingDecision) -> str:
    """ "19:06:02.123  local/12  scale out 2 → 4 (pool local)  backlog 48.1 s …"."""
    clock = format_time(decision.now_unix_nanos)[11:23]
    return plain_line(f"{clock}  {decision.decision_id}  {headline(decision)}  {decision.reason}")


def plot(pool: str, decisions: Sequence[scaling_pb2.ScalingDecision], columns: int = COLUMNS) -> list[str]:
    """Desired, requested and observed workers and the backlog of one pool over time, on one axis."""
    measured = [decision for decision in decisions if decision.HasField("demand")]
    if not measured:
        return [plain_line(f"pool {pool}: no demand was measured")]
    begin, end = measured[0].now_unix_nanos, measured[-1].now_unix_nanos
    span = max(end - begin, 1)
    places = [min(columns - 1, (d.now_unix_nanos - begin) * columns // span) for d in measured]
    curves = (
        ("desired", [float(d.desired) for d in measured], ""),
        ("requested", [float(d.requested) for d in measured], ""),
        ("observed", [float(d.observed) for d in measured], ""),
        ("backlog", [d.demand.backlog_seconds for d in measured], " s"),
    )
    most_workers = max(max(values) for _, values, unit in curves if not unit) or 1.0
    lines = [
        plain_line(
            f"pool {pool}, {seconds_text(span / _NANOS)} from {format_time(begin)[:19]}, "
            f"{counted(len(decisions), 'decision')}"
        )
    ]
    for name, values, unit in curves:
        scale = (max(values) or 1.0) if unit else most_workers
        blocks = "".join(_blocks(places, values, scale, columns))
        lines.append(f"{name:<10}│{blocks}│ most {max(values):.{1 if unit else 0}f}{unit}")
    return lines


def _blocks(places: Sequence[int], values: Sequence[float], most: float, columns: int) -> Iterator[str]:
    """The highest value of each column; a value holds until the next one."""
    highest = [0.0] * columns
    held, reached = 0.0, 0
    for place, value in zip(places, values, strict=True):
        for column in range(reached, place + 1):
            highest[column] = max(highest[column], held)
        highest[place] = max(highest[place], value)
        held, reached = value, place
    for value in highest:
        yield BLOCKS[min(len(BLOCKS) - 1, math.ceil(value / most * (len(BLOCKS) - 1)))]
