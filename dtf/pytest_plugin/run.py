"""One distributed run, from what was collected to the last report."""

import getpass
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import NoReturn

import grpc
import msgspec
import pytest

from dtf.api.v1 import common_pb2, run_service_pb2
from dtf.pytest_plugin.meeting import RunDirectory
from dtf.pytest_plugin.node import gather_worker_input, report_node_down
from dtf.pytest_plugin.plugin import import_path_at_start
from dtf.pytest_plugin.preparation import Stack
from dtf.pytest_plugin.replay import Replay
from dtf.pytest_plugin.results import Results, RunEnded
from dtf.pytest_plugin.shards import shard_tasks
from dtf.rpc.errors import describe
from dtf.runner.pytest_options import PytestOptions, encode_literal

END_TIMEOUT_SECONDS = 15.0
"""How long the pytest processes of a run may take to tear down once it has ended."""
CANCEL_TIMEOUT_SECONDS = 5.0
REVISION_TIMEOUT_SECONDS = 5.0
SHARED_PREFIXES = ("PYTEST_", "PYTHON")
"""Variables that workers get which do not see the run's directory."""


class DistributedRun:
    """The run loop of the controller."""

    def __init__(
        self, session: pytest.Session, stack: Stack, say: Callable[[str], None], flaky: list[str]
    ) -> None:
        self._session = session
        self._config = session.config
        self._stack = stack
        self._link = stack.link
        self._say = say
        self._flaky = flaky
        self._testrun_uid = getattr(session.config.option, "testrunuid", None) or secrets.token_hex(16)
        self._directory = RunDirectory(stack.loaded.project_dir)
        self._run_id = ""

    def execute(self) -> None:
        """Run all cases and replay their reports. Raises what pytest's own loop would."""
        try:
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
        finally:
            self._directory.remove()

    def _begin(self, tasks: list[common_pb2.TaskSpec]) -> None:
        run = self._link.create_run(self._request())
        self._run_id = run.run_id
        self._stack.membership.attach_run(run.run_id)
        self._link.submit(run.run_id, tasks)
        workers = self._stack.worker_count
        self._say(
            f"dtf: run {run.run_id}, {plural(len(self._session.items), 'case')} in"
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
            self._link.cancel(self._run_id, owner(), reason)
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

    def _request(self) -> run_service_pb2.CreateRunRequest:
        settings = self._stack.loaded.settings.run
        template = common_pb2.TaskTemplate(
            pytest=self._specification(),
            retry=common_pb2.RetryPolicy(
                test_retries=settings.test_retries, infrastructure_retries=settings.infrastructure_retries
            ),
            timeout_seconds=settings.timeout_seconds,
        )
        return run_service_pb2.CreateRunRequest(
            request_id=secrets.token_hex(16),
            suite=self._stack.suite,
            revision=revision(str(self._config.rootpath)),
            owner=owner(),
            templates=[template],
            labels=settings.labels,
        )

    def _specification(self) -> common_pb2.PytestSpec:
        return common_pb2.PytestSpec(
            root_dir=str(self._config.rootpath),
            working_dir=str(self._config.invocation_params.dir),
            arguments=[str(argument) for argument in self._config.invocation_params.args],
            environment={name: os.environ[name] for name in os.environ if name.startswith(SHARED_PREFIXES)},
            testrun_uid=self._testrun_uid,
            options_json=msgspec.json.encode(self._options()).decode(),
            collected_count=len(self._session.items),
            import_path=[entry for entry in import_path_at_start if entry],
        )

    def _options(self) -> PytestOptions:
        return PytestOptions(
            host=socket.gethostname(),
            python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
            pytest_version=pytest.__version__,
            python_prefix=sys.prefix,
            argv=sys.argv,
            warn_options=sys.warnoptions,
            worker_count=self._stack.worker_count,
            worker_input=encode_literal(gather_worker_input(self._config)),
            run_dir=str(self._directory.path),
            base_temp=base_temp(self._config),
        )


def base_temp(config: pytest.Config) -> str:
    """pytest's base of temporary directories; empty where its plug-in is off."""
    factory = getattr(config, "_tmp_path_factory", None)
    return "" if factory is None else str(factory.getbasetemp())


def owner() -> str:
    """user@host, for the record."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def revision(directory: str) -> str:
    """The revision that git has checked out; empty where there is none."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=REVISION_TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def plural(count: int, noun: str) -> str:
    """ "1 case", "2 cases"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
