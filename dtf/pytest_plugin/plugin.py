"""The pytest plug-in `--dtf`. Every pytest of the environment loads this file, so it imports next to nothing.

Three kinds of pytest meet it: a plain one (nothing happens), a controller (`--dtf`: the session of
controller.py takes over the run loop) and a worker's (`config.workerinput` is set; the loop is
dtf/runner/pytest_loop.py's).
"""

import sys
from collections.abc import Generator
from typing import Any

import pytest

CONTROLLER_NAME = "dtf-controller"
WORKER_NAME = "dtf-session"
WORKSPACES = ("auto", "pack", "shared", "image", "tree")
DISTRIBUTIONS = ("load", "loadscope", "loadfile", "loadgroup")

import_path_at_start = list(sys.path)
"""sys.path before pytest and conftest files add to it, which they will do in the workers too."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("dtf", "run on a pool of workers")
    group.addoption("--dtf", action="store_true", default=False, help="Run the tests on a pool of workers.")
    group.addoption(
        "--dtf-workers",
        type=worker_count,
        default=None,
        metavar="N",
        help="Have N workers, where this starts the stack. Implies --dtf.",
    )
    group.addoption(
        "--dtf-server",
        default=None,
        metavar="HOST:PORT",
        help="Coordinator to use instead of the project's own stack (DTF_SERVER). Implies --dtf.",
    )
    group.addoption(
        "--dtf-workspace",
        choices=WORKSPACES,
        default=None,
        help="How workers get the code: pack (the working tree travels), shared, image, tree (in place), or"
        " auto, the default: pack where workers may be elsewhere.",
    )
    group.addoption(
        "--dtf-dist",
        choices=DISTRIBUTIONS,
        default="load",
        help="What stays on one worker: load (xdist_group marks), loadscope (modules and classes),"
        " loadfile (files), loadgroup (as load). Default: load.",
    )


def worker_count(text: str) -> int:
    """A number of workers. Raises ValueError, which argparse words."""
    count = int(text)
    if count < 1:
        raise ValueError(f"{count} workers; expected at least 1")
    return count


def is_wanted(options: Any) -> bool:
    """Whether the options ask for a run on workers."""
    return bool(options.dtf or options.dtf_workers or options.dtf_server)


def is_controller(config: pytest.Config) -> bool:
    """Whether this pytest hands its cases to workers."""
    return is_wanted(config.option) and not config.option.collectonly and not hasattr(config, "workerinput")


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, Any, Any]:
    """Tell pytest-cov, which looks at pytest-xdist's option, that workers will do the measuring."""
    options = early_config.known_args_namespace
    is_worker = early_config.pluginmanager.has_plugin(WORKER_NAME)
    if is_worker or not is_wanted(options) or not getattr(options, "cov_source", None):
        return (yield)
    before = getattr(options, "dist", None)
    options.dist = "dtf"
    try:
        return (yield)
    finally:
        if before is None:
            del options.dist
        else:
            options.dist = before


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Refuse what cannot be distributed."""
    if not is_controller(config):
        return
    option = config.option
    if option.usepdb or option.trace:
        raise pytest.UsageError(
            "--pdb and --trace need the test in this process, and --dtf runs it in a worker: leave --dtf out"
            " (or add -p no:dtf where addopts has it)"
        )
    if getattr(option, "numprocesses", None) or getattr(option, "tx", None):
        raise pytest.UsageError(
            "--dtf and pytest-xdist's -n both hand tests to workers: leave one of them out (-n 0 undoes -n in addopts)"
        )


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the mark, and the controller if one is wanted."""
    config.addinivalue_line("markers", "xdist_group(name): keep tests of one group on one worker, in order.")
    if is_controller(config):
        from dtf.pytest_plugin.controller import Controller

        config.pluginmanager.register(Controller(config), CONTROLLER_NAME)


@pytest.fixture(scope="session")
def worker_id(request: pytest.FixtureRequest) -> str:
    """The name of the worker's process among those of the run (gw0, gw1, …); master without workers."""
    worker_input = getattr(request.config, "workerinput", None)
    return str(worker_input["workerid"]) if worker_input else "master"


@pytest.fixture(scope="session")
def testrun_uid(request: pytest.FixtureRequest) -> str:
    """An identifier that all workers of one run share."""
    worker_input = getattr(request.config, "workerinput", None)
    if worker_input:
        return str(worker_input["testrunuid"])
    import secrets

    return secrets.token_hex(16)
