"""What `dtf doctor` asks of others: the broker, the metric store, the coordinator."""

import asyncio
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import grpc
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import StreamInfo

from dtf.adapters.nats_connection import NatsConnection
from dtf.api.v1 import fleet_service_pb2
from dtf.cli.connection import client_of
from dtf.cli.doctor_checks import Finding, Level
from dtf.cli.errors import CommandError, explain
from dtf.client.stack import StackAddresses
from dtf.ports.event_log import LogError
from dtf.ports.subjects import event_stream
from dtf.settings.model import NatsSettings, Settings

_TIMEOUT_SECONDS = 5.0


def check_broker(settings: Settings, stack: StackAddresses | None) -> Iterator[Finding]:
    """The broker answers, has JetStream, and its log is configured as it must be."""
    broker = settings.nats
    if not broker.url and stack is not None:
        broker = replace(broker, url=stack.nats, credentials_file=stack.nats_credentials_file)
    if not broker.url:
        yield Finding("broker", Level.OK, "the embedded stack starts its own")
        return
    try:
        yield from asyncio.run(ask_broker(broker, settings.coordinator.namespace))
    except (LogError, TimeoutError) as error:
        seen = str(error) or f"{broker.url} did not answer within {_TIMEOUT_SECONDS:.0f} s"
        yield Finding("broker", Level.MEND, seen, "start it, or correct [nats] url and credentials_file")


async def ask_broker(broker: NatsSettings, namespace: str) -> list[Finding]:
    """What the broker says of itself and of the namespace's log. Raises LogError."""
    connection = NatsConnection(replace(broker, connect_timeout_seconds=_TIMEOUT_SECONDS), name="dtf doctor")
    async with asyncio.timeout(2 * _TIMEOUT_SECONDS):
        try:
            client = await connection.client()
            found = [Finding("broker", Level.OK, f"nats-server {_version(client)} at {broker.url}")]
            try:
                info = await client.jetstream().stream_info(event_stream(namespace))
            except nats.js.errors.NotFoundError:
                return [
                    *found,
                    Finding("event log", Level.OK, f"{event_stream(namespace)} will be made at first use"),
                ]
            except nats.js.errors.ServiceUnavailableError:
                mend = "enable JetStream: deploy/nats.conf shows how"
                return [*found, Finding("event log", Level.MEND, "the broker has no JetStream", mend)]
            return [*found, _judge_stream(info, broker)]
        finally:
            await connection.close()


def _version(client: Client) -> str:
    """What the server says it is; an object in one nats-py, a text in another."""
    return str(client.connected_server_version).strip("<>").removeprefix("nats server ").removeprefix("v")


def _judge_stream(info: StreamInfo, broker: NatsSettings) -> Finding:
    config, used = info.config, info.state.bytes
    differs = [
        text
        for is_wrong, text in (
            (str(config.storage) != "file", f"storage is {config.storage}, expected file"),
            (str(config.discard) != "new", f"discard is {config.discard}, expected new"),
            (bool(config.max_age), f"max_age is {config.max_age} s, expected none"),
            (not config.deny_delete, "deny_delete is off"),
        )
        if is_wrong
    ]
    if differs:
        mend = "the log must lose nothing: correct the stream (`nats stream edit`), or name another namespace"
        return Finding("event log", Level.MEND, f"{config.name}: {'; '.join(differs)}", mend)
    limit = config.max_bytes or broker.max_log_bytes
    seen = f"{config.name}: {info.state.messages:,} commits, {used / limit:.0%} of {limit / 2**30:.1f} GiB"
    if used > 0.9 * limit:
        return Finding("event log", Level.MEND, seen, "raise nats.max_log_bytes, or begin a new namespace")
    return Finding("event log", Level.OK, seen)


def check_store(settings: Settings, state: Path, stack: StackAddresses | None) -> Iterator[Finding]:
    """The metric store can be opened, or answers."""
    match settings.store.kind:
        case "duckdb":
            path = Path(settings.store.path or state / "metrics.duckdb")
            yield _check_duckdb(path, is_open=stack is not None)
        case _:
            yield _check_influxdb(os.environ.get("INFLUXDB_V2_URL", ""))


def _check_duckdb(path: Path, *, is_open: bool) -> Finding:
    if is_open:
        return Finding("metric store", Level.OK, f"{path} is open in the stack's trend analyzer")
    if not path.exists():
        return Finding("metric store", Level.OK, f"{path} will be made at first use")
    try:
        duckdb.connect(str(path), read_only=True).close()
    except duckdb.Error as error:
        first_line = str(error).splitlines()[0]
        mend = f"end the process that has it open, or move it away: mv {path} {path}.broken"
        return Finding("metric store", Level.MEND, first_line, mend)
    return Finding("metric store", Level.OK, f"{path}, {path.stat().st_size / 2**20:.1f} MiB")


def _check_influxdb(url: str) -> Finding:
    missing = [
        name
        for name in ("INFLUXDB_V2_URL", "INFLUXDB_V2_TOKEN", "INFLUXDB_V2_ORG")
        if not os.environ.get(name)
    ]
    if missing:
        return Finding("metric store", Level.MEND, f"{', '.join(missing)} not set", f"export {missing[0]}=…")
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/ping", timeout=_TIMEOUT_SECONDS) as answer:
            return Finding(
                "metric store", Level.OK, f"InfluxDB {answer.headers.get('X-Influxdb-Version', '')} at {url}"
            )
    except (OSError, ValueError) as error:
        return Finding(
            "metric store", Level.MEND, f"{url}: {error}", "start InfluxDB, or correct INFLUXDB_V2_URL"
        )


def check_coordinator(stack: StackAddresses | None) -> Iterator[Finding]:
    """The coordinator that is running, or that the settings name, takes the token and work."""
    if stack is None or not stack.server:
        return
    try:
        fleet = asyncio.run(_ask_coordinator(stack))
    except (CommandError, grpc.RpcError, TimeoutError) as error:
        known = explain(error)
        yield Finding(
            "coordinator",
            Level.MEND,
            f"{stack.server}: {known.what if known else 'no answer'}",
            known.advice[0] if known and known.advice else "`dtf status` says whether it runs",
        )
        return
    if fleet.refusing_reason:
        yield Finding(
            "coordinator",
            Level.MEND,
            f"refuses work: {fleet.refusing_reason}",
            "see the broker's lines above",
        )
    else:
        yield Finding("coordinator", Level.OK, f"leads at {stack.server}, epoch {fleet.epoch}")


async def _ask_coordinator(stack: StackAddresses) -> fleet_service_pb2.GetFleetResponse:
    async with asyncio.timeout(_TIMEOUT_SECONDS), client_of(stack) as client:
        return await client.get_fleet()
