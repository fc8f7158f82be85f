"""`dtf trends import FILE…`: history measured elsewhere becomes series of this stack, with findings like any other."""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import findings_pb2, resource_service_pb2
from dtf.cli.analysis_progress import AnalysisProgress
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.trends_analyze_command import file_options, read_files, select
from dtf.cli.trends_client import Analyzer, ask_analyzer
from dtf.client.client import CALL_TIMEOUT_SECONDS
from dtf.core.trend.imports.series import ImportedSeries
from dtf.core.trend.names import series_name
from dtf.report.output import plain_line
from dtf.settings.model import Settings

LEAST_SECONDS, MOST_SECONDS = -9.2e9, 9.2e9
"""Times that the log holds as whole nanoseconds."""
MOST_POINTS = 20_000
"""In one call, so that its message stays below 4 MiB."""


@click.command("import")
@file_options
@click.option(
    "--suite",
    default="",
    metavar="NAME",
    help="Suite of the series.  [default: name of the first file or folder]",
)
@click.option("--pool", default="", metavar="NAME", help="Where it was measured.  [default: imported]")
@click.option(
    "--force", "is_forced", is_flag=True, help="Also into a pool of this stack, among what its runs measure."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(
    invocation: Invocation,
    files: Sequence[Path],
    columns: Sequence[str],
    time_column: str,
    revision_column: str,
    lower_is_better: bool | None,
    is_file_time: bool,
    suite: str,
    pool: str,
    is_forced: bool,
    as_json: bool,
) -> int:
    """Bring in the history in FILES: CSV, or what pytest-benchmark, Google Benchmark, hyperfine or asv wrote.

    Points need times. A pool of this stack is refused without --force, for its series would have points of
    two machines. Importing again takes only what is newer than what the series have. `dtf trends
    analyze` shows what would be found, without any server.

    \b
    Example:
        dtf trends import .benchmarks --suite parser
        dtf trends import hyperfine/*.json --file-times --suite cli
    """
    found = read_files(files, columns, time_column, revision_column, is_file_time=is_file_time)
    series = select(found, columns)
    name = series_name(suite or plain_line(files[0].resolve().stem.lstrip(".")))
    pool, source = pool and series_name(pool), plain_line(str(files[0]))
    records = [as_record(each, name, pool, lower_is_better, source) for each in series]
    records = [each for each in records if each.values]
    if not records:
        raise CommandError("there are no values in what was named", exit_code=ExitCode.EMPTY)

    own_pool = "" if is_forced else pool
    with AnalysisProgress(sys.stderr) as progress:
        taken, known = _import(invocation, records, own_pool, progress)
    if as_json:
        click.echo(json.dumps({"suite": name, "series": len(records), "taken": taken, "known": known}))
    else:
        click.echo(
            f"{taken:,} points of {len(records):,} series imported into suite {plain_line(name)}; {known:,} were there already"
        )
        click.echo("dtf trends        shows what changed")
    return ExitCode.OK


def _import(
    invocation: Invocation,
    records: Sequence[findings_pb2.PointsImported],
    own_pool: str,
    progress: AnalysisProgress,
) -> tuple[int, int]:
    """Hand in the records: how many points were taken, and how many were there. Raises CommandError.

    `own_pool`, unless empty, must be none of this stack.
    """
    total = sum(len(each.values) for each in records)
    taken = known = 0
    advance = progress.stage(f"importing {total:,} points", total)

    async def send(analyzer: Analyzer) -> None:
        nonlocal taken, known
        if own_pool:
            await _refuse_own_pool(analyzer, own_pool, invocation.load().settings)
        for request in requests(records):
            response = await analyzer.stub.ImportPoints(request, **analyzer.call)
            taken, known = taken + response.taken_count, known + response.known_count
            advance(taken + known)

    try:
        ask_analyzer(invocation, send)
    except KeyboardInterrupt:
        raise CommandError(
            f"interrupted; {taken + known:,} of {total:,} points were acknowledged",
            "what was taken stays; the same command again takes the rest",
            exit_code=ExitCode.CANCELLED,
        ) from None
    return taken, known


async def _refuse_own_pool(analyzer: Analyzer, pool: str, settings: Settings) -> None:
    """Raises CommandError for a pool that this stack measures on itself."""
    client = analyzer.client
    answer = await client.pools.ListPools(
        resource_service_pb2.ListPoolsRequest(), metadata=client.metadata, timeout=CALL_TIMEOUT_SECONDS
    )
    if pool in (settings.pool.name, *settings.pools, *(each.name for each in answer.pools)):
        raise CommandError(
            f"{pool} is a pool of this stack: its runs and what is imported would be one series, and where the "
            "machines differ each import would be taken for a change",
            "leave --pool out (the pool is then `imported`), or name the machine it was measured on",
            "--force imports all the same",
            exit_code=ExitCode.USAGE,
        )


def as_record(
    series: ImportedSeries, suite: str, pool: str, lower_is_better: bool | None, source: str
) -> findings_pb2.PointsImported:
    """A series for the analyzer, without its missing values. Raises CommandError for one without times.

    A column of a table, which has no case, is a case by itself.
    """
    if not (series.times and series.has_dates):
        raise CommandError(
            f"{plain_line(series.name)} has no dates, and a history needs them",
            "name their column with --time-column, or take the times of the files with --file-times",
            exit_code=ExitCode.USAGE,
        )
    if not LEAST_SECONDS <= series.times[0] <= series.times[-1] <= MOST_SECONDS:
        raise CommandError(
            f"{plain_line(series.name)} has times outside the years 1678 to 2261", exit_code=ExitCode.USAGE
        )
    kept = [number for number, value in enumerate(series.values) if math.isfinite(value)]
    record = findings_pb2.PointsImported(
        series=findings_pb2.FindingSeries(
            suite=suite,
            case_name=series_name(series.case or series.metric),
            metric=series_name(series.metric) if series.case else "value",
            pool=pool,
        ),
        unit=plain_line(series.unit),
        times_unix_nanos=rising([round(series.times[number] * 1e9) for number in kept]),
        values=[series.values[number] for number in kept],
        weights=[series.weights[number] for number in kept] if series.weights else [],
        revisions=[plain_line(series.revisions[number]) for number in kept] if series.revisions else [],
        source=source,
    )
    better = series.is_lower_better if lower_is_better is None else lower_is_better
    if better is not None:
        record.is_lower_better = better
    return record


def rising(times: Sequence[int]) -> list[int]:
    """The times, equal ones a nanosecond apart: two points of a series cannot have one time in the store."""
    found: list[int] = []
    for time in times:
        found.append(time if not found else max(time, found[-1] + 1))
    return found


def requests(records: Sequence[findings_pb2.PointsImported]) -> Iterator[pb.ImportPointsRequest]:
    """The records in calls of at most MOST_POINTS, each series' points in order."""
    request, room = pb.ImportPointsRequest(), MOST_POINTS
    for record in records:
        for start in range(0, len(record.values), MOST_POINTS):
            part = _slice(record, start, start + MOST_POINTS)
            if len(part.values) > room:
                yield request
                request, room = pb.ImportPointsRequest(), MOST_POINTS
            request.series.append(part)
            room -= len(part.values)
    if request.series:
        yield request


def _slice(record: findings_pb2.PointsImported, start: int, end: int) -> findings_pb2.PointsImported:
    part = findings_pb2.PointsImported()
    part.CopyFrom(record)
    for name in ("times_unix_nanos", "values", "weights", "revisions"):
        part.ClearField(name)
        getattr(part, name).extend(getattr(record, name)[start:end])
    return part
