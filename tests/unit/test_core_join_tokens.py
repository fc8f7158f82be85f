"""Join tokens in the core: whom they admit, until when, and what the log remembers of them."""

from collections.abc import Callable

import pytest

from dtf.api.v1 import events_pb2, worker_service_pb2
from dtf.core.check import tokens as check_tokens
from dtf.core.check.books import Books
from dtf.core.check.properties import Property
from dtf.core.check.report import Findings
from dtf.core.run.commands import (
    CloseSession,
    Conflict,
    ExpireWorkers,
    ForgetWorkers,
    InvalidRequest,
    IssueToken,
    NotFound,
    QuarantineWorker,
    RegisterWorker,
    ReleaseWorker,
    RevokeToken,
    TokenRefused,
)
from dtf.core.run.state_codec import decode_state, encode_state
from dtf.core.run.state_hash import state_hash
from tests.unit.core_world import SECOND, World, checked, kinds

world = pytest.fixture(checked)

HASH = bytes(range(32))
HOUR = 3600 * SECOND
DAY = 24 * HOUR


def issue(world: World, token_id: str = "t", lifetime_ns: int = HOUR, **more: object) -> None:
    given = {"pool": "local", "cluster_id": f"cluster of {token_id}", **more}
    world.do(IssueToken(token_id, HASH, expires_at_ns=world.now_ns + lifetime_ns, **given))  # type: ignore[arg-type]


def joining(
    world: World,
    token_id: str = "t",
    *,
    worker_id: str = "",
    pool: str = "local",
    launch_id: str = "",
    request_id: str = "",
    proved_incarnation: int = 0,
) -> RegisterWorker:
    request = worker_service_pb2.CreateSessionRequest(
        worker_id=worker_id,
        pool=pool,
        slots=1,
        launch_id=launch_id,
        request_id=request_id or f"session {len(world.commits)}",
    )
    fresh = f"w-{len(world.commits)}"
    return RegisterWorker(fresh, request, "" if proved_incarnation else token_id, proved_incarnation)


def lose(world: World, worker_id: str) -> None:
    world.do(ExpireWorkers([(worker_id, world.state.workers[worker_id].incarnation, 12.5)]))


def test_a_token_admits_workers_of_its_pool_until_it_expires(world: World) -> None:
    issue(world)
    assert kinds(world.do(joining(world))) == ["worker_registered"]
    world.do(joining(world, worker_id="named"))
    assert world.state.workers["named"].join_token_id == "t"
    assert (world.state.tokens["t"].use_count, world.state.tokens["t"].last_worker_id) == (2, "named")
    world.refused(joining(world, pool="other"), TokenRefused, "is for pool 'local', and the worker is of")
    world.now_ns += HOUR
    world.refused(joining(world), TokenRefused, "expired 0 s ago by the coordinator's clock; ask for a new")


def test_a_revoked_token_admits_nobody_and_is_revoked_once(world: World) -> None:
    issue(world)
    assert kinds(world.do(RevokeToken("t", "me", "leaked"))) == ["token_revoked"]
    assert world.do(RevokeToken("t", "me", "leaked")) == []
    world.refused(joining(world), TokenRefused, "was revoked by me")
    world.refused(RevokeToken("u", "me", ""), NotFound, "no join token 'u'")


def test_a_token_of_single_use_is_spent_by_its_worker_whose_repeated_call_is_the_same_session(
    world: World,
) -> None:
    issue(world, is_single_use=True)
    command = joining(world, worker_id="first", request_id="r")
    world.do(command)
    assert world.do(command) == []
    world.refused(joining(world), TokenRefused, "was for one worker, and first came with it")


def test_a_token_of_a_launch_admits_the_worker_of_that_launch(world: World) -> None:
    issue(world, launch_id="launch-1")
    world.refused(joining(world), TokenRefused, "is for launch 'launch-1', and the worker is of 'none'")
    world.refused(joining(world, launch_id="launch-2"), TokenRefused, "is of 'launch-2'")
    world.do(joining(world, launch_id="launch-1"))


def test_a_token_takes_no_name_of_another_pool(world: World) -> None:
    world.worker("theirs", pool="other")
    issue(world)
    world.refused(joining(world, worker_id="theirs"), TokenRefused, "worker theirs is of pool 'other'")


def test_a_token_that_is_not_known_admits_nobody(world: World) -> None:
    world.refused(joining(world), TokenRefused, "join token 't' is not known here")


def test_a_worker_whose_session_was_lost_opens_another_by_its_secret_though_its_token_is_spent(
    world: World,
) -> None:
    issue(world, is_single_use=True)
    world.do(joining(world, worker_id="w"))
    lose(world, "w")
    world.now_ns += DAY
    world.do(joining(world, worker_id="w", proved_incarnation=1))
    assert (world.state.workers["w"].incarnation, world.state.workers["w"].join_token_id) == (2, "t")
    world.refused(joining(world, worker_id="w", proved_incarnation=1), TokenRefused, "not its last one")
    again = joining(world, worker_id="w", proved_incarnation=2, pool="other")
    world.refused(again, TokenRefused, "opens no session of another")


def test_a_worker_whose_token_was_revoked_opens_no_further_session(world: World) -> None:
    issue(world)
    world.do(joining(world, worker_id="w"))
    world.do(RevokeToken("t", "me", ""))
    assert world.state.workers["w"].is_present
    lose(world, "w")
    world.refused(joining(world, worker_id="w", proved_incarnation=1), TokenRefused, "was revoked by me")


def test_tokens_that_ended_a_day_ago_are_forgotten_unless_a_worker_came_with_them(world: World) -> None:
    issue(world, "unused")
    issue(world, "used")
    issue(world, "later", lifetime_ns=3 * DAY)
    world.do(joining(world, "used", worker_id="w"))
    world.now_ns += 2 * DAY
    issue(world, "fourth")
    assert list(world.state.tokens) == ["used", "later", "fourth"]
    lose(world, "w")
    world.do(ForgetWorkers(kept_workers=0, grace_seconds=-1))
    issue(world, "fifth")
    assert list(world.state.tokens) == ["later", "fourth", "fifth"]


def test_the_first_token_names_the_cluster_for_all(world: World) -> None:
    issue(world, "a")
    issue(world, "b")
    said = [
        event.token_issued
        for _, events in world.commits
        for event in events
        if event.HasField("token_issued")
    ]
    assert [event.cluster_id for event in said] == ["cluster of a"] * 2
    world.refused(IssueToken("a", HASH, "local", 1, "c"), Conflict, "exists already")
    world.refused(IssueToken("c", b"short", "", 1, "c"), InvalidRequest, "pool")


def test_no_event_can_hold_a_secret() -> None:
    fields = events_pb2.TokenIssued.DESCRIPTOR.fields_by_name
    assert [name for name in fields if "secret" in name] == ["secret_hash"]


def test_tokens_are_part_of_the_state_its_hash_and_its_snapshots(world: World) -> None:
    hashes = [state_hash(world.state)]
    issue(world, is_single_use=True, launch_id="l", issued_by="me")
    world.do(joining(world, worker_id="l", launch_id="l"))
    hashes.append(state_hash(world.state))
    world.do(RevokeToken("t", "me", "why"))
    hashes.append(state_hash(world.state))
    assert len(set(hashes)) == 3
    again = decode_state(encode_state(world.state))
    assert again == world.state
    assert state_hash(again) == hashes[-1]
    again.tokens["t"].secret_hash = bytes(32)
    again.hash_cache = type(again.hash_cache)()
    assert state_hash(again) != hashes[-1]


CHECKED = [
    ("was revoked before", [RevokeToken("t", "me", "")], {}),
    ("is for pool 'local' and not 'other'", [], {"pool": "other"}),
    ("was for one worker, and admitted one before", ["another"], {}),
    ("had expired", [], {"late": True}),
    ("", [], {}),
]


@pytest.mark.parametrize(("fault", "before", "how"), CHECKED, ids=[case[0] or "none" for case in CHECKED])
def test_the_checker_notices_whom_a_token_should_not_have_admitted(
    world: World, fault: str, before: list[RevokeToken | str], how: dict[str, object]
) -> None:
    issue(world, is_single_use=True)
    for step in before:
        world.do(joining(world, worker_id=step) if isinstance(step, str) else step)
    forged = events_pb2.WorkerRegistered(
        worker_id="w", incarnation=1, pool=str(how.get("pool", "local")), join_token_id="t"
    )
    books, findings = Books(), Findings()
    for now_ns, events in world.commits:
        for event in events:
            match event.WhichOneof("event"):
                case "token_issued":
                    check_tokens.issued(books, findings, event.token_issued)
                case "token_revoked":
                    check_tokens.revoked(books, findings, event.token_revoked)
                case "worker_registered":
                    check_tokens.admitted(books, findings, event.worker_registered, "", now_ns)
                case _:
                    pass
    assert not findings.kept
    check_tokens.admitted(books, findings, forged, "", world.now_ns + (DAY if how.get("late") else 0))
    assert [
        violation.what.partition("which ")[2] for violation in findings.kept.get(Property.ADMISSION, [])
    ] == ([fault] if fault else [])


def test_a_token_takes_the_place_of_no_worker_whose_session_is_open(world: World) -> None:
    issue(world)
    issue(world, "one", is_single_use=True, launch_id="launch-2")
    world.do(joining(world, worker_id="victim"))
    for token_id, launch_id in (("t", ""), ("one", "launch-2")):
        theft = joining(world, token_id, worker_id="victim", launch_id=launch_id)
        world.refused(theft, TokenRefused, "the session of worker victim is open")
    assert world.state.workers["victim"].incarnation == 1
    world.do(joining(world, worker_id="victim", proved_incarnation=1))
    world.worker("victim")
    assert world.state.workers["victim"].incarnation == 3


def test_the_name_of_an_absent_worker_is_taken_by_what_it_came_with_only(world: World) -> None:
    issue(world)
    issue(world, "other")
    issue(world, "first", launch_id="launch-1", is_single_use=True)
    issue(world, "second", launch_id="launch-1", is_single_use=True)
    world.worker("operators")
    world.do(joining(world, worker_id="victim"))
    world.do(joining(world, "first", worker_id="launched", launch_id="launch-1"))
    for name in ("operators", "victim", "launched"):
        lose(world, name)
    said = "takes the name of no worker that came otherwise, and worker {} did"
    for name in ("operators", "victim", "launched"):
        world.refused(joining(world, "other", worker_id=name), TokenRefused, said.format(name))
    world.do(joining(world, worker_id="victim"))
    world.do(joining(world, "second", worker_id="launched", launch_id="launch-1"))
    world.worker("operators")
    incarnations = [world.state.workers[name].incarnation for name in ("operators", "victim", "launched")]
    assert incarnations == [2, 2, 2]


def test_a_request_is_repeated_only_by_who_made_it(world: World) -> None:
    """The answer holds the secret of the session."""
    issue(world, "theirs")
    issue(world, "other")
    first = joining(world, "theirs", worker_id="w", request_id="r")
    world.do(first)
    assert world.do(first) == []
    other = joining(world, "other", worker_id="w", request_id="r")
    world.refused(other, TokenRefused, "request id 'r' was used by another caller")
    renewal = joining(world, worker_id="w", request_id="s", proved_incarnation=1)
    world.do(renewal)
    assert world.do(renewal) == []
    for thief in (
        joining(world, "other", worker_id="w", request_id="s"),
        joining(world, worker_id="x", request_id="s", proved_incarnation=1),
        joining(world, worker_id="w", request_id="s", proved_incarnation=7),
    ):
        world.refused(thief, TokenRefused, "request id 's' was used by another caller")
    world.worker("local", request_id="u")
    world.refused(joining(world, "other", request_id="u"), TokenRefused, "by another caller")
    assert world.worker("local", request_id="u") == []


def leave(world: World) -> None:
    world.do(CloseSession("w", 1, "bye"))


@pytest.mark.parametrize("ending", [lambda _: None, lambda world: lose(world, "w"), leave])
@pytest.mark.parametrize("proved_incarnation", [0, 1])
def test_a_quarantined_worker_gets_out_by_no_new_session(
    world: World, ending: Callable[[World], None], proved_incarnation: int
) -> None:
    issue(world)
    world.do(joining(world, worker_id="w"))
    world.do(QuarantineWorker("w", "me", "odd"))
    ending(world)
    assert decode_state(encode_state(world.state)) == world.state
    again = joining(world, worker_id="w", proved_incarnation=proved_incarnation)
    if world.state.workers["w"].is_present and not proved_incarnation:
        world.refused(again, TokenRefused, "session of worker w is open")
        return
    *_, registered, quarantined = world.do(again)
    assert kinds([registered, quarantined]) == ["worker_registered", "worker_quarantined"]
    assert (world.state.workers["w"].takes_work, world.state.workers["w"].reason) == (False, "odd")
    world.do(ReleaseWorker("w", "me"))
    lose(world, "w")
    world.do(joining(world, worker_id="w"))
    assert world.state.workers["w"].takes_work


def test_the_operators_token_trusts_a_quarantined_worker_again(world: World) -> None:
    world.worker("w")
    world.do(QuarantineWorker("w", "me", "odd"))
    lose(world, "w")
    quarantined = state_hash(world.state)
    world.state.workers["w"].quarantine = ""
    world.state.hash_cache = type(world.state.hash_cache)()
    assert state_hash(world.state) != quarantined
    world.state.workers["w"].quarantine = "odd"
    world.state.hash_cache = type(world.state.hash_cache)()
    world.worker("w")
    assert world.state.workers["w"].takes_work
