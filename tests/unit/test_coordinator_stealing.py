"""Which waiting leases are asked back for idle workers."""

from collections.abc import Callable, Sequence

from dtf.coordinator.stealing import Seat, revocations


def waiting_of(fences: dict[str, list[int]]) -> Callable[[str], Sequence[int]]:
    return lambda worker_id: fences.get(worker_id, [])


def anything(_fence: int, _holder: str, _worker: str) -> bool:
    return True


def test_nothing_is_asked_back_while_everybody_is_busy() -> None:
    seats = [Seat("a", 1, 40, 24), Seat("b", 1, 1, 63)]
    assert revocations(seats, waiting_of({"a": list(range(2, 41))}), anything) == {}


def test_the_newest_leases_beyond_the_average_move_to_the_idle_worker() -> None:
    seats = [Seat("a", 1, 10, 54), Seat("b", 1, 0, 64)]
    asked = revocations(seats, waiting_of({"a": list(range(2, 11))}), anything)
    assert asked == {"a": [10, 9, 8, 7, 6]}


def test_a_worker_keeps_what_fills_its_slots() -> None:
    seats = [Seat("a", 2, 2, 62), Seat("b", 2, 0, 64)]
    assert revocations(seats, waiting_of({"a": []}), anything) == {}


def test_the_last_waiting_lease_moves() -> None:
    seats = [Seat("a", 1, 2, 62), Seat("b", 1, 0, 64)]
    assert revocations(seats, waiting_of({"a": [2]}), anything) == {"a": [2]}


def test_an_idle_worker_without_credits_is_left_alone() -> None:
    seats = [Seat("a", 1, 10, 54), Seat("b", 1, 0, 0)]
    assert revocations(seats, waiting_of({"a": list(range(2, 11))}), anything) == {}


def test_what_the_idle_worker_could_not_run_stays() -> None:
    seats = [Seat("a", 1, 6, 54), Seat("b", 1, 0, 64)]
    asked = revocations(seats, waiting_of({"a": [2, 3, 4, 5, 6]}), lambda fence, *_workers: fence % 2 == 0)
    assert asked == {"a": [6, 4, 2]}
    assert revocations(seats, waiting_of({"a": [2, 3]}), lambda *_lease: False) == {}


def test_the_fullest_give_first_and_no_more_than_is_wanted() -> None:
    seats = [Seat("a", 1, 9, 55), Seat("b", 1, 3, 61), Seat("c", 1, 0, 2)]
    asked = revocations(seats, waiting_of({"a": list(range(11, 19)), "b": [21, 22]}), anything)
    assert asked == {"a": [18, 17]}


def test_larger_workers_keep_and_get_more() -> None:
    seats = [Seat("a", 1, 12, 52), Seat("b", 3, 0, 64)]
    asked = revocations(seats, waiting_of({"a": list(range(2, 13))}), anything)
    assert len(asked["a"]) == 9
