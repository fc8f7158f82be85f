"""One stack's share of a run of faults, in a process of its own: `python -m tests.chaos.stack`.

Says in JSON lines on standard output what it did: {"struck": …} for each fault, {"round": …} for each
round, {"failed": …} where something may not have happened.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dtf.adapters.system_clock import SystemClock
from dtf.cli.lifeline import VARIABLE, watch_lifeline
from tests.chaos.round import Outcome, Round
from tests.chaos.schedule import plan, share
from tests.chaos.system import Means
from tests.chaos.table import Struck


def main() -> int:
    """Run it. Exit code 1 if anything was lost, came twice or was violated."""
    watch_lifeline()
    os.environ.pop(VARIABLE, None)  # the members get one of ours
    options = _options()
    kinds = options.kinds.split(",")
    planned = share(plan(options.seed, kinds, options.faults), options.stack, options.stacks)
    means, clean, number = Means.find(), True, 0
    while planned:
        number += 1
        part = planned[: options.round_faults]
        directory = options.directory / f"stack-{options.stack}-round-{number}"
        directory.mkdir(parents=True)
        current = Round(directory, means, SystemClock(), stack=options.stack, seed=part[0].seed)
        outcome = asyncio.run(current.run(part, _tell_struck))
        planned = planned[max(1, len(outcome.struck)) :]  # a round that failed ends early
        _say("round", _summary(outcome, options.stack, number))
        if outcome.findings:
            clean = False
            current.keep(directory)
            found = [
                {"kind": kind, "column": column, "what": what} for kind, column, what in outcome.by_kind()
            ]
            _say("failed", {"directory": str(directory), "found": found})
        elif not options.keep:
            shutil.rmtree(directory, ignore_errors=True)
    return 0 if clean else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", required=True)
    parser.add_argument("--stack", type=int, required=True)
    parser.add_argument("--stacks", type=int, required=True)
    parser.add_argument("--faults", type=int, required=True)
    parser.add_argument("--round-faults", type=int, required=True)
    parser.add_argument("--kinds", required=True)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--keep", action="store_true")
    return parser.parse_args()


def _summary(outcome: Outcome, stack: int, number: int) -> dict[str, Any]:
    return {
        "stack": stack,
        "number": number,
        "commits": outcome.commits,
        "events": outcome.events,
        "epochs": outcome.epochs,
        "runs": outcome.runs,
        "verdicts": outcome.verdicts,
    }


def _tell_struck(struck: Struck) -> None:
    _say("struck", asdict(struck))


def _say(what: str, document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({what: document}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
