"""Finds the coordinator: the address given, DTF_SERVER or dtf.toml, else the project's embedded stack."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dtf.client.client import Client
from dtf.client.stack import join_stack
from dtf.rpc.channel import Peer, parse_addresses
from dtf.settings.loader import load_settings


def read_token(path: str) -> str:
    """The token in a file; "" when no file is named. Raises OSError naming the file."""
    return Path(path).read_text(encoding="utf-8").strip() if path else ""


def peer(addresses: str, token_file: str, certificate_authority_file: str = "") -> Peer:
    """Whom to call, from settings. Raises ValueError for a bad address, OSError for a missing file."""
    if certificate_authority_file:
        with Path(certificate_authority_file).open("rb"):
            pass  # what cannot be read is named now, not when the channel opens
    return Peer(parse_addresses(addresses), read_token(token_file), certificate_authority_file)


@asynccontextmanager
async def connect(
    server: str = "", *, token_file: str = "", project_dir: Path | None = None
) -> AsyncIterator[Client]:
    """A client of the coordinator at `server`, or of the one that settings name, or of the embedded stack.

    The embedded stack is started if none runs in the project, and stopped by the last one that leaves it.
    """
    loaded = load_settings(project_dir)
    run = loaded.settings.run
    if server or loaded.settings.server:
        token = token_file or run.token_file
        analyzer = loaded.settings.analyzer.server
        authority = run.certificate_authority_file
        async with Client(
            peer(server or loaded.settings.server, token, authority),
            peer(analyzer, token, authority) if analyzer else None,
        ) as client:
            await client.wait_connected()
            yield client
        return
    membership = await asyncio.to_thread(join_stack, loaded.project_dir, loaded.settings)
    try:
        found = membership.addresses
        access = (found.token_file, found.certificate_authority_file)
        async with Client(peer(found.server, *access), peer(found.analysis, *access)) as client:
            await client.wait_connected()
            yield client
    finally:
        await asyncio.to_thread(membership.close)
