"""The run loop of a worker's pytest: cases come over the channel, results go back.

A case is run when its successor is known, so that pytest tears down what the successor does not
need and keeps what it does; Flush says that none is coming, and the case then runs as if it were
the last. A case that was announced as a successor counts as begun: what is set up for it could not
be taken back.

    waits ── Run ──▶ queued ──(a successor, or Flush)──▶ runs ──▶ reported
                       └── Drop (nothing of its attempt begun, or the session stopped) ──▶ dropped
"""

import resource
import time
import warnings
from collections.abc import Sequence
from typing import Any

import pytest

from dtf.runner.case_queue import CaseQueue
from dtf.runner.channel import (
    CaseItem,
    Detail,
    Drop,
    Dropped,
    Finish,
    Flush,
    Prepared,
    ResultItem,
    Run,
    RunnerChannel,
)
from dtf.runner.outbox import Outbox
from dtf.runner.pytest_match import CaseIndex
from dtf.runner.pytest_quiet import silence_terminal
from dtf.runner.pytest_reports import (
    ERROR,
    KIBIBYTE,
    STOP_TYPE,
    TYPE_KEY,
    ReportData,
    ReportPacker,
    encode,
    failure_element,
    first_line,
    message_of,
    verdict_of,
)
from dtf.runner.pytest_warnings import warning_element
from dtf.runner.status import StatusWriter

PLUGIN_NAME = "dtf-session"
LINGER_SECONDS = 0.1
"""How long a result may wait for others: people see no difference, and each message costs every process
it passes some 0.2 ms. A case that takes longer keeps nothing back: the worker reads the journal."""


class CaseLoop:
    """A pytest plug-in that runs the cases a worker hands out."""

    def __init__(self, channel: RunnerChannel, status: StatusWriter, collected_count: int) -> None:
        self._channel = channel
        self._status = status
        self._collected_count = collected_count
        """Cases the controller collected, where a case's payload does not say it."""
        self._outbox = Outbox(channel, status, LINGER_SECONDS)
        self._queue = CaseQueue()
        self._announced: CaseItem | None = None
        self._is_flushed = False
        self._is_finished = False
        self._is_stopped = False
        self._reports: list[pytest.TestReport] = []
        self._elements: list[ReportData] = []
        self._collect_errors: list[str] = []
        self.internal_error = ""
        self.is_prepared = False

    # Hooks of pytest, in the order of a session.

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Nothing is printed here: the controller's terminal reports."""
        silence_terminal(config)

    @pytest.hookimpl
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep why something could not be collected, for cases that will be missing."""
        if report.failed:
            self._collect_errors.append(f"{report.nodeid}: {report.longreprtext}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run cases until told to finish."""
        self._items = session.items
        self._index = CaseIndex([item.nodeid for item in session.items])
        self._packer = ReportPacker(session.config)
        self._session = session
        self._channel.send(Prepared(len(session.items)))
        self.is_prepared = True
        while (case := self._next_case()) is not None:
            self._run_case(case)
        self._outbox.send()
        return True

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect the reports of the case that runs."""
        self._reports.append(report)
        self._elements.append(self._packer.pack(report))

    @pytest.hookimpl
    def pytest_warning_recorded(
        self,
        warning_message: warnings.WarningMessage,
        when: str,
        nodeid: str,
        location: tuple[str, int, str] | None,
    ) -> None:
        """Relay what was warned of while a case ran; the controller saw the rest itself."""
        if when == "runtest":
            self._elements.append(warning_element(warning_message, when, nodeid, location))

    @pytest.hookimpl
    def pytest_internalerror(self, excrepr: object) -> None:
        """Keep what broke pytest itself."""
        self.internal_error = str(excrepr)

    # Cases.

    def _next_case(self) -> CaseItem | None:
        """The case to run now; None when the session is over. Its successor is then known, or none comes."""
        while True:
            while (message := self._channel.receive(block=self._must_wait())) is not None:
                self._handle(message)
                if self._is_finished:
                    return None
            if self._announced is not None:
                case, self._announced = self._announced, None
                return case
            return self._queue.take()

    def _must_wait(self) -> bool:
        """Whether nothing can be run before another message comes; what there is to say is said then."""
        ready = len(self._queue) + (self._announced is not None)
        if not self._is_stopped and (ready > 1 or (ready and self._is_flushed)):
            self._outbox.send_if_due()
            return False
        self._status.end()
        self._outbox.send()
        return True

    def _handle(self, message: object) -> None:
        match message:
            case Run(items):
                self._queue.extend(items)
                self._is_flushed = False
            case Flush():
                self._is_flushed = True
            case Drop(fences):
                self._outbox.send()
                self._channel.send(Dropped(self._drop(fences)))
            case Finish():
                self._is_finished = True
            case _:
                raise ValueError(f"got {message!r}; expected Run, Flush, Drop or Finish")

    def _drop(self, fences: Sequence[int]) -> list[int]:
        """Forget attempts that have not begun; once the session stopped, begun ones too: nothing more is run."""
        if not self._is_stopped:
            return self._queue.drop(fences)
        if self._announced is not None and self._announced.fence in fences:
            self._announced = None
        self._queue.forget(fences)
        return list(fences)

    def _run_case(self, case: CaseItem) -> None:
        self._announced = self._queue.take() if self._queue else None
        self._reports, self._elements = [], []
        self._status.begin(case.fence, case.case, case.timeout_seconds)
        cpu = time.process_time()
        began = time.perf_counter()
        index = self._index.find(case.name, case.position, self._controllers_count(case))
        if index is None:
            verdict, message = ERROR, self._report_missing(case)
        else:
            self._run_item(self._items[index])
            verdict, message = verdict_of(self._reports), message_of(self._reports)
            if self._is_stopped and not (self._reports and self._reports[-1].when == "teardown"):
                verdict, message = ERROR, first_line(str(self._elements[-1]["reason"]))
        duration = time.perf_counter() - began
        self._outbox.add(
            ResultItem(
                case.fence,
                case.case,
                verdict,
                duration,
                time.process_time() - cpu,
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIBIBYTE,
                self._reports[0].start if self._reports else 0.0,
                case.is_last_of_attempt,
                Detail(reports_json=encode(self._elements), message=message),
            )
        )

    def _run_item(self, item: pytest.Item) -> None:
        try:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=self._successor())
        except pytest.exit.Exception as request:
            self._stop("exit", str(request.msg), request.returncode)
        except KeyboardInterrupt as interrupt:
            self._stop("interrupt", str(interrupt), None)
        else:
            if self._session.shouldfail:
                self._stop("fail", str(self._session.shouldfail), None)
            elif self._session.shouldstop:
                self._stop("stop", str(self._session.shouldstop), None)

    def _successor(self) -> pytest.Item | None:
        if self._announced is None:
            return None
        index = self._index.find(
            self._announced.name, self._announced.position, self._controllers_count(self._announced)
        )
        return None if index is None else self._items[index]

    def _stop(self, kind: str, reason: str, return_code: int | None) -> None:
        """Tell the controller that the session is to stop, and run nothing more."""
        self._is_stopped = True
        element: dict[str, Any] = {
            TYPE_KEY: STOP_TYPE,
            "kind": kind,
            "reason": reason,
            "return_code": return_code,
        }
        self._elements.append(element)

    def _report_missing(self, case: CaseItem) -> str:
        """A failing report for a case that has no item here."""
        text = self._index.explain_missing(case.name, self._controllers_count(case))
        if self._collect_errors:
            text = "\n".join([f"{text}; these could not be collected:", *self._collect_errors])
        self._elements.append(failure_element(case.name, text))
        return first_line(text)

    def _controllers_count(self, case: CaseItem) -> int:
        return int(case.payload) if case.payload.isdecimal() else self._collected_count
