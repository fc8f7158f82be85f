"""A pytest plug-in that writes what every case said, in order, to the file named by PEERS_RECORD."""

import json
import os
from pathlib import Path

import pytest


class Recorder:
    """Collects outcomes in the process that reports them."""

    def __init__(self) -> None:
        self._outcomes: dict[str, list[str]] = {}

    @pytest.hookimpl
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Files that were skipped or could not be collected."""
        if not report.passed:
            self._outcomes.setdefault(report.nodeid, []).append(f"collect:{report.outcome}")

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Phases of a case."""
        expected = ":xfail" if hasattr(report, "wasxfail") else ""
        self._outcomes.setdefault(report.nodeid, []).append(f"{report.when}:{report.outcome}{expected}")

    @pytest.hookimpl
    def pytest_sessionfinish(self) -> None:
        """Write the file."""
        Path(os.environ["PEERS_RECORD"]).write_text(json.dumps(self._outcomes, sort_keys=True))


def pytest_configure(config: pytest.Config) -> None:
    """Record in the controller or the plain process, not in workers."""
    if not hasattr(config, "workerinput") and os.environ.get("PEERS_RECORD"):
        config.pluginmanager.register(Recorder())
