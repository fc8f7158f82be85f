"""`dtf explain scaling`: one decision of the resource manager, with what it saw and what else it could have done."""

import json
import re
from pathlib import Path

import click

from dtf.adapters.event_lines import format_time
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import scaling_pb2
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.log_time import parse_instant
from dtf.cli.scaling_history_command import decision_document
from dtf.cli.scaling_records import Decisions, read_decisions
from dtf.core.scaling.story import MOVES, headline, tell
from dtf.report.output import plain_line

_SEQUENCE = re.compile(r"\d{1,18}")


def explain_scaling(invocation: Invocation, name: str, source: Path | None, *, as_json: bool) -> None:
    """Tell the decision that `name` names; "": the newest that moved a pool. Raises CommandError."""
    decision = find_decision(read_decisions(invocation, source), name, SystemClock().now_ns())
    if as_json:
        click.echo(json.dumps(decision_document(decision), ensure_ascii=False))
        return
    click.echo("\n".join(story_lines(decision)))


def find_decision(decisions: Decisions, name: str, now_ns: int) -> scaling_pb2.ScalingDecision:
    """By its id ("local/12"), by a sequence of the log ("812") or by an instant: the last one made until then."""
    if not decisions:
        raise CommandError("the resource manager has decided nothing yet", exit_code=ExitCode.EMPTY)
    if not name:
        moves = [decision for decision in decisions if decision.action in MOVES]
        return (moves or decisions)[-1]
    for decision in decisions:
        if decision.decision_id == name:
            return decision
    if "/" in name:
        raise CommandError(
            f"there is no decision {name}",
            f"the newest is {decisions[-1].decision_id}; `dtf scaling history --all` lists them",
        )
    if _SEQUENCE.fullmatch(name):
        earlier = [decision for decision in decisions if decision.log_sequence <= int(name)]
        what = f"sequence {name}"
    else:
        instant = parse_instant(name, now_ns)
        earlier = [decision for decision in decisions if decision.now_unix_nanos <= instant]
        what = name
    if not earlier:
        first = decisions[0]
        raise CommandError(
            f"nothing was decided up to {what}",
            f"the first decision, {first.decision_id}, is of {format_time(first.now_unix_nanos)}, "
            f"log sequence {first.log_sequence}",
        )
    return earlier[-1]


def story_lines(decision: scaling_pb2.ScalingDecision) -> list[str]:
    """The decision as people read it."""
    lines = [
        plain_line(
            f"{format_time(decision.now_unix_nanos)}  {headline(decision)}  "
            f"{decision.decision_id}, up to log sequence {decision.log_sequence}"
        )
    ]
    lines.extend(plain_line(f"  {word:<9} {said}") for word, said in tell(decision))
    return lines
