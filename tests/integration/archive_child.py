"""Archives a log and kills itself with SIGKILL before its n-th rename: `… SETTINGS_JSON N`."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.log_archiving import archive_lock, archive_log, purge_archived
from dtf.adapters.system_clock import SystemClock
from dtf.settings.model import NatsSettings


def die_before_rename(number: int) -> None:
    """From now on the n-th rename is not reached; 0: every one is."""
    left = number

    def hook(event: str, _arguments: object) -> None:
        nonlocal left
        if event == "os.rename":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


async def main(arguments: dict[str, str], until: int) -> None:
    """Archive and purge below `until`, in segments of three messages."""
    nats = NatsSettings(url=arguments["url"], credentials_file=arguments["credentials"])
    clock, directory = SystemClock(), Path(arguments["directory"])
    log = await JetStreamLog.attach(nats, arguments["namespace"], clock)
    with archive_lock(directory):
        archive = await archive_log(
            log,
            directory,
            namespace=arguments["namespace"],
            clock=clock,
            until=until - 1,
            segment_messages=3,
        )
        await purge_archived(log, archive, until)
    await log.close()


if __name__ == "__main__":
    said = json.loads(sys.argv[1])
    die_before_rename(int(sys.argv[2]))
    asyncio.run(main(said, int(said["until"])))
