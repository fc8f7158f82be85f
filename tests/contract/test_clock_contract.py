"""What every Clock does, the machine's and the virtual one alike; and what the virtual one adds."""

import asyncio
from collections import Counter

import pytest

from dtf.adapters.system_clock import SystemClock
from dtf.ports.clock import Clock
from tests.fakes import FakeClock


@pytest.fixture(params=[SystemClock, FakeClock])
def any_clock(request: pytest.FixtureRequest) -> Clock:
    made: Clock = request.param()
    return made


async def test_the_wall_clock_is_in_nanoseconds_of_this_century(any_clock: Clock) -> None:
    assert 1_600_000_000_000_000_000 < any_clock.now_ns() < 4_000_000_000_000_000_000


async def test_monotonic_time_never_falls(any_clock: Clock) -> None:
    readings = [any_clock.monotonic() for _ in range(1000)]
    assert readings == sorted(readings)


async def test_sleeping_for_no_time_lets_others_run(any_clock: Clock) -> None:
    async with asyncio.timeout(60):
        await any_clock.sleep(0)


async def test_identifiers_are_all_different_and_hold_nothing_that_is_mistaken(any_clock: Clock) -> None:
    made = [any_clock.new_id(12) for _ in range(2000)]
    assert len(set(made)) == 2000
    assert set(map(len, made)) == {12}
    assert not set("".join(made)) & set("lo01")
    assert "".join(made).islower() or "".join(made).isalnum()


def test_random_identifiers_use_every_letter_about_as_often() -> None:
    counts = Counter(SystemClock().new_id(32_000))
    assert len(counts) == 32
    assert 700 < min(counts.values()) < max(counts.values()) < 1300


async def test_virtual_sleepers_wake_in_the_order_of_their_times(clock: FakeClock) -> None:
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, *naps: float) -> None:
        for nap in naps:
            await clock.sleep(nap)
            woken.append((name, clock.monotonic()))

    async with asyncio.TaskGroup() as group:
        group.create_task(sleeper("long", 3))
        group.create_task(sleeper("short", 1, 1, 1.5))
        await clock.wait_for_sleeper()
        await clock.advance(2)
        assert woken == [("short", 1.0), ("short", 2.0)]
        assert clock.sleeper_count == 2
        await clock.advance(10)
    assert woken[2:] == [("long", 3.0), ("short", 3.5)]
    assert clock.monotonic() == 12.0
