"""Workers: sessions, incarnations, draining, quarantine, loss."""

import pytest

from dtf.api.v1 import common_pb2, worker_service_pb2
from dtf.core.run.commands import (
    CloseSession,
    Conflict,
    DrainWorker,
    ExpireWorkers,
    InvalidRequest,
    NotFound,
    NotPossible,
    QuarantineWorker,
    ReconcileLeases,
    RegisterWorker,
    ReleaseWorker,
)
from tests.unit.core_world import ERROR, PASSED, World, checked, columns, kinds, task, template

world = pytest.fixture(checked)


def lose(world: World, worker_id: str) -> list[str | None]:
    incarnation = world.state.workers[worker_id].incarnation
    return kinds(world.do(ExpireWorkers([(worker_id, incarnation, 12.5)])))


def test_incarnations_of_a_worker_rise_for_ever(world: World) -> None:
    for incarnation in (1, 2):
        world.worker("w")
        assert world.state.workers["w"].incarnation == incarnation
        lose(world, "w")
    world.worker("w")
    world.do(CloseSession("w", 3, "bye"))
    world.worker("w")
    assert world.state.workers["w"].incarnation == 4
    assert world.state.workers["w"].takes_work


def test_the_same_request_id_opens_one_session_only(world: World) -> None:
    world.worker("w", request_id="r")
    assert world.worker("w", request_id="r") == []
    assert world.state.session_requests["r"] == ("w", 1)
    world.worker("w", request_id="s")
    again = worker_service_pb2.CreateSessionRequest(worker_id="w", request_id="r", slots=1)
    world.refused(RegisterWorker("", again), Conflict, "incarnation 1 of worker w, which is over")


def test_a_worker_without_a_name_gets_the_fresh_one(world: World) -> None:
    request = worker_service_pb2.CreateSessionRequest(request_id="r", slots=1)
    world.do(RegisterWorker("fresh", request))
    assert list(world.state.workers) == ["fresh"]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (worker_service_pb2.CreateSessionRequest(request_id="r", slots=0), "slots"),
        (worker_service_pb2.CreateSessionRequest(request_id="", slots=1), "request_id"),
        (worker_service_pb2.CreateSessionRequest(request_id="r", slots=1, worker_id="a b"), "worker_id"),
        (worker_service_pb2.CreateSessionRequest(request_id="r", slots=1, worker_id="a>*"), "worker_id"),
        (
            worker_service_pb2.CreateSessionRequest(
                request_id="r", slots=1, resources=common_pb2.Resources(cpus=float("nan"))
            ),
            "resources.cpus",
        ),
    ],
)
def test_a_faulty_registration_is_refused_by_its_field(
    world: World, request_: worker_service_pb2.CreateSessionRequest, field: str
) -> None:
    refusal = world.refused(RegisterWorker("fresh", request_), InvalidRequest)
    assert [violation.field for violation in refusal.violations] == [field]


def test_a_new_incarnation_ends_the_leases_of_the_old_one(world: World) -> None:
    world.worker("w")
    world.run("a", [task("one"), task("two")])
    world.grant(w=2)
    assert kinds(world.worker("w")) == ["worker_lost", "attempts_ended", "worker_registered"]
    assert world.state.workers["w"].lease_count == 0
    assert sorted(world.grant(w=2)["w"]) == [0, 1]


def test_a_lost_worker_gives_back_its_work_in_its_old_order(world: World) -> None:
    world.worker("w")
    world.run("a", [task(f"t{index}") for index in range(6)])
    world.grant(w=4)
    assert lose(world, "w") == ["worker_lost", "attempts_ended"]
    world.worker("v", slots=6)
    assert world.grant(v=6)["v"] == [0, 1, 2, 3, 4, 5]
    assert list(world.state.runs["a"].attempts) == [2, 2, 2, 2, 1, 1]


def test_only_what_could_have_run_is_charged_with_a_loss(world: World) -> None:
    world.run("a", [task("first", ["x", "y"]), task("waited"), task("waited too")])
    for name in ("w", "v"):
        world.worker(name)
        world.grant(**{name: 3})
        lose(world, name)
    run = world.state.runs["a"]
    assert bytes(run.verdicts) == bytes([ERROR, 0, 0, 0])
    world.worker("u", slots=3)
    world.grant(u=3)
    fences = [world.fence("a", index) for index in range(3)]
    world.report("u", columns("a", fences, [PASSED] * 3, [1, 0, 0]))
    assert bytes(run.verdicts) == bytes([ERROR, PASSED, PASSED, PASSED])


def test_a_shard_that_advances_between_losses_is_not_given_up(world: World) -> None:
    world.run("a", [task("shard", ["x", "y", "z"])])
    for fence, name in enumerate(("w", "v"), 1):
        world.worker(name)
        world.grant(**{name: 1})
        world.report(name, columns("a", [fence], [PASSED], [fence - 1]))
        lose(world, name)
    world.worker("u")
    world.grant(u=1)
    world.report("u", columns("a", [3], [PASSED], [2]))
    assert bytes(world.state.runs["a"].verdicts) == bytes([PASSED] * 3)


def test_silence_of_an_earlier_incarnation_or_twice_the_same_is_no_news(world: World) -> None:
    world.worker("w")
    world.worker("w")
    assert world.do(ExpireWorkers([("w", 1, 99.0), ("nobody", 1, 99.0)])) == []
    assert kinds(world.do(ExpireWorkers([("w", 2, 99.0), ("w", 2, 99.0)]))) == ["worker_lost"]
    assert lose(world, "w") == []


def test_a_lost_worker_ends_the_run_it_held_the_last_of(world: World) -> None:
    world.worker("w")
    world.run("a", [task("one")], templates=[template(infrastructure_retries=0)])
    world.grant(w=1)
    assert lose(world, "w") == ["worker_lost", "attempts_ended", "run_finished"]


def test_a_draining_worker_gets_nothing_and_may_leave_when_it_holds_nothing(world: World) -> None:
    world.worker("w")
    world.run("a", [task(f"t{index}") for index in range(9)])
    world.grant(w=1)
    world.refused(DrainWorker("w", "rm", "idle", only_if_idle=True), NotPossible, "holds 1 leases")
    assert kinds(world.do(DrainWorker("w", "me", "please"))) == ["worker_drain_requested"]
    assert world.do(DrainWorker("w", "me", "please")) == []
    assert world.grant(w=9) == {"w": []}
    world.refused(CloseSession("w", 1, ""), NotPossible, "holds 1 leases")
    world.report("w", columns("a", [1]))
    assert kinds(world.do(CloseSession("w", 1, "drained"))) == ["worker_left"]
    assert world.do(CloseSession("w", 1, "drained")) == []


def test_a_quarantined_worker_loses_what_it_holds_without_a_charge(world: World) -> None:
    world.run("a", [task("one")], templates=[template(infrastructure_retries=0)])
    for name in ("w", "v"):
        world.worker(name)
        world.grant(**{name: 1})
        assert kinds(world.do(QuarantineWorker(name, "analyzer", "slow"))) == [
            "worker_quarantined",
            "attempts_ended",
        ]
        assert kinds(world.report(name, columns("a", [world.state.next_fence - 1]))) == ["results_refused"]
    assert world.grant(w=1, v=1) == {"w": [], "v": []}
    world.do(ReleaseWorker("w", "me"))
    assert world.grant(w=1, v=1) == {"w": [0], "v": []}


def test_what_is_not_there_or_gone_cannot_be_ordered_about(world: World) -> None:
    world.refused(DrainWorker("x", "me", ""), NotFound)
    world.worker("w")
    lose(world, "w")
    for command in (DrainWorker("w", "", ""), QuarantineWorker("w", "", ""), ReleaseWorker("w", "")):
        world.refused(command, NotPossible, "worker w is lost: nothing heard of worker w for 12.5 s")


def test_only_the_present_incarnation_of_an_open_session_may_attach(world: World) -> None:
    world.worker("w")
    assert world.do(ReconcileLeases("w", 1, [5])) == []
    world.refused(ReconcileLeases("w", 2), Conflict, "not the present one")
    lose(world, "w")
    world.refused(ReconcileLeases("w", 1), NotPossible, "is lost")
    world.refused(CloseSession("w", 1, ""), NotPossible, "is lost")
