"""A log in which every type of event occurs, decided by the present core: always the same bytes."""

from dataclasses import dataclass, field

from dtf.api.v1 import common_pb2, run_service_pb2, worker_service_pb2
from dtf.coordinator.commits import Step, headers_of, serialize
from dtf.core.run import commands
from dtf.core.run.decide import decide
from dtf.core.run.evolve import evolve
from dtf.core.run.state import State
from dtf.ports.event_log import StoredCommit

SECOND = 1_000_000_000
_PASSED, _FAILED = common_pb2.VERDICT_PASSED, common_pb2.VERDICT_FAILED


@dataclass(slots=True)
class Tour:
    """A state, and the commits that led to it."""

    code_version: str
    state: State = field(default_factory=State)
    messages: list[StoredCommit] = field(default_factory=list)
    now_ns: int = 1_800_000_000 * SECOND

    def do(self, command: commands.Command, seconds: float = 0.001) -> None:
        """Decide a command, one commit a command."""
        self.now_ns += int(seconds * SECOND)
        sequence = len(self.messages) + 1
        events = decide(self.state, command, self.now_ns)
        assert events, f"{command} decides nothing"
        for event in events:
            evolve(self.state, event, self.now_ns, sequence)
        payload, message_id = serialize(
            commit_id=b"the-tour" + sequence.to_bytes(8, "big"),
            epoch=self.state.epoch,
            previous_hash=bytes.fromhex(self.messages[-1].message_id) if self.messages else b"",
            now_ns=self.now_ns,
            code_version=self.code_version,
            steps=[Step(command, events, None)],
            events=events,
        )
        self.messages.append(StoredCommit(sequence, payload, message_id, headers_of(events)))

    def worker(self, worker_id: str, slots: int = 1, pool: str = "local") -> None:
        """Open a session."""
        request = worker_service_pb2.CreateSessionRequest(
            worker_id=worker_id,
            request_id=f"session {len(self.messages)}",
            slots=slots,
            pool=pool,
            labels={"zone": "a", "arch": "arm64"},
            resources=common_pb2.Resources(cpus=4, memory_bytes=2**33),
        )
        self.do(commands.RegisterWorker("", request))

    def run(self, run_id: str, specs: list[common_pb2.TaskSpec], pool: str = "") -> None:
        """Create a run with its tasks and seal it."""
        template = common_pb2.TaskTemplate(
            callable=common_pb2.CallableSpec(function="examples:nothing"),
            requirements=common_pb2.Requirements(pool=pool),
            retry=common_pb2.RetryPolicy(test_retries=1, infrastructure_retries=1),
        )
        create = run_service_pb2.CreateRunRequest(
            request_id=f"request of {run_id}",
            suite="tour",
            owner="tester@recorder",
            templates=[template],
            labels={"branch": "main"},
            placement_timeout_seconds=60,
        )
        self.do(commands.CreateRun(run_id, create))
        submit = run_service_pb2.SubmitTasksRequest(run_id=run_id, batch=1, tasks=specs, seal=True)
        self.do(commands.SubmitTasks(submit))

    def held(self, worker_id: str) -> list[int]:
        """The fences a worker holds."""
        leases = self.state.workers[worker_id].leases
        return [fence for held in leases.values() for fence in held]

    def report(
        self,
        worker_id: str,
        run_id: str,
        fences: list[int],
        verdict: "common_pb2.Verdict.ValueType" = _PASSED,
        *,
        incarnation: int = 0,
        released: list[int] | None = None,
        ends: list[worker_service_pb2.AttemptEnd] | None = None,
    ) -> None:
        """Report one verdict for each fence's only case."""
        results = worker_service_pb2.CaseResults(
            run_id=run_id,
            fences=fences,
            verdicts=[verdict] * len(fences),
            durations_seconds=[0.25] * len(fences),
        )
        number = incarnation or self.state.workers[worker_id].incarnation
        self.do(commands.ReportResults(worker_id, number, [results], ends or [], released or []))


def tour(code_version: str) -> list[StoredCommit]:
    """The log."""
    world = Tour(code_version)
    world.do(commands.ElectLeader("recorder:1", 10.0))
    world.worker("a", slots=4)
    world.worker("b")
    names = [common_pb2.TaskSpec(name=f"case({index})", payload=f"[{index}]") for index in range(6)]
    names.append(common_pb2.TaskSpec(name="file", cases=["file::p", "file::q"], positions=[1, 0]))
    world.run("main", names)
    world.do(commands.GrantLeases({"a": 4, "b": 2}))
    first, second, third, fourth = world.held("a")
    world.report("a", "main", [first])
    world.report("a", "main", [second], _FAILED, released=[fourth])
    crashed = worker_service_pb2.AttemptEnd(
        fence=third, outcome=common_pb2.OUTCOME_CRASHED, running_case=1, reason="signal 11"
    )
    world.report("a", "main", [], ends=[crashed])
    stale = world.held("b")[0]
    world.do(commands.ExpireWorkers([("b", 1, 11.5)]), 12)
    world.report("b", "main", [stale])
    world.worker("b")
    world.worker("b")
    world.do(commands.ExpireWorkers([("b", 3, 0.1)], "its process was killed by signal 9"), 1)
    world.do(commands.DrainWorker("a", "operator", "maintenance"))
    world.do(commands.ReleaseWorker("a", "operator"))
    while world.state.queued_count:
        world.do(commands.GrantLeases({"a": 64}))
        for fence, task in list(world.state.workers["a"].leases["main"].items()):
            cases = len(world.state.runs["main"].unjudged_cases(task))
            results = worker_service_pb2.CaseResults(
                run_id="main", fences=[fence] * cases, cases=range(cases), durations_seconds=[0.5] * cases
            )
            number = world.state.workers["a"].incarnation
            world.do(commands.ReportResults("a", number, [results]))
    world.run("nowhere", [common_pb2.TaskSpec(name="waits")], pool="moon")
    world.do(commands.ReviewPlacement(worker_expected=False), 61)
    world.run("stopped", [common_pb2.TaskSpec(name="never")])
    world.do(commands.CancelRun("stopped", "tester@recorder", "enough"))
    world.do(commands.QuarantineWorker("a", "operator", "smells"))
    world.worker("c")
    world.do(commands.CloseSession("c", 1, "done"))
    world.do(commands.RetireRuns(kept_runs=1, kept_tasks=100, grace_seconds=1, kept_outlines=1), 60)
    world.do(commands.ForgetWorkers(kept_workers=1, grace_seconds=1), 60)
    expires_at_ns = world.now_ns + 3600 * SECOND
    world.do(commands.IssueToken("token-1", bytes(32), "local", expires_at_ns, "cluster-1"))
    world.do(commands.RevokeToken("token-1", "operator", "lost"))
    world.do(commands.ScalePool("local", 1, 8, None, "operator", "release day"))
    world.do(commands.PausePool("local", "operator", "maintenance"))
    world.do(commands.ResumePool("local", "operator"))
    world.do(commands.ElectLeader("recorder:2", 10.0))
    return world.messages
