"""`dtf trends rules`: how often each rule was right, by people's judgement."""

import json

import click
from google.protobuf.json_format import MessageToDict

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.cli.invocation import Invocation
from dtf.cli.trends_client import Analyzer, ask_analyzer
from dtf.core.trend.finding_words import KIND_NAMES


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

    for rule in ask_analyzer(invocation, ask).rules:
        if as_json:
            click.echo(
                json.dumps(
                    MessageToDict(
                        rule, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
                    )
                )
            )
        else:
            click.echo(rule_line(rule))


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
