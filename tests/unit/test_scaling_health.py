"""Which workers are sick: given what the log and the telemetry said, who is accused, and of what?"""

import asyncio
import random
from typing import cast

import pytest

from dtf.api.v1 import common_pb2, events_pb2, worker_service_pb2
from dtf.core.scaling.health import HealthBook
from dtf.resource_manager.fleet import Fleet
from dtf.resource_manager.meters import PoolMeters
from dtf.resource_manager.nurse import Nurse
from dtf.resource_manager.state_file import ManagerState
from tests.fakes import FakeClock
from tests.unit.scaling_events import START_NS

pytestmark = pytest.mark.resource_manager
PASSED, FAILED = common_pb2.VERDICT_PASSED, common_pb2.VERDICT_FAILED
GIB = 2**30


class Pool:
    """A pool whose workers say how they are."""

    def __init__(self, size: int, pool: str = "local") -> None:
        self.book = HealthBook()
        self.names = [f"w{k}" for k in range(size)]
        self.random = random.Random(7)
        for name in self.names:
            self.tell(worker_registered=events_pb2.WorkerRegistered(worker_id=name, pool=pool, slots=1))

    def tell(self, **event: object) -> None:
        """Commit one event."""
        commit = events_pb2.Commit(now_unix_nanos=START_NS, events=[events_pb2.Event(**event)])  # type: ignore[arg-type]
        self.book.apply(commit)

    def sample(
        self, name: str, memory: float = 0.4, disk: float = 100.0, load: float = 1.0, cpu: float = 0.5
    ) -> None:
        """One sample of a worker's telemetry."""
        telemetry = worker_service_pb2.Telemetry(
            cpu_ratio=cpu,
            memory_used_bytes=int(memory * 64 * GIB),
            memory_total_bytes=64 * GIB,
            disk_free_bytes=int(disk * GIB),
            load=load,
            running=1,
        )
        self.book.heard(worker_service_pb2.TelemetrySample(worker_id=name, telemetry=telemetry))

    def samples(self, count: int = 20, /, **odd: float) -> None:
        """Samples of everybody, noisy; the first worker's are as `odd` says."""
        for _ in range(count):
            for name in self.names:
                noise = self.random.gauss
                figures = {
                    "memory": noise(0.4, 0.02),
                    "disk": noise(100, 10),
                    "load": noise(1.0, 0.2),
                    "cpu": noise(0.5, 0.08),
                }
                if name == "w0":
                    figures |= odd
                self.sample(name, **figures)

    def run(self, run_id: str, cases: int) -> None:
        """A run of commands, with the same names each time."""
        self.tell(run_created=events_pb2.RunCreated(run_id=run_id, suite="s"))
        names = [f"case {k}" for k in range(cases)]
        self.tell(tasks_submitted=events_pb2.TasksSubmitted(run_id=run_id, names=names))

    def result(
        self, run_id: str, worker: str, task: int, verdict: int, *, again: bool = False, seconds: float = 1.0
    ) -> None:
        """One case ends."""
        self.tell(
            results_accepted=events_pb2.ResultsAccepted(
                run_id=run_id,
                worker_id=worker,
                tasks=[task],
                verdicts=[verdict],  # type: ignore[list-item]
                durations_seconds=[seconds],
                retried=[0] if again else [],
                all_completed=True,
            )
        )

    def accused(self) -> dict[str, str]:
        """Sick workers, with why."""
        return {verdict.worker_id: verdict.reason for verdict in self.book.verdicts("local", START_NS)}


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ({"memory": 0.99}, "its memory is 99% in use"),
        ({"disk": 0.5}, "it has 0.5 GiB of disk left"),
        ({"load": 30.0}, "its load is 30.0, the pool's 1.0"),
    ],
)
def test_a_worker_far_from_its_pool_is_accused_of_what_it_deviates_in(
    odd: dict[str, float], said: str
) -> None:
    pool = Pool(8)
    pool.samples(**odd)
    accused = pool.accused()
    assert set(accused) == {"w0"}
    assert said in accused["w0"]


def test_what_deviates_for_the_better_is_no_illness() -> None:
    pool = Pool(8)
    pool.samples(memory=0.01, disk=4000.0, load=0.0)
    assert pool.accused() == {}


def test_a_pool_of_equals_accuses_nobody_however_often_it_is_asked() -> None:
    for size, rounds in ((12, 40), (24, 2)):
        pool = Pool(size)
        pool.samples(10)
        for _ in range(rounds):
            pool.samples(5)
            assert pool.accused() == {}


def test_a_few_samples_or_a_small_pool_say_nothing() -> None:
    few = Pool(8)
    few.samples(5, memory=0.99)
    small = Pool(4)
    small.samples(memory=0.99)
    assert few.accused() == small.accused() == {}


def test_the_forest_finds_in_a_large_pool_what_is_odd_in_combination_only() -> None:
    odd = {"memory": 0.62, "disk": 13.0, "load": 5.2, "cpu": 1.0}
    large, small = Pool(32), Pool(8)
    large.samples(**odd)
    small.samples(**odd)
    assert set(large.accused()) == {"w0"}
    assert large.accused()["w0"].startswith("odd in combination: ")
    assert small.accused() == {}


def test_a_worker_on_which_cases_take_longer_than_elsewhere_is_accused() -> None:
    pool = Pool(8)
    pool.run("r", 12)
    for round_number in range(14):
        for case in range(12):
            worker = pool.names[(case + round_number) % 8]
            seconds = (1.0 + case) * (6.0 if worker == "w0" else pool.random.uniform(0.95, 1.05))
            pool.result("r", worker, case, PASSED, seconds=seconds)
    accused = pool.accused()
    assert set(accused) == {"w0"}
    assert "times what they do elsewhere" in accused["w0"]


def test_failures_that_pass_when_tried_again_elsewhere_follow_the_worker() -> None:
    pool = Pool(3)
    pool.run("r", 200)
    for case in range(100):
        pool.result("r", pool.names[1 + case % 2], case, PASSED)
    for case in range(100, 104):
        pool.result("r", "w0", case, FAILED, again=True)
        pool.result("r", "w1", case, PASSED)
    accused = pool.accused()
    assert set(accused) == {"w0"}
    assert accused["w0"].startswith("4 cases failed on it and passed on another worker, as case 103")


def test_a_broken_test_accuses_no_worker_wherever_it_ran() -> None:
    pool = Pool(3)
    pool.run("r", 200)
    for case in range(100):
        pool.result("r", "w0", case, FAILED, again=True)
        pool.result("r", "w1", case, FAILED)
    assert pool.accused() == {}


def test_a_case_that_passes_again_on_the_same_worker_is_flaky_and_no_fault_of_it() -> None:
    pool = Pool(3)
    pool.run("r", 50)
    for case in range(50):
        pool.result("r", "w0", case, FAILED, again=True)
        pool.result("r", "w0", case, PASSED)
    assert pool.accused() == {}


def test_one_mended_run_is_not_enough_and_two_are() -> None:
    pool = Pool(3)
    for number in range(3):
        pool.run(f"r{number}", 40)
        for case in range(20, 40):
            pool.result(f"r{number}", pool.names[1 + case % 2], case, PASSED)
        for case in range(20):
            is_bad = case // 10 == number
            pool.result(f"r{number}", "w0" if is_bad else "w1", case, FAILED if is_bad else PASSED)
        assert set(pool.accused()) == ({"w0"} if number == 2 else set())


def test_healthy_flakiness_accuses_nobody_in_twenty_thousand_cases() -> None:
    pool = Pool(6)
    pool.run("r", 1000)
    for number in range(20_000):
        worker, other = pool.random.sample(pool.names, 2)
        case = number % 1000
        if pool.random.random() < 0.002:
            pool.result("r", worker, case, FAILED, again=True)
            pool.result("r", other, case, PASSED)
        else:
            pool.result("r", worker, case, PASSED)
        assert not pool.book.blame.verdict(worker)
    assert pool.accused() == {}


def test_a_worker_that_is_released_begins_anew_and_one_in_quarantine_is_not_accused_again() -> None:
    pool = Pool(8)
    pool.samples(memory=0.99)
    pool.tell(worker_quarantined=events_pb2.WorkerQuarantined(worker_id="w0", reason="sick"))
    assert pool.accused() == {}
    pool.tell(worker_released=events_pb2.WorkerReleased(worker_id="w0"))
    assert pool.accused() == {}
    pool.samples(memory=0.99)
    assert set(pool.accused()) == {"w0"}


def test_what_deviates_and_what_is_blamed_is_flawed_before_it_is_sick_and_noise_is_not() -> None:
    pool = Pool(12)
    pool.samples(load=6.0)
    pool.run("r", 1)
    pool.result("r", "w1", 0, FAILED, again=True)
    pool.result("r", "w2", 0, PASSED)
    assert pool.accused() == {}
    scores = pool.book.flaw_scores("local")
    assert 0.5 < scores.pop("w0") < 1.0
    assert 0.0 < scores.pop("w1") < 1.0
    assert set(scores.values()) == {0.0}
    assert pool.book.flaw_scores("elsewhere") == {}


class SilentFleet:
    """A coordinator of which nothing is to be asked."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"{name} was asked for")


async def test_the_nurse_notes_flaws_for_who_goes_first(clock: FakeClock) -> None:
    pool, state = Pool(12), ManagerState.of("local")
    pool.samples(load=6.0)
    state.health = pool.book
    for name in pool.names:
        registered = events_pb2.WorkerRegistered(worker_id=name, pool="local", slots=1)
        event = events_pb2.Event(worker_registered=registered)
        commit = events_pb2.Commit(now_unix_nanos=START_NS, events=[event])
        state.projection.apply(1, "", commit)
    nurse = Nurse(
        "local",
        0.0,
        300.0,
        state=state,
        fleet=cast(Fleet, SilentFleet()),
        clock=clock,
        save=asyncio.Event().wait,  # type: ignore[arg-type]  # never called
        meters=PoolMeters(),
        end=asyncio.Event().wait,  # type: ignore[arg-type]  # never called
    )
    await nurse.make_round()
    flawed = {
        view.worker_id: view.flaw_score for view in state.projection.workers.values() if view.flaw_score
    }
    assert flawed == {"w0": pool.book.flaw_scores("local")["w0"]}
