"""Every recorded log is clean, and every property notices the log that lacks it."""

from collections.abc import Callable

import pytest

from dtf.api.v1 import common_pb2, events_pb2, scaling_pb2
from dtf.core.check.checker import HistoryChecker
from dtf.core.check.properties import Property, Source
from dtf.core.events import type_of
from tests.unit.check_history import (
    NAMES,
    STREAMS,
    History,
    chained,
    check,
    recorded_commits,
    recorded_messages,
    scaling_decisions,
    violated,
)

Mutation = Callable[[History], None]
FLAKY = common_pb2.VERDICT_FLAKY


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_log_is_clean(name: str) -> None:
    report = check(recorded_messages(name), scaling_decisions(name))
    assert report.violations == []
    assert report.commit_count == len(recorded_messages(name))
    idle = {Property.RETIREMENT, Property.BUSY, Property.ORPHANS, Property.ADMISSION}
    asked = {each for each in Property if each.source in (Source.LOG, Source.SCALING)}
    unchecked = {each.property for each in report.properties if not each.checked} & asked
    assert unchecked <= idle


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_log_in_a_new_chain_is_clean(name: str) -> None:
    assert History(name).check().violations == []


def last_fence(history: History) -> int:
    """The highest fence given out."""
    grants = [
        history.said("leases_granted", nth)
        for nth in range(
            sum(
                history.commits[number].events[index].HasField("leases_granted")
                for number, index in history.places()
            )
        )
    ]
    highest = 0
    for said in grants:
        highest = max(highest, said.first_fence + len(said.tasks) - 1)
    return highest


def earlier_time(history: History) -> None:
    history.commits[5].now_unix_nanos = history.commits[4].now_unix_nanos - 1


def reign_without_election(history: History) -> None:
    for commit in history.commits[6:]:
        commit.epoch += 1


def second_writer(history: History) -> None:
    history.commits[6].commit_id = b"another!" + history.commits[6].commit_id[8:]


def skipped_epoch(history: History) -> None:
    for commit in history.commits:
        commit.epoch += 1
    history.said("leader_elected").epoch += 1


def uneven_columns(history: History) -> None:
    history.said("results_accepted").cases.extend([0] * 1000)


def unknown_event(history: History) -> None:
    place = history.find("worker_registered")
    history.insert(place, events_pb2.Event())


def missing_batch(history: History) -> None:
    history.drop(history.find("tasks_submitted"))


def repeated_batch(history: History) -> None:
    history.repeat(history.find("tasks_submitted"))


def false_seal(history: History) -> None:
    history.said("submission_sealed").task_count += 1


def run_created_twice(history: History) -> None:
    history.repeat(history.find("run_created"))


def second_lease(history: History) -> None:
    place, said = history.find("leases_granted"), history.said("leases_granted")
    again = events_pb2.LeasesGranted()
    again.CopyFrom(said)
    again.first_fence = last_fence(history) + 1000
    again.attempts[:] = [2] * len(again.tasks)
    history.insert_after(place, leases_granted=again)


def old_fence(history: History) -> None:
    history.said("leases_granted", 2).first_fence = 1


def grant_of_an_ended_task(history: History) -> None:
    place, done = history.find("results_accepted"), history.said("results_accepted")
    worker = history.said("leases_granted")
    history.insert_after(
        place,
        leases_granted=events_pb2.LeasesGranted(
            run_id=done.run_id,
            worker_id=worker.worker_id,
            incarnation=worker.incarnation,
            tasks=[done.tasks[0]],
            first_fence=last_fence(history) + 1000,
            attempts=[2],
        ),
    )


def grant_to_an_old_incarnation(history: History) -> None:
    history.said("leases_granted").incarnation += 1


def grant_to_a_stranger(history: History) -> None:
    history.said("leases_granted").worker_id = "nobody"


def grant_while_drained(history: History) -> None:
    said = history.said("leases_granted")
    drained = events_pb2.WorkerDrainRequested(worker_id=said.worker_id, requested_by="ada@box")
    history.insert(history.find("leases_granted"), events_pb2.Event(worker_drain_requested=drained))


def grant_beyond_what_the_worker_has(history: History) -> None:
    history.said("run_created").templates[0].requirements.resources.cpus = 1e6


def grant_against_labels(history: History) -> None:
    history.said("run_created").templates[0].requirements.labels["zone"] = "moon"


def skipped_attempt(history: History) -> None:
    said = history.said("leases_granted")
    said.attempts[:] = [3] * len(said.tasks)


def accepted_twice(history: History) -> None:
    history.repeat(history.find("results_accepted"))


def accepted_under_a_fence_of_nobody(history: History) -> None:
    history.said("results_accepted").fences[0] += 100_000


def accepted_from_another_worker(history: History) -> None:
    said = history.said("results_accepted")
    registered = [history.said("worker_registered", nth).worker_id for nth in (0, 1)]
    said.worker_id = next(name for name in registered if name != said.worker_id)


def judged_twice_in_one_event(history: History) -> None:
    said = history.said("results_accepted")
    del said.details[:]
    said.tasks.append(said.tasks[0])
    said.fences.append(said.fences[0])
    said.durations_seconds.append(0.1)
    if said.cases:
        said.cases.append(said.cases[0])
    if said.verdicts:
        said.verdicts.append(said.verdicts[0])
    said.completed[:] = said.completed or list(dict.fromkeys(said.fences))
    said.all_completed = False


def flaky_without_a_failure(history: History) -> None:
    said = history.said("results_accepted")
    said.verdicts[:] = [FLAKY] * len(said.tasks)


def failure_that_is_final_too_early(history: History) -> None:
    nth = next(nth for nth in range(100) if history.said("results_accepted", nth).retried)
    said = history.said("results_accepted", nth)
    del said.retried[:]


def verdict_after_a_first_crash(history: History) -> None:
    said = history.said("attempts_ended")
    said.verdicts[0] = common_pb2.VERDICT_ERROR


def lost_result(history: History) -> None:
    history.drop(history.find("results_accepted"))


def false_totals(history: History) -> None:
    history.said("run_finished").counts.passed += 1


def run_that_does_not_end(history: History) -> None:
    history.drop(history.find("run_finished"))


def result_after_the_end(history: History) -> None:
    event = history.drop(history.find("results_accepted", -1))
    number, index = history.find("run_finished")
    history.insert((number, index + 1), event)


def incarnation_that_does_not_rise(history: History) -> None:
    history.said("worker_registered").incarnation = 0


def worker_that_registers_twice(history: History) -> None:
    history.repeat(history.find("worker_registered"))


def worker_lost_with_its_leases(history: History) -> None:
    history.drop(history.find("attempts_ended"))


def worker_that_leaves_with_leases(history: History) -> None:
    said = history.said("leases_granted")
    left = events_pb2.WorkerLeft(worker_id=said.worker_id, incarnation=said.incarnation)
    history.insert_after(history.find("leases_granted"), worker_left=left)


def busy_worker_drained_by_the_resource_manager(history: History) -> None:
    said = history.said("leases_granted")
    drained = events_pb2.WorkerDrainRequested(worker_id=said.worker_id, requested_by="resource-manager")
    history.insert_after(history.find("leases_granted"), worker_drain_requested=drained)


def run_retired_while_it_runs(history: History) -> None:
    retired = events_pb2.RunsRetired(run_ids=[history.said("run_created").run_id])
    history.insert_after(history.find("run_created"), runs_retired=retired)


def worker_forgotten_while_it_works(history: History) -> None:
    said = history.said("worker_registered")
    forgotten = events_pb2.WorkersForgotten(worker_ids=[said.worker_id], incarnation_floor=said.incarnation)
    history.insert_after(history.find("worker_registered"), workers_forgotten=forgotten)


def admission_by_a_token_that_nobody_issued(history: History) -> None:
    history.said("worker_registered").join_token_id = "forged"


MATRIX: list[tuple[Property, str, Mutation]] = [
    (Property.TIME, "lost_worker", earlier_time),
    (Property.EPOCHS, "lost_worker", reign_without_election),
    (Property.EPOCHS, "lost_worker", second_writer),
    (Property.EPOCHS, "lost_worker", skipped_epoch),
    (Property.KNOWN, "pytest_suite", uneven_columns),
    (Property.KNOWN, "callables", unknown_event),
    (Property.SUBMISSIONS, "callables", missing_batch),
    (Property.SUBMISSIONS, "callables", repeated_batch),
    (Property.SUBMISSIONS, "callables", false_seal),
    (Property.SUBMISSIONS, "callables", run_created_twice),
    (Property.ONE_LEASE, "lost_worker", second_lease),
    (Property.FENCES, "lost_worker", old_fence),
    (Property.QUEUE, "lost_worker", grant_of_an_ended_task),
    (Property.GRANTS, "lost_worker", grant_to_an_old_incarnation),
    (Property.GRANTS, "lost_worker", grant_to_a_stranger),
    (Property.GRANTS, "lost_worker", grant_while_drained),
    (Property.GRANTS, "lost_worker", grant_beyond_what_the_worker_has),
    (Property.GRANTS, "lost_worker", grant_against_labels),
    (Property.ATTEMPTS, "lost_worker", skipped_attempt),
    (Property.STALE, "lost_worker", accepted_twice),
    (Property.STALE, "lost_worker", accepted_under_a_fence_of_nobody),
    (Property.HOLDER, "lost_worker", accepted_from_another_worker),
    (Property.ONE_VERDICT, "lost_worker", accepted_twice),
    (Property.ONE_VERDICT, "pytest_suite", judged_twice_in_one_event),
    (Property.RETRIES, "lost_worker", flaky_without_a_failure),
    (Property.RETRIES, "pytest_suite", failure_that_is_final_too_early),
    (Property.RETRIES, "pytest_suite", verdict_after_a_first_crash),
    (Property.COMPLETENESS, "lost_worker", lost_result),
    (Property.COMPLETENESS, "lost_worker", false_totals),
    (Property.COMPLETENESS, "lost_worker", run_that_does_not_end),
    (Property.COMPLETENESS, "lost_worker", result_after_the_end),
    (Property.INCARNATIONS, "lost_worker", incarnation_that_does_not_rise),
    (Property.INCARNATIONS, "lost_worker", worker_that_registers_twice),
    (Property.ADMISSION, "lost_worker", admission_by_a_token_that_nobody_issued),
    (Property.ORPHANS, "lost_worker", worker_lost_with_its_leases),
    (Property.ORPHANS, "lost_worker", worker_that_leaves_with_leases),
    (Property.BUSY, "lost_worker", busy_worker_drained_by_the_resource_manager),
    (Property.RETIREMENT, "lost_worker", run_retired_while_it_runs),
    (Property.RETIREMENT, "lost_worker", worker_forgotten_while_it_works),
]


@pytest.mark.parametrize(
    ("which", "name", "mutate"),
    MATRIX,
    ids=[f"{which.title}: {mutate.__name__}" for which, _, mutate in MATRIX],
)
def test_a_property_notices_what_breaks_it(which: Property, name: str, mutate: Mutation) -> None:
    history = History(name)
    mutate(history)
    assert which in violated(history.check())


def test_every_property_of_the_log_is_in_the_matrix() -> None:
    from_log = {each for each in Property if each.source is Source.LOG}
    assert {which for which, _, _ in MATRIX} == from_log - {Property.CHAIN}


UNNOTICED_IF_MISSING = {
    "WorkerDrainRequested",  # the worker then leaves of its own accord
    "WorkerLeft",  # it then stays
    "WorkerRegistered",  # noticed unless the worker is given nothing and never told of again
    "ResultsRefused",  # counts for nothing
    "PlacementChanged",  # a wait that ends in no abandonment
    "SubmissionSealed",  # of a run that is cancelled
}
UNNOTICED_IF_REPEATED = {"ResultsRefused", "PlacementChanged"}


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_event_is_noticed(name: str) -> None:
    unnoticed = set()
    for place in list(History(name).places()):
        history = History(name)
        event = history.drop(place)
        if history.check().is_clean:
            unnoticed.add(type_of(event))
    assert unnoticed <= UNNOTICED_IF_MISSING


@pytest.mark.parametrize("name", NAMES)
def test_a_repeated_event_is_noticed(name: str) -> None:
    unnoticed = set()
    for place in list(History(name).places()):
        history = History(name)
        history.repeat(place)
        if history.check().is_clean:
            unnoticed.add(type_of(history.commits[place[0]].events[place[1]]))
    assert unnoticed <= UNNOTICED_IF_REPEATED


def test_a_missing_message_breaks_the_chain() -> None:
    messages = recorded_messages("lost_worker")
    del messages[10]
    report = check(messages)
    assert (
        report.of(Property.CHAIN).violations[0].what
        == "message 12 follows message 10; those between are missing"
    )


def test_a_changed_commit_breaks_the_chain_where_commits_build_on_it() -> None:
    messages = recorded_messages("lost_worker")
    sequence, payload, message_id = messages[10]
    messages[10] = sequence, payload[:-1] + bytes([payload[-1] ^ 1]), message_id
    assert Property.CHAIN in violated(check(messages))


def test_a_strangers_message_is_counted_and_harms_nothing() -> None:
    messages = recorded_messages("lost_worker")
    shifted = [(sequence + 1, payload, message_id) for sequence, payload, message_id in messages[10:]]
    report = check([*messages[:10], (11, b"hello", ""), *shifted])
    assert report.violations == []
    assert report.stranger_count == 1


def test_a_stale_commit_that_nobody_builds_on_is_a_strangers() -> None:
    commits = recorded_commits("lost_worker")
    messages = chained(commits[:10])
    stale = chained([*commits[:9], commits[20]])[-1]
    later = chained(commits)[10:]
    shifted = [(sequence + 1, payload, message_id) for sequence, payload, message_id in later]
    report = check([*messages, (11, *stale[1:]), *shifted])
    assert report.violations == []
    assert report.stranger_count == 1


def test_a_decision_that_ends_a_busy_worker_is_told() -> None:
    history = History("lost_worker")
    number, _ = history.find("leases_granted")
    worker_id = history.said("leases_granted").worker_id
    for action in (scaling_pb2.SCALING_ACTION_SCALE_IN, scaling_pb2.SCALING_ACTION_TERMINATE):
        decision = scaling_pb2.ScalingDecision(
            decision_id="local-1", action=action, worker_ids=[worker_id], log_sequence=number + 1
        )
        report = check(chained(history.commits), [decision])
        assert violated(report) == {Property.DECISIONS}
        assert report.violations[0].sequence == number + 1


def test_a_decision_that_rests_on_commits_the_log_lacks_is_told() -> None:
    decision = scaling_pb2.ScalingDecision(decision_id="local-1", log_sequence=10_000)
    report = check(recorded_messages("callables"), [decision])
    assert "rests on sequence 10000" in report.violations[0].what


def test_ended_runs_leave_nothing_but_their_names() -> None:
    checker = HistoryChecker()
    for sequence, payload, message_id in recorded_messages("callables"):
        checker.take(sequence, payload, message_id)
    books = checker._books
    assert books.runs == {} and books.leases == {}
    assert len(books.ended_runs) == 1


def test_violations_are_counted_beyond_those_that_are_kept() -> None:
    history = History("callables")
    said = history.said("results_accepted")
    for nth in range(len(said.fences)):
        said.fences[nth] += 100_000
    report = history.check().of(Property.STALE)
    assert report.violation_count >= len(said.fences)
    assert len(report.violations) <= 20


def test_the_page_of_the_checker_has_each_property_as_it_is() -> None:
    page = (STREAMS.parents[1] / "docs" / "checker.md").read_text()
    for each in Property:
        assert f"| {each.title} | {each.says} | {each.source.value} |" in page


def test_an_election_that_was_tried_twice_is_no_second_writer() -> None:
    commits = recorded_commits("lost_worker")
    for commit in commits:
        if commit.events[0].HasField("leader_elected"):
            commit.commit_id = commit.commit_id[:8] + (1).to_bytes(4, "big") + bytes(4)  # reign.py: the try
    assert not check(chained(commits)).of(Property.EPOCHS).violation_count
