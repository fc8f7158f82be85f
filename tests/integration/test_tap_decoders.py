"""`dtf events tail --json` says what any decoder of protobuf makes of the same messages.

Two that share no code with ours read the recorded streams: Go's (by `buf convert`) and
JavaScript's (by examples/taps/js/commits.js, over a WebSocket, as the user that may only read).
"""

import asyncio
import json
import shutil
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dtf.adapters.nats_server import NatsServer
from tests.taps_rig import ROOT, STREAMS, Tapped, descriptors, node_program, running, tapped


@pytest_asyncio.fixture(params=STREAMS, ids=lambda path: path.parent.name)
async def recorded(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Tapped]:
    """A recorded stream on a broker with a WebSocket."""
    server = NatsServer(tmp_path / "store", tmp_path / "secrets" / "nats", has_websocket=True)
    await server.start()
    async with tapped(server, "default", request.param) as found:
        yield found
    await server.stop()


async def tail(recorded: Tapped, tmp_path: Path) -> list[dict[str, Any]]:
    """What the command prints, as a user with no more than the right to read."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "dtf.toml").write_text(
        f'[nats]\nurl = "{recorded.server.url}"\ncredentials_file = "{recorded.tap_credentials}"\n'
    )
    command = [sys.executable, "-m", "dtf.cli.main", "--project", str(tmp_path / "project")]
    command += ["events", "tail", "--json", "--no-follow", "--from-seq", "1"]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def canonical(value: Any) -> Any:
    """Decoders print a 32-bit float with as many digits as they like: what counts is which one it is."""
    match value:
        case bool():
            return value
        case float() | int():
            return struct.pack(">f", value)
        case dict():
            return {name: canonical(item) for name, item in value.items()}
        case list():
            return [canonical(item) for item in value]
        case _:
            return value


async def test_gos_decoder_reads_the_same_events(recorded: Tapped, tmp_path: Path) -> None:
    buf = shutil.which("buf", path=str(Path(sys.executable).parent))
    if buf is None:
        pytest.skip("there is no buf in this environment; `make setup` installs it")
    printed = await tail(recorded, tmp_path)
    payloads = [stored.payload async for batch in recorded.log.read(0) for stored in batch]
    # Messages one after the other are one message, whose repeated fields are all of theirs.
    command = [buf, "convert", str(descriptors(tmp_path)), "--type", "dtf.api.v1.Commit"]
    command += ["--from", "-#format=binpb", "--to", "-#format=json,use_proto_names=true"]
    done = await asyncio.to_thread(
        subprocess.run, command, input=b"".join(payloads), capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    decoded = json.loads(done.stdout)
    assert len(printed) > len(payloads) > 3
    assert canonical([line["event"] for line in printed]) == canonical(decoded["events"])


async def test_javascripts_decoder_reads_the_same_events_over_a_websocket(
    recorded: Tapped, tmp_path: Path
) -> None:
    program = node_program("commits.js", tmp_path)
    printed = await tail(recorded, tmp_path)
    arguments = [recorded.server.websocket_url, recorded.tap_credentials, "default"]
    async with running([*program, *arguments, str(descriptors(tmp_path))]) as tap:
        heard = [json.loads(await tap.line()) for _ in printed]
    names = ("sequence", "event")
    assert canonical([{name: line[name] for name in names} for line in heard]) == canonical(
        [{name: line[name] for name in names} for line in printed]
    )
    assert [int(line["now_unix_nanos"]) for line in heard] == [line["now_unix_nanos"] for line in printed]
