"""Reports of a case on their way from the worker's pytest to the controller's.

They travel as one JSON array, in the order they were made. An element is what the hook
pytest_report_to_serializable gave, less what the controller knows from its own collection or what
is the default of a passed report; so a case that just passed costs some 200 bytes instead of 1,300.
Elements that are no reports say so by the value of "$report_type":

    "dtf.warning"   a warning recorded while the case ran
    "dtf.stop"      the session was asked to stop (pytest.exit, session.shouldstop, Ctrl-C)

Tuples become lists on the way; `unpack` makes those tuples again that pytest looks for.
"""

import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest

TYPE_KEY = "$report_type"
WARNING_TYPE = "dtf.warning"
STOP_TYPE = "dtf.stop"

PASSED, FAILED, ERROR, SKIPPED = 1, 2, 3, 4
"""Numbers of dtf.api.v1.Verdict."""

MAX_MESSAGE_CHARACTERS = 1000

_PLAIN_ATTRIBUTES = frozenset(
    vars(
        pytest.TestReport(
            nodeid="a.py::a",
            location=("a.py", 0, "a"),
            keywords={},
            outcome="passed",
            longrepr=None,
            when="call",
        )
    )
)
"""What a report has when no plug-in added to it."""

ReportData = dict[str, Any]
Serialize = Callable[[pytest.TestReport], ReportData | None]


def encode(elements: list[ReportData]) -> bytes:
    """The JSON array. What JSON cannot say is replaced by its repr."""
    try:
        return msgspec.json.encode(elements, enc_hook=repr)
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError):
        # Lone surrogates in captured output, keys that are no strings.
        return json.dumps(_tame(elements)).encode()


def decode(data: bytes) -> list[ReportData]:
    """The elements of a JSON array made by `encode`. Raises ValueError on anything else."""
    try:
        elements = msgspec.json.decode(data)
    except msgspec.DecodeError:
        elements = json.loads(data)
    if not isinstance(elements, list):
        raise ValueError(f"reports are a JSON {type(elements).__name__}; expected an array")
    return elements


def _tame(value: object) -> object:
    match value:
        case dict():
            return {str(key): _tame(item) for key, item in value.items()}
        case list() | tuple():
            return [_tame(item) for item in value]
        case str() | int() | float() | None:
            return value
    return repr(value)


class ReportPacker:
    """Turns reports into elements, for one pytest configuration."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        implementations = config.hook.pytest_report_to_serializable.get_hookimpls()
        self._is_plain = all(is_pytests_own(impl.plugin) for impl in implementations)

    def pack(self, report: pytest.TestReport) -> ReportData:
        """The element of one report."""
        if self._is_plain and type(report) is pytest.TestReport and report.passed:
            attributes = vars(report)
            if attributes.keys() == _PLAIN_ATTRIBUTES:
                return pack_passed(report)
        data: ReportData = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        return data


def is_pytests_own(plugin: object) -> bool:
    """Whether a plug-in is part of pytest itself."""
    return getattr(plugin, "__name__", "").startswith("_pytest.")


def pack_passed(report: pytest.TestReport) -> ReportData:
    """The element of a report that passed and has nothing of its own but times and output."""
    element: ReportData = {
        "when": report.when,
        "duration": report.duration,
        "start": report.start,
        "stop": report.stop,
    }
    if report.sections:
        element["sections"] = report.sections
    if report.user_properties:
        element["user_properties"] = report.user_properties
    return element


def unpack(element: ReportData, item: pytest.Item) -> ReportData:
    """What pytest_report_from_serializable takes, for the item the controller collected.

    The node id becomes the controller's own, should the two differ.
    """
    if TYPE_KEY not in element and "_report_type" not in element:
        return unpack_passed(element, item)
    data = dict(element)
    data["nodeid"] = item.nodeid
    for name in ("location", "longrepr"):
        if isinstance(data.get(name), list):
            data[name] = tuple(data[name])
    for name in ("sections", "user_properties"):
        if isinstance(data.get(name), list):
            data[name] = [tuple(pair) for pair in data[name]]
    return data


def unpack_passed(element: ReportData, item: pytest.Item) -> ReportData:
    """The opposite of `pack_passed`."""
    return {
        "nodeid": item.nodeid,
        "location": item.location,
        "keywords": dict.fromkeys(item.keywords, 1),
        "outcome": "passed",
        "longrepr": None,
        "when": element["when"],
        "sections": [tuple(pair) for pair in element.get("sections", ())],
        "duration": element["duration"],
        "start": element["start"],
        "stop": element["stop"],
        "user_properties": [tuple(pair) for pair in element.get("user_properties", ())],
        TYPE_KEY: "TestReport",
    }


def verdict_of(reports: Iterable[pytest.TestReport]) -> int:
    """What the reports of one case say together: a failed call outweighs a failed set-up or tear-down."""
    verdict = 0
    for report in reports:
        if report.failed:
            if report.when == "call":
                return FAILED
            verdict = ERROR
        elif verdict != ERROR:
            if report.skipped:
                verdict = SKIPPED
            elif report.when == "call" and not verdict:
                verdict = PASSED
    return verdict or PASSED


def message_of(reports: Iterable[pytest.TestReport]) -> str:
    """Why a case failed or was skipped, in one line; empty if it passed."""
    message = ""
    for report in reports:
        if report.failed:
            return first_line(crash_message(report))
        if report.skipped and not message:
            message = first_line(skip_message(report))
    return message


def crash_message(report: pytest.TestReport) -> str:
    """What was raised where the case failed."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        return str(crash.message)
    return str(report.longrepr or "")


def skip_message(report: pytest.TestReport) -> str:
    """The reason given for a skip or an expected failure."""
    if hasattr(report, "wasxfail"):
        return f"expected failure: {report.wasxfail}".removesuffix(": ")
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return str(report.longrepr or "")


def first_line(text: str) -> str:
    """The first line with something in it; a lone surrogate, which UTF-8 cannot say, is written as its escape."""
    line = text.strip().partition("\n")[0][:MAX_MESSAGE_CHARACTERS]
    return line.encode(errors="backslashreplace").decode()


def failure_element(item_id: str, text: str) -> ReportData:
    """An element that says a case could not be run, as a failed set-up."""
    path = item_id.partition("::")[0]
    return {
        "nodeid": item_id,
        "location": (path, None, item_id),
        "keywords": {},
        "outcome": "failed",
        "longrepr": text,
        "when": "setup",
        "sections": [],
        "duration": 0.0,
        "start": 0.0,
        "stop": 0.0,
        "user_properties": [],
        TYPE_KEY: "TestReport",
    }


KIBIBYTE = 1024 if sys.platform != "darwin" else 1
"""ru_maxrss is in KiB, on macOS in bytes."""
