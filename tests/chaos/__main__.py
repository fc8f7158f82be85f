"""`python -m tests.chaos`: the real system under a seeded schedule of faults.

Exit code 0: nothing was lost, nothing came twice, no property was violated, every fault was recovered
from. 1: something was; its directory is kept. 2: the harness itself failed, or was misused.
"""

import argparse
import asyncio
import secrets
import shutil
import sys
import time
from pathlib import Path

from tests.chaos.campaign import ROUND_FAULTS, Campaign, available, new_directory
from tests.chaos.faults import KIND_NAMES, KINDS


def main() -> int:
    """Run a campaign and print its table."""
    options = _options()
    if options.list:
        for kind in KINDS:
            _say(f"{kind.name:<20} {kind.says}")
        return 0
    kinds, left_out = available(options.kinds.split(",") if options.kinds else [])
    if not kinds:
        _say(f"error: none of these kinds can be done here: {left_out}")
        return 2
    campaign = Campaign(
        seed=options.seed or secrets.token_hex(4),
        faults=options.faults or len(kinds),
        parallel=options.parallel,
        kinds=kinds,
        directory=(options.directory or new_directory()).resolve(),
        round_faults=options.round_faults,
        keep=options.keep,
        tell=_say,
    )
    repeat = _command(campaign, options)
    _say(f"{campaign.faults} faults of {len(kinds)} kinds on {campaign.parallel} stacks: {repeat}")
    for name, why in left_out:
        _say(f"left out: {name}: {why}")
    started = time.monotonic()
    asyncio.run(campaign.run())
    seconds = time.monotonic() - started
    _say("")
    for line in campaign.tally.lines(kinds, left_out):
        _say(line)
    verdicts = sum(each["verdicts"] for each in campaign.rounds)
    commits = sum(each["commits"] for each in campaign.rounds)
    _say(f"{verdicts:,} verdicts and {commits:,} commits checked; {seconds:,.0f} s, seed {campaign.seed}")
    return _end(campaign, repeat)


def _end(campaign: Campaign, repeat: str) -> int:
    for line in campaign.broken:
        _say(f"error: {line}")
    if campaign.is_clean:
        _say("clean")
        if not campaign.keep:
            shutil.rmtree(campaign.directory, ignore_errors=True)
        return 0
    _say(
        f"NOT clean; kept in {campaign.directory}: log.dtfstream, outcome.json, logs/ of each round that was not"
    )
    _say(f"again: {repeat}")
    return 2 if campaign.broken else 1


def _command(campaign: Campaign, options: argparse.Namespace) -> str:
    kinds = f" --kinds {options.kinds}" if options.kinds else ""
    rounds = f" --round-faults {campaign.round_faults}" if campaign.round_faults != ROUND_FAULTS else ""
    return (
        f"python -m tests.chaos --seed {campaign.seed} --faults {campaign.faults}"
        f" --parallel {campaign.parallel}{kinds}{rounds}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--seed", default="", help="draws the schedule; default: a random one, which is printed"
    )
    parser.add_argument("--faults", type=int, default=0, help="how many; default: one of each kind")
    parser.add_argument("--kinds", default="", help=f"comma-separated; default all: {', '.join(KIND_NAMES)}")
    parser.add_argument("--parallel", type=int, default=2, help="stacks at once (2)")
    parser.add_argument(
        "--round-faults",
        type=int,
        default=ROUND_FAULTS,
        help=f"faults before a stack is made anew ({ROUND_FAULTS})",
    )
    parser.add_argument(
        "--directory", type=Path, help="where to work; default: a new one in the temporary directory"
    )
    parser.add_argument("--keep", action="store_true", help="keep the directories of clean rounds too")
    parser.add_argument("--list", action="store_true", help="list the kinds")
    return parser.parse_args()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
