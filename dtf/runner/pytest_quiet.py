"""Keeps a worker's pytest from doing what the controller's does: printing, reporting, stopping.

Options stay as the user gave them but for those named here; plug-ins that know pytest-xdist find
`config.workerinput` and stay quiet by themselves.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter

CONTROLLERS_OPTIONS: dict[str, Any] = {
    "dtf": False,
    "usepdb": False,
    "trace": False,
    "maxfail": 0,
    "stepwise": False,
    "stepwise_skip": False,
    "looponfail": False,
    "dist": "no",
    "distload": False,
    "numprocesses": None,
    "maxprocesses": None,
    "tx": [],
    "loadgroup": False,
}
"""Options that only the controller follows, with what a worker has instead."""


def leave_to_controller(config: pytest.Config) -> None:
    """Set the options that only the controller follows."""
    for name, value in CONTROLLERS_OPTIONS.items():
        if hasattr(config.option, name):
            setattr(config.option, name, value)


def _without_hooks() -> dict[str, None]:
    return {name: None for name in dir(TerminalReporter) if name.startswith("pytest_")}


class QuietTerminal(TerminalReporter):  # type: ignore[misc]  # final for its users; this one only mutes it
    """A terminal reporter that plug-ins can write to and that reports nothing itself."""

    __test__ = False
    locals().update(_without_hooks())


def silence_terminal(config: pytest.Config) -> None:
    """Replace pytest's terminal reporter by one that reports nothing and writes to nowhere."""
    manager = config.pluginmanager
    reporter = manager.get_plugin("terminalreporter")
    if reporter is None:
        return
    manager.unregister(reporter)
    nowhere = Path(os.devnull).open("w")  # noqa: SIM115 - open as long as the session, closed with it
    config.add_cleanup(nowhere.close)
    manager.register(QuietTerminal(config, nowhere), "terminalreporter")


class CoverageStart:
    """Lets pytest-cov begin where pytest-xdist's workers do, and erase nothing.

    pytest-cov starts measuring, and erases the data there is, while arguments are parsed, when it
    cannot know yet that this is a worker. It starts again, as a worker, with the session; only that
    start is left.
    """

    @pytest.hookimpl(wrapper=True)
    def pytest_load_initial_conftests(self, early_config: pytest.Config) -> Any:
        """Hide --cov from pytest-cov's early start and register its plug-in unstarted."""
        options = early_config.known_args_namespace
        sources = getattr(options, "cov_source", None)
        if not sources:
            return (yield)
        options.cov_source = []
        try:
            result = yield
        finally:
            options.cov_source = sources
        from pytest_cov.plugin import CovPlugin

        plugin = CovPlugin(options, early_config.pluginmanager, start=False)
        early_config.pluginmanager.register(plugin, "_cov")
        return result
