"""What stays of a run that leaves the working state: as much as GetRun and ListRuns answer."""

import heapq
from collections.abc import Iterator

from dtf.api.v1 import run_service_pb2
from dtf.core.run.queries import run_message
from dtf.core.run.state import RetiredRun, Run, State, content_digest


def outline_of(run: Run) -> RetiredRun:
    """The outline of an ended run."""
    return RetiredRun(
        run_id=run.run_id,
        suite=run.created.suite,
        first_sequence=run.first_sequence,
        last_sequence=run.last_sequence,
        request_id=run.created.request_id,
        content_digest=content_digest(run.created),
        outline=run_message(run).SerializeToString(deterministic=True),
    )


def retired_message(retired: RetiredRun) -> run_service_pb2.Run:
    """A retired run as clients see it."""
    return run_service_pb2.Run.FromString(retired.outline)


def message_of(run: Run | RetiredRun) -> run_service_pb2.Run:
    """A run as clients see it, retired or not."""
    return run_message(run) if isinstance(run, Run) else retired_message(run)


def suite_of(run: Run | RetiredRun) -> str:
    """The suite of a run, retired or not."""
    return run.created.suite if isinstance(run, Run) else run.suite


def newest_first(state: State) -> Iterator[Run | RetiredRun]:
    """Every run there is at least an outline of, the last created first."""
    retired = sorted(state.retired_runs.values(), key=_age, reverse=True)
    return heapq.merge(reversed(state.runs.values()), retired, key=_age, reverse=True)


def _age(run: Run | RetiredRun) -> int:
    return run.first_sequence
