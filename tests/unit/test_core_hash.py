"""One number for the state, however often it was asked for."""

from dtf.api.v1 import common_pb2
from dtf.core.run.commands import CancelRun
from dtf.core.run.state import State
from dtf.core.run.state_hash import forget_caches, state_hash
from tests.unit.core_world import World, columns, rebuilt, task


def story() -> World:
    world = World()
    world.worker("w", slots=3)
    world.run("a", [task("one"), common_pb2.TaskSpec(name="two", payload="[1]"), task("three", ["x", "y"])])
    world.grant(w=3)
    world.report("w", columns("a", [1]))
    world.run("b", [task("late", expected_seconds=1.5)])
    world.do(CancelRun("b", "me", "why"))
    return world


def test_every_replay_has_the_same_hash_at_every_sequence_and_no_two_sequences_share_one() -> None:
    commits = story().commits
    stepwise = [state_hash(rebuilt(commits[:sequence])) for sequence in range(len(commits) + 1)]
    assert len(set(stepwise)) == len(stepwise)
    again = story()
    assert state_hash(again.state) == stepwise[-1]
    forget_caches(again.state)
    assert state_hash(again.state) == stepwise[-1]


def test_the_hash_of_nothing_is_a_constant() -> None:
    assert state_hash(State()) == state_hash(State())
    assert len(state_hash(State())) == 64
