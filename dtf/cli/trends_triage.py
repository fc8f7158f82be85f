"""`dtf trends accept|reject|mute`: three judgements, one command each."""

import json

import click

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import findings_pb2
from dtf.cli.invocation import Invocation
from dtf.cli.trends_client import Analyzer, ask_analyzer
from dtf.cli.trends_list_command import finding_document, finding_lines
from dtf.client.owner import default_owner

_VERDICTS = {
    "accept": (
        findings_pb2.TRIAGE_VERDICT_ACCEPTED,
        "Say that a finding is real.",
        "It stays, and counts for its rule: the gate goes on to speak of a regression until it is mended or muted.",
        "bisected: the new parser",
    ),
    "reject": (
        findings_pb2.TRIAGE_VERDICT_REJECTED,
        "Say that a finding is a false alarm.",
        "It is not spoken of any more, and counts against its rule, which then needs more evidence.",
        "the machine was changed",
    ),
    "mute": (
        findings_pb2.TRIAGE_VERDICT_MUTED,
        "Say that a finding is not to be spoken of.",
        "Real or not, lists, notices and the gate leave it out; its rule is neither praised nor blamed.",
        "known, mended in the next release",
    ),
}


def triage_command(verb: str) -> click.Command:
    """The command for one judgement."""
    verdict, summary, consequence, example = _VERDICTS[verb]
    text = (
        f"{summary}\n\n    {consequence} --undo takes it back. ID may be its first characters.\n\n"
        f'    \b\n    Example:\n        dtf trends {verb} 635d --reason "{example}"\n    '
    )

    @click.command(verb, help=text)
    @click.argument("finding_id", metavar="ID")
    @click.option("--reason", default="", help="Why, for the record.")
    @click.option("--undo", is_flag=True, help="Take back what was said of it.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object: the finding.")
    @click.pass_obj
    def command(invocation: Invocation, finding_id: str, reason: str, undo: bool, as_json: bool) -> None:
        request = pb.TriageFindingRequest(
            finding_id=finding_id,
            verdict=findings_pb2.TRIAGE_VERDICT_UNSPECIFIED if undo else verdict,
            reason=reason,
            requested_by=default_owner(),
        )

        async def ask(analyzer: Analyzer) -> pb.TrackedFinding:
            return (await analyzer.stub.TriageFinding(request, **analyzer.call)).finding

        found = ask_analyzer(invocation, ask)
        click.echo(json.dumps(finding_document(found)) if as_json else "\n".join(finding_lines(found)))

    return command
