"""`make bench NAME=accuracy`: how right our engine is, and how fast, beside ruptures, apache-otava and asv.

    make bench NAME=accuracy                          all that needs no data
    make bench NAME=accuracy PART=alarms,delays       parts of it: alarms delays lookalikes lookalikes2 lookalikes3 calibration watched speed
    make bench NAME=accuracy TCPD=folder NAB=folder   and annotated series of yours in these formats
    make bench NAME=accuracy PART=tcpd,nab TCPD=folder NAB=folder    these alone
    make bench NAME=accuracy JSON=1                   and one JSON line
    make bench NAME=accuracy N=100                    fewer series: quicker, wider intervals

Series and seeds are the same in every run; nothing of the engine was tuned on them. A figure that
misses its aim is printed like any other; the exit code is 0 when everything asked for was measured.
"""

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from bench import accuracy_tables as tables
from bench.accuracy_alarms import measure_alarms, measure_delays
from bench.accuracy_calibration import measure_calibration
from bench.accuracy_environment import PEERS, Peer, available_peers, say
from bench.accuracy_folders import FolderError, check_folders
from bench.accuracy_lookalikes import FIRST, measure_lookalikes
from bench.accuracy_lookalikes_again import AGAIN
from bench.accuracy_lookalikes_third import THIRD
from bench.accuracy_marks import measure_annotated, measure_labelled
from bench.accuracy_speed import measure_speed
from bench.accuracy_watched import measure_watched

PARTS = ("alarms", "delays", "lookalikes", "lookalikes2", "lookalikes3", "calibration", "watched", "speed")
SERIES = 400
"""Of 200 points for each family; half as many of 1,000."""
LOOKALIKES_A_SERIES = 0.375
"""Look-alikes of each collection: 150 at the default."""
CALIBRATION_POINTS_A_SERIES = 100
WATCHED_CORPORA = range(2)


def main() -> int:
    """Measure and print; 2 if what was asked for is not there."""
    options = arguments()
    try:
        check_folders(options.tcpd, options.nab)
        peers = available_peers([each for each in options.peers.split(",") if each])
        # Not by fork: who calls this may have threads, and libraries that do not outlive one.
        context = multiprocessing.get_context("forkserver")
        with ProcessPoolExecutor(min(2, os.cpu_count() or 1), context) as pool:
            figures = measured(options, peers, pool)
    except FolderError as error:
        say(f"error: {error}")
        return 2
    if options.json:
        print(json.dumps({"bench": "accuracy", **figures}))
    return 0


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--part", default="", help=f"comma separated: {', '.join(PARTS)}; all unless given")
    parser.add_argument(
        "--tcpd", type=_folder, help="TCPD=: folder in the format of the Turing Change Point Dataset"
    )
    parser.add_argument(
        "--nab", type=_folder, help="NAB=: folder in the format of the Numenta Anomaly Benchmark"
    )
    parser.add_argument("--series", type=int, default=SERIES, help="series a family")
    parser.add_argument(
        "--peers", default=",".join(each.name for each in PEERS), help="comma separated; empty: ours only"
    )
    options = parser.parse_args()
    options.parts = [each for each in options.part.split(",") if each] or list(PARTS)
    unknown = set(options.parts) - set(PARTS) - {"tcpd", "nab"}
    if unknown:
        parser.error(f"no part {sorted(unknown)[0]!r}; there are {', '.join(PARTS)}")
    if missing := [name for name in ("tcpd", "nab") if name in options.parts and not getattr(options, name)]:
        parser.error(f"part {missing[0]!r} needs {missing[0].upper()}=folder")
    return options


def _folder(text: str) -> Path:
    return Path(text).expanduser()


def measured(options: argparse.Namespace, peers: list[Peer], pool: ProcessPoolExecutor) -> dict[str, Any]:
    """The figures of each part asked for, by name; each is shown as soon as it is there."""
    points = options.series * CALIBRATION_POINTS_A_SERIES
    lookalikes = max(1, int(options.series * LOOKALIKES_A_SERIES))
    measures: dict[str, Callable[[], Any]] = {
        "alarms": lambda: measure_alarms(options.series, peers, pool),
        "delays": lambda: measure_delays(max(8, options.series // 2), peers, pool),
        "lookalikes": lambda: measure_lookalikes(FIRST, lookalikes, peers, pool),
        "lookalikes2": lambda: measure_lookalikes(AGAIN, lookalikes, peers, pool),
        "lookalikes3": lambda: measure_lookalikes(THIRD, lookalikes, peers, pool),
        "calibration": lambda: measure_calibration(points, pool),
        "watched": lambda: measure_watched(WATCHED_CORPORA, pool),
        "speed": lambda: measure_speed(peers, pool),
        "tcpd": lambda: measure_annotated(options.tcpd, peers, pool),
        "nab": lambda: measure_labelled(options.nab, pool),
    }
    wanted = [*options.parts, *(["tcpd"] if options.tcpd else []), *(["nab"] if options.nab else [])]
    figures: dict[str, Any] = {}
    for name in dict.fromkeys(wanted):
        figures[name] = measures[name]()
        tables.show({name: figures[name]})
    return figures


if __name__ == "__main__":
    sys.exit(main())
