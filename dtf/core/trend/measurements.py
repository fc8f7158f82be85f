"""What is measured: each measurement with its tags, its fields and their units, written once.

A store makes its tables from this, docs/metrics.md is checked against it. Tags identify a series
and are low in cardinality; what varies from point to point (run, worker, revision) is a field. A
point is identified by its measurement, its tags and its time: writing it again replaces it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class FieldKind(Enum):
    """How a field is stored."""

    TEXT = "text"
    REAL = "real"
    WHOLE = "whole"
    TRUTH = "truth"


LARGEST_WHOLE = 2**53
"""A larger whole number is stored as this one: the last that a double tells from its neighbours."""


@dataclass(frozen=True, slots=True)
class Field:
    """One column of a measurement."""

    kind: FieldKind
    meaning: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One kind of point."""

    name: str
    meaning: str
    tags: Mapping[str, str]
    """Meaning of each tag, by name."""
    fields: Mapping[str, Field]


def _text(meaning: str) -> Field:
    return Field(FieldKind.TEXT, meaning)


def _seconds(meaning: str) -> Field:
    return Field(FieldKind.REAL, meaning, "s")


def _count(meaning: str) -> Field:
    return Field(FieldKind.WHOLE, meaning)


def _bytes(meaning: str) -> Field:
    return Field(FieldKind.WHOLE, meaning, "bytes")


def _ratio(meaning: str) -> Field:
    return Field(FieldKind.REAL, meaning, "0 to 1")


def _truth(meaning: str) -> Field:
    return Field(FieldKind.TRUTH, meaning)


_SUITE = {"suite": "suite of the run"}
_CASE = {**_SUITE, "case": "name of the case", "pool": "pool of the worker that ran it"}
_ORIGIN = {
    "run": _text("run it came from"),
    "revision": _text("revision of that run"),
    "worker": _text("worker it was measured on"),
}
_JUDGED = {
    **_ORIGIN,
    "task": _count("task it ran in"),
    "attempt": _count("attempt of that task, from 1"),
    "verdict": _text("passed, failed, error, skipped or flaky"),
    "duration_seconds": _seconds("wall-clock time"),
    "cpu_seconds": _seconds("processor time, where it was measured"),
    "peak_memory_bytes": _bytes("peak resident memory, where it was measured"),
}
_VERDICTS = {
    "passed": _count("cases that passed at once"),
    "failed": _count("cases that failed for good"),
    "error": _count("cases that could not be judged"),
    "skipped": _count("cases skipped"),
    "flaky": _count("cases that failed and then passed"),
}

CASES = Measurement("cases", "One final verdict of one case in one run; at most one of each.", _CASE, _JUDGED)
RETRIES = Measurement("retries", "A result that was not final: the case is tried again.", _CASE, _JUDGED)
CASE_GROUPS = Measurement(
    "case_groups",
    "Cases of one run that have no series of their own, summed up when the run ends.",
    {**_SUITE, "group": "what they have in common: a function, a program, a test without its parameters"},
    {
        "run": _text("run it came from"),
        "revision": _text("revision of that run"),
        "count": _count("cases in it"),
        "total_seconds": _seconds("wall-clock time of all of them"),
        "longest_seconds": _seconds("wall-clock time of the longest"),
        **_VERDICTS,
    },
)
BENCHMARKS = Measurement(
    "benchmarks",
    "A number a case measured, or that was found in its result file.",
    {**_CASE, "metric": "name of the metric, as mean"},
    {
        **_ORIGIN,
        "value": Field(FieldKind.REAL, "the number", "see unit"),
        "unit": _text("unit of the number: s, bytes, 1"),
        "is_lower_better": _truth("whether smaller is better"),
    },
)
ATTEMPTS = Measurement(
    "attempts",
    "An attempt that ended otherwise than by reporting every case.",
    {**_SUITE, "pool": "pool of its worker"},
    {
        **_ORIGIN,
        "task": _count("its task"),
        "outcome": _text("timed_out, lost, crashed or cancelled"),
        "running_case": _text("case that ran then"),
        "reason": _text("why, in words"),
        "is_requeued": _truth("whether the task was queued again"),
    },
)
RUNS = Measurement(
    "runs",
    "A run that ended.",
    _SUITE,
    {
        "run": _text("the run"),
        "revision": _text("revision of the code under test"),
        "owner": _text("who asked for it"),
        "state": _text("finished or cancelled"),
        "duration_seconds": _seconds("from its creation to its end"),
        "busy_seconds": _seconds("wall-clock time of all its results, retries included"),
        "cpu_seconds": _seconds("processor time of all its results, where it was measured"),
        "task_count": _count("tasks it had"),
        "case_count": _count("cases it had"),
        **_VERDICTS,
        "unjudged": _count("cases without a verdict, because it was cancelled"),
        "infrastructure_failures": _count("attempts that ended by loss or crash"),
        "first_sequence": _count("log sequence of its creation"),
        "last_sequence": _count("log sequence of its end"),
    },
)
FLEET = Measurement(
    "fleet",
    "The fleet as it stood at the end of a second in which the log moved.",
    {},
    {
        "workers": _count("workers registered and not lost"),
        "slots": _count("attempts they run at once"),
        "queued": _count("tasks that waited for a worker"),
        "leased": _count("tasks that a worker held"),
        "open_runs": _count("runs that had not ended"),
    },
)
POOLS = Measurement(
    "pools",
    "One pool as it stood at the end of a second in which the log moved.",
    {"pool": "the pool"},
    {
        "workers": _count("workers registered and not lost"),
        "draining": _count("those of them that take nothing new"),
        "slots": _count("attempts they run at once"),
        "leased": _count("tasks that they held"),
    },
)
WORKERS = Measurement(
    "workers",
    "A worker's telemetry.",
    {"pool": "pool of the worker", "slot": "smallest number no other live worker of the pool had"},
    {
        "worker": _text("the worker"),
        "incarnation": _count("its incarnation"),
        "cpu_ratio": _ratio("busy share of all cores of its machine"),
        "memory_used_bytes": _bytes("memory in use on its machine"),
        "memory_total_bytes": _bytes("memory of its machine or control group"),
        "disk_free_bytes": _bytes("free space where attempts write"),
        "load": Field(FieldKind.REAL, "load average over one minute", "1"),
        "running": _count("attempts running"),
        "waiting": _count("leases held that have not started"),
        "worker_memory_bytes": _bytes("resident memory of the worker and all its processes"),
    },
)
SCALING = Measurement(
    "scaling",
    "A decision of the resource manager.",
    {"pool": "the pool"},
    {
        "decision": _text("identity of the decision"),
        "action": _text("hold, scale_out, scale_in, replace or terminate"),
        "desired": _count("workers wanted after all rules"),
        "requested": _count("workers asked of the provider and not registered yet"),
        "observed": _count("workers registered and not draining"),
        "recommended": _count("workers the policy wanted before the rules"),
        "reason": _text("the decision in one sentence"),
        "queue_depth": _count("tasks queued"),
        "leased": _count("tasks leased"),
        "backlog_seconds": _seconds("expected time of all that work, for one slot"),
        "utilization_ratio": _ratio("busy share of the slots"),
        "arrival_rate": Field(FieldKind.REAL, "tasks that arrived over the last minute", "1/s"),
        "log_sequence": _count("last sequence of the log it took into account"),
    },
)
FINDINGS = Measurement(
    "findings",
    "A change point or anomaly, at the time of its first value; written again as its life goes on.",
    {
        **_SUITE,
        "case": "name of the case; empty: the suite as a whole",
        "metric": "name of the metric",
        "pool": "pool of the worker that ran it; empty: all pools",
        "kind": "step, drift, variance, point, collective or multivariate",
    },
    {
        "finding": _text("identity of the finding: it stays while state and place change"),
        "state": _text("provisional, confirmed, went_away, or moved to another time"),
        "impact": _text("regression, improvement or change"),
        "triage": _text("accepted, rejected or muted; empty: nobody judged it yet"),
        "is_raised": _truth("whether it passes its rule's threshold and is neither rejected nor muted"),
        "level_before": Field(FieldKind.REAL, "level before", "see unit"),
        "level_after": Field(FieldKind.REAL, "level after; of an anomaly its value", "see unit"),
        "absolute": Field(FieldKind.REAL, "how much the level changed", "see unit"),
        "relative": Field(FieldKind.REAL, "the same over the level before", "1"),
        "relative_low": Field(FieldKind.REAL, "lower end of its 95 % interval", "1"),
        "relative_high": Field(FieldKind.REAL, "upper end of its 95 % interval", "1"),
        "confidence": Field(
            FieldKind.REAL, "1 - the probability of this in a series that did not change", "1"
        ),
        "unit": _text("unit of the levels"),
        "revision_before": _text("last revision before the change may have come"),
        "revision": _text("revision of the first value behind the change"),
        "revision_last": _text("the change came with this revision or an earlier one"),
        "run": _text("run of the first value behind the change"),
        "log_sequence": _count("last sequence of the log it took into account"),
        "found_ms": _count("when it last changed, by the log's time, in milliseconds since 1970 UTC"),
        "finding_group": _text(
            "identity of the first finding of the group it is told with, whose point says the rest; "
            "empty: it is in none"
        ),
        "group_kind": _text(
            "shared: one revision explains all of them; moved: cost went from some to others"
        ),
        "group_state": _text("confirmed, where each of them is, or provisional"),
        "group_count": _count("findings in it"),
        "group_relative": Field(
            FieldKind.REAL, "of a shared change the median of their relative effects", "1"
        ),
        "group_moved": Field(FieldKind.REAL, "of a moved cost how much moved", "see unit"),
        "group_text": _text(
            "the group in one sentence, as `dtf trends` has it; of others than the first, the series of that one"
        ),
    },
)

MEASUREMENTS: Mapping[str, Measurement] = {
    each.name: each
    for each in (
        CASES,
        RETRIES,
        CASE_GROUPS,
        BENCHMARKS,
        ATTEMPTS,
        RUNS,
        FLEET,
        POOLS,
        WORKERS,
        SCALING,
        FINDINGS,
    )
}
"""Every measurement, by name."""
