"""What stays of a run that leaves the working state: as much as GetRun and ListRuns answer."""

from dtf.api.v1 import run_service_pb2
from dtf.core.run.queries import run_message
from dtf.core.run.state import RetiredRun, Run, content_digest


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
