"""Streams recorded from real runs, fed with virtual time to fresh projections: the decisions come out the same.

No broker, no process, no clock: only tests/streams/<scenario>/ (its README says how each was recorded).

What each component is fed:

- Coordinator: the log. A commit's inputs with its events are its commands (dtf.core.run.rederive).
- Resource manager: the log and its own decisions. A decision carries when it was made, the last
  commit it knew, and what was heard since the one before from the provider (exits, failed launches)
  and from the coordinator (refused drains), each with the last commit known then. The replay folds
  the log that far, tells a fresh ledger the same, and decides at the same instant.
- Trend analyzer: the log, the telemetry and the decisions.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
from msgspec.structs import replace

from dtf.adapters.duckdb_store import DuckDbStore
from dtf.api.v1 import common_pb2, events_pb2, scaling_pb2
from dtf.core.run.evolve import evolve
from dtf.core.run.invariants import check
from dtf.core.run.rederive import Difference, Rederivation
from dtf.core.run.state import State
from dtf.core.run.state_hash import forget_caches, state_hash
from dtf.core.scaling.policy import POLICY_VERSION
from dtf.core.trend.log_fold import LogFold
from dtf.core.trend.measurements import MEASUREMENTS
from dtf.core.trend.names import NameBook
from dtf.ports.event_log import StoredCommit
from dtf.trend_analyzer.intake import StreamIntake
from tests.e2e.manager_again import ManagerAgain
from tests.fakes import FakeClock
from tests.streams.scenario import (
    Scenario,
    analyzer_summary,
    coordinator_summary,
    read_commits,
    scenarios,
)

SCENARIOS = ("callables", "cancelled", "killed_worker", "lost_worker", "pytest_suite", "restarts")


@pytest.fixture(params=SCENARIOS)
def scenario(request: pytest.FixtureRequest) -> Scenario:
    """Each of the recordings."""
    return _scenario(str(request.param))


@cache
def _scenario(name: str) -> Scenario:
    return Scenario(name)


def test_every_recording_is_replayed() -> None:
    assert [scenario.name for scenario in scenarios()] == sorted(SCENARIOS)


# -- coordinator


@pytest.mark.coordinator
def test_every_decision_is_made_again_byte_for_byte(scenario: Scenario) -> None:
    again = Rederivation()
    differences: list[Difference] = []
    for sequence, _, commit in scenario.commits:
        differences += again.follow(commit, sequence)
    assert differences == []
    assert again.input_count == sum(len(commit.inputs) for _, _, commit in scenario.commits)


@pytest.mark.coordinator
def test_two_folds_agree_and_every_invariant_holds_at_every_sequence(scenario: Scenario) -> None:
    one, other = State(), State()
    for sequence, _, commit in scenario.commits:
        for event in commit.events:
            evolve(one, event, commit.now_unix_nanos, sequence)
        for event in events_pb2.Commit.FromString(commit.SerializeToString()).events:
            evolve(other, event, commit.now_unix_nanos, sequence)
        forget_caches(other)
        assert state_hash(one) == state_hash(other), f"commit {sequence}"
        assert check(one) == [], f"commit {sequence}"


@pytest.mark.coordinator
def test_the_log_comes_to_what_it_came_to_when_it_was_recorded(scenario: Scenario) -> None:
    assert coordinator_summary(scenario.log) == scenario.golden["coordinator"]


def _changed(log: list[StoredCommit], position: int) -> list[StoredCommit]:
    """One event is another, and its commit is stored under the id that its bytes ask for."""
    commit = events_pb2.Commit.FromString(log[position].payload)
    commit.events[0].Clear()
    commit.events[0].results_refused.worker_id = "mallory"
    log[position] = _stored(log[position], commit)
    return log


def _dropped(log: list[StoredCommit], position: int) -> list[StoredCommit]:
    """One message is gone, and those after it have moved up."""
    del log[position]
    return [replace(stored, sequence=sequence) for sequence, stored in enumerate(log, 1)]


def _swapped(log: list[StoredCommit], position: int) -> list[StoredCommit]:
    """Two neighbours changed places."""
    other = position - 1 if position else 1
    log[position], log[other] = (
        replace(log[other], sequence=log[position].sequence),
        replace(log[position], sequence=log[other].sequence),
    )
    return log


def _stored(stored: StoredCommit, commit: events_pb2.Commit) -> StoredCommit:
    payload = commit.SerializeToString()
    return replace(stored, payload=payload, message_id=hashlib.sha256(payload).hexdigest())


@pytest.mark.coordinator
@pytest.mark.parametrize("tamper", [_changed, _dropped, _swapped])
def test_tampering_with_any_commit_is_noticed(
    scenario: Scenario, tamper: Callable[[list[StoredCommit], int], list[StoredCommit]]
) -> None:
    golden = scenario.golden["coordinator"]
    for position in range(len(scenario.log)):
        try:
            commits = read_commits(tamper(list(scenario.log), position))
        except ValueError:  # ChainBroken, or a message that does not continue the chain
            continue
        # Only the end of a log has nothing after it that vouches for it; there the known id does.
        assert position == len(scenario.log) - 1
        assert commits[-1][1] != golden["last_message_id"]


def _rechained(log: Sequence[StoredCommit], forge: Callable[[events_pb2.Event], bool]) -> list[StoredCommit]:
    """The log as a forger would write it who knows how: one event changed, every hash made to fit."""
    forged: list[StoredCommit] = []
    is_done = False
    for stored in log:
        commit = events_pb2.Commit.FromString(stored.payload)
        is_done = is_done or any(forge(event) for event in commit.events)
        commit.prev_hash = bytes.fromhex(forged[-1].message_id) if forged else b""
        forged.append(_stored(stored, commit))
    assert is_done, "nothing to forge"
    return forged


def _pass_a_failure(event: events_pb2.Event) -> bool:
    verdicts = event.results_accepted.verdicts
    for index, verdict in enumerate(verdicts):
        if verdict == common_pb2.VERDICT_FAILED:
            verdicts[index] = common_pb2.VERDICT_PASSED
            return True
    return False


def _forget_a_task(event: events_pb2.Event) -> bool:
    return event.HasField("leases_granted") and bool(event.leases_granted.tasks.pop() >= 0)


@pytest.mark.coordinator
@pytest.mark.parametrize(
    ("name", "forge"),
    [
        ("callables", _pass_a_failure),
        ("pytest_suite", _pass_a_failure),
        ("callables", _forget_a_task),
        ("cancelled", _forget_a_task),
        ("lost_worker", _forget_a_task),
    ],
)
def test_a_forgery_whose_chain_is_whole_is_noticed_by_deciding_again(
    name: str, forge: Callable[[events_pb2.Event], bool]
) -> None:
    commits = read_commits(_rechained(_scenario(name).log, forge))
    again = Rederivation()
    assert [found for sequence, _, commit in commits for found in again.follow(commit, sequence)]


@pytest.mark.coordinator
def test_the_recordings_hold_what_they_were_made_for() -> None:
    runs = {name: next(iter(_scenario(name).golden["coordinator"]["runs"].values())) for name in SCENARIOS}
    events = {name: _scenario(name).golden["coordinator"]["events"] for name in SCENARIOS}
    suite = runs["pytest_suite"]
    assert (suite["passed"], suite["failed"], suite["skipped"], suite["flaky"], suite["error"]) == (
        13,
        1,
        1,
        1,
        1,
    )
    assert suite["lost_or_crashed"] == 2
    assert events["lost_worker"]["WorkerLost"] == 1
    assert events["lost_worker"]["WorkerLeft"] == 2
    assert runs["lost_worker"]["passed"] == 30
    assert events["restarts"]["LeaderElected"] == 2
    assert runs["restarts"]["passed"] == 30
    assert runs["restarts"]["lost_or_crashed"] == 0
    assert events["cancelled"]["RunCancelRequested"] == 1
    assert 0 < runs["cancelled"]["passed"] <= 4
    assert (runs["callables"]["passed"], runs["callables"]["failed"]) == (399, 1)


# -- resource manager


@pytest.mark.resource_manager
def test_every_scaling_decision_is_made_again_in_every_field(scenario: Scenario) -> None:
    manager = ManagerAgain(scenario.policy, scenario.commits)
    assert scenario.decisions
    for recorded in scenario.decisions:
        assert manager.decide_like(recorded) == recorded


@pytest.mark.resource_manager
def test_the_pool_grew_replaced_what_was_killed_and_shrank() -> None:
    decisions = _scenario("killed_worker").decisions
    versions = {decision.policy_version for decision in decisions}
    assert versions - {0} == {POLICY_VERSION}, "no policy decided the farewell"
    actions = [decision.action for decision in decisions]
    grown = actions.index(scaling_pb2.SCALING_ACTION_SCALE_OUT, 1)
    replaced = actions.index(scaling_pb2.SCALING_ACTION_REPLACE)
    assert grown < replaced < actions.index(scaling_pb2.SCALING_ACTION_SCALE_IN)
    (death,) = [seen.exited for decision in decisions for seen in decision.observations if _is_death(seen)]
    assert death.launch_id in decisions[replaced].reason
    assert "signal 9" in death.reason


def _is_death(seen: scaling_pb2.Observation) -> bool:
    return seen.HasField("exited") and not seen.exited.is_clean


@pytest.mark.resource_manager
def test_a_manager_that_does_not_hear_of_the_death_decides_otherwise() -> None:
    """What was heard is part of what a decision rests on: without it the replay must fail."""
    manager = ManagerAgain(_scenario("killed_worker").policy, _scenario("killed_worker").commits)
    same = True
    for recorded in _scenario("killed_worker").decisions:
        deaf = scaling_pb2.ScalingDecision()
        deaf.CopyFrom(recorded)
        del deaf.observations[:]
        same = same and manager.decide_like(deaf) == deaf
    assert not same


# -- trend analyzer


@pytest.mark.trend_analyzer
def test_the_points_are_what_they_were_when_they_were_recorded(scenario: Scenario) -> None:
    assert analyzer_summary(scenario) == scenario.golden["trend_analyzer"]


class Analyzer:
    """The analyzer's way from the log into a store, started anew whenever it is asked to go on."""

    def __init__(self, scenario: Scenario, store: DuckDbStore) -> None:
        self._log = scenario.log
        self._store = store

    async def go_on_until(self, sequence: int) -> None:
        """Start from the store's checkpoint, fold up to `sequence`, write, and be gone."""
        fold = LogFold(NameBook(await self._store.series_cases()))
        intake = StreamIntake(
            "log",
            source=_no_source,
            parse=events_pb2.Commit.FromString,
            fold=fold,
            store=self._store,
            clock=FakeClock(),
        )
        checkpoint = await self._store.checkpoint("log")
        reached = 0
        if checkpoint is not None:
            reached = checkpoint.sequence
            replay_after = json.loads(checkpoint.state)["fold"]["replay_after"]
            for stored in self._log[replay_after:reached]:
                intake.fold_one(stored)
            intake.restore(checkpoint)
        for stored in self._log[reached:sequence]:
            intake.fold_one(stored)
        await intake.flush()

    async def close(self) -> None:
        """Let go of the store."""
        await self._store.close()

    async def content(self) -> dict[str, list[tuple[object, ...]]]:
        """Every point in the store, by measurement."""
        return {
            name: await self._store.query(f"SELECT * FROM {name} ORDER BY ALL")  # our own names
            for name in MEASUREMENTS
        }


def _no_source(_after: int) -> AsyncIterator[Sequence[StoredCommit]]:
    raise AssertionError("the test folds each message itself")


@pytest.mark.trend_analyzer
async def test_starting_anew_at_any_sequence_fills_the_store_the_same(
    scenario: Scenario, tmp_path: Path
) -> None:
    """Once in one go; once started anew, from the checkpoint before, for every single commit."""
    end = scenario.log[-1].sequence
    at_once = Analyzer(scenario, await DuckDbStore.open(tmp_path / "once.duckdb"))
    await at_once.go_on_until(end)
    restarted = Analyzer(scenario, await DuckDbStore.open(tmp_path / "restarted.duckdb"))
    for sequence in range(1, end + 1):
        await restarted.go_on_until(sequence)
    content = await at_once.content()
    assert await restarted.content() == content
    assert sum(map(len, content.values())) > 0
    await at_once.close()
    await restarted.close()


@pytest.mark.trend_analyzer
async def test_reading_the_log_anew_over_a_full_store_changes_nothing(
    scenario: Scenario, tmp_path: Path
) -> None:
    store = await DuckDbStore.open(tmp_path / "metrics.duckdb")
    analyzer = Analyzer(scenario, store)
    await analyzer.go_on_until(scenario.log[-1].sequence)
    before = await analyzer.content()
    fold = LogFold(NameBook(await store.series_cases()))
    for sequence, _, commit in scenario.commits:
        fold.apply(commit, sequence)
    checkpoint = await store.checkpoint("log")
    assert checkpoint is not None
    await store.write(fold.take(), checkpoint)
    assert await analyzer.content() == before
    await analyzer.close()
