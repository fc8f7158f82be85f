"""Leases on their way to a worker: all told once, in order, none that ended meanwhile."""

from dtf.coordinator.lease_spans import LeaseSpans
from tests.unit.core_world import World, columns, task


def granted(count: int, name_length: int = 4) -> tuple[World, LeaseSpans]:
    """Leases of one worker, granted and not told yet."""
    world = World()
    world.worker("w", slots=count)
    world.run("a", [task(f"{index:0{name_length}}") for index in range(count)])
    world.grant(w=count)
    held = world.state.workers["w"].leases["a"]
    spans = LeaseSpans()
    fences, tasks = list(held), list(held.values())
    spans.add("a", fences[: count // 2], tasks[: count // 2])
    spans.add("a", fences[count // 2 :], tasks[count // 2 :])
    return world, spans


def messages(world: World, spans: LeaseSpans, max_items: int, max_bytes: int = 2**20) -> list[list[int]]:
    """The fences of each message until nothing is left."""
    told = []
    while spans:
        taken = spans.take(world.state, world.state.workers["w"], max_items, max_bytes)
        told.append([fence for span in taken for fence in span.fences])
    return told


def test_every_lease_is_told_once_and_in_order_in_messages_that_are_full() -> None:
    world, spans = granted(100)
    assert spans.count == 100
    told = messages(world, spans, max_items=30)
    assert [len(message) for message in told] == [30, 30, 30, 10]
    assert [fence for message in told for fence in message] == list(range(1, 101))
    assert spans.count == 0


def test_long_strings_fill_a_message_before_its_items_do() -> None:
    world, spans = granted(20, name_length=1000)
    told = messages(world, spans, max_items=256, max_bytes=3000)
    assert min(map(len, told)) >= 1 and max(map(len, told)) <= 3
    assert [fence for message in told for fence in message] == list(range(1, 21))


def test_a_lease_that_ended_before_it_was_told_is_never_told() -> None:
    world, spans = granted(10)
    world.report("w", released=[2, 9])
    world.report("w", columns("a", [5]))
    told = messages(world, spans, max_items=4)
    assert [fence for message in told for fence in message] == [1, 3, 4, 6, 7, 8, 10]
