"""`dtf trends rebuild`: search the log from its beginning, and compare with what was found as it went."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click
from google.protobuf.message import DecodeError

from dtf.adapters.memory_vault import MemoryVault
from dtf.adapters.records import JetStreamRecords
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import findings_pb2
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.log_source import LogSource, source_options, with_log_source
from dtf.cli.trends_client import Analyzer, ask_analyzer
from dtf.core.trend.finding_text import finding_sentence
from dtf.core.trend.names import NameBook
from dtf.core.trend.series import RULE_VERSION
from dtf.core.trend.series_book import SeriesBook
from dtf.core.trend.series_points import AnalyzedLogFold, SeriesKey
from dtf.core.upcast import read_commit
from dtf.ports.event_log import RecordStream
from dtf.ports.subjects import RecordKind
from dtf.report.output import plain_line

MOST_SHOWN = 20
Version = tuple[str, int]
"""Identity and version of a finding."""


@dataclass(slots=True)
class Rebuilt:
    """What a search of the log from its beginning found."""

    last_sequence: int = 0
    points: int = 0
    series: set[SeriesKey] = field(default_factory=set)
    findings: dict[Version, findings_pb2.Finding] = field(default_factory=dict)


@click.command("rebuild")
@source_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(invocation: Invocation, source: Path | None, namespace: str | None, as_json: bool) -> int:
    """Search the log anew from its beginning, and compare with what was found as it went.

    Every version of every finding must come out again, the same in each field. Exit code 1: it did not.

    \b
    Example:
        dtf trends rebuild
    """
    searched = _searched(invocation) if source is None else None
    rebuilt, recorded, others = with_log_source(
        invocation, source, namespace, lambda log: _both(log, searched)
    )
    differences = _differences(rebuilt.findings, recorded)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "last_sequence": rebuilt.last_sequence,
                    "points": rebuilt.points,
                    "series": len(rebuilt.series),
                    "findings": len(rebuilt.findings),
                    "recorded": len(recorded),
                    "of_other_rules": others,
                    "differences": differences,
                }
            )
        )
    else:
        for line in _lines(rebuilt, recorded, others, differences):
            click.echo(line)
    return ExitCode.FAILED if differences else ExitCode.OK


def _searched(invocation: Invocation) -> int:
    async def ask(analyzer: Analyzer) -> pb.GetCheckpointResponse:
        return await analyzer.settle()

    return ask_analyzer(invocation, ask).findings_sequence


async def _both(
    log: LogSource, searched: int | None
) -> tuple[Rebuilt, dict[Version, findings_pb2.Finding], int]:
    if log.broker is None:
        raise CommandError(
            f"{log.name} has no broker, so there is nothing to compare with",
            "leave out --from where the stack runs",
            exit_code=ExitCode.USAGE,
        )
    rebuilt = await rebuild(log, searched)
    records = await JetStreamRecords.open(log.broker, RecordKind.ANALYSIS, log.namespace, SystemClock())
    try:
        recorded, others = await recorded_findings(records, rebuilt.last_sequence)
    finally:
        await records.close()
    return rebuilt, recorded, others


async def rebuild(log: LogSource, until: int | None = None) -> Rebuilt:
    """Search a log from its beginning, as an analyzer does that has never seen it."""
    rebuilt = Rebuilt()
    fold, book = AnalyzedLogFold(NameBook()), SeriesBook(MemoryVault(), most_in_memory=100_000)
    async for batch in log.read(0, until):
        for stored in batch:
            try:
                fold.apply(read_commit(stored.payload), stored.sequence)
            except DecodeError:
                continue  # a stranger's message: the analyzer passes it over too
            rebuilt.last_sequence = stored.sequence
            for point in fold.take_series_points():
                rebuilt.points += 1
                rebuilt.series.add(point.key)
                for finding in book.append(point):
                    rebuilt.findings[finding.finding_id, finding.version] = finding
        fold.take()
    return rebuilt


async def recorded_findings(
    records: RecordStream, until: int
) -> tuple[dict[Version, findings_pb2.Finding], int]:
    """What was found as it went, by the rules of now, up to a sequence of the log; and how many by other rules."""
    recorded: dict[Version, findings_pb2.Finding] = {}
    others = 0
    async for batch in records.read(0):
        for stored in batch:
            try:
                event = findings_pb2.AnalysisEvent.FromString(stored.payload)
            except DecodeError:
                continue  # a stranger's
            finding = event.finding
            if not event.HasField("finding") or not 0 < finding.log_sequence <= until:
                continue
            if finding.rule_version != RULE_VERSION:
                others += 1
                continue
            recorded[finding.finding_id, finding.version] = finding
    return recorded, others


def _differences(
    rebuilt: Mapping[Version, findings_pb2.Finding], recorded: Mapping[Version, findings_pb2.Finding]
) -> list[str]:
    said = []
    for version in sorted(rebuilt.keys() | recorded.keys()):
        new, old = rebuilt.get(version), recorded.get(version)
        if new is None and old is not None:
            said.append(
                f"found as it went, not now: {version[0]} version {version[1]}, {finding_sentence(old)}"
            )
        elif old is None and new is not None:
            said.append(
                f"found now, not as it went: {version[0]} version {version[1]}, {finding_sentence(new)}"
            )
        elif new is not None and old is not None and _bytes(new) != _bytes(old):
            said.append(
                f"different: {version[0]} version {version[1]}, {finding_sentence(new)}; was {finding_sentence(old)}"
            )
    return said


def _bytes(finding: findings_pb2.Finding) -> bytes:
    return finding.SerializeToString(deterministic=True)


def _lines(
    rebuilt: Rebuilt,
    recorded: Mapping[Version, findings_pb2.Finding],
    others: int,
    differences: list[str],
) -> list[str]:
    lines = [
        f"log          {rebuilt.last_sequence:,} commits, {rebuilt.points:,} points of {len(rebuilt.series):,} series",
        f"findings     {len(rebuilt.findings):,} versions found now, {len(recorded):,} recorded as it went",
    ]
    if others:
        lines.append(
            f"set aside    {others:,} recorded by other rules than those of now (version {RULE_VERSION})"
        )
    if differences:
        lines += [plain_line(f"  {each}") for each in differences[:MOST_SHOWN]]
        return [*lines, f"result       {len(differences):,} differ"]
    return [*lines, "result       the same"]
