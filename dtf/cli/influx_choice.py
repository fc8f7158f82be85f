"""The InfluxDB that the environment names, for the commands of `dtf store`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dtf.adapters.influx_admin import InfluxAdmin
from dtf.adapters.influx_connection import InfluxAddress
from dtf.adapters.system_clock import SystemClock
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.ports.metric_store import StoreError, StoreMismatch


def influx_address() -> InfluxAddress:
    """From INFLUXDB_V2_*. Raises StoreMismatch."""
    return InfluxAddress.from_environment(os.environ)


@asynccontextmanager
async def influx_admin() -> AsyncIterator[InfluxAdmin]:
    """An administrator of it."""
    admin = InfluxAdmin(influx_address(), SystemClock())
    try:
        yield admin
    finally:
        await admin.close()


def store_error(error: StoreError) -> CommandError:
    """What a StoreError means to a person."""
    code = ExitCode.USAGE if isinstance(error, StoreMismatch) else ExitCode.UNAVAILABLE
    return CommandError(
        str(error),
        "docs/metrics.md says what InfluxDB needs; INFLUXDB_V2_URL, _TOKEN, _ORG and _BUCKET name it",
        exit_code=code,
    )
