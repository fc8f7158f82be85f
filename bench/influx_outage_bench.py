"""make bench NAME=influx_outage: InfluxDB goes away for a minute under load; afterwards every point is there once.

A real nats-server, a real influxd (`make influxd`) and `dtf trend-analyzer` as a process. Runs of 40 cases,
telemetry and scaling decisions are appended all the time; influxd is killed (SIGKILL) for a minute and started
again, then frozen (SIGSTOP) for a minute and let go. At the end the bucket is compared with what follows from the
streams, point by point and field by field.

    python -m bench.influx_outage_bench [--seconds 60] [--json]

Exit code 1 when a point is missing, different or there twice. Takes about three minutes.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from dtf.adapters.influx_store import InfluxStore
from dtf.adapters.nats_server import NatsServer
from dtf.adapters.system_clock import SystemClock
from dtf.settings.model import NatsSettings
from tests.analyzer_bench import AnalysisClient
from tests.influx_outage import Comparison, Load, analyzer_process, compare, wait_until_stored
from tests.influxd import Influxd, influxd_path

NAMESPACE = "bench"
BUCKET = "dtf"
CALM_SECONDS = 10.0
"""Of load before and between the outages."""
CATCH_UP_SECONDS = 120.0


@dataclass(slots=True)
class Outage:
    """One outage and what came of it."""

    how: str
    seconds: float
    appended_meanwhile: int = 0
    """Commits of the log."""
    behind_at_end: int = 0
    """Commits that were not in the store when influxd came back."""
    catch_up_seconds: float = 0.0
    """From then until the store had reached what the log ended with at that moment."""


class Trial:
    """The parts together."""

    def __init__(self, influxd: Influxd, load: Load, client: AnalysisClient) -> None:
        self._influxd = influxd
        self._load = load
        self._client = client
        self._clock = SystemClock()

    async def strike(self, outage: Outage) -> Outage:
        """Take influxd away, wait, bring it back, and wait until the store has caught up."""
        is_killed = outage.how == "SIGKILL"
        _tell(f"{outage.how} for {outage.seconds:.0f} s")
        before = self._load.sequences["log"]
        await asyncio.to_thread(self._influxd.kill if is_killed else self._influxd.freeze)
        await self._clock.sleep(outage.seconds)
        await asyncio.to_thread(self._influxd.start if is_killed else self._influxd.thaw)
        back_at, head = self._clock.monotonic(), self._load.sequences["log"]
        outage.appended_meanwhile = head - before
        outage.behind_at_end = head - (await self._client.checkpoint()).log_sequence
        await self._client.checkpoint(wait_for=head, deadline_seconds=CATCH_UP_SECONDS)
        outage.catch_up_seconds = self._clock.monotonic() - back_at
        return outage


async def _measure(directory: Path, binary: Path, seconds: float) -> tuple[list[Outage], Comparison, float]:
    server = NatsServer(directory / "nats", directory / "secrets" / "nats")
    await server.start()
    nats = NatsSettings(
        url=server.url, credentials_file=str(server.credentials_file), max_log_bytes=1024 * 2**20
    )
    influxd = Influxd(binary, directory / "influxd")
    await asyncio.to_thread(influxd.start)
    try:
        return await _under_load(directory, nats, influxd, seconds)
    finally:
        await asyncio.to_thread(influxd.stop)
        await server.stop()


async def _under_load(
    directory: Path, nats: NatsSettings, influxd: Influxd, seconds: float
) -> tuple[list[Outage], Comparison, float]:
    clock = SystemClock()
    store: InfluxStore = await influxd.open_store(BUCKET)
    async with Load(nats, NAMESPACE) as load:
        async with analyzer_process(directory, nats, NAMESPACE, influxd.environment(BUCKET)) as client:
            began_at = clock.monotonic()
            outages = []
            async with asyncio.TaskGroup() as group:
                group.create_task(load.run())
                for how in ("SIGKILL", "SIGSTOP"):
                    await clock.sleep(CALM_SECONDS)
                    outages.append(await Trial(influxd, load, client).strike(Outage(how, seconds)))
                await clock.sleep(CALM_SECONDS / 2)
                load.stop()
            loaded_seconds = clock.monotonic() - began_at
            _tell("the load has ended; comparing")
            await asyncio.wait_for(wait_until_stored(store, load.sequences), CATCH_UP_SECONDS)
        result = await compare(store, BUCKET, load)
    await store.close()
    return outages, result, result.expected / loaded_seconds


def _tell(what: str) -> None:
    print(f"[influx_outage] {what}", file=sys.stderr)


def _report(outages: list[Outage], result: Comparison, rate: float) -> None:
    print(f"load: {rate:,.0f} points a second")
    for outage in outages:
        print(
            f"{outage.how} for {outage.seconds:.0f} s: {outage.appended_meanwhile:,} commits came meanwhile, "
            f"{outage.behind_at_end:,} were not in the store when influxd was back; "
            f"caught up in {outage.catch_up_seconds:.1f} s"
        )
    print(
        f"points: {result.expected:,} expected ({result.findings:,} findings), {result.missing:,} missing, {result.different:,} different, "
        f"{result.beyond:,} that should not be there"
    )


def main() -> int:
    """Run it. Exit code 2: no influxd."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of each outage")
    parser.add_argument("--json", action="store_true", help="add one line of JSON")
    chosen = parser.parse_args()
    binary = influxd_path()
    if binary is None:
        print("error: no influxd in the cache; `make influxd` builds it once (4 minutes)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="dtf-influx-outage-") as directory:
        outages, result, rate = asyncio.run(_measure(Path(directory), binary, chosen.seconds))
    _report(outages, result, rate)
    if chosen.json:
        print(json.dumps({"outages": list(map(asdict, outages)), "points": asdict(result), "rate": rate}))
    return 0 if result.is_exact else 1


if __name__ == "__main__":
    sys.exit(main())
