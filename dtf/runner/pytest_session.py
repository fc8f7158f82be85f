"""Serves a run's pytest cases in a warm process: a whole pytest session whose loop is ours.

The session is the controller's own: same directory, environment, import path and arguments. It
collects what the controller collected and then runs what the worker hands out (pytest_loop.py).
"""

import os
import site
import socket
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import msgspec
import pytest
from _pytest.config import _prepareconfig

from dtf.runner.channel import ChannelClosed, Prepare, PrepareFailed, RunnerChannel
from dtf.runner.pytest_loop import PLUGIN_NAME, CaseLoop
from dtf.runner.pytest_options import PytestOptions, Seat, decode_literal, read_environment
from dtf.runner.pytest_quiet import CoverageStart, leave_to_controller
from dtf.runner.status import StatusWriter


class WorkerMismatch(RuntimeError):
    """This worker's Python cannot stand in for the controller's."""


def serve(channel: RunnerChannel, status: StatusWriter, prepare: Prepare) -> None:
    """Run the session until the worker says Finish."""
    spec = prepare.spec
    loop = CaseLoop(channel, status, int(spec.get("collected_count", 0)))
    try:
        options = read_options(spec)
        seat = Seat.take(options.run_dir, prepare.worker_id)
        enter(spec, options, seat)
        config = configure(spec, options, seat, loop)
        run_session(config, seat)
    except ChannelClosed:
        return
    except BaseException as error:
        if loop.is_prepared:
            raise
        channel.send(PrepareFailed(refusal(error), traceback.format_exc()))
        return
    if not loop.is_prepared:
        output = loop.internal_error or "pytest ended before it began to run cases"
        channel.send(PrepareFailed(output.strip().splitlines()[-1], output))


def refusal(error: BaseException) -> str:
    """Why the run cannot be served, in one line."""
    text = str(error).strip().partition("\n")[0]
    return (
        text if isinstance(error, WorkerMismatch) else f"pytest did not start: {type(error).__name__}: {text}"
    )


def read_options(spec: dict[str, Any]) -> PytestOptions:
    """The controller's options. Raises WorkerMismatch if this Python cannot do as the controller's does."""
    options = msgspec.json.decode(spec.get("options_json") or "{}", type=PytestOptions)
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if options.python_version and options.python_version != here:
        raise WorkerMismatch(
            f"the worker runs Python {here} ({sys.prefix}), the controller {options.python_version}"
            f" ({options.python_prefix}): start the workers from the controller's environment"
        )
    if options.pytest_version and options.pytest_version != pytest.__version__:
        raise WorkerMismatch(
            f"the worker has pytest {pytest.__version__} ({sys.prefix}), the controller"
            f" {options.pytest_version} ({options.python_prefix}): start the workers from the controller's"
            " environment"
        )
    return options


def enter(spec: dict[str, Any], options: PytestOptions, seat: Seat) -> None:
    """Take on the controller's environment, import path, arguments and directory."""
    os.environ.update(spec.get("environment") or {})
    if options.run_dir and options.host == socket.gethostname():
        environment = read_environment(Path(options.run_dir))
        if environment is not None:
            os.environ.clear()
            os.environ.update(environment)
    os.environ["PYTEST_VERSION"] = pytest.__version__
    os.environ["PYTEST_XDIST_WORKER"] = seat.name
    os.environ["PYTEST_XDIST_WORKER_COUNT"] = str(options.worker_count)
    os.environ["PYTEST_XDIST_TESTRUNUID"] = spec.get("testrun_uid", "")
    follow_environment()
    apply_warn_options(options.warn_options)
    sys.path[:] = joined_path(spec.get("import_path") or [], sys.path)
    add_site_dirs(spec)
    if options.argv:
        sys.argv[:] = options.argv
    enter_directory(spec["working_dir"])


def enter_directory(directory: str) -> None:
    """Raises WorkerMismatch if it is not there."""
    try:
        os.chdir(directory)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise WorkerMismatch(
            f"the worker cannot enter {directory} ({error.strerror}), where the controller is: if it runs on"
            " another machine or as another user, let the tree travel (--dtf-workspace pack)"
        ) from None


def add_site_dirs(spec: dict[str, Any]) -> None:
    """Let packages that a workspace's set-up installed come before this process's own, as in their environment."""
    for directory in spec.get("site_dirs") or ():
        before = list(sys.path)
        site.addsitedir(directory)
        added = [entry for entry in sys.path if entry not in before]
        sys.path[:] = [*added, *before]


def follow_environment() -> None:
    """Do what Python does at its start with variables that may have changed since."""
    time.tzset()
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        sys.dont_write_bytecode = True


def apply_warn_options(options: list[str]) -> None:
    """Do what Python does at its start with -W."""
    if options and options != sys.warnoptions:
        sys.warnoptions[:] = options
        warnings.resetwarnings()
        warnings._processoptions(options)  # type: ignore[attr-defined]  # what Python itself calls


def joined_path(controllers: list[str], own: list[str]) -> list[str]:
    """The controller's sys.path, then what this process has besides (its first entry is -m's directory)."""
    return [*controllers, *(entry for entry in own[1:] if entry not in controllers)]


def configure(spec: dict[str, Any], options: PytestOptions, seat: Seat, loop: CaseLoop) -> pytest.Config:
    """pytest's configuration, that of a worker as plug-ins know it from pytest-xdist."""
    arguments = [str(argument) for argument in spec.get("arguments") or ()]
    config = _prepareconfig(arguments, [CoverageStart()])
    leave_to_controller(config)
    if (base_temp := seat.base_temp(options.base_temp)) is not None:
        config.option.basetemp = base_temp
    config.workerinput = {  # type: ignore[attr-defined]  # where pytest-xdist's workers have it
        "workerid": seat.name,
        "workercount": options.worker_count,
        "testrunuid": spec.get("testrun_uid", ""),
        "mainargv": options.argv,
        **decode_literal(options.worker_input),
    }
    config.workeroutput = {}  # type: ignore[attr-defined]
    config.pluginmanager.register(loop, PLUGIN_NAME)
    return config


def run_session(config: pytest.Config, seat: Seat) -> None:
    """Run the session to its end and leave what plug-ins want the controller to have."""
    try:
        config.hook.pytest_cmdline_main(config=config)
        seat.leave_output(config.workeroutput)  # type: ignore[attr-defined]
    finally:
        config._ensure_unconfigure()
