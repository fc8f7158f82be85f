"""How commands reach a coordinator: the one the settings name, or that of the project's running stack."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.client.client import Client, CoordinatorUnreachable
from dtf.client.connect import peer
from dtf.client.stack import StackAddresses, StackMembership, join_stack, read_stack, remote_addresses
from dtf.settings.model import Settings

Answer = TypeVar("Answer")


def running_addresses(invocation: Invocation) -> StackAddresses:
    """Where the coordinator is that runs now. Raises CommandError if none is known."""
    loaded = invocation.load()
    found = remote_addresses(loaded.settings) or read_stack(loaded.project_dir)
    if found is None:
        raise CommandError(
            f"no stack runs for {loaded.project_dir}",
            "`dtf up` starts one and keeps it; DTF_SERVER names one elsewhere",
            exit_code=ExitCode.UNAVAILABLE,
        )
    return found


def join(invocation: Invocation, on_progress: Callable[[str], None] | None = None) -> StackMembership:
    """A membership of the stack, started if need be: for commands that read what the log holds.

    A stack that is started for this has no workers: nothing is to be run.
    """
    loaded = invocation.load()
    return join_stack(loaded.project_dir, without_workers(loaded.settings), on_progress=on_progress)


def without_workers(settings: Settings) -> Settings:
    """The settings with pools that have no worker as long as there is nothing to do."""
    kept: dict[str, Any] = {"min_workers": 0, "warm_workers": 0, "schedule": {}, "strategy": "target"}
    pools = {
        name: {key: value for key, value in own.items() if key not in kept}
        for name, own in settings.pools.items()
    }
    return replace(settings, pool=replace(settings.pool, **kept), pools=pools)


@asynccontextmanager
async def client_of(addresses: StackAddresses) -> AsyncIterator[Client]:
    """A client of the coordinator (and of the analyzer, if it is known) at these addresses."""
    try:
        access = (addresses.token_file, addresses.certificate_authority_file)
        coordinator = peer(addresses.server, *access)
        analyzer = peer(addresses.analysis, *access) if addresses.analysis else None
    except OSError as error:
        raise CommandError(
            f"{error.filename} cannot be read: {error.strerror}",
            "DTF_TOKEN_FILE (run.token_file) and run.certificate_authority_file name files of the coordinator",
            exit_code=ExitCode.USAGE,
        ) from error
    except ValueError as error:
        raise CommandError(str(error), exit_code=ExitCode.USAGE) from error
    async with Client(coordinator, analyzer) as client:
        try:
            await client.wait_connected()
        except CoordinatorUnreachable as error:
            raise CommandError(
                str(error),
                "start it, or correct DTF_SERVER (run.server); without it `dtf run` starts a stack of its own",
                exit_code=ExitCode.UNAVAILABLE,
            ) from error
        yield client


def ask_coordinator(invocation: Invocation, ask: Callable[[Client], Awaitable[Answer]]) -> Answer:
    """What the coordinator that runs now answers. Raises CommandError."""
    addresses = running_addresses(invocation)

    async def call() -> Answer:
        async with client_of(addresses) as client:
            return await ask(client)

    return asyncio.run(call())


@asynccontextmanager
async def any_client(invocation: Invocation) -> AsyncIterator[Client]:
    """A client of what runs already, or of the stack started for the length of the command."""
    loaded = invocation.load()
    running = remote_addresses(loaded.settings) or read_stack(loaded.project_dir)
    if running is not None:
        async with client_of(running) as client:
            yield client
        return
    membership = await asyncio.to_thread(join, invocation)
    try:
        async with client_of(membership.addresses) as client:
            yield client
    finally:
        await asyncio.to_thread(membership.close)
