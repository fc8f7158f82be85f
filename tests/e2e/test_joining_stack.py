"""A stack that listens beyond loopback, and a worker in another network that joins it by a token alone.

The other network is a namespace of the kernel's with a wire to this one: the stack's loopback cannot
be reached from there. Where namespaces cannot be made (they need root), the worker runs in this
network and calls an address beyond loopback.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from dtf.rpc.invitation import parse_invitation
from tests.e2e.project import COMMAND_SECONDS, Project
from tests.integration.joining_rig import address_beyond_loopback

pytestmark = [pytest.mark.coordinator, pytest.mark.worker]

SETTINGS = """
[coordinator]
listen = "0.0.0.0:0"
[pool]
min_workers = 1
max_workers = 1
"""


@dataclass(frozen=True, slots=True)
class Network:
    """Where the worker runs."""

    host: str
    """The stack's address, as the worker sees it."""
    prefix: Sequence[str] = ()
    """What runs a command there."""


def _ip(*arguments: str) -> bool:
    return subprocess.run(["ip", *arguments], capture_output=True, timeout=30).returncode == 0


@pytest.fixture
def network() -> Iterator[Network]:
    """Another network, as far as this machine allows."""
    number = os.getpid() % 4000
    name, ours, theirs = f"dtf{number}", f"dtfa{number}", f"dtfb{number}"
    subnet = f"10.231.{number // 64}.{number % 64 * 4}".rpartition(".")
    here, there = (f"{subnet[0]}.{int(subnet[2]) + offset}" for offset in (1, 2))
    is_made = shutil.which("ip") is not None and os.geteuid() == 0 and _ip("netns", "add", name)
    try:
        if is_made:
            is_made = (
                _ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
                and _ip("address", "add", f"{here}/30", "dev", ours)
                and _ip("link", "set", ours, "up")
                and _ip("-n", name, "address", "add", f"{there}/30", "dev", theirs)
                and _ip("-n", name, "link", "set", theirs, "up")
            )
        if is_made:
            yield Network(here, ("ip", "netns", "exec", name))
        else:
            yield Network(address_beyond_loopback())
    finally:
        _ip("netns", "delete", name)


def outside(network: Network, directory: Path, token: str, *options: str) -> "subprocess.Popen[str]":
    """`dtf worker` in that network, in a directory, with a user's environment of its own."""
    directory.mkdir(exist_ok=True)
    return subprocess.Popen(
        [*network.prefix, sys.executable, "-P", "-m", "dtf.cli.main", "worker", "--join", token, *options],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "HOME": str(directory)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def content_of(path: Path) -> bytes:
    """What a file holds; nothing if the broker or the store has put another in its place meanwhile."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def test_a_worker_of_another_network_joins_by_a_token_until_that_is_revoked_or_the_authority_is_another(
    tmp_path: Path, network: Network
) -> None:
    (tmp_path / "p").mkdir()
    project = Project(tmp_path / "p", SETTINGS)
    workers: list[subprocess.Popen[str]] = []

    def token(*options: str) -> str:
        port = project.stack.server.rpartition(":")[2]
        where = ("--server", f"{network.host}:{port}")
        return project.dtf("token", "create", "--pool", "outside", *where, *options).strip()

    try:
        project.dtf("up")
        assert project.stack.certificate_authority_file
        text = token("--single-use", "--expires", "10m")
        workers.append(outside(network, tmp_path / "w", text, "--name", "far"))
        assert workers[0].stdout is not None
        assert json.loads(workers[0].stdout.readline())["worker_id"] == "far"
        project.write("commands.txt", "true\nreadlink /proc/self/ns/net\n")
        done = project.json("run", "--require", "pool=outside", "--each", "commands.txt", "--json")
        assert done["counts"]["passed"] == 2
        (listed,) = map(json.loads, project.dtf("token", "list", "--all", "--json").splitlines())
        assert (listed["state"], listed["last_worker_id"], listed["pool"]) == ("spent", "far", "outside")
        local = asyncio.run(project.wait_for(lambda event: event.worker_registered.pool == "local"))
        assert local.worker_registered.join_token_id == "", "the stack's own pool needs no token"

        # Replayed, revoked, and from before a rotation: one line each.
        revoked, old = token(), token()
        assert "revoked" in project.dtf("token", "revoke", parse_invitation(revoked).token_id)
        assert "make new join tokens" in project.dtf("certificates", "rotate")
        fresh = token()
        refusals = {
            text: "its certificates were changed since the token was made",
            old: "its certificates were changed since the token was made",
        }
        started = {key: outside(network, tmp_path / f"w{n}", key) for n, key in enumerate(refusals)}
        workers += started.values()
        for key, worker in started.items():
            _, errors = worker.communicate(timeout=COMMAND_SECONDS)
            assert (worker.returncode, refusals[key] in errors) == (1, True), errors
        workers.append(outside(network, tmp_path / "new", fresh))
        assert workers[-1].stdout is not None
        assert json.loads(workers[-1].stdout.readline())["ready"]
        # The first one was connected all along, and what trusted the former authority still serves.
        done = project.json("run", "--require", "pool=outside", "--each", "commands.txt", "--json")
        assert done["counts"]["passed"] == 2

        # What the stack wrote (its log's store included) and what it shows hold no secret.
        shown = project.dtf("config", "--json") + project.dtf("token", "list", "--all", "--json")
        secrets = [parse_invitation(line).secret for line in (text, revoked, old, fresh)]
        secrets.append((project.directory / ".dtf" / "secrets" / "token").read_text().strip())
        files = [
            path for path in project.directory.rglob("*") if path.is_file() and "secrets" not in path.parts
        ]
        for secret in secrets:
            assert secret not in shown
            assert [path for path in files if secret.encode() in content_of(path)] == []
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.terminate()
            worker.communicate(timeout=COMMAND_SECONDS)
        assert project.close() == []
