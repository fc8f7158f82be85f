"""A pool in virtual time: what holds for every policy and every trace."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.traces.families import FAMILIES, Scale, make_family
from dtf.core.simulation.scaling.listener import Listener
from dtf.core.simulation.scaling.outcome import Outcome, PoolShape, count_flaps, waits_of
from dtf.core.simulation.scaling.simulator import SimulatedPool, SimulationStuck, simulate
from dtf.core.simulation.scaling.trace import Trace
from tests.unit.scaling_traces import CONTROLLERS, Witness, trace_of

pytestmark = pytest.mark.resource_manager

TASKS = st.lists(
    st.tuples(
        st.floats(0, 400, allow_nan=False).map(lambda at: round(at, 1)),
        st.floats(0, 200, allow_nan=False).map(lambda duration: round(duration, 1)),
    ),
    min_size=1,
    max_size=40,
)
EXAMPLES = settings(deadline=None, max_examples=25)
SHAPES = st.builds(
    PoolShape,
    min_workers=st.integers(0, 2),
    max_workers=st.integers(2, 12),
    startup_seconds=st.sampled_from([0.0, 1.0, 30.0, 90.0]),
    slots=st.integers(1, 3),
    is_packed=st.booleans(),
)


class Fixed(Listener):
    """Wants so many workers, at once and for ever."""

    name = "fixed"

    def __init__(self, count: int) -> None:
        self._count = count

    def decide(self, pool: SimulatedPool) -> float:
        pool.launch(self._count - len(pool.workers))
        return float("inf")


class Stopping(Listener):
    """Launches one worker, and ends it at a given instant."""

    name = "stopping"

    def __init__(self, at: float, grace_seconds: float) -> None:
        self._at = at
        self._grace_seconds = grace_seconds
        self._has_stopped = False

    def decide(self, pool: SimulatedPool) -> float:
        if pool.now < self._at:
            pool.launch(1)
            return self._at
        if not self._has_stopped:
            self._has_stopped = True
            pool.stop(list(pool.workers), self._grace_seconds)
            pool.launch(1)
        return float("inf")


def _simulate(name: str, trace: Trace, shape: PoolShape) -> tuple[Outcome, Witness]:
    witness = Witness(CONTROLLERS[name](shape))
    return simulate(trace, shape, witness), witness


@pytest.mark.parametrize("name", CONTROLLERS)
@EXAMPLES
@given(tasks=TASKS, shape=SHAPES)
def test_every_task_ends_once_and_what_ran_was_paid_for(
    name: str, tasks: list[tuple[float, float]], shape: PoolShape
) -> None:
    trace = trace_of(*tasks)
    outcome, witness = _simulate(name, trace, shape)
    assert sorted(witness.submitted_tasks) == list(range(len(trace)))
    assert witness.finishes == dict.fromkeys(range(len(trace)), 1)
    assert outcome.worker_seconds * shape.slots >= sum(trace.durations) - 1e-6
    assert outcome.makespan_seconds >= max(map(sum, zip(trace.submits, trace.durations, strict=True))) - 1e-6
    assert 0 <= outcome.waits.p50 <= outcome.waits.p95 <= outcome.waits.p99
    assert all(at >= trace.submits[task] for task, at in witness.starts)
    assert max(size for _, size in witness.sizes) <= shape.max_workers
    assert witness.most_running <= shape.slots


@pytest.mark.parametrize("name", CONTROLLERS)
@EXAMPLES
@given(tasks=TASKS, shape=SHAPES)
def test_the_same_trace_gives_the_same_outcome(
    name: str, tasks: list[tuple[float, float]], shape: PoolShape
) -> None:
    assert _simulate(name, trace_of(*tasks), shape)[0] == _simulate(name, trace_of(*tasks), shape)[0]


@EXAMPLES
@given(tasks=TASKS, shape=SHAPES)
def test_the_default_ends_no_busy_worker_and_leaves_the_pool_at_its_minimum(
    tasks: list[tuple[float, float]], shape: PoolShape
) -> None:
    outcome, witness = _simulate("default", trace_of(*tasks), shape)
    assert outcome.busy_kills == 0
    assert len(witness.starts) == len(tasks)
    assert witness.sizes[-1][1] >= shape.min_workers


@pytest.mark.parametrize("name", ["default", "dask", "ray"])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_busy_worker_is_ended_in_any_family(family: str, name: str) -> None:
    trace = make_family(family, seed=7, scale=Scale(length=0.1))
    assert len(trace) > 30
    outcome, witness = _simulate(name, trace, PoolShape())
    assert outcome.busy_kills == 0
    assert len(witness.starts) == len(trace) == len(witness.finishes)


def test_a_task_waits_for_the_start_of_a_worker_and_then_for_its_turn() -> None:
    outcome = simulate(trace_of((0, 10), (0, 10), (5, 10)), PoolShape(startup_seconds=30), Fixed(2))
    assert outcome.waits == waits_of([30, 30, 35])
    assert outcome.makespan_seconds == 50


def test_workers_cost_from_the_launch_until_the_pool_is_at_its_minimum() -> None:
    shape = PoolShape(startup_seconds=10, price=36.0)
    outcome = simulate(trace_of((0, 20)), shape, Stopping(at=60, grace_seconds=30))
    # one worker from 0 to 60; the one launched in its place is never taken away: it is billed for an hour
    assert outcome.worker_seconds == 60 + (30 + 3600 - 60)
    assert outcome.cost == pytest.approx(outcome.worker_seconds / 100)


def test_a_stopped_worker_finishes_what_it_can_within_its_grace() -> None:
    outcome = simulate(trace_of((0, 50)), PoolShape(startup_seconds=0), Stopping(at=25, grace_seconds=30))
    assert (outcome.busy_kills, outcome.makespan_seconds) == (0, 50)


def test_what_a_stopped_worker_cannot_finish_is_killed_and_begins_anew() -> None:
    outcome = simulate(trace_of((0, 100)), PoolShape(startup_seconds=0), Stopping(at=25, grace_seconds=30))
    assert outcome.busy_kills == 1
    assert outcome.makespan_seconds == 55 + 100


def test_a_busy_worker_is_not_drained() -> None:
    class Draining(Fixed):
        def decide(self, pool: SimulatedPool) -> float:
            super().decide(pool)
            assert pool.drain(list(pool.workers)) == ([] if pool.running_count else list(pool.workers))
            return pool.now + 7

    outcome = simulate(trace_of((0, 20)), PoolShape(startup_seconds=0, min_workers=1), Draining(1))
    assert (outcome.busy_kills, outcome.makespan_seconds) == (0, 20)


def test_tasks_of_several_cpus_take_several_slots() -> None:
    trace = trace_of((0, 10), (0, 10), (0, 10))
    trace.cpus.extend([1.0, 4.0, 2.0])
    shape = PoolShape(startup_seconds=0, slots=4, cpus=8)
    # slots of two CPUs: the three take 1, 2 and 1
    assert simulate(trace, shape, Fixed(1)).makespan_seconds == 10
    trace.cpus[1] = 8.0
    assert simulate(trace, shape, Fixed(1)).makespan_seconds == 30


def test_a_packed_pool_gives_work_to_the_worker_that_became_free_last() -> None:
    tasks = [(0.0, 1.0), (0.0, 2.0), *((float(at), 1.0) for at in range(10, 20))]

    def used(shape: PoolShape) -> int:
        seen: set[int] = set()

        class Noting(Fixed):
            def started(self, pool: SimulatedPool, task: int, worker: object) -> None:
                if pool.now >= 10:
                    seen.add(worker.number)  # type: ignore[attr-defined]

        simulate(trace_of(*tasks), shape, Noting(2))
        return len(seen)

    assert used(PoolShape(startup_seconds=0)) == 1
    assert used(PoolShape(startup_seconds=0, is_packed=False)) == 2


def test_a_policy_that_leaves_work_undone_is_named() -> None:
    with pytest.raises(SimulationStuck, match="fixed: 1 of 1 tasks"):
        simulate(trace_of((0, 1)), PoolShape(), Fixed(0))


def test_percentiles_are_by_nearest_rank() -> None:
    waits = waits_of(range(1, 101))
    assert (waits.p50, waits.p95, waits.p99) == (50, 95, 99)
    assert waits_of([3.0]).p99 == 3.0


def test_a_flap_is_a_change_taken_back_within_five_minutes() -> None:
    assert count_flaps([(0, 4), (100, -2), (500, 1), (600, 1), (650, -1)]) == 2
