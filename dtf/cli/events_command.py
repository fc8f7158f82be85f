"""`dtf events`: follow, export and import the event log, straight from the broker."""

import shutil
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import cast

import click

from dtf.adapters.event_lines import EventFilter
from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.stream_transfer import export_log, import_log
from dtf.adapters.system_clock import SystemClock
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.log_fold import fold_to, nearest_fold, progress
from dtf.cli.log_source import (
    LogSource,
    StreamSource,
    run_log_work,
    source_options,
    with_log_source,
)
from dtf.cli.project_broker import project_broker
from dtf.cli.story_subject import find_span
from dtf.ports.event_log import StoredCommit

_LAST_COMMITS = 20


@click.group()
def command() -> None:
    """Follow, export or import the event log.

    \b
    Example:
        dtf events tail                                  the newest commits, and what comes
        dtf events tail --run 7f3k --type RunFinished    one run's end
        dtf events tail --json --no-follow --from-seq 1  everything, one JSON object a line
        dtf events export log.dtfstream
    """


@command.command()
@click.option("--run", "run_id", default="", metavar="ID", help="Only events of this run.")
@click.option("--type", "types", multiple=True, metavar="NAME", help="Only events of this type; repeatable.")
@click.option(
    "--from-seq",
    "from_sequence",
    type=click.IntRange(min=1),
    metavar="N",
    help="From this sequence on. Default: the first with --run, else the newest commits.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--follow/--no-follow", default=True, help="Go on with what comes (the default).")
@source_options
@click.pass_obj
def tail(
    invocation: Invocation,
    source: Path | None,
    run_id: str,
    types: Sequence[str],
    from_sequence: int | None,
    as_json: bool,
    follow: bool,
    namespace: str | None,
) -> None:
    """Print events as they are decided."""
    try:
        wanted = EventFilter(run_id, types)
    except ValueError as error:
        raise CommandError(str(error), exit_code=ExitCode.USAGE) from error

    async def print_events(opened: LogSource) -> None:
        after = await _start(opened, run_id, from_sequence)
        if follow and isinstance(opened, StreamSource) and opened.log is not None:
            batches = opened.log.follow(after)
        else:
            batches = opened.read(after)
        async with aclosing(cast(AsyncGenerator[Sequence[StoredCommit], None], batches)) as open_batches:
            async for batch in open_batches:
                _print_batch(batch, wanted, as_json)

    try:
        with_log_source(invocation, source, namespace, print_events, starts_broker=not follow)
    finally:
        if wanted.stranger_count:
            click.echo(
                f"messages passed over, for they are no commits of dtf: {wanted.stranger_count}", err=True
            )


async def _start(log: LogSource, run_id: str, from_sequence: int | None) -> int:
    head = await log.head()
    earliest = head.first_sequence - 1
    if from_sequence is not None:
        return max(from_sequence - 1, earliest)
    return earliest if run_id else max(head.last_sequence - _LAST_COMMITS, earliest)


def _print_batch(batch: Sequence[StoredCommit], wanted: EventFilter, as_json: bool) -> None:
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else 240
    lines = [
        listed.as_json() if as_json else listed.as_text(width)
        for message in batch
        for listed in wanted.pick(message)
    ]
    if lines:
        click.echo("\n".join(lines))


@command.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@source_options
@click.option(
    "--from-seq", "first", type=click.IntRange(min=1), metavar="N", help="Begin with this sequence: a slice."
)
@click.option("--to-seq", "last", type=click.IntRange(min=1), metavar="N", help="End with this sequence.")
@click.option("--run", "run_id", default="", metavar="ID", help="From a run's first commit to its last.")
@click.pass_obj
def export_command(
    invocation: Invocation,
    file: Path,
    source: Path | None,
    namespace: str | None,
    first: int | None,
    last: int | None,
    run_id: str,
) -> None:
    """Write the log, or a slice of it, to FILE, checking its hash chain on the way.

    A slice can be looked at (`dtf events tail --from`); to be folded it must begin at 1. `dtf capsule`
    writes a run with the state before it.

    \b
    Example:
        dtf events export log.dtfstream
        dtf events export slice.dtfstream --from-seq 800 --to-seq 900
        dtf events export run.dtfstream --run 7f3k
    """
    if run_id and (first or last):
        raise CommandError(
            "--run says where to begin and to end; leave out --from-seq and --to-seq",
            exit_code=ExitCode.USAGE,
        )

    async def export(opened: LogSource) -> None:
        head = await opened.head()
        begin, end = first or 1, min(last or head.last_sequence, head.last_sequence)
        if run_id:
            begin, end = await _span_of_run(opened, run_id)
        if head.last_sequence and not head.first_sequence <= begin <= end:
            raise CommandError(
                f"{opened.name} has sequences {head.first_sequence} to {head.last_sequence}, "
                f"and {begin} to {last or head.last_sequence} were asked for"
            )
        with progress(max(end - begin + 1, 0), "exporting") as bar:
            done = await export_log(
                opened,
                file,
                namespace=opened.namespace,
                clock=SystemClock(),
                after=begin - 1,
                until=end,
                on_progress=bar.advance,
            )
        click.echo(f"{done.commit_count} commits in {file}; the hash chain is whole")
        if done.stranger_count:
            click.echo(f"messages among them that are no commits of dtf: {done.stranger_count}", err=True)

    with_log_source(invocation, source, namespace, export)


async def _span_of_run(source: LogSource, run_id: str) -> tuple[int, int]:
    head = await source.head()
    fold = await fold_to(source, await nearest_fold(source, head.last_sequence), head.last_sequence)
    span = find_span(fold.state, run_id)
    if span is None:
        raise CommandError(f"{source.name} knows no run {run_id}", "`dtf runs` lists them")
    return span.first_sequence, span.last_sequence


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--namespace", required=True, help="Namespace to fill; its log must be empty.")
@click.pass_obj
def import_command(invocation: Invocation, file: Path, namespace: str) -> None:
    """Fill the empty log of a namespace with what FILE holds, commit by commit as it was."""

    async def fill(log: JetStreamLog) -> None:
        count = await import_log(log, file)
        click.echo(f"{count} messages are in the log of namespace {namespace}")

    async def work() -> None:
        async with project_broker(invocation) as nats:
            log = await JetStreamLog.open(nats, namespace, SystemClock())
            try:
                await fill(log)
            finally:
                await log.close()

    run_log_work(work())
