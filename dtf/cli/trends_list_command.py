"""`dtf trends list`: findings, the newest first."""

import json

import click
from google.protobuf.json_format import MessageToDict

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.cli.invocation import Invocation
from dtf.cli.trends_client import Analyzer, ask_analyzer
from dtf.core.trend.finding_text import change_text, revisions_text, series_text
from dtf.core.trend.findings_book import IMPACT_NAMES, KIND_NAMES, STATE_NAMES, TRIAGE_NAMES
from dtf.report.output import plain_line


@click.command("list")
@click.option("--suite", default="", help="Only this suite.")
@click.option("--case", "case_name", default="", help="Only this case.")
@click.option("--metric", default="", help="Only this metric, as duration_seconds.")
@click.option(
    "--all",
    "include_all",
    is_flag=True,
    help="Also what went away, was rejected or muted, and lone unusual values.",
)
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Most findings."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def command(
    invocation: Invocation,
    suite: str = "",
    case_name: str = "",
    metric: str = "",
    include_all: bool = False,
    limit: int = 100,
    as_json: bool = False,
) -> None:
    """What became slower or faster, the newest first.

    \b
    Example:
        dtf trends
        dtf trends list --suite bench --all --json
    """
    request = pb.ListFindingsRequest(
        suite=suite, case_name=case_name, metric=metric, include_all=include_all, page_size=limit
    )

    async def ask(analyzer: Analyzer) -> list[pb.TrackedFinding]:
        await analyzer.settle()
        return list((await analyzer.stub.ListFindings(request, **analyzer.call)).findings)

    findings = ask_analyzer(invocation, ask)
    for each in findings:
        click.echo(json.dumps(finding_document(each)) if as_json else "\n".join(finding_lines(each)))
    if not findings and not as_json:
        click.echo(
            "nothing became slower or faster" + ("" if include_all else "; --all shows what was set aside")
        )


def finding_document(tracked: pb.TrackedFinding) -> dict[str, object]:
    """The finding as JSON has it, zeros included."""
    document: dict[str, object] = MessageToDict(
        tracked, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return document


def finding_lines(tracked: pb.TrackedFinding) -> list[str]:
    """ "635d259c51  confirmed regression (step)  test_big duration_seconds", and below it what is known."""
    finding = tracked.finding
    state = STATE_NAMES.get(finding.state, "unknown").replace("_", " ")
    impact, kind = IMPACT_NAMES.get(finding.impact, "change"), KIND_NAMES.get(finding.kind, "unknown")
    judged = TRIAGE_NAMES.get(tracked.triage.verdict, "")
    aside = f"  [{judged}]" if judged else ("" if tracked.is_raised else "  [not raised]")
    head = f"{finding.finding_id}  {state} {impact} ({kind})  {series_text(finding.series)}{aside}"
    facts = [change_text(finding), f"since {revisions_text(finding)}" if revisions_text(finding) else ""]
    facts.append(f"run {finding.run_id}" if finding.run_id else "")
    lines = [head, "    " + ", ".join(fact for fact in facts if fact)]
    if tracked.triage.reason:
        lines.append(f"    {judged or 'judged'} by {tracked.triage.triaged_by}: {tracked.triage.reason}")
    return [plain_line(line) for line in lines]
