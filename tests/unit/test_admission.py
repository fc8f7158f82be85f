"""Whose session is served: that of a worker which is present and trusted."""

import pytest

from dtf.coordinator.admission import Admission, refusal_of_session
from dtf.coordinator.session_secrets import SessionSecrets
from dtf.core.run.commands import CloseSession, ExpireWorkers, QuarantineWorker, ReleaseWorker
from dtf.core.run.state import State
from dtf.rpc.auth import Operator, SessionHolder
from dtf.rpc.errors import Unauthenticated
from dtf.rpc.invitation import session_credential
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


def coordinator_of(namespace: str, cluster_id: str) -> tuple[Admission, SessionSecrets]:
    """The doors of a coordinator with the same operators' token as any other."""
    secrets = SessionSecrets("the operators' token", namespace)
    admission = Admission("the operators' token", secrets)
    admission.bind(State(cluster_id=cluster_id))
    return admission, secrets


@pytest.mark.parametrize("other", [("staging", "c1"), ("default", "c2")])
def test_a_session_is_none_of_another_namespace_or_cluster_with_the_same_token(
    other: tuple[str, str],
) -> None:
    admission, secrets = coordinator_of("default", "c1")
    elsewhere, _ = coordinator_of(*other)
    credential = session_credential("w", 1, secrets.of("w", 1))
    assert admission.identify(credential) == SessionHolder("w", 1)
    with pytest.raises(Unauthenticated, match="does not belong"):
        elsewhere.identify(credential)


def test_a_session_goes_on_when_the_first_join_token_names_the_cluster() -> None:
    _, before = coordinator_of("default", "")
    admission, _ = coordinator_of("default", "c1")
    credential = session_credential("w", 1, before.of("w", 1))
    assert admission.identify(credential) == SessionHolder("w", 1)
