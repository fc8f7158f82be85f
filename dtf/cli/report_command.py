"""`dtf report`: what happened in a run, as lines, page or JSON."""

import asyncio
import json
from pathlib import Path

import click

from dtf.cli.connection import any_client
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.client.client import Client
from dtf.report.document import report_document
from dtf.report.gather import ANALYZER_TIMEOUT_SECONDS, RunNotFinished, RunReport, gather_report
from dtf.report.text import summary_lines
from dtf.report.write import default_page, write_page
from dtf.settings.project import state_dir


@click.command("report")
@click.argument("run_id", metavar="[RUN]", required=False, default="")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object; write no page.")
@click.option("--html", "page", type=click.Path(path_type=Path), help="Where to write the page.")
@click.option(
    "--compare", metavar="BASE..HEAD", help="Instead of a run: how two revisions of a suite differ."
)
@click.option("--suite", default="", help="Of --compare; the settings' or the project's, unless named.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["text", "md", "html", "json", "junit"]),
    default="text",
    show_default=True,
    help="Of --compare; to standard output.",
)
@click.option("--all", "shows_each", is_flag=True, help="Of --compare: also each series of a group.")
@click.option(
    "--wait",
    "wait_seconds",
    type=float,
    default=ANALYZER_TIMEOUT_SECONDS,
    show_default=True,
    help="Seconds to wait for the trend analyzer to reach the run.",
)
@click.pass_obj
def command(
    invocation: Invocation,
    run_id: str,
    as_json: bool,
    page: Path | None,
    compare: str | None,
    suite: str,
    kind: str,
    shows_each: bool,
    wait_seconds: float,
) -> int:
    """Say what ran, what failed and whose fault it was, what was slow, and how it compares with history.

    RUN is the newest run that ended, unless named. The page goes to .dtf/reports/RUN/index.html.

    \b
    Example:
        dtf report                      the newest run
        dtf report 7f3k --html out.html
        dtf report --compare main..HEAD --format md
    """
    if compare is not None:
        # Imported here because a report of a run needs none of it.
        from dtf.cli.report_comparison import print_comparison

        form = "json" if as_json else kind
        return print_comparison(invocation, compare, suite, form, page, shows_each=shows_each)
    report = asyncio.run(_gather(invocation, run_id, wait_seconds))
    if as_json:
        click.echo(json.dumps(report_document(report)))
        return ExitCode.OK
    target = page or default_page(state_dir(invocation.project_dir) / "reports", report.run.run_id)
    try:
        write_page(report, target)
    except OSError as error:
        raise CommandError(f"{target} cannot be written: {error.strerror}") from error
    for line in summary_lines(report, _shown(target)):
        click.echo(line)
    return ExitCode.OK


async def _gather(invocation: Invocation, run_id: str, wait_seconds: float) -> RunReport:
    async with any_client(invocation) as client:
        chosen = run_id or await _newest(client)
        try:
            return await gather_report(client, chosen, analyzer_timeout_seconds=wait_seconds)
        except RunNotFinished as error:
            raise CommandError(
                str(error), f"`dtf runs show {chosen}` says how far it is", exit_code=ExitCode.FAILED
            ) from error


async def _newest(client: Client) -> str:
    for run in await client.list_runs(limit=50):
        if run.finished_at and not run.HasField("confirmation"):
            return run.run_id
    raise CommandError(
        "no run has ended yet", "`dtf run …` makes one; `dtf runs` lists them", exit_code=ExitCode.EMPTY
    )


def _shown(path: Path) -> Path:
    """As people would type it from here."""
    try:
        return path.absolute().relative_to(Path.cwd())
    except ValueError:
        return path
