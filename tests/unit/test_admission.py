"""Whose session is served: that of a worker which is present and trusted."""

import pytest

from dtf.coordinator.admission import refusal_of_session
from dtf.core.run.commands import CloseSession, ExpireWorkers, QuarantineWorker, ReleaseWorker
from dtf.rpc.auth import Operator, SessionHolder
from tests.unit.core_world import World, checked

world = pytest.fixture(checked)


def refusal(world: World) -> str:
    found = refusal_of_session(world.state, SessionHolder("w", 1))
    return "" if found is None else found.message


def test_a_session_is_served_while_its_worker_is_present_and_trusted(world: World) -> None:
    assert "is over" in refusal(world)
    world.worker("w")
    assert refusal(world) == ""
    world.do(QuarantineWorker("w", "me", "odd"))
    assert refusal(world) == "worker 'w' is in quarantine: odd"
    assert refusal_of_session(world.state, Operator()) is None
    world.do(ReleaseWorker("w", "me"))
    assert refusal(world) == ""


@pytest.mark.parametrize("ending", [ExpireWorkers([("w", 1, 12.5)]), CloseSession("w", 1, "bye")])
def test_a_session_that_ended_is_served_nothing(world: World, ending: "ExpireWorkers | CloseSession") -> None:
    world.worker("w")
    world.do(ending)
    assert "session 1 of worker 'w' is over" in refusal(world)
