"""No-op tasks through a peer: run by the interpreter of the peers' environment, without dtf.

    python throughput_peers.py PEER COUNT ROUNDS        prints one JSON object

Each peer has two worker processes, is warmed up first, gets every task by itself as its interface
has it (submit, remote, map), and is waited for until all have ended.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from typing import Any

WORKERS = 2
WARM_UP = 500


def nothing() -> None:
    """Return at once."""


def nothing_of(_index: int) -> None:
    """Return at once, for interfaces that map."""


def rates(run: Callable[[int], None], count: int, rounds: int) -> list[float]:
    """Tasks a second, of each round."""
    run(WARM_UP)
    measured = []
    for _ in range(rounds):
        begun = time.perf_counter()
        run(count)
        measured.append(count / (time.perf_counter() - begun))
    return measured


def told(result: dict[str, Any]) -> dict[str, Any]:
    """Print what was measured before the peer is torn down, which takes some of them long."""
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    return result


def pool(count: int, rounds: int) -> dict[str, Any]:
    """concurrent.futures.ProcessPoolExecutor."""
    with ProcessPoolExecutor(WORKERS) as executor:

        def run(tasks: int) -> None:
            for future in wait([executor.submit(nothing) for _ in range(tasks)]).done:
                future.result()

        return told({"version": sys.version.split()[0], "rates": rates(run, count, rounds)})


def ray(count: int, rounds: int) -> dict[str, Any]:
    """Ray, its tasks."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray as library

    library.init(
        num_cpus=WORKERS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        _node_ip_address="127.0.0.1",
    )
    remote = library.remote(nothing)

    def run(tasks: int) -> None:
        library.get([remote.remote() for _ in range(tasks)])

    try:
        return told({"version": library.__version__, "rates": rates(run, count, rounds)})
    finally:
        library.shutdown()


def dask(count: int, rounds: int) -> dict[str, Any]:
    """Dask distributed, its futures."""
    import dask as library
    import distributed

    library.config.set({"distributed.comm.timeouts.connect": "300s"})
    with (
        distributed.LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster, timeout="300s") as client,
    ):

        def run(tasks: int) -> None:
            futures = client.map(nothing_of, range(tasks), pure=False)
            distributed.wait(futures)

        return told({"version": distributed.__version__, "rates": rates(run, count, rounds)})


PEERS: dict[str, Callable[[int, int], dict[str, Any]]] = {"pool": pool, "ray": ray, "dask": dask}


if __name__ == "__main__":
    PEERS[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))
