"""No-op tasks through a peer: run by the interpreter of the peers' environment, without dtf.

    python throughput_peers.py PEER COUNT ROUNDS        prints one JSON object

Each peer has two worker processes, is warmed up first, gets every task by itself as its interface
has it (submit, remote, map, apply_async), and is waited for until all have ended. Processor time
and memory are those of all its processes: the script that submits, schedulers, brokers, workers.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import psutil

WORKERS = 2
WARM_UP = 500
LATENCY_SAMPLES = 200
HELD = 20_000
HELD_SECONDS = 300.0


def nothing() -> None:
    """Return at once."""


def nothing_of(_index: int) -> None:
    """Return at once, for interfaces that map."""


def hold(path: str) -> None:
    """Return when `path` is gone: keeps a worker busy while tasks queue behind it."""
    end = time.monotonic() + HELD_SECONDS
    while os.path.exists(path) and time.monotonic() < end:  # noqa: PTH110  # nothing to import in a worker
        time.sleep(0.05)


@dataclass
class Interface:
    """What a peer offers, as far as it is measured."""

    version: str
    settings: str
    """What it was told beyond its defaults."""
    run: Callable[[int], None]
    """Submits so many no-ops and returns when all have ended."""
    one: Callable[[], object]
    """Submits one no-op and returns when it has ended."""
    queue: Callable[[int], object]
    """Submits so many no-ops and returns at once; the answer keeps them alive."""
    hold: Callable[[str], object]
    """Submits one `hold`."""


def measured(peer: Interface, count: int, rounds: int) -> dict[str, Any]:
    """Everything that is measured of a peer, as one JSON object."""
    peer.run(WARM_UP)
    rates, used = [], tree_cpu_seconds()
    for _ in range(rounds):
        begun = time.perf_counter()
        peer.run(count)
        rates.append(count / (time.perf_counter() - begun))
    cpu = (tree_cpu_seconds() - used) / (count * rounds)
    latencies = [timed(peer.one) for _ in range(LATENCY_SAMPLES)]
    return {
        "version": peer.version,
        "settings": peer.settings,
        "rates": rates,
        "latencies": latencies,
        "cpu_seconds_a_task": cpu,
        "queued_bytes_a_task": queued_bytes(peer),
    }


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def queued_bytes(peer: Interface) -> float:
    """Growth of all the peer's processes by a task that waits for a worker."""
    with tempfile.NamedTemporaryFile() as gate:
        alive: list[object] = [peer.hold(gate.name) for _ in range(WORKERS)]
        alive.append(peer.queue(HELD // 10))
        settle()
        before = tree_bytes()
        alive.append(peer.queue(HELD))
        settle()
        return (tree_bytes() - before) / HELD


def settle() -> None:
    """Return when memory has come to rest, or after ten seconds."""
    seen = tree_bytes()
    for _ in range(10):
        time.sleep(1.0)
        now = tree_bytes()
        if abs(now - seen) < 2**20:
            return
        seen = now


def tree() -> list[psutil.Process]:
    """This process and all below it."""
    own = psutil.Process()
    return [own, *own.children(recursive=True)]


def tree_cpu_seconds() -> float:
    """Processor time of the tree; a process that ended is accounted for by the one that waited for it."""
    total = 0.0
    for process in tree():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def tree_bytes() -> int:
    """Memory of the tree that no other process shares."""
    total = 0
    for process in tree():
        try:
            total += process.memory_full_info().uss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def tell(result: dict[str, Any]) -> None:
    """Print what was measured, then end the whole tree: tearing down takes some peers minutes."""
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    for process in reversed(tree()[1:]):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    os._exit(0)


def pool(count: int, rounds: int) -> None:
    """concurrent.futures.ProcessPoolExecutor."""
    with ProcessPoolExecutor(WORKERS) as executor:

        def run(tasks: int) -> None:
            for future in wait([executor.submit(nothing) for _ in range(tasks)]).done:
                future.result()

        peer = Interface(
            version=sys.version.split()[0],
            settings="none",
            run=run,
            one=lambda: executor.submit(nothing).result(),
            queue=lambda tasks: [executor.submit(nothing) for _ in range(tasks)],
            hold=lambda path: executor.submit(hold, path),
        )
        tell(measured(peer, count, rounds))


def ray(count: int, rounds: int) -> None:
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
    remote, holding = library.remote(nothing), library.remote(hold)
    peer = Interface(
        version=library.__version__,
        settings="no dashboard, no usage statistics",
        run=lambda tasks: library.get([remote.remote() for _ in range(tasks)]),
        one=lambda: library.get(remote.remote()),
        queue=lambda tasks: [remote.remote() for _ in range(tasks)],
        hold=holding.remote,
    )
    tell(measured(peer, count, rounds))


def dask(count: int, rounds: int) -> None:
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

        peer = Interface(
            version=distributed.__version__,
            settings="one thread a worker, impure tasks, no dashboard",
            run=run,
            one=lambda: client.submit(nothing, pure=False).result(),
            queue=lambda tasks: client.map(nothing_of, range(tasks), pure=False),
            hold=lambda path: client.submit(hold, path, pure=False),
        )
        tell(measured(peer, count, rounds))


def celery(count: int, rounds: int) -> None:
    """Celery over a Redis of its own, which keeps everything in memory."""
    import celery as library
    import celery_app

    with celery_app.redis_server() as url, celery_app.worker(url, WORKERS):
        app = celery_app.make_app(url)

        def queue(tasks: int) -> list[Any]:
            with app.producer_pool.acquire(block=True) as producer:
                return [celery_app.NOTHING.apply_async(producer=producer) for _ in range(tasks)]

        def run(tasks: int) -> None:
            celery_app.join(app, queue(tasks))

        peer = Interface(
            version=library.__version__,
            settings=celery_app.SETTINGS_SAID,
            run=run,
            one=lambda: celery_app.NOTHING.delay().get(timeout=60),
            queue=queue,
            hold=lambda path: celery_app.HOLD.delay(path),
        )
        tell(measured(peer, count, rounds))


PEERS: dict[str, Callable[[int, int], None]] = {"pool": pool, "ray": ray, "dask": dask, "celery": celery}


if __name__ == "__main__":
    PEERS[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))
