"""What the pure core costs a task: decide and evolve, without log, wire or workers; and a state as bytes.

python -m bench.core_costs [TASKS]
"""

import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import TypeVar

from dtf.api.v1 import common_pb2, events_pb2, run_service_pb2, worker_service_pb2
from dtf.core.run.commands import (
    Command,
    CreateRun,
    ElectLeader,
    GrantLeases,
    RegisterWorker,
    ReportResults,
    SubmitTasks,
)
from dtf.core.run.decide import decide
from dtf.core.run.evolve import evolve
from dtf.core.run.state import State
from dtf.core.run.state_codec import decode_state, encode_state
from dtf.core.run.state_hash import state_hash

T = TypeVar("T")

BATCH = 256


class Meter:
    """A state, and the time that each kind of command has taken."""

    def __init__(self) -> None:
        self.state = State()
        self.decided: dict[str, float] = {}
        self.evolved: dict[str, float] = {}

    def do(self, command: Command) -> Sequence[events_pb2.Event]:
        """Decide and evolve under the clock."""
        kind = type(command).__name__
        begun = time.perf_counter()
        events = decide(self.state, command, 1)
        decided = time.perf_counter()
        for event in events:
            evolve(self.state, event, 1, 1)
        evolved = time.perf_counter()
        self.decided[kind] = self.decided.get(kind, 0.0) + decided - begun
        self.evolved[kind] = self.evolved.get(kind, 0.0) + evolved - decided
        return events


def _open(meter: Meter) -> None:
    template = common_pb2.TaskTemplate(callable=common_pb2.CallableSpec(function="bench:nothing"))
    meter.do(ElectLeader("bench", 10.0))
    meter.do(
        CreateRun("r", run_service_pb2.CreateRunRequest(request_id="r", suite="s", templates=[template]))
    )
    for name in ("w1", "w2"):
        request = worker_service_pb2.CreateSessionRequest(worker_id=name, request_id=name, slots=1)
        meter.do(RegisterWorker("", request))


def _submit(meter: Meter, count: int) -> None:
    for first in range(0, count, BATCH):
        tasks = [
            common_pb2.TaskSpec(name=f"nothing({index})", payload=f"[{index}]")
            for index in range(first, min(first + BATCH, count))
        ]
        request = run_service_pb2.SubmitTasksRequest(
            run_id="r", batch=first // BATCH + 1, tasks=tasks, seal=first + BATCH >= count
        )
        meter.do(SubmitTasks(request))


def _work(meter: Meter) -> None:
    while meter.state.queued_count:
        for event in meter.do(GrantLeases({"w1": BATCH, "w2": BATCH})):
            granted = event.leases_granted
            count = len(granted.tasks)
            results = worker_service_pb2.CaseResults(
                run_id="r",
                fences=range(granted.first_fence, granted.first_fence + count),
                durations_seconds=[1e-5] * count,
                cpu_seconds=[1e-5] * count,
                started_at=[1e9] * count,
            )
            meter.do(ReportResults(granted.worker_id, 1, [results]))


def main() -> None:
    """Print the costs."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    meter = Meter()
    _open(meter)
    _submit(meter, count)
    _work(meter)
    total = 0.0
    for kind in ("SubmitTasks", "GrantLeases", "ReportResults"):
        decided, evolved = (1e6 * part[kind] / count for part in (meter.decided, meter.evolved))
        total += decided + evolved
        print(f"{kind:14} decide {decided:5.2f}  evolve {evolved:5.2f}  µs a task")
    print(f"{'together':14} {total:5.2f} µs a task")
    _measure_hash(meter.state, count)
    tracemalloc.start()
    queued = Meter()
    _open(queued)
    before, _ = tracemalloc.get_traced_memory()
    _submit(queued, count)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{'memory':14} {(after - before) / count * 1000 / 1024:5.1f} KiB per 1,000 queued tasks")
    _measure_codec(queued.state, count)


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    begun = time.perf_counter()
    result = work()
    return result, 1e3 * (time.perf_counter() - begun)


def _measure_hash(state: State, count: int) -> None:
    """The first hash sees every task; after that, one commit's worth."""
    _, whole = _timed(lambda: state_hash(state))
    state.hash_cache.changed_runs.add("r")
    state.hash_cache.changed_workers.add("w1")
    state.hash_cache.touch("r", range(BATCH))
    _, one = _timed(lambda: state_hash(state))
    print(f"{'state_hash':14} {whole:5.1f} ms for {count:,} tasks, then {one:.2f} ms a commit")


def _measure_codec(state: State, count: int) -> None:
    data, encoding = _timed(lambda: encode_state(state))
    again, decoding = _timed(lambda: decode_state(data))
    _, hashing = _timed(lambda: state_hash(again))
    size = len(data) / 2**20
    print(
        f"{'state_codec':14} encode {encoding:.0f} ms, decode {decoding:.0f} ms, hash {hashing:.0f} ms; "
        f"{size:.1f} MiB for {count:,} queued tasks"
    )


if __name__ == "__main__":
    main()
