"""One run out of the log again, after it left the working state."""

from dtf.api.v1 import events_pb2
from dtf.core.events import run_of
from dtf.core.fleet.worker import Worker
from dtf.core.run.evolve import evolve
from dtf.core.run.state import Run, State


class RunHistory:
    """Folds the commits between a run's first sequence and its last; what is of other runs is passed over."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._state = State()

    @property
    def run(self) -> Run | None:
        """The run as far as it was followed; None before it was created."""
        return self._state.runs.get(self.run_id)

    def follow(self, commit: events_pb2.Commit, sequence: int) -> None:
        """Fold the events of a commit that are of the run."""
        for event in commit.events:
            if run_of(event) != self.run_id:
                continue
            if event.HasField("leases_granted"):
                # Its worker registered before the run began, in commits that are not read.
                worker_id = event.leases_granted.worker_id
                self._state.workers.setdefault(worker_id, Worker(worker_id))
            evolve(self._state, event, commit.now_unix_nanos, sequence)
