"""`dtf trends analyze FILE…`: what changed in history that is in files; no server is asked or started."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from dtf.cli.analysis_progress import AnalysisProgress
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.trends_picture import check_plot, write_picture
from dtf.cli.trends_tables import overview_lines, series_lines
from dtf.core.trend.findings import ChangeState, Impact
from dtf.core.trend.imports.series import ImportedSeries
from dtf.report.output import plain_line
from dtf.trends.analysis import Analysis, analyze_imported
from dtf.trends.files import load


def file_options(function: Any) -> Any:
    """The options that say how files are read, shared with `dtf trends import`."""
    for option in reversed(
        (
            click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True)),
            click.option(
                "--column",
                "columns",
                multiple=True,
                metavar="NAME",
                help="A column or series; repeatable. All unless given.",
            ),
            click.option(
                "--time-column",
                default="",
                metavar="NAME",
                help="Column of the times, if not found by itself.",
            ),
            click.option(
                "--revision-column",
                default="",
                metavar="NAME",
                help="Column of the revisions, if not found by itself.",
            ),
            click.option(
                "--lower-is-better/--higher-is-better",
                "lower_is_better",
                default=None,
                help="Which direction is good, whatever the file says.",
            ),
            click.option(
                "--file-times",
                "is_file_time",
                is_flag=True,
                help="Values without a time have that of their file's last change.",
            ),
        )
    ):
        function = option(function)
    return function


@click.command()
@file_options
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Draw it: .svg or .png."
)
@click.option(
    "--forecast", "horizon", type=click.IntRange(min=1, max=1000), metavar="N", help="Also the next N values."
)
@click.option(
    "--fail-on-regression",
    is_flag=True,
    help="Exit code 1 if a confirmed regression stands in the newest regime.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--quiet", "-q", "is_quiet", is_flag=True, help="Do not show how far it is.")
def command(
    files: Sequence[Path],
    columns: Sequence[str],
    time_column: str,
    revision_column: str,
    lower_is_better: bool | None,
    is_file_time: bool,
    plot: Path | None,
    horizon: int | None,
    fail_on_regression: bool,
    as_json: bool,
    is_quiet: bool,
) -> int:
    """What became slower or faster in FILES: CSV, or what pytest-benchmark, Google Benchmark, hyperfine or asv wrote.

    A folder stands for all such files in it. Of one series everything is shown, of several what changed
    in each. Empty cells, nan, na, n/a, null, none and - are missing values. On a terminal it is shown how
    far it is. Exit codes: 0 analysed, 1 see --fail-on-regression, 2 interrupted, 4 a file or an option is
    at fault, 5 there are no values.

    \b
    Example:
        dtf trends analyze latency.csv --lower-is-better
        dtf trends analyze .benchmarks --column median --json
        dtf trends analyze results.csv --column throughput --higher-is-better --plot out.svg
    """
    check_plot(plot)
    with AnalysisProgress(None if is_quiet else sys.stderr) as progress:
        progress.stage("reading")
        found = read_files(files, columns, time_column, revision_column, is_file_time=is_file_time)
        series = select(found, columns)
        analyses = _analyses(series, lower_is_better)
        if not any(np.isfinite(each.values).any() for each in analyses):
            raise CommandError("there are no values in what was named", exit_code=ExitCode.EMPTY)
        _search(analyses, progress, is_whole=as_json or len(analyses) == 1)
    if plot is not None:
        save_plot(plot, series, analyses)
    if as_json:
        click.echo(
            json.dumps({"series": [_document(*pair, horizon) for pair in zip(series, analyses, strict=True)]})
        )
    else:
        click.echo("\n".join(_lines(series, analyses, horizon)))
    return _exit_code(analyses) if fail_on_regression else ExitCode.OK


def _analyses(series: Sequence[ImportedSeries], lower_is_better: bool | None) -> list[Analysis]:
    """The series, checked. Raises CommandError."""
    analyses = []
    for each in series:
        try:
            analyses.append(analyze_imported(each, lower_is_better))
        except ValueError as error:
            raise CommandError(f"{plain_line(each.name)}: {error}", exit_code=ExitCode.USAGE) from error
    return analyses


def _search(analyses: Sequence[Analysis], progress: AnalysisProgress, *, is_whole: bool) -> None:
    """Find what will be asked for, while it is shown how far that is."""
    total = sum(len(each.values) for each in analyses)
    size = f"{total:,} values" if len(analyses) == 1 else f"{total:,} values of {len(analyses):,} series"
    advance, done = progress.stage(f"changes in {size}", total), 0
    for each in analyses:
        each.search(_behind(done, advance))
        done += len(each.values)
    if not is_whole:
        return
    advance, done = progress.stage(f"unusual values in {size}", total), 0
    for each in analyses:
        each.search_anomalies(_behind(done, advance))
        done += len(each.values)


def _behind(done: int, advance: Callable[[int], None]) -> Callable[[int], None]:
    return lambda searched: advance(done + searched)


def read_files(
    files: Sequence[Path],
    columns: Sequence[str],
    time_column: str,
    revision_column: str,
    *,
    is_file_time: bool,
) -> list[ImportedSeries]:
    """The series in `files`. Raises CommandError."""
    try:
        return load(
            *files,
            columns=columns,
            time_column=time_column,
            revision_column=revision_column,
            use_file_times=is_file_time,
        )
    except (ValueError, OSError) as error:
        raise CommandError(
            str(error), "docs/trends.md shows what can be read", exit_code=ExitCode.USAGE
        ) from error


def select(series: Sequence[ImportedSeries], names: Sequence[str]) -> list[ImportedSeries]:
    """Those of these names, metrics or cases; all unless names are given. Raises CommandError."""
    chosen = [each for each in series if not names or {each.name, each.metric, each.case} & set(names)]
    for name in names:
        if not any(name in (each.name, each.metric, each.case) for each in series):
            known = ", ".join(repr(plain_line(each.name)) for each in series[:8])
            raise CommandError(f"no series {name!r}", f"there are {known}", exit_code=ExitCode.USAGE)
    return chosen


def save_plot(path: Path, series: Sequence[ImportedSeries], analyses: Sequence[Analysis]) -> None:
    """Draw the series; several are told apart by a number in the file's name. Raises CommandError."""
    for number, (each, analysis) in enumerate(zip(series, analyses, strict=True)):
        target = path if len(analyses) == 1 else path.with_stem(f"{path.stem}-{number + 1}")
        write_picture(target, analysis.picture(unit=each.unit))
        print(f"drawn: {target}", file=sys.stderr)  # noqa: T201 - progress, apart from the answer


def _lines(series: Sequence[ImportedSeries], analyses: Sequence[Analysis], horizon: int | None) -> list[str]:
    if len(analyses) == 1:
        return series_lines(analyses[0], series[0].unit, horizon)
    return overview_lines(analyses, [each.unit for each in series])


def _document(series: ImportedSeries, analysis: Analysis, horizon: int | None) -> dict[str, Any]:
    document = {"case": series.case, "metric": series.metric, "unit": series.unit, **analysis.to_dict()}
    if horizon is not None:
        document["forecast"] = analysis.forecast_dict(horizon)
    return document


def _exit_code(analyses: Sequence[Analysis]) -> ExitCode:
    """FAILED where the newest confirmed change of a series is a regression."""
    for analysis in analyses:
        confirmed = [each for each in analysis.change_points if each.state is ChangeState.CONFIRMED]
        if confirmed and confirmed[-1].impact is Impact.REGRESSION:
            return ExitCode.FAILED
    return ExitCode.OK
