"""What is documented of the peers is what they do here."""

import pytest

from dtf.core.simulation.scaling.hpa import Stabilizer
from dtf.core.simulation.scaling.outcome import Outcome, PoolShape
from dtf.core.simulation.scaling.simulator import simulate
from tests.unit.scaling_traces import CONTROLLERS, Witness, trace_of

pytestmark = pytest.mark.resource_manager


def _watch(name: str, *tasks: tuple[float, float], **shape: float) -> tuple[Outcome, Witness]:
    pool = PoolShape(**shape)  # type: ignore[arg-type]
    witness = Witness(CONTROLLERS[name](pool))
    return simulate(trace_of(*tasks), pool, witness), witness


def test_hpa_keeps_one_worker_although_the_minimum_is_none() -> None:
    outcome, witness = _watch("hpa", (0, 5), (600, 5))
    assert {size for _, size in witness.sizes} == {1}
    assert outcome.waits.p99 == 0


def test_hpa_grows_by_utilization_over_80_per_cent() -> None:
    # 1 busy of 1: ceil(1 / .8) = 2; 2 of 2: ceil(2.5) = 3; then 4, 5, 7, 9 ...
    _, witness = _watch("hpa", *((0.0, 200.0),) * 50, startup_seconds=0)
    assert [witness.size_at(at) for at in (0, 15, 30, 45, 60, 75, 90)] == [1, 2, 3, 4, 5, 7, 9]


def test_hpa_counts_workers_that_start_as_using_nothing() -> None:
    # 1 busy, 1 starting: the ratio becomes .5 / .8, and nothing is added until it is ready
    _, witness = _watch("hpa", *((0.0, 200.0),) * 50, startup_seconds=40)
    assert [witness.size_at(at) for at in (15, 30, 45)] == [2, 2, 2]


def test_hpa_scales_in_to_the_highest_recommendation_of_five_minutes() -> None:
    stabilizer = Stabilizer()
    assert stabilizer.limit(0, 10, 10, 1, 100) == 10
    assert stabilizer.limit(150, 10, 2, 1, 100) == 10
    assert stabilizer.limit(300, 10, 2, 1, 100) == 10
    assert stabilizer.limit(301, 10, 3, 1, 100) == 3


def test_hpa_grows_by_four_or_by_all_it_has_in_fifteen_seconds() -> None:
    stabilizer = Stabilizer()
    assert stabilizer.limit(0, 1, 50, 1, 100) == 5
    stabilizer.grew(0, 4)
    assert stabilizer.limit(5, 5, 50, 1, 100) == 5
    assert stabilizer.limit(15, 5, 50, 1, 100) == 10
    assert stabilizer.limit(15, 20, 50, 1, 100) == 40


def test_hpa_ends_the_youngest_busy_or_not_after_thirty_seconds() -> None:
    # 100 s of crowd, then two tasks of hours: utilization falls, and five minutes later pods go
    crowd = [(0.0, 30.0)] * 60
    outcome, _ = _watch("hpa", *crowd, *((at, 20_000.0) for at in (250.0, 251.0, 252.0)), startup_seconds=0)
    assert outcome.busy_kills > 0


def test_keda_wakes_the_pool_at_a_poll_and_takes_it_to_zero_after_the_cool_down() -> None:
    _, witness = _watch("keda", (0, 1), (1000, 4), startup_seconds=1)
    # the HPA is off at 1015, for there is no pod; the poll of 1020 makes one
    assert (witness.size_at(1019), witness.size_at(1020)) == (0, 1)
    # last active at the poll of 1020; 300 s later it goes
    assert (witness.size_at(1319), witness.size_at(1320)) == (1, 0)


def test_keda_aims_at_five_tasks_a_worker_running_ones_included() -> None:
    _, witness = _watch("keda", *((0.0, 500.0),) * 40, startup_seconds=0)
    assert witness.size_at(0) == 5  # four more than the one of the poll
    assert witness.size_at(15) == 8  # 40 / 5


def test_dask_aims_at_five_seconds_of_work_a_worker() -> None:
    # 500 ms assumed: 100 tasks are 50 s, ten workers; not 100
    _, witness = _watch("dask", *((0.0, 0.5),) * 100, startup_seconds=3)
    assert witness.size_at(0) == 10


def test_dask_has_no_more_workers_than_tasks() -> None:
    _, witness = _watch("dask", (0, 300), (0, 300), startup_seconds=1)
    assert max(size for _, size in witness.sizes) == 2


def test_dask_closes_a_worker_that_was_idle_at_three_evaluations() -> None:
    _, witness = _watch("dask", (0, 10), startup_seconds=1)
    # done at 11; evaluations at 12, 13 — the one of 11 is the first that sees it idle
    assert (witness.size_at(12), witness.size_at(13)) == (1, 0)


def test_dask_takes_a_task_that_runs_long_for_twice_as_long() -> None:
    # ten of 1 s teach 1 s; then four run on: after more than two seconds each is expected to take twice that
    tasks = [(0.0, 1.0)] * 10 + [(60.0, 300.0)] * 4
    _, witness = _watch("dask", *tasks, startup_seconds=1)
    assert witness.size_at(61) == 1
    assert max(size for at, size in witness.sizes if at > 61) == 4


def test_ray_launches_for_what_does_not_fit_five_at_first_then_as_many_as_run() -> None:
    _, witness = _watch("ray", *((0.0, 400.0),) * 30, startup_seconds=4)
    assert [witness.size_at(at) for at in (0, 5, 10, 15)] == [5, 10, 20, 30]


def test_ray_terminates_a_node_after_five_idle_minutes() -> None:
    _, witness = _watch("ray", (0, 7), startup_seconds=1)
    # idle since 8; the update of 310 is the first at which that is five minutes
    assert (witness.size_at(309), witness.size_at(310)) == (1, 0)


def test_ray_packs_tasks_into_the_slots_of_a_worker() -> None:
    _, witness = _watch("ray", *((0.0, 30.0),) * 9, slots=4, startup_seconds=1)
    assert max(size for _, size in witness.sizes) == 3
