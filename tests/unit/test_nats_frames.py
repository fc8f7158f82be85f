"""Frames past nats-py's parser: whole and in order, however the bytes come in."""

import pytest

from dtf.adapters.nats_frames import RawClient, RawHeaders

MINE, OTHER = 7, 8


def frame(number: int, sid: int) -> bytes:
    """A message with headers, a reply subject and a payload that looks like frames."""
    header = b"NATS/1.0\r\nNats-Msg-Id: %d\r\n\r\n" % number
    payload = b"HMSG x 7 1 1\r\n%d\r\n" % number * (number % 4)
    lengths = (len(header), len(header) + len(payload))
    return b"HMSG dtf.log %d $JS.ACK.%d %d %d\r\n" % (sid, number, *lengths) + header + payload + b"\r\n"


STREAM = b"".join(
    [
        b"+OK\r\n",
        *(frame(number, MINE) for number in range(5)),
        frame(99, OTHER),
        b"MSG inbox 7 5\r\nplain\r\n",
        *(frame(number, MINE) for number in range(5, 9)),
        b"+OK\r\n",
        frame(9, MINE),
    ]
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 50, 64, 100, 333, len(STREAM)])
async def test_messages_of_a_raw_subscription_arrive_whole_and_in_order(size: int) -> None:
    client, taken = RawClient(), list[tuple[bytes, bytes, bytes, bytes]]()
    client.takers[MINE] = lambda *message: taken.append(message)
    for start in range(0, len(STREAM), size):
        await client._ps.parse(STREAM[start : start + size])
    plain = taken.pop(5)
    assert plain == (b"inbox", b"", b"", b"plain")
    assert [reply for _, reply, _, _ in taken] == [b"$JS.ACK.%d" % number for number in range(10)]
    for number, (subject, _, header, payload) in enumerate(taken):
        assert subject == b"dtf.log"
        assert RawHeaders(header)["Nats-Msg-Id"] == str(number)
        assert payload == b"HMSG x 7 1 1\r\n%d\r\n" % number * (number % 4)


def test_the_status_line_is_read_as_headers() -> None:
    assert dict(RawHeaders(b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 3\r\n\r\n")) == {
        "Status": "408",
        "Description": "Request Timeout",
        "Nats-Pending-Messages": "3",
    }
    assert dict(RawHeaders(b"")) == {}
