"""The book of leases."""

import pytest

from dtf.api.v1 import worker_service_pb2
from dtf.worker.leases import LeaseBook


def assignments(run_id: str, *fences: int, template: int = 0) -> worker_service_pb2.Assignments:
    return worker_service_pb2.Assignments(
        run_id=run_id,
        tasks=fences,
        fences=fences,
        templates=[template] * len(fences),
        names=["n"] * len(fences),
    )


def test_a_lease_without_cases_has_one_named_as_its_task() -> None:
    (lease,) = LeaseBook().add(
        worker_service_pb2.Assignments(run_id="r", tasks=[4], fences=[9], names=["task"], payloads=["[1]"])
    )
    (item,) = lease.items(5.0)
    assert (item.fence, item.case, item.name, item.payload, item.timeout_seconds) == (
        9,
        0,
        "task",
        "[1]",
        5.0,
    )
    assert item.is_last_of_attempt
    assert lease.attempt == 1


def test_a_lease_with_cases_hands_out_those_not_yet_reported() -> None:
    batch = worker_service_pb2.Assignments(
        run_id="r",
        tasks=[1],
        fences=[2],
        names=["shard"],
        cases=[worker_service_pb2.CaseList(indexes=[0, 3, 5], names=["a", "b", "c"], positions=[7, 8, 9])],
    )
    (lease,) = LeaseBook().add(batch)
    assert lease.take_case(3) is False
    assert [(i.case, i.name, i.position, i.is_last_of_attempt) for i in lease.items(1.0)] == [
        (0, "a", 7, False),
        (5, "c", 9, True),
    ]
    assert not lease.has_case(3)
    assert lease.take_case(0) is False
    assert lease.take_case(5) is True


def test_what_is_held_or_over_is_not_added_again() -> None:
    book = LeaseBook()
    book.add(assignments("r", 1, 2))
    assert [lease.fence for lease in book.add(assignments("r", 2, 3, 4), is_over=lambda f: f == 4)] == [3]
    assert book.fences == [1, 2, 3]


def test_the_longest_waiting_kind_comes_first() -> None:
    book = LeaseBook()
    book.add(assignments("old", 1))
    book.add(assignments("new", 2))
    book.add(assignments("old", 3, template=1))
    assert book.waiting_keys() == [("old", 0), ("new", 0), ("old", 1)]
    book.take(("old", 0))
    assert book.waiting_keys() == [("new", 0), ("old", 1)]


def test_what_is_put_back_is_in_front_in_its_old_order() -> None:
    book = LeaseBook()
    book.add(assignments("r", 1, 2, 3))
    taken = [book.take(("r", 0)) for _ in range(2)]
    book.put_back(taken)
    assert [book.take(("r", 0)).fence for _ in range(3)] == [1, 2, 3]


def test_only_what_waits_can_be_taken_back() -> None:
    book = LeaseBook()
    book.add(assignments("r", 1, 2, 3))
    book.take(("r", 0))
    assert [lease.fence for lease in book.take_waiting([1, 3, 99])] == [3]
    assert book.total_waiting == 1


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        LeaseBook().add(
            worker_service_pb2.Assignments(run_id="r", tasks=[1], fences=[1, 2], names=["a", "b"])
        )
