"""Commits as tests of the trend analyzer write them: short, each a plausible piece of a log."""

from collections.abc import Sequence
from typing import Any

from dtf.api.v1 import common_pb2, events_pb2

START_NS = 1_700_000_000_000_000_000
SECOND_NS = 1_000_000_000

PASSED = common_pb2.VERDICT_PASSED
FAILED = common_pb2.VERDICT_FAILED
ERROR = common_pb2.VERDICT_ERROR


def commit(at_seconds: float, *events: Any) -> events_pb2.Commit:
    """A commit of these events, `at_seconds` after the start of time."""
    wrapped = []
    for event in events:
        field: Any = _FIELDS[event.DESCRIPTOR.name]
        wrapped.append(events_pb2.Event(**{field: event}))
    return events_pb2.Commit(now_unix_nanos=START_NS + round(at_seconds * SECOND_NS), events=wrapped)


_FIELDS = {
    field.message_type.name: field.name
    for field in events_pb2.Event.DESCRIPTOR.oneofs[0].fields
    if field.message_type is not None
}


def pytest_template() -> common_pb2.TaskTemplate:
    """Cases of pytest."""
    return common_pb2.TaskTemplate(pytest=common_pb2.PytestSpec(root_dir="/suite"))


def callable_template(function: str = "bench:noop") -> common_pb2.TaskTemplate:
    """Calls of a function."""
    return common_pb2.TaskTemplate(callable=common_pb2.CallableSpec(function=function))


def run_created(
    run_id: str = "r1",
    suite: str = "suite",
    revision: str = "4f2a91c",
    template: common_pb2.TaskTemplate | None = None,
) -> events_pb2.RunCreated:
    """A run began."""
    return events_pb2.RunCreated(
        run_id=run_id,
        suite=suite,
        revision=revision,
        owner="ann@host",
        templates=[template or pytest_template()],
    )


def shard_submitted(*cases: str, run_id: str = "r1", first_task: int = 0) -> events_pb2.TasksSubmitted:
    """One task with these cases."""
    return events_pb2.TasksSubmitted(
        run_id=run_id,
        first_task=first_task,
        names=["shard"],
        case_counts=[len(cases)],
        case_names=cases,
    )


def tasks_submitted(*names: str, run_id: str = "r1", first_task: int = 0) -> events_pb2.TasksSubmitted:
    """Tasks of one case each."""
    return events_pb2.TasksSubmitted(run_id=run_id, first_task=first_task, names=names)


def registered(worker_id: str = "w1", pool: str = "local", slots: int = 1) -> events_pb2.WorkerRegistered:
    """A worker opened its first session."""
    return events_pb2.WorkerRegistered(worker_id=worker_id, incarnation=1, pool=pool, slots=slots)


def granted(
    *tasks: int, run_id: str = "r1", worker_id: str = "w1", attempts: Sequence[int] = ()
) -> events_pb2.LeasesGranted:
    """Leases to a worker."""
    return events_pb2.LeasesGranted(
        run_id=run_id, worker_id=worker_id, incarnation=1, tasks=tasks, first_fence=1, attempts=attempts
    )


def accepted(
    *results: tuple[int, int, "common_pb2.Verdict.ValueType", float],
    run_id: str = "r1",
    worker_id: str = "w1",
    **rest: Any,
) -> events_pb2.ResultsAccepted:
    """Results: (task, case, verdict, seconds) each."""
    return events_pb2.ResultsAccepted(
        run_id=run_id,
        worker_id=worker_id,
        tasks=[result[0] for result in results],
        fences=[result[0] + 1 for result in results],
        cases=[result[1] for result in results],
        verdicts=[result[2] for result in results],
        durations_seconds=[result[3] for result in results],
        **rest,
    )


def finished(run_id: str = "r1", **counts: int) -> events_pb2.RunFinished:
    """A run ended."""
    return events_pb2.RunFinished(
        run_id=run_id, state=common_pb2.RUN_STATE_FINISHED, counts=common_pb2.VerdictCounts(**counts)
    )


def story(
    run_id: str, at_seconds: float, durations: Sequence[float], suite: str = "suite"
) -> list[events_pb2.Commit]:
    """A run of as many cases (a, b, c …) as there are durations, every case passed, in five commits."""
    names = [chr(ord("a") + index) for index in range(len(durations))]
    results = [(0, index, PASSED, seconds) for index, seconds in enumerate(durations)]
    middle = len(results) // 2
    return [
        commit(at_seconds, run_created(run_id, suite), shard_submitted(*names, run_id=run_id)),
        commit(at_seconds + 0.2, granted(0, run_id=run_id)),
        commit(at_seconds + 0.4, accepted(*results[:middle], run_id=run_id)),
        commit(at_seconds + 1.4, accepted(*results[middle:], run_id=run_id, completed=[1])),
        commit(at_seconds + 1.5, finished(run_id, passed=len(results))),
    ]
