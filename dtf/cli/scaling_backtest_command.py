"""`dtf scaling backtest`: recorded demand against policies, in virtual time."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.scaling_demand import LIVE, read_stream, read_trace
from dtf.cli.scaling_plot import check_plot, plot_lines, save_plot
from dtf.cli.scaling_policies import NAMES, make_policy
from dtf.core.simulation.scaling.outcome import Outcome, PoolShape
from dtf.core.simulation.scaling.regret import observed_outcome
from dtf.core.simulation.scaling.simulator import SimulationStuck, simulate
from dtf.core.simulation.scaling.trace import Trace
from dtf.report.output import plain_line

_AS_IS = PoolShape()
HEADS = ["policy", "makespan", "wait p50", "p95", "p99", "worker-s", "cost", "actions", "flaps", "busy kills"]


@click.command()
@click.option(
    "--trace",
    "trace_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="CSV of submit_seconds,duration_seconds[,cpus].",
)
@click.option(
    "--stream",
    is_flag=False,
    flag_value=LIVE,
    default=None,
    metavar="[FILE]",
    help="The demand of the live log, or of an export, capsule or archive.",
)
@click.option("--namespace", default=None, help="Namespace of the live log, if not the settings'.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME|FILE",
    help=f"{', '.join(NAMES)}, or a TOML file with a [pool] table; repeatable. All named ones if none is given.",
)
@click.option("--min", "min_workers", type=click.IntRange(min=0), help="Fewest workers.  [default: 0]")
@click.option("--max", "max_workers", type=click.IntRange(min=1), help="Most workers.  [default: 100]")
@click.option(
    "--startup",
    type=click.FloatRange(min=0, max=86400),
    default=_AS_IS.startup_seconds,
    show_default=True,
    metavar="SECONDS",
    help="From a launch until the worker takes tasks.",
)
@click.option("--slots", type=click.IntRange(min=1), help="Tasks a worker runs at once.  [default: 1]")
@click.option(
    "--cpus", type=click.FloatRange(min=0), default=0.0, help="CPUs of a worker; counts the trace's CPUs."
)
@click.option("--price", type=click.FloatRange(min=0), default=0.0, help="Price of a worker and hour.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Draw workers and queue over time: .svg, .html or .png.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(
    invocation: Invocation,
    trace_file: Path | None,
    stream: str | None,
    namespace: str | None,
    policies: Sequence[str],
    min_workers: int | None,
    max_workers: int | None,
    startup: float,
    slots: int | None,
    cpus: float,
    price: float,
    plot: Path | None,
    as_json: bool,
) -> int:
    """Replay recorded demand against policies: what they wait, what they cost.

    Every policy gets the same queue and the same pool. `default` is the policy that ships; hpa, keda,
    dask and ray are others by their documented defaults.

    \b
    Example:
        dtf scaling backtest --trace jobs.csv --policy mine.toml --policy hpa
        dtf scaling backtest --stream --price 0.08 --plot out.svg       the live log of this project
        dtf scaling backtest --stream log.dtfstream --max 20 --json     an export, for machines
    """
    if (trace_file is None) == (stream is None):
        raise CommandError(
            "a backtest needs one source of demand",
            "name --trace FILE or --stream [FILE]",
            exit_code=ExitCode.USAGE,
        )
    if plot is not None:
        check_plot(plot)
    given = {"min_workers": min_workers, "max_workers": max_workers, "slots": slots}
    overrides = {name: value for name, value in given.items() if value is not None}
    shape = _shape(overrides, startup, cpus, price)
    chosen = [
        make_policy(name, shape, overrides=frozenset(overrides)) for name in dict.fromkeys(policies or NAMES)
    ]
    demand = None if trace_file else read_stream(invocation, stream or LIVE, namespace)
    trace = demand.trace if demand is not None else read_trace(trace_file or Path())
    _check_fit(trace, shape)
    outcomes = []
    with click.progressbar(chosen, label=f"{len(trace):,} tasks", file=sys.stderr) as bar:
        for controller, own_shape in bar:
            try:
                outcomes.append(simulate(trace, own_shape, controller))
            except SimulationStuck as error:
                raise CommandError(str(error), "its bounds and rules leave work undone") from error
    if plot is not None:
        save_plot(plot, trace.name, outcomes)
    if as_json:
        click.echo(json.dumps({"policies": [document(outcome) for outcome in outcomes]}))
    else:
        seen = [observed_outcome(demand, startup_seconds=startup, price=price)] if demand is not None else []
        click.echo(
            "\n".join([*table_lines([*outcomes, *seen], has_price=price > 0), "", *plot_lines(outcomes)])
        )
    return ExitCode.OK


def _shape(overrides: Mapping[str, int], startup: float, cpus: float, price: float) -> PoolShape:
    shape = PoolShape(
        min_workers=overrides.get("min_workers", _AS_IS.min_workers),
        max_workers=overrides.get("max_workers", _AS_IS.max_workers),
        startup_seconds=startup,
        slots=overrides.get("slots", _AS_IS.slots),
        cpus=cpus,
        price=price,
    )
    if shape.min_workers > shape.max_workers:
        raise CommandError(
            f"--min {shape.min_workers} is more than --max {shape.max_workers}", exit_code=ExitCode.USAGE
        )
    return shape


def document(outcome: Outcome) -> dict[str, object]:
    """One policy's line for machines."""
    waits = outcome.waits
    return {
        "policy": outcome.policy,
        "makespan_seconds": round(outcome.makespan_seconds, 6),
        "wait_seconds": {"p50": round(waits.p50, 6), "p95": round(waits.p95, 6), "p99": round(waits.p99, 6)},
        "worker_seconds": round(outcome.worker_seconds, 6),
        "cost": round(outcome.cost, 6),
        "actions": outcome.actions,
        "flaps": outcome.flaps,
        "busy_kills": outcome.busy_kills,
    }


def table_lines(outcomes: Sequence[Outcome], *, has_price: bool) -> list[str]:
    """The table for people; the cost where there is a price."""
    rows = [HEADS, *(_cells(outcome) for outcome in outcomes)]
    if not has_price:
        rows = [[cell for cell, head in zip(row, HEADS, strict=True) if head != "cost"] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    ]


def _cells(outcome: Outcome) -> list[str]:
    waits = (outcome.waits.p50, outcome.waits.p95, outcome.waits.p99)
    return [
        plain_line(outcome.policy),
        f"{outcome.makespan_seconds:,.1f} s",
        *(f"{wait:,.1f} s" for wait in waits),
        f"{outcome.worker_seconds:,.0f}",
        f"{outcome.cost:,.2f}",
        f"{outcome.actions:,}",
        f"{outcome.flaps:,}",
        f"{outcome.busy_kills:,}",
    ]


def _check_fit(trace: Trace, shape: PoolShape) -> None:
    """Raises CommandError for a task that no worker could ever take; says that CPUs do not count."""
    if not trace.cpus:
        return
    most = max(trace.cpus)
    if not shape.cpus:
        click.echo(
            "the trace's CPUs are not counted, a task takes one slot; --cpus says what a worker has", err=True
        )
    elif most > shape.cpus:
        raise CommandError(
            f"a task needs {most:g} CPUs, a worker has {shape.cpus:g}",
            "--cpus says what a worker has",
            exit_code=ExitCode.USAGE,
        )
