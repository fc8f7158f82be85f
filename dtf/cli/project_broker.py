"""The broker of a project for a command that mends it: the one that runs, or else its own, started for it."""

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from dtf.adapters.nats_server import NatsServer, NatsServerError
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.log_source import broker_of, find_broker
from dtf.settings.model import NatsSettings
from dtf.settings.project import SUPERVISOR_LOCK, state_dir


@asynccontextmanager
async def project_broker(invocation: Invocation) -> AsyncIterator[NatsSettings]:
    """How to reach it. One that was started here is stopped at the end. Raises CommandError.

    While it runs, no stack of the project can start: both would write the same store.
    """
    state = state_dir(invocation.project_dir)
    if find_broker(invocation) is not None or not (state / "nats").is_dir():
        yield broker_of(invocation)
        return
    lock = os.open(state / SUPERVISOR_LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        server = NatsServer(
            state / "nats", state / "secrets" / "nats", log_file=state / "logs" / "nats-server.log"
        )
        await server.start()
        try:
            settings = invocation.load().settings.nats
            yield replace(settings, url=server.url, credentials_file=str(server.credentials_file))
        finally:
            await server.stop()
    except BlockingIOError:
        raise CommandError(
            "the stack of this project is starting or stopping",
            "try again in a moment",
            exit_code=ExitCode.UNAVAILABLE,
        ) from None
    except NatsServerError as error:
        raise CommandError(str(error), exit_code=ExitCode.UNAVAILABLE) from error
    finally:
        os.close(lock)
