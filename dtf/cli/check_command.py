"""`dtf check`: hold a log, live or exported, against the properties that every history must have."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import click

from dtf.adapters.records import JetStreamRecords
from dtf.adapters.stream_file import StreamFile
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import scaling_pb2
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.log_source import LogSource, source_options, with_log_source
from dtf.cli.project_broker import project_broker
from dtf.core.check.checker import HistoryChecker
from dtf.core.check.journal import Journal
from dtf.core.check.report import CheckReport, PropertyReport
from dtf.core.check.witnesses import CLOCK_SKEW_SECONDS
from dtf.ports.subjects import RecordKind
from dtf.report.output import plain_line

_LIVE = "live"


@click.command()
@source_options
@click.option(
    "--journal",
    "journals",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    metavar="FILE|DIRECTORY",
    help="What clients and workers noted (DTF_JOURNAL); repeatable.",
)
@click.option(
    "--scaling",
    is_flag=False,
    flag_value=_LIVE,
    default=None,
    metavar="[FILE]",
    help="Hold the resource manager's decisions against it too: those on the broker, or in FILE.",
)
@click.option(
    "--clock-skew",
    type=click.FloatRange(min=0),
    default=CLOCK_SKEW_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How far a worker's clock may be behind the coordinator's.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(
    invocation: Invocation,
    source: Path | None,
    namespace: str | None,
    journals: Sequence[Path],
    scaling: str | None,
    clock_skew: float,
    as_json: bool,
) -> int:
    """Check a log: leases, fences, verdicts, submissions, epochs, hashes, totals.

    Reads the log once and touches nothing; exit code 1 if any property does not hold.

    \b
    Example:
        dtf check                                   the live log of this project
        dtf check --from log.dtfstream --json       an export, for machines
        dtf check --journal journal/ --scaling      with what clients, workers and the pool noted
    """
    journal = _read_journals(journals) if journals else None

    async def check(opened: LogSource) -> CheckReport:
        decisions = await _decisions(invocation, scaling, opened) if scaling else None
        head = await opened.head()
        if head.first_sequence > 1 and head.last_sequence:
            raise CommandError(
                f"{opened.name} begins at message {head.first_sequence}; a history is checked from its first",
                "the archive has what was before: `--from ARCHIVE_DIRECTORY`, or [nats] archive_dir",
            )
        checker = HistoryChecker(journal, decisions, clock_skew_seconds=clock_skew)
        label = f"checking {head.last_sequence} messages"
        with click.progressbar(length=head.last_sequence, label=label, file=sys.stderr) as bar:
            async for batch in opened.read(0, head.last_sequence):
                for stored in batch:
                    checker.take(stored.sequence, stored.payload, stored.message_id)
                bar.update(len(batch))
        return checker.finish()

    report = with_log_source(invocation, source, namespace, check)
    if as_json:
        click.echo(json.dumps(report.as_dict(), ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(report)))
    return ExitCode.OK if report.is_clean else ExitCode.FAILED


def _read_journals(paths: Sequence[Path]) -> Journal:
    """Every journal; a directory stands for its *.jsonl. Raises JournalError (a ValueError), OSError."""
    journal = Journal()
    for path in paths:
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not files:
            raise CommandError(
                f"{path} holds no journal (*.jsonl)",
                "DTF_JOURNAL=DIRECTORY makes clients and workers write them",
                exit_code=ExitCode.USAGE,
            )
        for file in files:
            try:
                with file.open(encoding="utf-8", newline="\n") as lines:
                    journal.read(lines, str(file))
            except ValueError as error:
                raise CommandError(str(error)) from error
    return journal


async def _decisions(
    invocation: Invocation, scaling: str, opened: LogSource
) -> list[scaling_pb2.ScalingDecision]:
    """The resource manager's decisions; live ones from the broker of the log, where that is read from one."""
    if scaling != _LIVE:
        with StreamFile(Path(scaling)) as stream:
            return _carried_out(message.payload for message in stream)
    async with AsyncExitStack() as stack:
        broker = opened.broker
        if broker is None:
            broker = await stack.enter_async_context(project_broker(invocation))
        records = await JetStreamRecords.open(broker, RecordKind.SCALING, opened.namespace, SystemClock())
        stack.push_async_callback(records.close)
        return _carried_out([message.payload async for batch in records.read(0) for message in batch])


def _carried_out(payloads: Iterable[bytes]) -> list[scaling_pb2.ScalingDecision]:
    """The decisions, without those of dry runs and shadows."""
    decisions = map(scaling_pb2.ScalingDecision.FromString, payloads)
    return [decision for decision in decisions if not decision.rehearsal]


def _lines(report: CheckReport) -> Iterator[str]:
    yield f"{'property':<26}{'checked':>12}{'violations':>12}"
    for each in report.properties:
        yield _line(each)
    yield ""
    yield (
        f"{report.commit_count:,} commits, {report.event_count:,} events, sequence {report.last_sequence:,}; "
        f"{report.runs_ended:,} runs ended, {report.runs_open:,} open"
    )
    if report.stranger_count:
        yield f"messages passed over, for they are no commits of the chain: {report.stranger_count:,}"
    if report.accepted_losses:
        yield f"times an operator let the log go on without commits it had lost: {report.accepted_losses}"
    total = sum(each.violation_count for each in report.properties)
    for violation in report.violations:
        where = f"message {violation.sequence}" if violation.sequence else "the log"
        yield f"{violation.property.title}: {where}: {plain_line(violation.what)}"
    if total > len(report.violations):
        yield f"… and {total - len(report.violations):,} more"
    yield "clean" if report.is_clean else f"{total:,} violations"


def _line(report: PropertyReport) -> str:
    if not report.is_asked:
        return f"{report.property.title:<26}{'-':>12}{'-':>12}   needs {report.property.source.value}"
    return f"{report.property.title:<26}{report.checked:>12,}{report.violation_count:>12,}"
