"""Whose output a worker may write: given who was leased what, now and of late."""

import pytest

from dtf.api.v1 import worker_service_pb2
from dtf.coordinator.output_rights import OutputRights
from dtf.rpc.errors import Forbidden
from tests.unit.core_world import World, checked, columns, task

pytestmark = pytest.mark.coordinator
world = pytest.fixture(checked)


class Scene:
    """Two workers of which each has a lease of one task, and the rights as of a reign."""

    def __init__(self, world: World, *, is_new_reign: bool = False, most_grants: int = 100) -> None:
        self.world = world
        world.run("r", [task("one"), task("two")])
        world.worker("mine")
        world.worker("theirs")
        self.rights = OutputRights(world.state, most_grants)
        self.hears = not is_new_reign
        self.before = len(world.commits)
        world.grant(mine=1)
        world.grant(theirs=1)
        self.hear()

    def hear(self) -> None:
        """What was committed since is durable."""
        for _, events in self.world.commits[self.before :]:
            if self.hears:
                self.rights.durable(events)
        self.before = len(self.world.commits)

    def target(self, task: int, **changed: object) -> worker_service_pb2.OutputTarget:
        """The output of a task's attempt."""
        fence = self.world.fence("r", task)
        given = {"run_id": "r", "task": task, "attempt": 1, "fence": fence, **changed}
        return worker_service_pb2.OutputTarget(**given)  # type: ignore[arg-type]  # a test's own fields


@pytest.mark.parametrize("is_new_reign", [False, True])
def test_a_worker_writes_the_output_of_what_it_was_leased_and_of_nothing_else(
    world: World, is_new_reign: bool
) -> None:
    scene = Scene(world, is_new_reign=is_new_reign)
    mine, theirs = scene.target(0), scene.target(1)
    scene.rights.check("mine", mine)
    scene.rights.check("theirs", theirs)
    for forged in (theirs, scene.target(1, fence=mine.fence), scene.target(0, attempt=2)):
        with pytest.raises(Forbidden, match="writes the output of its own attempts only"):
            scene.rights.check("mine", forged)
    for stranger in (scene.target(0, fence=0), scene.target(0, fence=999)):
        with pytest.raises(Forbidden):
            scene.rights.check("mine", stranger)


@pytest.mark.parametrize("is_new_reign", [False, True])
def test_output_may_come_after_the_result_whoever_leads_by_then(world: World, is_new_reign: bool) -> None:
    scene = Scene(world, is_new_reign=is_new_reign)
    mine, theirs = scene.target(0), scene.target(1)
    world.report("mine", columns("r", [mine.fence]))
    scene.hear()
    scene.rights.check("mine", mine)
    for forged in (theirs, worker_service_pb2.OutputTarget(run_id="r", task=1, attempt=1, fence=mine.fence)):
        with pytest.raises(Forbidden):
            scene.rights.check("mine", forged)


def test_the_oldest_grants_are_forgotten(world: World) -> None:
    scene = Scene(world)
    mine = scene.target(0)
    world.report("mine", columns("r", [mine.fence]))
    scene.rights = OutputRights(world.state, 0)
    for _, events in world.commits * 600:
        scene.rights.durable(events)
    scene.rights.check("mine", mine)
    with pytest.raises(Forbidden):
        scene.rights.check("theirs", mine)
