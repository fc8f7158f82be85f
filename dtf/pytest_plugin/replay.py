"""Replays what workers report through pytest's own hooks, so that every reporter sees a plain run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from dtf.runner.pytest_reports import (
    STOP_TYPE,
    TYPE_KEY,
    WARNING_TYPE,
    ReportData,
    decode,
    is_pytests_own,
    unpack,
)
from dtf.runner.pytest_warnings import warning_arguments

SUBTEST_CONTEXT = "_subtest.context"
"""What tells a subtest's report (pytest 9) from a test's."""


@dataclass(frozen=True, slots=True)
class StopRequest:
    """A test, or a plug-in, asked the whole session to stop."""

    kind: str
    reason: str
    return_code: int | None

    def obey(self, session: pytest.Session) -> None:
        """Stop as pytest would have. Raises."""
        match self.kind:
            case "exit":
                pytest.exit(self.reason, self.return_code)
            case "interrupt":
                raise KeyboardInterrupt(self.reason)
            case "fail":
                raise session.Failed(self.reason)
            case _:
                raise session.Interrupted(self.reason)


@dataclass
class Replay:
    """The cases of one session and which of them have been reported."""

    session: pytest.Session
    testrun_uid: str
    unreported: dict[int, None] = field(init=False)
    """Positions of the cases that have no final report yet, in order."""

    def __post_init__(self) -> None:
        self._config = self.session.config
        self._items = self.session.items
        self._hooks: dict[Any, Any] = {}
        self.unreported = dict.fromkeys(range(len(self._items)))
        implementations = self._config.hook.pytest_report_from_serializable.get_hookimpls()
        self._junit = find_junit_xml(self._config)
        self._junit_seen = len(self._junit.node_reporters_ordered) if self._junit is not None else 0
        self._junit_places: dict[int, int] = {}
        self._is_plain = all(is_pytests_own(impl.plugin) for impl in implementations)

    def case(self, position: int, reports_json: bytes, worker_id: str) -> StopRequest | None:
        """Report one case; what it said of the session, if it did."""
        item = self._items[position]
        stop: StopRequest | None = None
        reports: list[pytest.TestReport] = []
        for element in decode(reports_json):
            kind = element.get(TYPE_KEY)
            if kind == WARNING_TYPE:
                self._warn(element)
            elif kind == STOP_TYPE:
                stop = StopRequest(element["kind"], element["reason"], element["return_code"])
            else:
                report = self._report(element, item)
                report.worker_id = worker_id  # type: ignore[attr-defined]  # as pytest-xdist has it
                report.testrun_uid = self.testrun_uid  # type: ignore[attr-defined]
                reports.append(report)
        self.reports(position, reports)
        return stop

    def reports(self, position: int, reports: Sequence[pytest.TestReport]) -> None:
        """Hand the final reports of one case to pytest's hooks."""
        if position not in self.unreported:
            return
        del self.unreported[position]
        item = self._items[position]
        hooks = self._hooks_of(item)
        hooks.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in reports:
            hooks.pytest_runtest_logreport(report=report)
        hooks.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        self._note_junit(position)

    def sort_as_collected(self) -> None:
        """Bring what reporters hold back until the end into the order of collection, as in a plain run."""
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        places = {item.nodeid: place for place, item in enumerate(self._items)}
        for reports in terminal.stats.values() if terminal is not None else ():
            reports.sort(key=lambda report: places.get(getattr(report, "nodeid", ""), -1))
        if self._junit is not None:
            # What is not a case's was there before the first: files that were skipped or failed to import.
            self._junit.node_reporters_ordered.sort(key=lambda entry: self._junit_places.get(id(entry), -1))

    def _note_junit(self, position: int) -> None:
        """Remember which of JUnit's entries this case made: once complete, they do not say."""
        if self._junit is not None:
            entries = self._junit.node_reporters_ordered
            for index in range(self._junit_seen, len(entries)):
                self._junit_places[id(entries[index])] = position
            self._junit_seen = len(entries)

    def _hooks_of(self, item: pytest.Item) -> Any:
        """The hooks of a directory, conftest files of other directories left out."""
        hooks = self._hooks.get(item.path)
        if hooks is None:
            hooks = self._hooks[item.path] = item.ihook
        return hooks

    def _report(self, element: ReportData, item: pytest.Item) -> pytest.TestReport:
        data = unpack(element, item)
        if self._is_plain and data.get(TYPE_KEY) == "TestReport" and data["longrepr"] is None:
            del data[TYPE_KEY]
            if hasattr(item, "id"):
                data["nodeid"] = item.id
            return pytest.TestReport(**data)
        report: pytest.TestReport | None = self._config.hook.pytest_report_from_serializable(
            config=self._config, data=data
        )
        if report is None:
            raise ValueError(f"no plug-in knows a report of type {data.get(TYPE_KEY)!r}")
        if SUBTEST_CONTEXT in data:
            restore_subtest(report, data[SUBTEST_CONTEXT], item)
        return report

    def _warn(self, element: ReportData) -> None:
        self._config.hook.pytest_warning_recorded.call_historic(kwargs=warning_arguments(element))


def crash_report(item: pytest.Item, text: str, output: str = "", duration: float = 0.0) -> pytest.TestReport:
    """The failing report of a case that no process lived to report."""
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords=dict.fromkeys(item.keywords, 1),
        outcome="failed",
        longrepr=text,
        when="call",
        sections=[("Captured output of the process", output)] if output else [],
        duration=duration,
    )


def restore_subtest(report: pytest.TestReport, context: dict[str, Any], item: pytest.Item) -> None:
    """Do for a subtest what pytest does only in the process that ran it.

    Its arguments are texts already, and pytest 9 quotes them again. Its failures are counted, and
    the count is what fails the test that contains it, unless that is a unittest's: those pass.
    """
    object.__setattr__(report.context, "kwargs", context["kwargs"])
    if report.failed:
        from _pytest.subtests import failed_subtests_key
        from _pytest.unittest import TestCaseFunction

        if not isinstance(item, TestCaseFunction):
            item.config.stash[failed_subtests_key][report.id] += 1


def find_junit_xml(config: pytest.Config) -> Any:
    """pytest's JUnit reporter, if there is one."""
    try:
        from _pytest.junitxml import xml_key
    except ImportError:
        return None
    return config.stash.get(xml_key, None)
