"""Looks at warm processes again and again: which runs too long, runs what was cancelled, hangs at its start."""

from dtf.api.v1 import common_pb2
from dtf.worker.runner_pool import RunnerPool
from dtf.worker.warm_process import State, StopReason, WarmProcess

PREPARE_TIMEOUT_SECONDS = 900.0
"""Time to start, and to collect or import a suite."""


class ProcessWatch:
    """Ends processes, each for a reason that names the attempt at fault."""

    def __init__(self, runners: RunnerPool) -> None:
        self._runners = runners

    def look(self, process: WarmProcess, now: float) -> None:
        """Take what the process has recorded; end it if it must be."""
        is_getting_ready = process.state in (State.STARTING, State.PREPARING)
        if is_getting_ready and now - process.given_at > PREPARE_TIMEOUT_SECONDS:
            words = f"it took longer than {PREPARE_TIMEOUT_SECONDS:.0f} s to get ready"
            self._runners.stop(process, StopReason(common_pb2.OUTCOME_CRASHED, words), with_stacks=True)
        if process.state is State.SERVING and process.leases:
            process.look_into_journal()
            self.stop_if_cancelled(process)
            self._stop_if_overdue(process, now)

    def stop_if_cancelled(self, process: WarmProcess) -> None:
        """End a process that runs an attempt that was cancelled."""
        running = process.running_case()
        lease = process.leases.get(running.fence) if running is not None else None
        if lease is not None and lease.is_cancelled:
            reason = StopReason(common_pb2.OUTCOME_CANCELLED, "cancelled while it ran", lease.fence)
            self._runners.stop(process, reason)

    def _stop_if_overdue(self, process: WarmProcess, now: float) -> None:
        running = process.running_case()
        if running is None or now <= running.started_monotonic + running.timeout_seconds:
            return
        lease = process.leases.get(running.fence)
        if lease is not None and lease.has_case(running.case):
            words = f"stopped after its timeout of {running.timeout_seconds:g} s"
            reason = StopReason(common_pb2.OUTCOME_TIMED_OUT, words, running.fence)
            self._runners.stop(process, reason, with_stacks=True)

    def stop_garbled(self, process: WarmProcess, why: str) -> None:
        """End a process that wrote what is no message: nothing it says can be trusted."""
        running = process.running_case()
        words = f"it wrote to its channel what is no message ({why})"
        fence = running.fence if running is not None else 0
        self._runners.stop(process, StopReason(common_pb2.OUTCOME_CRASHED, words, fence))
