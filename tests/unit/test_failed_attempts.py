"""Wrong credentials are counted by where they come from, in bounded memory."""

import pytest

from dtf.rpc.failed_attempts import BURST, MOST_ADDRESSES, REFILL_SECONDS, FailedAttempts, source_of

THERE = "ipv4:192.0.2.7:4711"


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_address_has_to_wait_when_it_has_used_up_its_failures() -> None:
    clock = Hand()
    attempts = FailedAttempts(clock)
    for index in range(BURST):
        assert attempts.wait_seconds(THERE) == 0, index
        attempts.note(THERE)
    assert attempts.wait_seconds(THERE) == REFILL_SECONDS
    assert attempts.wait_seconds("ipv4:192.0.2.8:4711") == 0
    clock.now += REFILL_SECONDS
    assert attempts.wait_seconds(THERE) == 0
    attempts.note(THERE)
    assert attempts.wait_seconds(THERE) > 0


def test_an_address_that_stopped_failing_is_forgotten() -> None:
    clock = Hand()
    attempts = FailedAttempts(clock)
    assert attempts.note(THERE)
    assert not attempts.note(THERE)
    clock.now += BURST * REFILL_SECONDS
    assert attempts.wait_seconds(THERE) == 0
    assert len(attempts) == 0


def test_no_more_addresses_are_remembered_than_there_is_room_for() -> None:
    attempts = FailedAttempts(Hand())
    for number in range(MOST_ADDRESSES + 100):
        attempts.note(f"ipv4:10.{number >> 16}.{number >> 8 & 255}.{number & 255}:1")
    assert len(attempts) == MOST_ADDRESSES


def test_callers_on_this_machine_are_never_barred() -> None:
    attempts = FailedAttempts(Hand())
    for peer in ("ipv4:127.0.0.1:5", "ipv6:%5B::1%5D:5", "unix:", "ipv6:[::ffff:127.0.0.1]:5"):
        for _ in range(BURST + 5):
            attempts.note(peer)
        assert attempts.wait_seconds(peer) == 0
    assert len(attempts) == 0


@pytest.mark.parametrize(
    ("peer", "source"),
    [
        (THERE, "192.0.2.7"),
        ("ipv6:%5B2001:db8:1:2:3::4%5D:80", "2001:db8:1:2::/64"),
        ("ipv6:[fe80::1%25eth0]:80", "fe80::/64"),
        ("ipv6:[::ffff:192.0.2.7]:80", "192.0.2.7"),
        ("vsock:3:4", "vsock:3:4"),
    ],
)
def test_where_a_call_comes_from(peer: str, source: str) -> None:
    assert source_of(peer) == source
