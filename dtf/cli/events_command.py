"""`dtf events`: follow, export and import the event log, straight from the broker."""

import shutil
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
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
from dtf.cli.log_source import broker_of, namespace_of, run_log_work
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
@click.option("--namespace", default=None, help="Namespace, if not the settings'.")
@click.pass_obj
def tail(
    invocation: Invocation,
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

    async def print_events(log: JetStreamLog) -> None:
        after = await _start(log, run_id, from_sequence)
        batches = log.follow(after) if follow else log.read(after)
        async with aclosing(cast(AsyncGenerator[Sequence[StoredCommit], None], batches)) as open_batches:
            async for batch in open_batches:
                _print_batch(batch, wanted, as_json)

    try:
        _with_log(invocation, namespace, print_events)
    finally:
        if wanted.stranger_count:
            click.echo(
                f"messages passed over, for they are no commits of dtf: {wanted.stranger_count}", err=True
            )


async def _start(log: JetStreamLog, run_id: str, from_sequence: int | None) -> int:
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
@click.option("--namespace", default=None, help="Namespace, if not the settings'.")
@click.pass_obj
def export_command(invocation: Invocation, file: Path, namespace: str | None) -> None:
    """Write the whole log to FILE, checking its hash chain on the way."""

    async def export(log: JetStreamLog) -> None:
        last = (await log.head()).last_sequence
        with click.progressbar(length=last, label=f"{last} commits", file=sys.stderr) as bar:
            done = await export_log(
                log,
                file,
                namespace=namespace_of(invocation, namespace),
                clock=SystemClock(),
                on_progress=bar.update,
            )
        click.echo(f"{done.commit_count} commits in {file}; the hash chain is whole")
        if done.stranger_count:
            click.echo(f"messages among them that are no commits of dtf: {done.stranger_count}", err=True)

    _with_log(invocation, namespace, export)


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--namespace", required=True, help="Namespace to fill; its log must be empty.")
@click.pass_obj
def import_command(invocation: Invocation, file: Path, namespace: str) -> None:
    """Fill the empty log of a namespace with what FILE holds, commit by commit as it was."""

    async def fill(log: JetStreamLog) -> None:
        count = await import_log(log, file)
        click.echo(f"{count} messages are in the log of namespace {namespace}")

    _with_log(invocation, namespace, fill, create=True)


def _with_log(
    invocation: Invocation,
    namespace: str | None,
    use: Callable[[JetStreamLog], Awaitable[None]],
    *,
    create: bool = False,
) -> None:
    nats = broker_of(invocation)
    name = namespace_of(invocation, namespace)

    async def work() -> None:
        opener = JetStreamLog.open if create else JetStreamLog.attach
        log = await opener(nats, name, SystemClock())
        try:
            await use(log)
        finally:
            await log.close()

    run_log_work(work())
