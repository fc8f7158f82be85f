"""Memory does not grow with history: runs of 10,000 tasks, one after the other, and what stays of them.

python -m bench.history_bench [TASKS]        (make bench NAME=history)

The core alone, as the coordinator drives it: every run is created, fed, granted, reported, ended;
workers come and go; every five virtual seconds RetireRuns and ForgetWorkers are decided with the
coordinator's own settings.
"""

import gc
import sys
import time

import psutil

from dtf.api.v1 import common_pb2, run_service_pb2, worker_service_pb2
from dtf.core.run import commands
from dtf.core.run.decide import decide
from dtf.core.run.evolve import evolve
from dtf.core.run.state import State
from dtf.core.run.state_codec import encode_state
from dtf.core.run.state_hash import state_hash
from dtf.settings.model import CoordinatorSettings

TASKS_A_RUN = 10_000
BATCH = 256
RUN_SECONDS = 20.0
"""Virtual length of a run, about what 500 tasks a second make of it."""
_SECOND_NS = 1_000_000_000


class Coordinator:
    """State and virtual time, with the coordinator's settings."""

    def __init__(self) -> None:
        self.state = State()
        self.now_ns = 0
        self.sequence = 0
        self.settings = CoordinatorSettings()

    def do(self, command: commands.Command) -> list[object]:
        """Decide and evolve, one commit a command."""
        self.sequence += 1
        events = decide(self.state, command, self.now_ns)
        for event in events:
            evolve(self.state, event, self.now_ns, self.sequence)
        return list(events)

    def complete_run(self, number: int) -> None:
        """One run from its creation to its end, on a worker of its own."""
        run_id, worker_id = f"run-{number}", f"worker-{number}"
        template = common_pb2.TaskTemplate(callable=common_pb2.CallableSpec(function="bench:nothing"))
        request = run_service_pb2.CreateRunRequest(request_id=run_id, suite="s", templates=[template])
        self.do(commands.CreateRun(run_id, request))
        session = worker_service_pb2.CreateSessionRequest(worker_id=worker_id, request_id=worker_id, slots=64)
        self.do(commands.RegisterWorker("", session))
        for first in range(0, TASKS_A_RUN, BATCH):
            stop = min(first + BATCH, TASKS_A_RUN)
            tasks = [
                common_pb2.TaskSpec(name=f"case({index})", payload="[1]") for index in range(first, stop)
            ]
            batch = run_service_pb2.SubmitTasksRequest(
                run_id=run_id, batch=first // BATCH + 1, tasks=tasks, seal=stop == TASKS_A_RUN
            )
            self.do(commands.SubmitTasks(batch))
        self._work(run_id, worker_id)
        self.now_ns += int(RUN_SECONDS * _SECOND_NS)
        incarnation = self.state.workers[worker_id].incarnation
        self.do(commands.CloseSession(worker_id, incarnation, "done"))
        settings = self.settings
        self.do(commands.RetireRuns(settings.kept_runs, settings.kept_tasks, settings.run_grace_seconds))
        self.do(commands.ForgetWorkers(settings.kept_gone_workers, settings.worker_grace_seconds))

    def _work(self, run_id: str, worker_id: str) -> None:
        incarnation = self.state.workers[worker_id].incarnation
        while self.state.queued_count:
            self.do(commands.GrantLeases({worker_id: BATCH}))
            fences = list(self.state.workers[worker_id].leases[run_id])
            results = worker_service_pb2.CaseResults(
                run_id=run_id, fences=fences, durations_seconds=[1e-4] * len(fences)
            )
            self.do(commands.ReportResults(worker_id, incarnation, [results]))


def main() -> None:
    """Print memory and state at every tenth of the way."""
    total = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 1_000_000
    coordinator = Coordinator()
    process = psutil.Process()
    begun = time.perf_counter()
    print(f"{'tasks':>10} {'runs':>6} {'outlines':>9} {'workers':>8} {'state':>10} {'RSS':>9} {'hash':>8}")
    for number in range(total // TASKS_A_RUN):
        coordinator.complete_run(number)
        done = (number + 1) * TASKS_A_RUN
        if done % max(total // 10, TASKS_A_RUN):
            continue
        state = coordinator.state
        size = len(encode_state(state))
        hashed = time.perf_counter()
        state_hash(state)
        hash_ms = 1e3 * (time.perf_counter() - hashed)
        gc.collect()
        print(
            f"{done:>10,} {len(state.runs):>6} {len(state.retired_runs):>9} {len(state.workers):>8} "
            f"{size / 2**20:>6.1f} MiB {process.memory_info().rss / 2**20:>5.0f} MiB {hash_ms:>5.1f} ms",
            flush=True,
        )
    print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
