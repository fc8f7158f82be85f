"""`/metrics` of the coordinator: what it says, and to whom."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dtf.cli.coordinator_metrics import CoordinatorCollector
from dtf.cli.errors import CommandError
from dtf.cli.metrics_server import MetricsPlace, metrics_server
from dtf.cli.status_command import print_status
from dtf.client.client import Client
from dtf.client.stack import StackAddresses
from dtf.coordinator.process import Coordinator
from dtf.resource_manager.fleet import GrpcFleet
from dtf.rpc.channel import Peer
from tests.integration.coordinator.rig import Crew, start_run

pytestmark = pytest.mark.coordinator


@asynccontextmanager
async def served(coordinator: Coordinator, place: MetricsPlace) -> AsyncIterator[str]:
    """The address of the coordinator's figures."""
    collector = CoordinatorCollector(coordinator.figures, asyncio.get_running_loop())
    with metrics_server(place, collector) as address:
        yield f"http://{address}/metrics"


def read(address: str, token: str = "") -> str:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as answer:
        return bytes(answer.read()).decode()


def value(text: str, name: str) -> float:
    """Of the series that is called so."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(line.rpartition(" ")[2])


async def test_it_says_what_is_queued_leased_and_committed(
    coordinator: Coordinator, client: Client, workers: Crew
) -> None:
    async with served(coordinator, MetricsPlace("coordinator", ":0")) as address:
        assert address.startswith("http://127.0.0.1:")
        before = await asyncio.to_thread(read, address)
        worker = await workers.hire(credits=1)
        await start_run(client, 3)
        await worker.hear_leases(1)
        text = await asyncio.to_thread(read, address)
    label = '{namespace="test"}'
    assert value(text, f"dtf_coordinator_queued_tasks{label}") == 2
    assert value(text, f"dtf_coordinator_leases{label}") == 1
    assert value(text, f"dtf_coordinator_active_runs{label}") == 1
    assert value(text, f"dtf_coordinator_epoch{label}") == 1
    assert value(text, f"dtf_coordinator_refusing{label}") == 0
    assert value(text, 'dtf_coordinator_workers{namespace="test",state="active"}') == 1
    commits = f"dtf_coordinator_commits_total{label}"
    assert value(text, commits) > value(before, commits)
    assert value(text, f"dtf_coordinator_append_seconds_count{label}") == value(text, commits)
    assert value(text, f"dtf_coordinator_events_total{label}") >= value(text, commits)


async def test_who_does_not_show_its_token_is_told_nothing(coordinator: Coordinator, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("scrape\n")
    (tmp_path / "token").chmod(0o600)
    place = MetricsPlace("coordinator", "0.0.0.0:0", str(tmp_path / "token"))
    async with served(coordinator, place) as address:
        address = address.replace("0.0.0.0", "127.0.0.1")
        for shown in ("", "guess"):
            with pytest.raises(urllib.error.HTTPError, match="401") as refused:
                await asyncio.to_thread(read, address, shown)
            refused.value.close()
        assert "dtf_coordinator_epoch" in await asyncio.to_thread(read, address, "scrape")


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "10.0.0.1:9464"])
def test_beyond_loopback_a_token_is_asked_for(listen: str) -> None:
    with pytest.raises(CommandError, match="can be reached from other machines") as refused:
        MetricsPlace("coordinator", listen).token()
    assert "coordinator.metrics_token_file" in refused.value.advice[0]


def test_an_empty_token_file_is_no_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    (tmp_path / "token").chmod(0o600)
    with pytest.raises(CommandError, match="is empty"):
        MetricsPlace("coordinator", "127.0.0.1:0", str(tmp_path / "token")).token()


async def test_what_the_live_feed_did_not_send_is_told_of_the_fleet(
    client: Client, peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = GrpcFleet(peer)
    for reporter, count in (("pools@a", 3), ("gpu@b", 1000), ("pools@a", 5)):
        assert await fleet.report_live_feed(reporter, count)
    await fleet.close()
    told = await client.get_fleet()
    assert told.live_feed_skipped_count == 1005
    print_status(StackAddresses(server="127.0.0.1:7070"), None, told)
    shown = capsys.readouterr().out
    assert "live feed 1,005 lines were not sent: too much happened\n" in shown
    assert "blobs     0.0 GiB with output\n" in shown
