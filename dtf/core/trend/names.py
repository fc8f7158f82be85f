"""Which cases have a series of their own, so that no suite can flood the store with series.

A suite that makes up new names in every run (fuzz inputs, addresses in parameters, ten thousand
no-ops) gets a bounded number of series; what comes after belongs to a group that is summed up once
a run. A name is admitted when its first point is written, so the names in the store are the names
admitted, and an analyzer that starts again decides the same.
"""

import hashlib
import re
from collections.abc import Iterable

from dtf.api.v1 import common_pb2

MOST_PYTEST_SERIES = 100_000
"""Series a suite may have from pytest cases: one page of ListCaseStatistics; a large suite has 50,000 cases."""
MOST_OTHER_SERIES = 1_000
"""Series a suite may have from commands and callables, whose names are often generated."""
LONGEST_NAME = 1_000
"""Characters of a series' name; InfluxDB refuses a series key above 64 KiB."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]+")


def series_name(name: str) -> str:
    """`name` as the store writes it, in every adapter alike.

    Runs of control characters become one space; blanks around it and backslashes at its end go (InfluxDB's line
    protocol can write neither); what is too long ends in a digest. An empty name becomes "(unnamed)".
    """
    if (
        name.isascii()
        and name.isprintable()
        and len(name) <= LONGEST_NAME
        and name[-1:] not in ("\\", " ", "")
    ):
        return name.lstrip()
    clean = _CONTROL.sub(" ", name).strip()
    if len(clean) > LONGEST_NAME:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        clean = f"{clean[: LONGEST_NAME - 13]}~{digest}"
    return clean.rstrip("\\ ") or "(unnamed)"


def group_name(template: common_pb2.TaskTemplate, name: str) -> str:
    """What a case without a series of its own is summed up under."""
    match template.WhichOneof("spec"):
        case "callable":
            return series_name(template.callable.function)
        case "command":
            program = template.command.argv[0] if template.command.argv else name.split(" ", 1)[0]
            return series_name(program.rsplit("/", 1)[-1])
        case _:
            return series_name(name.split("[", 1)[0])


def most_series(template: common_pb2.TaskTemplate) -> int:
    """How many series its suite may have before a case of this template gets none of its own."""
    return MOST_PYTEST_SERIES if template.WhichOneof("spec") == "pytest" else MOST_OTHER_SERIES


class NameBook:
    """The names admitted so far, by suite."""

    def __init__(self, known: Iterable[tuple[str, str]] = ()) -> None:
        self._names: dict[str, set[str]] = {}
        for suite, name in known:
            self._names.setdefault(suite, set()).add(name)

    def admit(self, suite: str, name: str, most: int) -> bool:
        """Whether `name` has a series of its own; a new name does while the suite has fewer than `most`."""
        names = self._names.setdefault(suite, set())
        if name in names:
            return True
        if len(names) >= most:
            return False
        names.add(name)
        return True

    def series_of(self, suite: str, name: str, most: int, group: str) -> str:
        """`name` if it is admitted, else `group`, which always is."""
        if self.admit(suite, name, most):
            return name
        self._names[suite].add(group)
        return group
