"""A port that is chosen before its server listens."""

import socket

import pytest

from dtf.cli.reserved_port import ReservedPort


def test_a_port_that_is_given_stays_as_it_is() -> None:
    assert ReservedPort("127.0.0.1:7070").address == "127.0.0.1:7070"


def test_a_chosen_port_is_free_for_its_server_again_and_again() -> None:
    reserved = ReservedPort("127.0.0.1:0")
    port = int(reserved.address.rpartition(":")[2])
    for _ in range(2):
        with socket.create_server(("127.0.0.1", port)), pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", port))
    reserved.release()
