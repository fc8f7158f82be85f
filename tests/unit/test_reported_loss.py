"""A worker whose end its provider saw is lost at once, for the reason it saw."""

from dtf.coordinator.inputs import arguments
from dtf.core.run.commands import ExpireWorkers
from tests.unit.core_world import World, kinds, task


def test_a_reported_end_is_the_reason_of_the_loss_and_of_its_attempts() -> None:
    world = World()
    world.worker("w")
    world.run("r", [task("a")])
    world.grant(w=1)
    events = world.do(ExpireWorkers([("w", 1, 0.2)], "worker w was killed by signal 9"))
    assert kinds(events) == ["worker_lost", "attempts_ended"]
    assert events[0].worker_lost.reason == "worker w was killed by signal 9"
    assert list(events[1].attempts_ended.reasons) == ["worker w was killed by signal 9"]


def test_a_report_about_an_earlier_incarnation_changes_nothing() -> None:
    world = World()
    world.worker("w")
    assert world.do(ExpireWorkers([("w", 7, 0.2)], "killed")) == []


def test_the_commit_records_the_reason_beside_the_silence() -> None:
    assert (
        arguments(ExpireWorkers([("w", 1, 0.5)], "killed")) == b'{"reason":"killed","silent":[["w",1,0.5]]}'
    )
