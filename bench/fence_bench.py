"""`make bench NAME=fence`: strangers write to the log's subject at any moment; does a stale commit land?

The same seeds for the chain that dtf uses and for the naive scheme, which names sequences only, on
one nats-server that fsyncs every commit (bench/fence_trial.py says what is done and what counts).
Exit code 1 if a stale commit landed under the chain, or if nothing was tried at all.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from bench.fence_trial import try_fence
from dtf.adapters.nats_server import NatsServer

TRIALS = 200


@dataclass(slots=True)
class Sum:
    """All trials of one scheme."""

    trials: int = 0
    hit: int = 0
    """Trials in which somebody wrote while commits were in flight."""
    deposed: int = 0
    strangers: int = 0
    landed: int = 0
    refused: int = 0
    stale: int = 0
    stale_acknowledged: int = 0


def main() -> int:
    """Try and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--trials", type=int, default=TRIALS, help="seeds of each scheme")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dtf-fence-") as directory:
        sums = asyncio.run(measure(Path(directory), options.trials))
    _print(sums)
    if options.json:
        print(json.dumps({"bench": "fence", **{name: asdict(total) for name, total in sums.items()}}))
    return 1 if sums["chained"].stale or not sums["chained"].hit else 0


async def measure(directory: Path, trials: int) -> dict[str, Sum]:
    """Every seed under both schemes, by turns."""
    server = NatsServer(directory / "nats", directory / "secrets" / "nats")
    await server.start()
    sums = {"chained": Sum(), "naive": Sum()}
    try:
        for seed in range(trials):
            for scheme, total in sums.items():
                trial = await try_fence(server, f"{scheme}-{seed}", seed, is_chained=scheme == "chained")
                total.trials += 1
                total.hit += trial.was_hit
                total.deposed += trial.is_deposed
                for name in ("strangers", "landed", "refused", "stale", "stale_acknowledged"):
                    setattr(total, name, getattr(total, name) + getattr(trial, name))
            if seed % 20 == 19:
                print(f"{seed + 1} of {trials} seeds", file=sys.stderr, flush=True)
    finally:
        await server.stop()
    return sums


def _print(sums: dict[str, Sum]) -> None:
    table = Table(
        box=box.SIMPLE_HEAD, title="strangers and a new leader write while 16 commits are in flight"
    )
    headings = (
        "trials",
        "hit in flight",
        "elections",
        "strangers' messages",
        "landed",
        "refused",
        "stale landed",
        "of these acknowledged",
    )
    table.add_column("scheme")
    for heading in headings:
        table.add_column(heading, justify="right")
    for scheme, total in sums.items():
        table.add_row(scheme, *(f"{value:,}" for value in asdict(total).values()))
    Console(width=130).print(table)


if __name__ == "__main__":
    sys.exit(main())
