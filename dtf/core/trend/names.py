"""Which cases have a series of their own, so that no suite can flood the store with series.

A suite that makes up new names in every run (fuzz inputs, addresses in parameters, ten thousand
no-ops) gets a bounded number of series; what comes after belongs to a group that is summed up once
a run. A name is admitted when its first point is written, so the names in the store are the names
admitted, and an analyzer that starts again decides the same.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from dtf.api.v1 import common_pb2

MOST_PYTEST_SERIES = 100_000
"""Series a suite may have from pytest cases: one page of ListCaseStatistics; a large suite has 50,000 cases."""
MOST_OTHER_SERIES = 1_000
"""Series a suite may have from commands and callables, whose names are often generated."""
MOST_SERIES = 1_000_000
"""Cases with a series of their own in all suites together; InfluxDB slows down beyond a few millions of series, and
a case has about three (by pool, and its retries and benchmarks)."""
MOST_SUITES = 10_000
"""Suites with a name of their own in the store: each has a series of its runs, its groups and its lost attempts."""
MOST_METRICS = 1_000
"""Names of metrics that the cases of a suite may measure."""
OTHER = "(other)"
"""Stands for suites, metrics and groups beyond what is admitted: that they were there is seen, and not which."""
LONGEST_NAME = 1_000
"""Characters of a series' name; InfluxDB refuses a series key above 64 KiB."""

_PARAMETERS = re.compile(r"[\[ ]")
"""Where a test's parameters or a command's arguments begin."""
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


def pool_name(pool: str) -> str:
    """A pool as the store writes it; "": none."""
    return series_name(pool) if pool else ""


@dataclass(frozen=True, slots=True)
class SeriesRule:
    """How many series the cases of a template may have, and where the rest belongs."""

    most: int
    """Series their suite may have before a case of this template gets none of its own."""
    group: str
    """What all of them have in common; empty: it depends on the case."""

    @classmethod
    def of(cls, template: common_pb2.TaskTemplate) -> "SeriesRule":
        """The rule of a template."""
        match template.WhichOneof("spec"):
            case "pytest":
                return cls(MOST_PYTEST_SERIES, "")
            case "callable":
                return cls(MOST_OTHER_SERIES, series_name(template.callable.function))
            case "command" if template.command.argv:
                return cls(MOST_OTHER_SERIES, series_name(template.command.argv[0].rsplit("/", 1)[-1]))
            case _:
                return cls(MOST_OTHER_SERIES, "")

    def group_of(self, name: str) -> str:
        """What a case without a series of its own is summed up under."""
        return self.group or series_name(_PARAMETERS.split(name, maxsplit=1)[0])


class NameBook:
    """The names admitted so far: suites, the cases of each, and the metrics that each measures."""

    def __init__(
        self,
        known: Iterable[tuple[str, str]] = (),
        *,
        metrics: Iterable[tuple[str, str]] = (),
        most_in_all: int = MOST_SERIES,
        most_suites: int = MOST_SUITES,
        most_metrics: int = MOST_METRICS,
    ) -> None:
        """`known`: suite and case, and `metrics`: suite and metric, of what the store has already."""
        self._names: dict[str, set[str]] = {}
        for suite, name in known:
            self._names.setdefault(suite, set()).add(name)
        self._metrics: dict[str, set[str]] = {}
        for suite, metric in metrics:
            self._metrics.setdefault(suite, set()).add(metric)
        self._count = sum(map(len, self._names.values()))
        self._most_in_all = most_in_all
        self._most_suites = most_suites
        self._most_metrics = most_metrics

    @property
    def share_used(self) -> float:
        """How much of the nearer of two bounds is used up: on names of all suites together, and on suites."""
        return max(self._count / self._most_in_all, len(self._names) / self._most_suites)

    def suite_of(self, suite: str) -> str:
        """`suite` as the store writes it, or OTHER for a new one when there are too many."""
        suite = series_name(suite)
        if suite not in self._names:
            if len(self._names) >= self._most_suites:
                return OTHER
            self._names[suite] = set()
        return suite

    def metric_of(self, suite: str, metric: str) -> str:
        """`metric`, or OTHER for a new one when the suite has too many."""
        metrics = self._metrics.setdefault(suite, set())
        if metric not in metrics:
            if len(metrics) >= self._most_metrics:
                return OTHER
            metrics.add(metric)
        return metric

    def admit(self, suite: str, name: str, most: int) -> bool:
        """Whether `name` has a series of its own.

        A new name does while its suite has fewer than `most`, and all suites fewer than `most_in_all`.
        """
        names = self._names.setdefault(suite, set())
        if name in names:
            return True
        if len(names) >= most or self._count >= self._most_in_all:
            return False
        names.add(name)
        self._count += 1
        return True

    def series_of(self, suite: str, name: str, most: int, group: str) -> str:
        """`name` if it is admitted, else `group`, else OTHER."""
        if self.admit(suite, name, most):
            return name
        return group if self.admit(suite, group, self._most_in_all) else OTHER
