"""Anything may be said in any order: nothing but a Rejection is raised, and every invariant holds."""

import contextlib
import random
from collections.abc import Sequence

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from dtf.api.v1 import common_pb2, events_pb2, run_service_pb2, worker_service_pb2
from dtf.core.run import commands
from dtf.core.run.decide import decide, next_deadline
from dtf.core.run.evolve import evolve
from dtf.core.run.invariants import check
from dtf.core.run.queries import exhausted_runs, run_message, task_messages
from dtf.core.run.state import State
from dtf.core.run.state_hash import state_hash
from dtf.core.run.unfold import Unfolder
from tests.unit.core_world import Commit, decided_again, rebuilt

RUNS = st.sampled_from(["a", "b", "c"])
WORKERS = st.sampled_from(["u", "v", "w"])
VERDICTS = st.sampled_from([1, 1, 1, 2, 3, 4])
OUTCOMES = st.sampled_from(
    [common_pb2.OUTCOME_TIMED_OUT, common_pb2.OUTCOME_CRASHED, common_pb2.OUTCOME_CANCELLED]
)
SMALL = st.integers(0, 3)

templates = st.builds(
    lambda gpus, cpus, retries, deaths: common_pb2.TaskTemplate(
        callable=common_pb2.CallableSpec(function="m:f"),
        requirements=common_pb2.Requirements(resources=common_pb2.Resources(gpus=gpus, cpus=cpus)),
        retry=common_pb2.RetryPolicy(test_retries=retries, infrastructure_retries=deaths),
    ),
    st.integers(0, 1),
    st.sampled_from([0, 0.5, 1]),
    st.integers(0, 2),
    st.integers(0, 2),
)
specs = st.builds(
    lambda template, cases, priority, seconds: common_pb2.TaskSpec(
        name="t",
        template=template,
        cases=[f"c{index}" for index in range(cases)],
        priority=priority,
        expected_seconds=seconds,
    ),
    st.integers(0, 1),
    SMALL,
    st.integers(-1, 1),
    st.sampled_from([0.0, 0.001, 5.0]),
)


class Coordinator(RuleBasedStateMachine):
    """Clients, workers and operators who say what they like, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.commits: list[Commit] = []
        self.unfolder = Unfolder()
        self.now_ns = 0
        self.judged: set[tuple[str, int, int]] = set()
        self.sent: list[commands.ReportResults] = []

    def do(self, command: commands.Command) -> Sequence[events_pb2.Event]:
        self.now_ns += 250_000_000
        with contextlib.suppress(commands.Rejection):
            events = decide(self.state, command, self.now_ns)
            assert decided_again(self.state, command, events, self.now_ns) == events
            self.commits.append((self.now_ns, events))
            for event in events:
                self.note_final_verdicts(event)
                evolve(self.state, event, self.now_ns, len(self.commits))
                assert all(line.type_name for line in self.unfolder.unfold(event))
            return events
        return ()

    def note_final_verdicts(self, event: events_pb2.Event) -> None:
        accepted = event.results_accepted
        for index, task in enumerate(accepted.tasks):
            if index not in accepted.retried:
                case = (accepted.run_id, task, accepted.cases[index] if accepted.cases else 0)
                assert case not in self.judged, "a case got two final verdicts"
                self.judged.add(case)

    @initialize(
        choice=st.lists(templates, min_size=2, max_size=2), tasks=st.lists(specs, min_size=1, max_size=9)
    )
    def begin(self, choice: list[common_pb2.TaskTemplate], tasks: list[common_pb2.TaskSpec]) -> None:
        """Most of what can go wrong needs a run and workers to go wrong with."""
        for run in ("a", "b"):
            self.create(run, choice, 1.0)
            self.submit(run, tasks, 0, False)
        self.register("v", 2, 0, True)
        self.register("w", 1, 1, True)
        self.grant_to_all()

    @rule()
    def grant_to_all(self) -> None:
        self.do(commands.GrantLeases(dict.fromkeys(self.state.workers, 6)))

    @rule(run=st.sampled_from(["a", "b"]), tasks=st.lists(specs, min_size=1, max_size=9))
    def submit_and_grant(self, run: str, tasks: list[common_pb2.TaskSpec]) -> None:
        self.submit(run, tasks, 0, False)
        self.grant_to_all()

    @rule(run=RUNS, choice=st.lists(templates, min_size=2, max_size=2), timeout=st.sampled_from([0.0, 1.0]))
    def create(self, run: str, choice: list[common_pb2.TaskTemplate], timeout: float) -> None:
        request = run_service_pb2.CreateRunRequest(
            request_id=run, suite="s", templates=choice, placement_timeout_seconds=timeout
        )
        self.do(commands.CreateRun(run, request))

    @rule(
        run=RUNS,
        tasks=st.lists(specs, max_size=5),
        skip=st.sampled_from([0, 0, 0, -1, 1]),
        seal=st.booleans(),
    )
    def submit(self, run: str, tasks: list[common_pb2.TaskSpec], skip: int, seal: bool) -> None:
        batches = self.state.runs[run].batches if run in self.state.runs else []
        request = run_service_pb2.SubmitTasksRequest(
            run_id=run, batch=max(len(batches) + 1 + skip, 0), tasks=tasks, seal=seal
        )
        self.do(commands.SubmitTasks(request))

    @rule(worker=WORKERS, slots=st.integers(0, 3), gpus=st.integers(0, 1), fresh=st.booleans())
    def register(self, worker: str, slots: int, gpus: int, fresh: bool) -> None:
        request = worker_service_pb2.CreateSessionRequest(
            worker_id=worker,
            slots=slots,
            resources=common_pb2.Resources(gpus=gpus, cpus=1),
            request_id=f"{worker} {len(self.commits) if fresh else 0}",
        )
        self.do(commands.RegisterWorker("", request))

    @rule(credits=st.dictionaries(WORKERS, st.integers(-1, 6)), limit=st.integers(-1, 9))
    def grant(self, credits: dict[str, int], limit: int) -> None:
        self.do(commands.GrantLeases(credits, limit))

    @rule(worker=WORKERS, seed=st.integers(0, 2**32), verdicts=st.lists(VERDICTS, min_size=1, max_size=9))
    def report(self, worker: str, seed: int, verdicts: list[int]) -> None:
        """Results of what it holds and of what it does not, ends and releases, all in one message."""
        choice = random.Random(seed)
        known = self.state.workers.get(worker)
        leases = [(run, fence) for run, held in (known.leases if known else {}).items() for fence in held]
        leases += [(run, choice.randrange(self.state.next_fence + 1)) for run in ("a", "nowhere")]
        results = []
        for run in {choice.choice(leases)[0] for _ in range(2)}:
            fences = [choice.choice(leases)[1] for _ in verdicts]
            results.append(
                worker_service_pb2.CaseResults(
                    run_id=run,
                    fences=fences,
                    cases=choice.choice([[], [choice.randrange(2) for _ in verdicts]]),
                    verdicts=verdicts,  # type: ignore[arg-type]  # numbers of Verdict
                    durations_seconds=[choice.random() for _ in verdicts],
                )
            )
        ends = [
            worker_service_pb2.AttemptEnd(
                fence=choice.choice(leases)[1],
                outcome=choice.choice([2, 4, 5]),  # type: ignore[arg-type]  # numbers of Outcome
                running_case=choice.randrange(3),
            )
            for _ in range(choice.randrange(3))
        ]
        released = [choice.choice(leases)[1] for _ in range(choice.randrange(3))]
        incarnation = max((known.incarnation if known else 0) - choice.choice([0, 0, 0, 1]), 0)
        self.sent.append(commands.ReportResults(worker, incarnation, results, ends, released))
        self.do(self.sent[-1])

    @rule(worker=WORKERS, share=st.sampled_from([1, 2]))
    def finish_what_it_holds(self, worker: str, share: int) -> None:
        known = self.state.workers.get(worker)
        if known is None:
            return
        for run_id, held in list(known.leases.items()):
            run = self.state.runs[run_id]
            cases = [(f, case) for f, task in held.items() for case in run.unjudged_cases(task)][::share]
            entry = worker_service_pb2.CaseResults(
                run_id=run_id,
                fences=[fence for fence, _ in cases],
                cases=[case for _, case in cases],
                durations_seconds=[0.001] * len(cases),
            )
            self.do(commands.ReportResults(worker, known.incarnation, [entry]))

    @rule()
    def repeat_a_report(self) -> None:
        """What was said is said again: it changes nothing but the record of refusals."""
        if not self.sent:
            return
        before = dict.fromkeys(self.state.runs)
        counts = {run: list(self.state.runs[run].counts) for run in before}
        self.do(self.sent[-1])
        again = self.do(self.sent[-1])
        assert all(event.WhichOneof("event") == "results_refused" for event in again)
        assert all(sum(self.state.runs[run].counts) >= sum(count) for run, count in counts.items())

    @rule(worker=WORKERS, old=st.booleans())
    def lose(self, worker: str, old: bool) -> None:
        known = self.state.workers.get(worker)
        incarnation = max((known.incarnation if known else 0) - old, 0)
        self.do(commands.ExpireWorkers([(worker, incarnation, 11.0)]))

    @rule(worker=WORKERS, what=st.integers(0, 4), flag=st.booleans())
    def order(self, worker: str, what: int, flag: bool) -> None:
        known = self.state.workers.get(worker)
        incarnation = known.incarnation if known else 1
        options: list[commands.Command] = [
            commands.DrainWorker(worker, "me", "why", only_if_idle=flag),
            commands.QuarantineWorker(worker, "me", "why"),
            commands.ReleaseWorker(worker, "me"),
            commands.CloseSession(worker, incarnation, "bye"),
            commands.ReconcileLeases(worker, incarnation, [1, 2]),
        ]
        self.do(options[what])

    @rule(run=st.sampled_from(["a", "c", "nowhere"]))
    def cancel(self, run: str) -> None:
        self.do(commands.CancelRun(run, "me", "why"))

    @rule(expected=st.booleans())
    def review(self, expected: bool) -> None:
        next_deadline(self.state)
        self.do(commands.ReviewPlacement(expected))

    @rule()
    def look(self) -> None:
        """Everything that can be asked has an answer."""
        for run in self.state.runs.values():
            run_message(run)
            task_messages(self.state, run, range(run.task_count))
        for worker in self.state.workers.values():
            exhausted_runs(self.state, worker, 3)
        state_hash(self.state)

    def teardown(self) -> None:
        assert check(self.state) == []
        again = rebuilt(self.commits)
        assert again == self.state
        assert state_hash(again) == state_hash(self.state)


CoordinatorTest = Coordinator.TestCase
CoordinatorTest.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
