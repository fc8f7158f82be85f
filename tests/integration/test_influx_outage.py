"""InfluxDB goes away under load and comes back: every point is there once.

The whole minute of it is `make bench NAME=influx_outage`.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from dtf.settings.model import NatsSettings
from tests.influx_outage import Load, analyzer_process, compare, wait_until_stored
from tests.influxd import Influxd

pytestmark = [pytest.mark.trend_analyzer, pytest.mark.influxdb]

BUCKET = "outage"
Strike = Callable[[Influxd], None]


@pytest.mark.parametrize(
    ("strike", "mend"),
    [
        pytest.param(Influxd.kill, Influxd.start, id="killed"),
        pytest.param(Influxd.freeze, Influxd.thaw, id="frozen"),
    ],
)
async def test_after_an_outage_of_influxdb_under_load_every_point_is_there_once(
    own_influxd: Influxd,
    nats_settings: NatsSettings,
    namespace: str,
    tmp_path: Path,
    strike: Strike,
    mend: Strike,
) -> None:
    environment = own_influxd.environment(BUCKET)
    store = await own_influxd.open_store(BUCKET)
    async with asyncio.timeout(250), Load(nats_settings, namespace) as load:
        async with analyzer_process(tmp_path, nats_settings, namespace, environment) as client:
            async with asyncio.TaskGroup() as group:
                group.create_task(load.run())
                await load.wait_for_runs(10)
                await client.checkpoint(wait_for=load.sequences["log"])
                await asyncio.to_thread(strike, own_influxd)
                await load.wait_for_runs(25)
                assert (await client.checkpoint()).log_sequence < load.sequences["log"]
                await asyncio.to_thread(mend, own_influxd)
                await load.wait_for_runs(5)
                load.stop()
            await wait_until_stored(store, load.sequences)
        result = await compare(store, BUCKET, load)
    assert result.expected > 1_600
    assert result.is_exact, result
    await store.close()
