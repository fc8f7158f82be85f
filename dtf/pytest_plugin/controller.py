"""The controller's session: it collects as plain pytest does, then lets workers run what it collected.

    create run, collect ──▶ submit shards ──▶ replay what comes ──▶ every case reported ──▶ end
                                                  └─ -x, Ctrl-C, pytest.exit: cancel the run ──▶ end

While pytest collects, a thread joins the project's stack (or starts it) and creates the run.
"""

import pytest

from dtf.pytest_plugin.preparation import Preparation, Stack


class Controller:
    """A pytest plug-in that replaces the run loop."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._preparation: Preparation | None = None
        self._terminal = config.pluginmanager.get_plugin("terminalreporter")
        self._flaky: list[str] = []
        self.stack: Stack | None = None
        """The stack and the run that ended on it, for whoever reports it; None: nothing was run."""
        if self._terminal is not None:
            # Cases of several files come in turn; a line for each change of file would tell nothing.
            self._terminal.showfspath = False

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self) -> None:
        """Join the stack while pytest collects."""
        from dtf.pytest_plugin.request import Facts

        self._facts = Facts.gather(self._config)
        self._preparation = Preparation(self._config.invocation_params.dir, self._config.option, self._facts)
        self._preparation.start()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run what was collected on workers."""
        if session.testsfailed and not session.config.option.continue_on_collection_errors:
            plural = "s" if session.testsfailed != 1 else ""
            raise session.Interrupted(f"{session.testsfailed} error{plural} during collection")
        if not session.items:
            return True
        assert self._preparation is not None
        stack = self._preparation.result(self._say)
        from dtf.pytest_plugin.run import DistributedRun

        self._preparation.run_ended()
        self.stack = stack
        DistributedRun(session, stack, self._facts.testrun_uid, self._say, self._flaky).execute()
        return True

    @pytest.hookimpl
    def pytest_terminal_summary(self) -> None:
        """Name the cases that passed only when tried again."""
        if self._flaky and self._terminal is not None:
            self._terminal.write_sep("=", f"{len(self._flaky)} flaky: failed, then passed when tried again")
            for name in self._flaky:
                self._terminal.write_line(f"FLAKY {name}")

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """Leave the stack."""
        if self._preparation is not None:
            self._preparation.close()

    def _say(self, text: str) -> None:
        if self._terminal is not None and self._config.option.verbose >= 0:
            self._terminal.write_line(text)
