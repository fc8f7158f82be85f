"""Events of one run, told in order, for what folds them."""

from collections.abc import Sequence

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.run.summary import RunSummary
from dtf.core.run.summary_fold import RunFold

SECOND = 1_000_000_000
BEGIN_NS = 1_700_000_000 * SECOND
PASSED = common_pb2.VERDICT_PASSED
FAILED = common_pb2.VERDICT_FAILED
ERROR = common_pb2.VERDICT_ERROR
FLAKY = common_pb2.VERDICT_FLAKY
SKIPPED = common_pb2.VERDICT_SKIPPED
NONE = common_pb2.VERDICT_UNSPECIFIED


class RunStory:
    """A run that is told one event a commit."""

    def __init__(self) -> None:
        self.fold = RunFold()
        self.events: list[tuple[int, int, events_pb2.Event]] = []
        self.now_ns = BEGIN_NS

    @property
    def summary(self) -> RunSummary:
        """What has been folded."""
        return self.fold.summary

    def wait(self, seconds: float) -> "RunStory":
        """Let time pass."""
        self.now_ns += round(seconds * SECOND)
        return self

    def tell(self, **event: object) -> "RunStory":
        """One event, given by its field of Event."""
        told = events_pb2.Event(**event)  # type: ignore[arg-type]
        self.events.append((len(self.events) + 1, self.now_ns, told))
        self.fold.apply(len(self.events), self.now_ns, told)
        return self

    def begin(
        self, *names: str, cases: Sequence[int] = (), suite: str = "suite", kind: str = "pytest"
    ) -> "RunStory":
        """The run, and its tasks: `names` are of tasks, or of cases where `cases` counts those of each task."""
        template = common_pb2.TaskTemplate()
        getattr(template, kind).SetInParent()
        self.tell(
            run_created=events_pb2.RunCreated(
                run_id="r1", suite=suite, revision="4f2a91c", owner="ada@box", templates=[template]
            )
        )
        submitted = events_pb2.TasksSubmitted(run_id="r1", names=names)
        if cases:
            submitted = events_pb2.TasksSubmitted(
                run_id="r1",
                names=[f"shard {k}" for k in range(len(cases))],
                case_counts=cases,
                case_names=names,
            )
        return self.tell(tasks_submitted=submitted)

    def lease(self, worker_id: str, task: int, fence: int, attempt: int = 1) -> "RunStory":
        """A task is leased."""
        return self.tell(
            leases_granted=events_pb2.LeasesGranted(
                run_id="r1", worker_id=worker_id, tasks=[task], first_fence=fence, attempts=[attempt]
            )
        )

    def result(
        self,
        worker_id: str,
        task: int,
        fence: int,
        verdict: common_pb2.Verdict.ValueType = PASSED,
        *,
        case: int = 0,
        seconds: float = 1.0,
        detail: events_pb2.CaseDetail | None = None,
        is_retried: bool = False,
        is_last: bool = True,
        began_at: float = 0.0,
    ) -> "RunStory":
        """A case is judged."""
        return self.tell(
            results_accepted=events_pb2.ResultsAccepted(
                run_id="r1",
                worker_id=worker_id,
                tasks=[task],
                fences=[fence],
                cases=[case],
                verdicts=[verdict],
                durations_seconds=[seconds],
                started_at=[began_at] if began_at else [],
                details=[detail.SerializeToString()] if detail else [],
                retried=[0] if is_retried else [],
                completed=[fence] if is_last else [],
                requeued=[task] if is_retried and is_last else [],
            )
        )

    def end_attempt(
        self,
        worker_id: str,
        task: int,
        fence: int,
        outcome: common_pb2.Outcome.ValueType,
        reason: str,
        *,
        running: int = 0,
        verdict: common_pb2.Verdict.ValueType = NONE,
        remaining: common_pb2.Verdict.ValueType = NONE,
        is_requeued: bool = False,
        seconds: float = 0.0,
    ) -> "RunStory":
        """An attempt ends otherwise than by reporting every case. `running` is the case plus 1."""
        return self.tell(
            attempts_ended=events_pb2.AttemptsEnded(
                run_id="r1",
                worker_id=worker_id,
                tasks=[task],
                fences=[fence],
                outcomes=[outcome],
                requeued=[is_requeued],
                running_cases=[running],
                verdicts=[verdict],
                remaining_verdicts=[remaining],
                reasons=[reason],
                durations_seconds=[seconds] if seconds else [],
            )
        )

    def finish(
        self,
        state: common_pb2.RunState.ValueType = common_pb2.RUN_STATE_FINISHED,
        unjudged: int = 0,
        **counts: int,
    ) -> "RunStory":
        """The run ends."""
        return self.tell(
            run_finished=events_pb2.RunFinished(
                run_id="r1",
                state=state,
                counts=common_pb2.VerdictCounts(**counts),
                first_sequence=1,
                unjudged=unjudged,
            )
        )
