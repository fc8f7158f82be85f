"""Pools of real worker processes: what the resource manager promises of them.

The five behaviours are those of the original tests: initial provisioning, scale out at a long queue,
scale in when idle, registered workers equal to observed ones, an anomalous worker found and replaced.
"""

import asyncio
import json
import signal
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import psutil
import pytest

from dtf.adapters.nats_server import NatsServer
from dtf.api.v1 import common_pb2, resource_service_pb2, scaling_pb2
from dtf.resource_manager.process import resolve_policy
from dtf.settings.loader import load_settings
from tests.e2e.manager_again import ManagerAgain
from tests.integration.pool_rig import QUICK, PoolRig, pool_rig
from tests.integration.scripted_pool import WAIT_SECONDS, read_decisions
from tests.streams.scenario import read_commits, read_stream

pytestmark = pytest.mark.resource_manager

HOLD = scaling_pb2.SCALING_ACTION_HOLD
OUT = scaling_pb2.SCALING_ACTION_SCALE_OUT
IN = scaling_pb2.SCALING_ACTION_SCALE_IN
REPLACE = scaling_pb2.SCALING_ACTION_REPLACE

FAILS_BELOW = """
p=$$
while [ $p -gt 1 ]; do
    [ $p = {process_id} ] && exit 1
    p=$(cut -d' ' -f4 /proc/$p/stat)
done
sleep 0.1
"""
"""Fails on the worker whose process is an ancestor, and nowhere else."""
TWO_POOLS = """
[pools.big]
min_workers = 0
slots = 2
labels = { size = "big" }

[resource_manager]
max_workers = 3
metrics_listen = "127.0.0.1:0"
"""


def rig_of(server: NatsServer, directory: Path, settings: str) -> AbstractAsyncContextManager[PoolRig]:
    (directory / "project").mkdir()
    return pool_rig(server, directory / "project", settings)


@pytest.fixture
async def rig(own_nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[PoolRig]:
    """Broker and coordinator, and a directory for the rest."""
    async with rig_of(own_nats_server, tmp_path, QUICK) as made:
        yield made


async def stop(process: asyncio.subprocess.Process) -> None:
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(WAIT_SECONDS):
        assert await process.wait() == 0


async def test_a_pool_is_provisioned_grows_at_a_long_queue_and_shrinks_when_idle(rig: PoolRig) -> None:
    manager = await rig.start_manager("--min", "2", "--max", "4")
    initial = await rig.workers_until(2)
    assert {worker.launch_id for worker in initial} == {"local-1", "local-2"}
    run = await rig.start_gated_run(40)
    grown = await rig.workers_until(4)
    assert {worker.worker_id for worker in grown} == set(rig.worker_processes())
    rig.open_gate()
    assert (await run.result()).counts.passed == 40
    left = await rig.workers_until(2)
    decisions = await read_decisions(rig.records)
    assert not any(decision.action == IN and decision.demand.queue_depth for decision in decisions)
    assert decisions[-1].observed - len(decisions[-1].worker_ids) <= 2 or decisions[-1].action != IN
    await stop(manager)
    assert rig.worker_processes() == {}
    assert len(left) == 2


async def test_registered_workers_are_the_observed_ones(rig: PoolRig) -> None:
    manager = await rig.start_manager("--min", "3", "--max", "3")
    await rig.workers_until(3)
    run = await rig.client.start_run("quick", commands=[["true"]] * 3)
    assert (await run.result()).counts.passed == 3
    async with asyncio.timeout(WAIT_SECONDS):
        while (await rig.decisions.until(HOLD)).observed != 3:
            pass
    registered = {worker.worker_id for worker in await rig.workers_until(3)}
    assert registered == set(rig.worker_processes()) == {"local-1", "local-2", "local-3"}
    assert rig.decisions.seen[-1].requested == 0
    await stop(manager)


async def test_an_anomalous_worker_is_found_quarantined_and_replaced(rig: PoolRig) -> None:
    """Everything fails on one of three workers, and passes when it is tried again on another."""
    manager = await rig.start_manager("--min", "3", "--max", "3")
    workers = {worker.worker_id: worker.process_id for worker in await rig.workers_until(3)}
    script = FAILS_BELOW.format(process_id=workers["local-2"])
    run = await rig.client.start_run(
        "sick worker", commands=[["sh", "-c", f"{script} : {k}"] for k in range(60)], test_retries=100
    )
    replaced = await rig.decisions.until(REPLACE)
    assert replaced.reason.startswith("local-2 was quarantined: ")
    assert "cases failed on it and passed on another worker" in replaced.reason
    assert replaced.launch_ids == ["local-4"]
    counts = (await run.result()).counts
    assert counts.failed == 0
    active = {worker.worker_id for worker in await rig.workers_until(3)}
    assert active == {"local-1", "local-3", "local-4"}
    states = {worker.worker_id: worker.state for worker in await rig.client.list_workers()}
    assert states["local-2"] == common_pb2.WORKER_STATE_QUARANTINED
    await stop(manager)
    assert rig.worker_processes() == {}


async def test_what_operators_wish_is_followed(rig: PoolRig) -> None:
    manager = await rig.start_manager("--min", "1", "--max", "3")
    await rig.workers_until(1)
    assert (await rig.command("pools", "pause", "locla"))[0] == 4
    assert (await rig.command("pools", "resume", "locla", "--ahead", "--dry-run"))[0] == 0
    assert (await rig.command("pools", "scale", "local", "--workers", "3", "--reason", "release"))[0] == 0
    grown = await rig.workers_until(3)
    assert "wished by" in (await rig.decisions.until(OUT)).reason or len(rig.decisions.seen) > 1
    assert (await rig.command("pools", "pause", "local", "--reason", "kernel"))[0] == 0
    psutil.Process(grown[0].process_id).kill()
    await rig.workers_until(2)
    async with asyncio.timeout(WAIT_SECONDS):
        while "paused" not in (await rig.decisions.until(HOLD)).reason:
            pass
    assert len(rig.worker_processes()) == 2
    assert (await rig.command("pools", "resume", "local"))[0] == 0
    await rig.workers_until(3)
    assert (await rig.command("pools", "scale", "local", "--auto"))[0] == 0
    await rig.workers_until(1)
    code, said = await rig.command("pools", "--json")
    (pool,) = map(json.loads, said.splitlines())
    assert (code, pool["name"]) == (0, "local")
    await stop(manager)


async def test_two_pools_share_a_bound_and_tell_prometheus(
    own_nats_server: NatsServer, tmp_path: Path
) -> None:
    async with rig_of(own_nats_server, tmp_path, QUICK + TWO_POOLS) as rig:
        manager, ready = await rig.start(
            "resource-manager", "--server", rig.address, "--token-file", str(rig.directory / "token")
        )
        await rig.workers_until(1)
        big = await rig.client.start_run(
            "big",
            commands=[["sleep", "0.2"]] * 20,
            requirements=common_pb2.Requirements(labels={"size": "big"}),
        )
        small = await rig.client.start_run("small", commands=[["sleep", "0.2"]] * 20)
        most = 0
        async for _ in big.watch(event_types=["results_accepted"]):
            most = max(most, len(rig.worker_processes()))
        assert (await big.result()).counts.passed == 20
        assert (await small.result()).counts.passed == 20
        pools = {decision.pool for decision in await read_decisions(rig.records) if decision.action == OUT}
        assert pools == {"local", "big"}
        assert 1 < most <= 3
        figures = await asyncio.to_thread(scrape, str(ready["metrics"]))
        assert 'dtf_pool_launches_total{pool="big"}' in figures
        assert 'dtf_pool_observed_workers{pool="local"}' in figures
        assert 'dtf_pool_startup_seconds_bucket{le="+Inf",pool="big"}' in figures
        assert 'dtf_pool_decisions_total{action="scale_out",pool="local"}' in figures
        assert "dtf_live_feed_shed_total 0.0" in figures
        await stop(manager)
        assert rig.worker_processes() == {}
        await decide_again(rig, "local", "big")


async def decide_again(rig: PoolRig, *pools: str) -> None:
    """Every decision follows from the log, what it says it heard, and the allocation that it carries."""
    file = rig.directory / "log.dtfstream"
    assert (await rig.command("events", "export", str(file)))[0] == 0
    commits, settings = read_commits(read_stream(file)), load_settings(rig.directory, environ={}).settings
    decisions = await read_decisions(rig.records)
    for pool in pools:
        again = ManagerAgain(resolve_policy(settings.of_pool(pool).pool, 2), commits)
        recorded = [each for each in decisions if each.pool == pool and "told to stop" not in each.reason]
        assert any(each.HasField("allocation") for each in recorded)
        for decision in recorded:
            assert again.decide_like(decision) == decision


def scrape(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=WAIT_SECONDS) as answer:
        text: bytes = answer.read()
    return text.decode()


async def test_a_dry_run_and_a_shadow_say_what_they_would_do_and_do_nothing(rig: PoolRig) -> None:
    candidate = rig.directory / "candidate.toml"
    candidate.write_text("[pool]\nmin_workers = 3\n")
    rehearsing = await rig.start_manager("--dry-run")
    decision = await rig.decisions.until(OUT)
    assert (decision.rehearsal, decision.desired) == ("dry-run", 1)
    assert rig.worker_processes() == {}
    await stop(rehearsing)
    manager = await rig.start_manager("--max", "1", "--shadow", str(candidate))
    run = await rig.client.start_run("quick", commands=[["true"]] * 5)
    assert (await run.result()).counts.passed == 5
    assert list(rig.worker_processes()) == ["local-1"]
    # Whoever carries out a later wish has read of the run's end, on which the regret rests.
    wish = resource_service_pb2.ScalePoolRequest(pool="local", workers=0, requested_by="test")
    await rig.client.pools.ScalePool(wish, metadata=rig.client.metadata, timeout=WAIT_SECONDS)
    while (await rig.decisions.until(IN)).rehearsal:
        pass
    await stop(manager)
    shadowed = [each for each in await read_decisions(rig.records) if each.rehearsal == "candidate"]
    assert shadowed[0].action == OUT and shadowed[0].desired == 3
    assert shadowed[-1].reason.startswith("regret over 5 tasks: ")
    code, history = await rig.command("scaling", "history", "--all", "--json")
    assert code == 0
    assert {json.loads(line)["desired"] for line in history.splitlines() if "desired" in line} <= {0, 1}
