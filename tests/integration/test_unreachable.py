"""A coordinator that is not there: one line that names the address, from every way in."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import dtf
from dtf.cli.connection import client_of
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.client.client import Client, CoordinatorUnreachable
from dtf.client.stack import StackAddresses, StackError
from dtf.pytest_plugin.link import Link
from dtf.rpc.channel import Peer


@pytest.fixture
def address() -> Iterator[str]:
    """An address at which nobody listens, held so that nobody will."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


async def test_the_client_names_the_address(address: str) -> None:
    async with Client(Peer((address,))) as client:
        with pytest.raises(CoordinatorUnreachable, match=f"no coordinator at {address}"):
            await client.wait_connected(0.2)


async def test_commands_say_what_to_do(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client.wait_connected, "__defaults__", (0.2,))
    addresses = StackAddresses.from_json({"server": address})
    with pytest.raises(CommandError, match=f"no coordinator at {address}") as raised:
        async with client_of(addresses):
            pytest.fail("it is not there")
    assert raised.value.exit_code == ExitCode.UNAVAILABLE
    assert "DTF_SERVER" in raised.value.advice[0]


async def test_connect_does_not_hand_out_a_client_of_nobody(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client.wait_connected, "__defaults__", (0.2,))
    with pytest.raises(CoordinatorUnreachable, match=address):
        async with dtf.connect(address, project_dir=tmp_path):
            pytest.fail("it is not there")


def test_the_pytest_plug_in_says_so_before_it_runs_anything(address: str) -> None:
    link = Link(Peer((address,)))
    try:
        with pytest.raises(StackError, match=f"no coordinator at {address}"):
            link.wait_connected(0.2)
    finally:
        link.close()


async def test_of_several_addresses_it_says_what_each_met(address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        other = f"127.0.0.1:{mute.getsockname()[1]}"
        async with Client(Peer((address, other))) as client:
            with pytest.raises(CoordinatorUnreachable) as raised:
                await client.wait_connected(0.5)
    assert f"{address}: connection refused" in str(raised.value)
    assert f"{other}: something listens there, but it does not speak gRPC, or only over TLS" in str(
        raised.value
    )
