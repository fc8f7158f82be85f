"""`dtf trends list`: findings, the newest first; what many series share is one of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import click
from google.protobuf.json_format import MessageToDict

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.cli.invocation import Invocation
from dtf.cli.trends_client import Analyzer, ask_analyzer
from dtf.core.trend.confirmations import confirmation_line
from dtf.core.trend.finding_groups import FindingGroup, group_findings, groups_by_finding
from dtf.core.trend.finding_text import change_text, revisions_text, series_text
from dtf.core.trend.finding_words import IMPACT_NAMES, KIND_NAMES, STATE_NAMES, TRIAGE_NAMES
from dtf.core.trend.group_text import group_document, group_head, group_tail
from dtf.core.trend.scarcity import scarcity_text, together_text
from dtf.report.output import plain_line
from dtf.report.wording import counted

MOST_CONFIRMATIONS = 3
"""Newest requests for more points that the lines of a finding name."""
MOST_GROUPED = 10_000
"""Findings that are looked at for what they share, the newest."""


@click.command("list")
@click.option("--suite", default="", help="Only this suite.")
@click.option("--case", "case_name", default="", help="Only this case.")
@click.option("--metric", default="", help="Only this metric, as duration_seconds.")
@click.option(
    "--all",
    "include_all",
    is_flag=True,
    help="Also each finding of a group, what went away, was rejected or muted, and lone unusual values.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    help="Most findings; a group counts as one.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="One JSON object a line: findings, then how much history there is.",
)
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

    Changes of several series that one revision explains are one, and so is cost that moved between
    cases; --all and --json show each finding.

    \b
    Example:
        dtf trends
        dtf trends list --suite bench --all --json
    """

    async def ask(analyzer: Analyzer) -> tuple[list[pb.TrackedFinding], pb.CountSeriesResponse]:
        await analyzer.settle()
        request = pb.CountSeriesRequest(suite=suite, case_name=case_name, metric=metric)
        known = await analyzer.stub.CountSeries(request, **analyzer.call)
        return await newest_findings(analyzer, suite, include_all=include_all), known

    found, known = ask_analyzer(invocation, ask)
    groups = groups_by_finding(group_findings(each.finding for each in found if each.is_raised))
    findings = [each for each in found if _is_asked_for(each, case_name, metric)]
    if as_json:
        for each in findings[:limit]:
            click.echo(json.dumps(finding_document(each, groups.get(each.finding.finding_id))))
    else:
        for lines in islice(entries(findings, groups, with_members=include_all), limit):
            click.echo("\n".join(lines))
    short = scarcity_text(known.short_count, known.series_count, known.least_point_count)
    if as_json:
        click.echo(json.dumps({"history": _history_document(known, short)}))
        return
    _say_history(known, findings, short, " ".join(filter(None, (suite, case_name, metric))), include_all)


def _say_history(
    known: pb.CountSeriesResponse,
    findings: Sequence[pb.TrackedFinding],
    short: str,
    asked: str,
    include_all: bool,
) -> None:
    """What there is to be found in, where nothing was; and what could not be found."""
    if not known.series_count:
        click.echo(f"no series{f' of {asked}' if asked else ''} yet: the first run that passes begins them")
    elif not findings:
        aside = "" if include_all else "; --all shows what was set aside"
        series = counted(known.series_count, "series", "series")
        click.echo(f"nothing became slower or faster in {series}{aside}")
    if short:
        click.echo(f"too short   {short}")
    if asked:
        return  # the rest is about the whole log
    if known.orphan_count:
        judged = counted(known.orphan_count, "judged finding is", "judged findings are")
        click.echo(f"not again   {judged} not found by the rules of now; dtf trends rules names them")
    if known.together_limit:
        click.echo(f"not all     {together_text(known.together_limit)}")


def _history_document(known: pb.CountSeriesResponse, sentence: str) -> dict[str, object]:
    return {
        "series": known.series_count,
        "short": known.short_count,
        "least_points": known.least_point_count,
        "sentence": sentence,
        "together_limit": known.together_limit,
        "orphans": known.orphan_count,
    }


async def newest_findings(analyzer: Analyzer, suite: str, *, include_all: bool) -> list[pb.TrackedFinding]:
    """The newest findings: those of other series say what a series shares, so none is left out here."""
    request = pb.ListFindingsRequest(suite=suite, include_all=include_all, page_size=MOST_GROUPED)
    found: list[pb.TrackedFinding] = []
    while len(found) < MOST_GROUPED:
        page = await analyzer.stub.ListFindings(request, **analyzer.call)
        found += page.findings
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    return found


def _is_asked_for(tracked: pb.TrackedFinding, case_name: str, metric: str) -> bool:
    series = tracked.finding.series
    return case_name in ("", series.case_name) and metric in ("", series.metric)


def entries(
    findings: Sequence[pb.TrackedFinding], groups: Mapping[str, FindingGroup], *, with_members: bool
) -> Iterator[list[str]]:
    """The lines of each finding, or of its group at the place of the newest of them.

    Of findings of several suites each says its own.
    """
    names_suite = len({each.finding.series.suite for each in findings}) > 1
    listed = {each.finding.finding_id: each for each in findings}
    said: set[str] = set()
    for each in findings:
        group = groups.get(each.finding.finding_id)
        if group is None:
            yield finding_lines(each, names_suite=names_suite)
        elif each.finding.finding_id not in said:
            members = [listed[one.finding_id] for one in group.findings if one.finding_id in listed]
            said.update(one.finding_id for one in group.findings)
            suite = f" in {each.finding.series.suite}" if names_suite else ""
            yield _group_lines(group, members if with_members else [], suite)


def _group_lines(group: FindingGroup, members: Sequence[pb.TrackedFinding], suite: str) -> list[str]:
    """ "3 series    confirmed regression of 3 series, median …", and below it the largest, or each of them."""
    rest = group_tail(group).removeprefix("; ")
    word = f"{len(group.findings)} series"
    lines = [plain_line(f"{word:<10}  {group_head(group)}{suite}"), plain_line(f"    {rest}")]
    for member in members:
        lines += [f"    {line}" for line in finding_lines(member)]
    return lines


def finding_document(tracked: pb.TrackedFinding, group: FindingGroup | None = None) -> dict[str, object]:
    """The finding as JSON has it, zeros included, with what it is a part of."""
    document: dict[str, object] = MessageToDict(
        tracked, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return document | {"group": group_document(group)} if group is not None else document


def finding_lines(tracked: pb.TrackedFinding, *, names_suite: bool = False) -> list[str]:
    """ "635d259c51  confirmed regression (step)  test_big duration_seconds", and below it what is known."""
    finding = tracked.finding
    state = STATE_NAMES.get(finding.state, "unknown").replace("_", " ")
    impact, kind = IMPACT_NAMES.get(finding.impact, "change"), KIND_NAMES.get(finding.kind, "unknown")
    judged = TRIAGE_NAMES.get(tracked.triage.verdict, "")
    aside = f"  [{judged}]" if judged else ("" if tracked.is_raised else "  [not raised]")
    suite = f" in {finding.series.suite}" if names_suite and finding.series.case_name else ""
    head = f"{finding.finding_id}  {state} {impact} ({kind})  {series_text(finding.series)}{suite}{aside}"
    facts = [change_text(finding), f"since {revisions_text(finding)}" if revisions_text(finding) else ""]
    facts.append(f"run {finding.run_id}" if finding.run_id else "")
    lines = [head, "    " + ", ".join(fact for fact in facts if fact)]
    if tracked.triage.reason:
        lines.append(f"    {judged or 'judged'} by {tracked.triage.triaged_by}: {tracked.triage.reason}")
    if tracked.triage.finding_id not in ("", finding.finding_id):
        lines.append(f"    judged as {tracked.triage.finding_id}, in whose place it stands")
    if tracked.successor_id:
        lines.append(f"    found as {tracked.successor_id} now, of which the same is said")
    if tracked.is_orphaned:
        lines.append("    the rules of now find nothing there: the judgement is of nothing that is shown")
    lines += [f"    {confirmation_line(each)}" for each in tracked.confirmations[-MOST_CONFIRMATIONS:]]
    return [plain_line(line) for line in lines]
