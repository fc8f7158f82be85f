"""Events that tell a scaling story, and the projection that has heard them."""

from collections.abc import Sequence

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.scaling.demand import DemandProjection

SECOND = 1_000_000_000
START_NS = 1_700_000_000 * SECOND


class Story:
    """A log that is told one event a commit; time moves by `wait`."""

    def __init__(self) -> None:
        self.commits: list[events_pb2.Commit] = []
        self.now_ns = START_NS
        self.projection = DemandProjection()

    def wait(self, seconds: float) -> "Story":
        """Let time pass."""
        self.now_ns += round(seconds * SECOND)
        return self

    def tell(self, **event: object) -> "Story":
        """Commit one event, given by its field of Event."""
        commit = events_pb2.Commit(now_unix_nanos=self.now_ns, events=[events_pb2.Event(**event)])  # type: ignore[arg-type]
        self.commits.append(commit)
        self.projection.apply(len(self.commits), f"id-{len(self.commits)}", commit)
        return self

    def run(self, run_id: str = "r1", kind: str = "command", **requirements: object) -> "Story":
        """A run with one template."""
        template = common_pb2.TaskTemplate(requirements=common_pb2.Requirements(**requirements))  # type: ignore[arg-type]
        getattr(template, kind).SetInParent()
        return self.tell(
            run_created=events_pb2.RunCreated(run_id=run_id, suite="suite", templates=[template])
        )

    def submit(
        self,
        count: int,
        seconds: float = 0.0,
        *,
        run_id: str = "r1",
        first: int = 0,
        cases: int = 0,
        names: Sequence[str] = (),
    ) -> "Story":
        """Tasks of one known or unknown duration."""
        return self.tell(
            tasks_submitted=events_pb2.TasksSubmitted(
                run_id=run_id,
                first_task=first,
                names=names or [f"task {first + k}" for k in range(count)],
                expected_seconds=[seconds] * count if seconds else [],
                case_counts=[cases] * count if cases else [],
            )
        )

    def worker(self, worker_id: str, *, launch_id: str = "", pool: str = "local", **labels: str) -> "Story":
        """A worker registers."""
        return self.tell(
            worker_registered=events_pb2.WorkerRegistered(
                worker_id=worker_id,
                incarnation=1,
                pool=pool,
                slots=1,
                launch_id=launch_id,
                labels=labels,
                resources=common_pb2.Resources(cpus=4, memory_bytes=2**33),
            )
        )

    def lease(self, worker_id: str, *tasks: int, first_fence: int = 1, run_id: str = "r1") -> "Story":
        """Tasks are leased; fences count from `first_fence`."""
        return self.tell(
            leases_granted=events_pb2.LeasesGranted(
                run_id=run_id, worker_id=worker_id, incarnation=1, tasks=tasks, first_fence=first_fence
            )
        )

    def finish(
        self, worker_id: str, *tasks: int, seconds: float = 1.0, first_fence: int = 1, run_id: str = "r1"
    ) -> "Story":
        """Single-case tasks pass."""
        return self.tell(
            results_accepted=events_pb2.ResultsAccepted(
                run_id=run_id,
                worker_id=worker_id,
                tasks=tasks,
                fences=[first_fence + k for k in range(len(tasks))],
                durations_seconds=[seconds] * len(tasks),
                all_completed=True,
            )
        )

    def lost(self, worker_id: str) -> "Story":
        """A worker falls silent."""
        return self.tell(
            worker_lost=events_pb2.WorkerLost(worker_id=worker_id, incarnation=1, reason="silent for 10 s")
        )

    def left(self, worker_id: str) -> "Story":
        """A worker leaves."""
        return self.tell(
            worker_left=events_pb2.WorkerLeft(worker_id=worker_id, incarnation=1, reason="drained")
        )

    def drain_requested(self, worker_id: str) -> "Story":
        """A worker is told to take nothing new."""
        return self.tell(worker_drain_requested=events_pb2.WorkerDrainRequested(worker_id=worker_id))
