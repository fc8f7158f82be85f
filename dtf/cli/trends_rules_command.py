"""`dtf trends rules`: how often each rule was right, by people's judgement."""

import json

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.cli.invocation import Invocation
from dtf.cli.trends_client import Analyzer, ask_analyzer
from dtf.cli.trends_list_command import finding_lines
from dtf.core.trend.finding_words import KIND_NAMES
from dtf.report.wording import counted


@click.command("rules")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def command(invocation: Invocation, as_json: bool) -> None:
    """How often each rule was right, by what `accept` and `reject` said, and the evidence it needs now.

    A rule whose findings are rejected needs more evidence before one is raised (docs/triage.md).

    \b
    Example:
        dtf trends rules
    """

    async def ask(analyzer: Analyzer) -> pb.ListRulesResponse:
        return await analyzer.stub.ListRules(pb.ListRulesRequest(), **analyzer.call)

    answer = ask_analyzer(invocation, ask)
    if as_json:
        for rule in answer.rules:
            click.echo(json.dumps(_document(rule)))
        click.echo(
            json.dumps({"orphans": list(map(_document, answer.orphans)), "orphan_count": answer.orphan_count})
        )
        return
    for rule in answer.rules:
        click.echo(rule_line(rule))
    for line in orphan_lines(answer):
        click.echo(line)


def _document(message: Message) -> dict[str, object]:
    document: dict[str, object] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return document


def orphan_lines(answer: pb.ListRulesResponse) -> list[str]:
    """The judgements whose findings the rules of now do not find, below a sentence that says so; []: there are none."""
    if not answer.orphan_count:
        return []
    judged = counted(answer.orphan_count, "judged finding is", "judged findings are")
    lines = [f"{judged} not found by the rules of now, nor another in the same place:"]
    for each in answer.orphans:
        lines += finding_lines(each, names_suite=True)
    hidden = answer.orphan_count - len(answer.orphans)
    return [*lines, f"and {hidden:,} older ones"] if hidden else lines


def rule_line(rule: pb.RuleRecord) -> str:
    """ "step  12 standing, 1 went away, 5 accepted, 1 rejected: right 83 % (44 to 97) …"."""
    counts = (
        f"{rule.standing} standing, {rule.gone} went away, {rule.accepted} accepted, {rule.rejected} rejected"
    )
    right = "not judged yet"
    if rule.HasField("precision"):
        low, high = rule.precision_low * 100, rule.precision_high * 100
        right = f"right {rule.precision * 100:.0f} % ({low:.0f} to {high:.0f})"
    needs = f", needs confidence {rule.required_confidence:.4f}" if rule.required_confidence else ""
    return f"{KIND_NAMES.get(rule.kind, 'unknown'):<13} {counts}: {right}{needs}"
