"""Where a backtest's demand comes from: a CSV file, or an event log."""

import sys
from pathlib import Path

import click

from dtf.api.v1 import events_pb2
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.log_source import LogSource, with_log_source
from dtf.core.simulation.scaling.recorded import DemandReader, RecordedDemand
from dtf.core.simulation.scaling.trace import Trace, TraceFault, parse_trace

LIVE = "live"


def read_trace(path: Path) -> Trace:
    """The trace of a CSV file; `-` is standard input. Raises CommandError."""
    is_stdin = str(path) == "-"
    name = "standard input" if is_stdin else path.name
    try:
        if is_stdin:
            trace = parse_trace(name, sys.stdin)
        else:
            with path.open(encoding="utf-8", newline="") as lines:
                trace = parse_trace(name, lines)
    except TraceFault as error:
        raise CommandError(str(error), exit_code=ExitCode.USAGE) from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{name} is not text: {error}", exit_code=ExitCode.USAGE) from error
    except OSError as error:
        raise CommandError(f"{name} cannot be read: {error.strerror}", exit_code=ExitCode.USAGE) from error
    if not trace.is_sorted:
        click.echo(f"{name} is not in the order of submission; taken in that order", err=True)
    return trace


def read_stream(invocation: Invocation, stream: str, namespace: str | None) -> RecordedDemand:
    """The demand of the live log (LIVE) or of an exported one. Raises CommandError."""
    source = None if stream == LIVE else Path(stream)
    if source is not None and not source.exists():
        raise CommandError(f"{stream} does not exist", exit_code=ExitCode.USAGE)

    async def read(opened: LogSource) -> RecordedDemand:
        head = await opened.head()
        reader = DemandReader(opened.name)
        label = f"reading {head.last_sequence} messages"
        with click.progressbar(length=head.last_sequence, label=label, file=sys.stderr) as bar:
            async for batch in opened.read(0, head.last_sequence):
                for stored in batch:
                    commit = events_pb2.Commit.FromString(stored.payload)
                    reader.take(stored.sequence, stored.message_id, commit)
                bar.update(len(batch))
        return reader.finish()

    demand = with_log_source(invocation, source, namespace, read)
    if not len(demand.trace):
        raise CommandError(f"{demand.trace.name} tells of no task that ended", exit_code=ExitCode.EMPTY)
    return demand
