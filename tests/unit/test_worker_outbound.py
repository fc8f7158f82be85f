"""The worker's side of the upward stream: nothing is lost, nothing is said under two numbers."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtf.api.v1 import common_pb2, worker_service_pb2
from dtf.runner.channel import ResultItem
from dtf.worker.outbound import MAX_BYTES, MAX_ITEMS, Outbound
from dtf.worker.reporter import encoded, make_sane

ACTIVE = common_pb2.WORKER_STATE_ACTIVE
PATIENCE_SECONDS = 30.0


def item(fence: int, *, case: int = 0, verdict: int = 1) -> ResultItem:
    return ResultItem(fence, case, verdict, 0.5, 0.25, 1000, 12.5, True)


def say(outbound: Outbound) -> worker_service_pb2.AttachRequest:
    """The next message, as it would be on the wire now."""
    copy = worker_service_pb2.AttachRequest()
    copy.CopyFrom(outbound.next_message(7, ACTIVE))
    return copy


def fences(message: worker_service_pb2.AttachRequest) -> list[int]:
    return [fence for entry in message.results for fence in entry.fences]


async def test_a_heartbeat_carries_no_number_and_needs_no_acknowledgement() -> None:
    outbound = Outbound()
    assert not outbound.has_more
    outbound.beat(worker_service_pb2.Telemetry(load=0.5))
    message = say(outbound)
    assert (message.sequence, message.credits, message.telemetry.load) == (0, 7, 0.5)
    assert outbound.is_settled
    outbound.beat()
    assert not say(outbound).HasField("telemetry")


async def test_columns_of_defaults_are_left_empty() -> None:
    outbound = Outbound()
    for fence in (1, 2):
        outbound.add_result("run", item(fence), b"", is_last=True)
    (entry,) = say(outbound).results
    assert (list(entry.fences), list(entry.durations_seconds)) == ([1, 2], [0.5, 0.5])
    assert (len(entry.cases), len(entry.verdicts), len(entry.details)) == (0, 0, 0)


async def test_runs_have_an_entry_each_and_columns_are_whole_where_one_value_is_no_default() -> None:
    outbound = Outbound()
    outbound.add_result("a", item(1), b"", is_last=True)
    outbound.add_result("b", item(2, case=3, verdict=2), b"why", is_last=True)
    outbound.add_result("b", item(4), b"", is_last=True)
    first, second = say(outbound).results
    assert (first.run_id, second.run_id) == ("a", "b")
    assert list(second.cases) == [3, 0]
    assert list(second.verdicts) == [2, 1]
    assert list(second.details) == [b"why", b""]


async def test_messages_are_cut_at_256_items_and_at_1_mib() -> None:
    outbound = Outbound()
    for fence in range(MAX_ITEMS + 1):
        outbound.add_result("run", item(fence), b"", is_last=True)
    assert len(fences(say(outbound))) == MAX_ITEMS
    assert len(fences(say(outbound))) == 1
    for fence in range(20):
        outbound.add_result("run", item(1000 + fence), b"x" * 100_000, is_last=True)
    assert say(outbound).ByteSize() < MAX_BYTES + 200_000


async def test_after_a_break_what_was_not_acknowledged_is_said_again_under_its_number() -> None:
    outbound = Outbound()
    said = []
    for fence in (1, 2, 3):
        outbound.add_result("run", item(fence), b"", is_last=True)
        said.append(say(outbound))
    outbound.acknowledge(1)
    outbound.rewind()
    outbound.add_result("run", item(4), b"", is_last=True)
    again = [say(outbound) for _ in range(3)]
    assert [message.sequence for message in again] == [2, 3, 4]
    assert [fences(message) for message in again] == [[2], [3], [4]]
    assert not outbound.has_more
    outbound.acknowledge(4)
    assert outbound.is_settled


async def test_an_attempt_counts_as_over_until_its_last_result_is_durable() -> None:
    outbound = Outbound()
    outbound.add_result("run", item(1, case=0), b"", is_last=False)
    say(outbound)
    outbound.add_result("run", item(1, case=1), b"", is_last=True)
    say(outbound)
    outbound.acknowledge(1)
    assert outbound.is_unacknowledged(1)
    assert outbound.unacknowledged_fences == {1}
    outbound.acknowledge(2)
    assert not outbound.is_unacknowledged(1)


async def test_ends_and_releases_count_as_over_even_before_they_are_said() -> None:
    outbound = Outbound()
    outbound.add_end(worker_service_pb2.AttemptEnd(fence=5))
    outbound.add_released([6, 7])
    assert outbound.unacknowledged_fences == {5, 6, 7}
    message = say(outbound)
    assert (message.sequence, [end.fence for end in message.ends]) == (1, [5])
    assert list(message.released_fences) == [6, 7]


@given(st.lists(st.sampled_from(["result", "say", "break", "ack one", "ack all"]), max_size=60))
async def test_whatever_breaks_when_each_result_arrives_and_numbers_rise_by_one(steps: list[str]) -> None:
    outbound = Outbound()
    added = 0
    stream: list[worker_service_pb2.AttachRequest] = []
    received: dict[int, list[int]] = {}
    acknowledged = 0
    for step in [*steps, "break", *["say"] * 70]:
        if step == "result":
            added += 1
            outbound.add_result("run", item(added), b"", is_last=True)
        elif step == "say" and outbound.has_more:
            message = say(outbound)
            stream.append(message)
            known = received.setdefault(message.sequence, fences(message))
            assert known == fences(message)
        elif step == "break":
            outbound.rewind()
            stream.clear()
        elif stream:
            acknowledged = max(acknowledged, stream[0].sequence if step == "ack one" else stream[-1].sequence)
            outbound.acknowledge(acknowledged)
    assert sorted(received) == list(range(1, len(received) + 1))
    assert [fence for number in sorted(received) for fence in received[number]] == list(range(1, added + 1))


@pytest.mark.parametrize("number", [math.nan, math.inf, -1.0])
def test_numbers_that_no_case_can_have_are_replaced(number: float) -> None:
    strange = ResultItem(1, 0, 99, number, number, -5, 0.0, True)
    make_sane(strange)
    assert (strange.verdict, strange.duration_seconds, strange.cpu_seconds, strange.peak_memory_bytes) == (
        common_pb2.VERDICT_ERROR,
        0.0,
        0.0,
        0,
    )


def test_a_detail_that_is_too_large_is_cut_and_says_so() -> None:
    from dtf.api.v1 import events_pb2

    detail = events_pb2.CaseDetail(
        measurements=[events_pb2.Measurement(metric="m", case_name="x" * 100) for _ in range(5000)]
    )
    data = encoded(detail)
    assert len(data) <= 128 * 1024
    cut = events_pb2.CaseDetail.FromString(data)
    assert f"{len(cut.measurements)} of 5000 measurements are kept" in cut.message


@pytest.mark.parametrize("urgent", ["an end", "a release", "a heartbeat", "a full message"])
async def test_mere_results_wait_for_their_time_and_everything_else_does_not(urgent: str) -> None:
    outbound = Outbound()
    outbound.add_result("run", item(1), b"", is_last=True)
    loop = asyncio.get_running_loop()
    await outbound.until_due(loop.time())
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(outbound.until_due(loop.time() + 10 * PATIENCE_SECONDS))
        for fence in (2, 3):
            outbound.add_result("run", item(fence), b"", is_last=True)
            await loop.run_in_executor(None, bool)
        assert not waiting.done()
        match urgent:
            case "an end":
                outbound.add_end(worker_service_pb2.AttemptEnd(fence=4))
            case "a release":
                outbound.add_released([4])
            case "a heartbeat":
                outbound.beat()
            case _:
                for fence in range(4, MAX_ITEMS + 1):
                    outbound.add_result("run", item(fence), b"", is_last=True)
