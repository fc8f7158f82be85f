"""Recorded logs forked in virtual time: the same seed the same bytes, faults cost no verdict, nothing breaks."""

from collections.abc import Sequence
from functools import cache

import pytest

from dtf.api.v1 import common_pb2
from dtf.coordinator.inputs import arguments
from dtf.core.check.report import CheckReport
from dtf.core.run.invariants import check as check_invariants
from dtf.core.run.rederive import Rederivation
from dtf.core.simulation.compare import account_of, differences
from dtf.core.simulation.faults import KINDS, FaultError, parse
from dtf.core.simulation.fork import Forked, Options, fork
from dtf.core.simulation.randomness import SplitMix64
from dtf.core.simulation.recording import Recording
from tests.unit.check_history import check, recording

FINISHING = ("callables", "lost_worker", "pytest_suite")
"""Scenarios whose runs ended by themselves."""
HARMLESS = (
    "worker-lost",
    "slow-worker:x5",
    "cut-off:60",
    "results-delayed:1",
    "results-duplicated",
    "coordinator-restart",
    "coordinator-dying:0.2",
    "more-workers:3",
    "drain",
    "quarantine",
    "give-back",
)
"""Faults that a run survives with the verdicts it would have had."""

cached = cache(recording)


def forked(source: Recording, at: int, faults: Sequence[str] = (), options: Options | None = None) -> Forked:
    """The fork; what it must always be is checked."""
    result = fork(source, at, [parse(text) for text in faults], arguments, options)
    assert checked(result).violations == []
    assert check_invariants(result.state) == []
    return result


def checked(result: Forked) -> CheckReport:
    """What the history checker makes of the forked log."""
    return check([(each.sequence, each.payload, each.message_id) for each in result.commits])


def sequences(source: Recording, count: int) -> list[int]:
    """Places to fork at, spread over the recording."""
    last = len(source.commits)
    return sorted({1 + index * (last - 1) // count for index in range(count)})


@pytest.mark.parametrize("name", FINISHING)
def test_without_a_fault_a_fork_anywhere_reproduces_the_verdicts(name: str) -> None:
    source = cached(name)
    for at in range(1, len(source.commits) + 1):
        result = forked(source, at)
        assert result.is_over
        assert differences(account_of(source.commits), account_of(result.commits)) == ([], 0), at


def test_a_fork_at_the_end_adds_nothing() -> None:
    source = cached("callables")
    result = forked(source, source.commits[-1].sequence)
    assert [each.message_id for each in result.commits] == [each.message_id for each in source.commits]


def test_the_same_seed_gives_the_same_bytes_and_another_other_ones() -> None:
    faults = ("worker-lost", "coordinator-dying:0.3", "results-duplicated@1")

    def payloads(seed: int) -> list[bytes]:
        result = forked(cached("lost_worker"), 12, faults, Options(seed=seed))
        return [each.payload for each in result.commits]

    assert payloads(1) == payloads(1)
    assert payloads(1) != payloads(2)


@pytest.mark.parametrize("fault", HARMLESS)
def test_a_fault_costs_time_and_no_verdict(fault: str) -> None:
    for name in ("lost_worker", "pytest_suite"):
        source = cached(name)
        for at in sequences(source, 10):
            try:
                result = forked(source, at, [fault], Options(seed=at))
            except FaultError:
                continue  # no worker is there yet, or any more
            assert result.is_over
            assert differences(account_of(source.commits), account_of(result.commits)) == ([], 0), (name, at)


def test_faults_together_at_any_time_break_nothing() -> None:
    random = SplitMix64(20261122)
    kinds = [kind for kind in KINDS if kind != "none"]
    struck = 0
    for number in range(250):
        source = cached(("cancelled", "lost_worker", "pytest_suite")[number % 3])
        at = 1 + random.below(len(source.commits))
        faults = [
            f"{kinds[random.below(len(kinds))]}@{random.uniform(0.001, 4):.3f}"
            for _ in range(1 + random.below(4))
        ]
        sizes = (1, 300, 960 * 1024)
        options = Options(random.next(), credits=random.below(8), max_commit_bytes=sizes[random.below(3)])
        result = forked(source, at, faults, options)
        assert result.is_over, (number, at, faults)
        struck += len(faults) - len(result.missed)
    assert struck > 250


def test_every_simulated_decision_is_what_its_command_leads_to() -> None:
    result = forked(cached("pytest_suite"), 3, ["coordinator-dying:0.3"], Options(max_commit_bytes=300))
    again = Rederivation()
    found = [difference for each in result.commits for difference in again.follow(each.commit, each.sequence)]
    assert found == []
    assert again.input_count > 30


def test_a_lost_worker_costs_its_attempts_and_the_time_until_it_is_missed() -> None:
    source = cached("lost_worker")
    before = account_of(forked(source, 20).commits)
    after = account_of(forked(source, 20, ["worker-lost"]).commits)
    (run_id,) = before.runs
    assert after.workers_lost == before.workers_lost + 1
    assert after.runs[run_id].lost_or_crashed > before.runs[run_id].lost_or_crashed
    assert after.runs[run_id].wasted_seconds > before.runs[run_id].wasted_seconds + 1
    assert after.runs[run_id].counts == before.runs[run_id].counts


def test_a_slow_worker_makes_the_run_longer() -> None:
    source = cached("lost_worker")
    (before,) = account_of(forked(source, 20).commits).runs.values()
    (after,) = account_of(forked(source, 20, ["slow-worker:x9"]).commits).runs.values()
    assert before.makespan_seconds is not None and after.makespan_seconds is not None
    assert after.makespan_seconds > before.makespan_seconds + 1


def test_a_cut_off_worker_comes_back_too_late_and_is_refused() -> None:
    source = cached("lost_worker")
    account = account_of(forked(source, 20, ["cut-off:4"]).commits)
    assert account.workers_lost == 2
    registrations = [
        event.worker_registered.worker_id
        for each in forked(source, 20, ["cut-off:4"]).commits
        for event in each.commit.events
        if event.HasField("worker_registered")
    ]
    assert len(registrations) > len(set(registrations))


def test_a_case_that_kills_its_process_more_often_than_allowed_ends_in_error() -> None:
    source = cached("callables")
    once = forked(source, 5, ["crash-of-case:1"])
    (run,) = account_of(once.commits).runs.values()
    assert run.counts == {"passed": 399, "failed": 1}
    assert run.lost_or_crashed == 1
    twice = forked(source, 5, ["crash-of-case:2"])
    (run,) = account_of(twice.commits).runs.values()
    assert run.counts.get("error") == 1


def test_a_cancelled_fork_ends_without_judging_the_rest() -> None:
    (run,) = account_of(forked(cached("callables"), 6, ["cancel"]).commits).runs.values()
    assert run.state == common_pb2.RUN_STATE_CANCELLED
    assert 0 < len(run.verdicts) < 400


def test_restarts_begin_new_reigns() -> None:
    account = account_of(
        forked(cached("lost_worker"), 15, ["coordinator-restart", "coordinator-restart@2"]).commits
    )
    assert account.reigns == 3


def test_results_that_come_twice_count_once() -> None:
    source = cached("callables")
    plain, doubled = forked(source, 5), forked(source, 5, ["results-duplicated"])
    assert differences(account_of(plain.commits), account_of(doubled.commits)) == ([], 0)
    assert account_of(doubled.commits).refused == 0


def test_a_fault_that_strikes_nothing_later_is_told() -> None:
    result = forked(cached("lost_worker"), 20, ["worker-lost:nobody@1"])
    assert len(result.missed) == 1
    assert result.missed[0].startswith("worker-lost:nobody@1: no worker 'nobody' is there")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("earthquake", "there is no fault 'earthquake'; there are: none, worker-lost"),
        ("slow-worker:much", r"'slow-worker:much' cannot be read; it is slow-worker\[:xFACTOR"),
        ("more-workers:-1", r"is not in \[1, 1e6\]"),
        ("none:5", "it takes no argument"),
        ("drain@soon", "cannot be read"),
    ],
)
def test_a_fault_that_cannot_be_read_says_what_can(text: str, said: str) -> None:
    with pytest.raises(FaultError, match=said):
        parse(text)


def test_a_worker_that_is_not_there_cannot_be_hurt() -> None:
    with pytest.raises(FaultError, match="no worker 'nobody' is there at sequence 20; there are: local-"):
        forked(cached("lost_worker"), 20, ["worker-lost:nobody"])
