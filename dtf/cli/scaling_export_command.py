"""`dtf scaling export`: the decisions of the resource manager as a portable file."""

import asyncio
from importlib.metadata import version
from pathlib import Path

import click

from dtf.adapters.records import JetStreamRecords
from dtf.adapters.stream_file import StreamFileHeader, writing
from dtf.adapters.system_clock import SystemClock
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.project_broker import project_broker
from dtf.ports.event_log import LogError
from dtf.ports.subjects import RecordKind


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def command(invocation: Invocation, file: Path) -> int:
    """Write every decision of the resource manager to FILE, for `dtf scaling history --from` and `dtf check --scaling`.

    \b
    Example:
        dtf scaling export decisions.dtfstream
    """
    try:
        count = asyncio.run(_export(invocation, file))
    except LogError as error:
        raise CommandError(str(error), exit_code=ExitCode.UNAVAILABLE) from error
    except OSError as error:
        raise CommandError(f"{file} cannot be written: {error.strerror or error}") from error
    click.echo(f"{count} decisions in {file}")
    return ExitCode.OK


async def _export(invocation: Invocation, file: Path) -> int:
    namespace = invocation.load().settings.coordinator.namespace
    clock = SystemClock()
    async with project_broker(invocation) as broker:
        records = await JetStreamRecords.open(broker, RecordKind.SCALING, namespace, clock)
        try:
            header = StreamFileHeader("scaling", namespace, version("dtf"), clock.now_ns())
            with writing(file, header) as writer:
                async for batch in records.read(0):
                    for message in batch:
                        writer.write(message)
            return writer.message_count
        finally:
            await records.close()
