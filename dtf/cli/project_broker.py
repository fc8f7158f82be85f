"""The broker of a project for a command that reads or mends its log: the one that runs, or its own, started for it."""

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from dtf.adapters.nats_errors import NatsServerError
from dtf.adapters.nats_server import NatsServer
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.client.stack import read_stack
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


def find_broker(invocation: Invocation) -> NatsSettings | None:
    """The broker that the settings name, or the one of the project's stack; None if there is neither."""
    settings = invocation.load().settings.nats
    if settings.url:
        return settings
    stack = read_stack(invocation.project_dir)
    if stack is None or not stack.nats:
        return None
    return replace(settings, url=stack.nats, credentials_file=stack.nats_credentials_file)


def broker_of(invocation: Invocation) -> NatsSettings:
    """The same; raises CommandError if there is neither."""
    found = find_broker(invocation)
    if found is None:
        raise CommandError(
            "no broker: nothing runs in this project and [nats] url is not set",
            "`dtf up` starts the stack; or set [nats] url and credentials_file; --from FILE reads an export",
            exit_code=ExitCode.UNAVAILABLE,
        )
    return found
