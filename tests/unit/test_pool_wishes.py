"""What operators wish of pools: decided, folded, saved."""

import pytest

from dtf.core.fleet import pools
from dtf.core.fleet.pool_wish import PoolWish
from dtf.core.run.commands import InvalidRequest, NotPossible, PausePool, ResumePool, ScalePool
from dtf.core.run.portrait import portrait
from tests.unit.core_world import World, checked, kinds

world = pytest.fixture(checked)


def scale(
    pool: str = "p", low: int | None = None, high: int | None = None, workers: int | None = None
) -> ScalePool:
    return ScalePool(pool, low, high, workers, "anna", "release day")


def test_bounds_are_wished_until_they_are_taken_back(world: World) -> None:
    assert kinds(world.do(scale(low=2, high=8))) == ["pool_scaled"]
    wish = world.state.pools["p"]
    assert (wish.min_workers, wish.max_workers, wish.workers) == (2, 8, None)
    assert (wish.requested_by, wish.reason, wish.changed_at_ns) == ("anna", "release day", world.now_ns)
    world.do(scale(workers=0))
    assert world.state.pools["p"].workers == 0, "none at all is a size"
    assert world.state.pools["p"].min_workers is None
    world.do(scale())
    assert world.state.pools == {}


def test_the_same_wish_again_is_no_event(world: World) -> None:
    world.do(scale(low=0))
    assert world.do(scale(low=0)) == []
    assert kinds(world.do(scale(low=1))) == ["pool_scaled"]
    assert world.do(ResumePool("p", "anna")) == []
    assert world.do(scale("other")) == [], "its settings are what holds already"


def test_a_pause_outlives_a_change_of_bounds_and_the_bounds_outlive_the_pause(world: World) -> None:
    assert kinds(world.do(PausePool("p", "anna", "kernel"))) == ["pool_paused"]
    assert world.do(PausePool("p", "bert", "again")) == []
    world.do(scale(high=4))
    assert world.state.pools["p"].is_paused
    assert kinds(world.do(ResumePool("p", "bert"))) == ["pool_resumed"]
    wish = world.state.pools["p"]
    assert (wish.is_paused, wish.max_workers, wish.requested_by) == (False, 4, "bert")


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (scale("", low=1), "pool"),
        (scale("a b", low=1), "pool"),
        (scale("p" * 65, low=1), "pool"),
        (PausePool("a>*", "", ""), "pool"),
        (ResumePool("", ""), "pool"),
        (scale(low=3, high=2), "max_workers"),
        (scale(low=1, workers=2), "workers"),
        (scale(workers=100_001), "workers"),
    ],
)
def test_a_faulty_wish_is_refused_by_its_field(
    world: World, command: ScalePool | PausePool | ResumePool, field: str
) -> None:
    refusal = world.refused(command, InvalidRequest)
    assert [violation.field for violation in refusal.violations] == [field]


def test_wishes_are_bounded_in_number(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "MAX_POOLS_WISHED", 2)
    world.do(scale("a", low=1))
    world.do(PausePool("b", "", ""))
    world.refused(scale("c", low=1), NotPossible, "of 2 pools already")
    world.do(scale("a", low=2))


def test_the_portrait_of_a_state_shows_the_wishes(world: World) -> None:
    world.do(scale("p", low=1))
    assert portrait(world.state)["pools"] == {
        "p": {
            "min_workers": 1,
            "is_paused": False,
            "requested_by": "anna",
            "reason": "release day",
            "changed_unix_nanos": world.now_ns,
        }
    }


def test_a_wish_for_nothing_is_empty() -> None:
    assert PoolWish("p").is_empty
    assert not PoolWish("p", workers=0).is_empty
    assert not PoolWish("p", is_paused=True).is_empty
