"""`dtf report --compare BASE..HEAD`: how two revisions of a suite differ."""

from pathlib import Path

import click

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.revisions import compare_revisions
from dtf.cli.trends_client import Analyzer, ask_analyzer
from dtf.report.compare import render_comparison


def print_comparison(
    invocation: Invocation, span: str, suite: str, kind: str, page: Path | None, *, shows_each: bool = False
) -> int:
    """Print the comparison in the form `kind`, or write the page; an end left out is the newest, or the one before."""
    base, separator, head = span.replace("...", "..").partition("..")
    if not separator:
        raise CommandError(
            f"--compare {span!r} is not BASE..HEAD",
            "as 4f2a91c..9d3e001 or main..HEAD, or .. for the newest two",
            exit_code=ExitCode.USAGE,
        )
    settings = invocation.load().settings
    name = suite or settings.run.suite or invocation.project_dir.name
    request = pb.CompareRevisionsRequest(suite=name, base=base, head=head)

    async def ask(analyzer: Analyzer) -> pb.CompareRevisionsResponse:
        await analyzer.settle()
        return await compare_revisions(analyzer, request, invocation.project_dir)

    compared = ask_analyzer(invocation, ask)
    if page is not None:
        try:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(render_comparison(compared, name, "html"), encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{page} cannot be written: {error.strerror}") from error
    shown = "text" if page is not None else kind
    click.echo(render_comparison(compared, name, shown, shows_each=shows_each), nl=False)
    return ExitCode.OK
