"""The queue of ranges beside a list that does the same slowly."""

from hypothesis import given
from hypothesis import strategies as st

from dtf.core.run.task_queue import TaskQueue, as_ranges

steps = st.lists(
    st.tuples(st.sampled_from(["append", "front", "remove"]), st.sets(st.integers(0, 30), max_size=8)),
    max_size=25,
)


@given(steps)
def test_it_holds_what_a_list_would(operations: list[tuple[str, set[int]]]) -> None:
    queue, model = TaskQueue(), list[int]()
    following = 100
    for operation, members in operations:
        match operation:
            case "append":
                queue.append(following, following + len(members))
                model.extend(range(following, following + len(members)))
                following += len(members)
            case "front":
                new = sorted(members - set(model))
                queue.push_front(new)
                model[:0] = new
            case _:
                chosen = sorted(members | set(model[:2]))
                assert queue.remove(chosen) == len(set(chosen) & set(model))
                model = [task for task in model if task not in chosen]
        assert list(queue.tasks()) == model
        assert len(queue) == len(model)


@given(st.lists(st.integers(0, 50), unique=True))
def test_ranges_are_the_tasks_in_their_order(tasks: list[int]) -> None:
    assert [task for start, stop in as_ranges(tasks) for task in range(start, stop)] == tasks


def test_a_million_tasks_are_one_range() -> None:
    queue = TaskQueue()
    for start in range(0, 1_000_000, 250_000):
        queue.append(start, start + 250_000)
    assert list(queue.ranges()) == [(0, 1_000_000)]
