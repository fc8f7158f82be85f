"""One distributed run, from what was collected to the last report."""

from collections.abc import Callable
from typing import NoReturn

import grpc
import pytest

from dtf.api.v1 import common_pb2
from dtf.client.owner import default_owner
from dtf.pytest_plugin.node import report_node_down
from dtf.pytest_plugin.preparation import Stack
from dtf.pytest_plugin.replay import Replay
from dtf.pytest_plugin.results import Results, RunEnded
from dtf.pytest_plugin.shards import shard_tasks
from dtf.rpc.errors import describe

END_TIMEOUT_SECONDS = 15.0
"""How long the pytest processes of a run may take to tear down once it has ended."""
CANCEL_TIMEOUT_SECONDS = 5.0


class DistributedRun:
    """The run loop of the controller."""

    def __init__(
        self,
        session: pytest.Session,
        stack: Stack,
        testrun_uid: str,
        say: Callable[[str], None],
        flaky: list[str],
    ) -> None:
        self._testrun_uid = testrun_uid
        self._session = session
        self._config = session.config
        self._stack = stack
        self._link = stack.link
        self._say = say
        self._flaky = flaky
        self._directory = stack.directory
        self._run_id = stack.run_id

    def execute(self) -> None:
        """Run all cases and replay their reports. Raises what pytest's own loop would."""
        replay = Replay(self._session, self._testrun_uid)
        tasks = shard_tasks(
            self._session.items,
            self._config.option.dtf_dist,
            self._stack.worker_count,
            self._stack.durations,
        )
        try:
            self._begin(tasks)
            self._follow(Results(replay, self._link, tasks, self._flaky))
        except grpc.RpcError as error:
            self._give_up(error)
        finally:
            replay.sort_as_collected()

    def _begin(self, tasks: list[common_pb2.TaskSpec]) -> None:
        self._link.submit(self._run_id, tasks)
        workers = self._stack.worker_count
        self._say(
            f"dtf: run {self._run_id}, {plural(len(self._session.items), 'case')} in"
            f" {plural(len(tasks), 'shard')}, up to {plural(workers, 'worker')}"
        )

    def _follow(self, results: Results) -> None:
        """Replay until the run ends or the session is to stop."""
        try:
            for event in self._link.watch(self._run_id):
                results.take(event)
                if results.stop is not None:
                    results.stop.obey(self._session)
                if self._session.shouldfail:
                    raise self._session.Failed(self._session.shouldfail)
                if self._session.shouldstop:
                    raise self._session.Interrupted(self._session.shouldstop)
                for note in results.take_notes():
                    self._say(f"dtf: {note}")
        except RunEnded as ended:
            self._stack.membership.detach_run(self._run_id)
            self._tear_down(END_TIMEOUT_SECONDS)
            if ended.was_cancelled:
                raise self._session.Interrupted(f"run {self._run_id} was cancelled") from None
        except grpc.RpcError:
            raise
        except BaseException as error:
            self._cancel(error)
            raise

    def _cancel(self, error: BaseException) -> None:
        """Stop the run because this session stops."""
        reason = "Ctrl-C" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
        try:
            self._link.cancel(self._run_id, default_owner(), reason)
        except grpc.RpcError as failure:
            self._say(f"dtf: run {self._run_id} could not be cancelled: {describe(failure)}")
            return
        self._stack.membership.detach_run(self._run_id)
        self._directory.wait_for_processes(CANCEL_TIMEOUT_SECONDS)

    def _tear_down(self, timeout_seconds: float) -> None:
        """Wait until the workers' sessions are over, and hand plug-ins what those left."""
        if not self._directory.wait_for_processes(timeout_seconds):
            self._say(f"dtf: a worker's pytest has not ended {timeout_seconds:.0f} s after its last case")
        for seat, output in self._directory.outputs():
            report_node_down(self._config, seat, output)

    def _give_up(self, error: grpc.RpcError) -> NoReturn:
        """The stack is gone, or refused."""
        lost = self._stack.membership.lost_reason if self._stack.lost.is_set() else ""
        pytest.exit(f"dtf: {lost or describe(error)}", returncode=pytest.ExitCode.INTERNAL_ERROR)


def plural(count: int, noun: str) -> str:
    """ "1 case", "2 cases"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
