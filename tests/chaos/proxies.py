"""Connections that can be cut, muted and delayed: toxiproxy between the processes, if it was built.

`make toxiproxy` builds it. Without it the processes talk to each other directly. Changing a link whose
connections are stuck can hang toxiproxy (seen once in some hundred changes): it is started anew then,
which cuts everything, as a machine between the others might.
"""

import asyncio
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dtf.adapters import process_guard
from dtf.cli.reserved_port import ReservedPort
from dtf.ports.clock import Clock

CALL_SECONDS = 5.0
START_SECONDS = 60.0
_NOT_FOUND = 404


def find_toxiproxy() -> Path | None:
    """The toxiproxy of DTF_TOXIPROXY or of the cache; None: it was never built."""
    named = os.environ.get("DTF_TOXIPROXY", "")
    cache = Path(os.environ.get("XDG_CACHE_HOME", "") or Path.home() / ".cache")
    path = Path(named) if named else cache / "dtf" / "bin" / "toxiproxy-server"
    return path if os.access(path, os.X_OK) else None


class Proxies:
    """One toxiproxy; links by name, each from an address of its own to an upstream one."""

    def __init__(self, binary: Path, clock: Clock) -> None:
        self._binary = binary
        self._clock = clock
        self._api = ReservedPort("127.0.0.1:0")
        self._api.release()
        self._links: dict[str, dict[str, object]] = {}
        self._log_file = Path()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, log_file: Path) -> None:
        """Start it and return when it answers."""
        self._log_file = log_file
        host, _, port = self._api.address.rpartition(":")
        guard = (sys.executable, "-I", "-S", process_guard.__file__, str(log_file))
        self._process = await asyncio.create_subprocess_exec(
            *guard,
            str(self._binary),
            "-host",
            host,
            "-port",
            port,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(START_SECONDS):
            while True:
                try:
                    await self._call("GET", "/version")
                except OSError:
                    await self._clock.sleep(0.05)  # it does not say when it listens
                else:
                    return

    @property
    def process_id(self) -> int:
        """Of the guard of toxiproxy; 0 while it does not run."""
        return self._process.pid if self._process and self._process.returncode is None else 0

    async def stop(self) -> None:
        """End it."""
        if self._process is not None and self._process.returncode is None:
            assert self._process.stdin is not None
            self._process.stdin.close()  # its guard ends it
            await self._process.wait()

    async def link(self, name: str, upstream: str) -> str:
        """A new way to `upstream`; its address."""
        port = ReservedPort("127.0.0.1:0")
        port.release()
        proxy = {"name": name, "listen": port.address, "upstream": upstream, "enabled": True}
        await self._call("POST", "/proxies", proxy)
        self._links[name] = proxy
        return port.address

    async def cut(self, names: Sequence[str]) -> None:
        """Close every connection over these links and take no new ones."""
        await self._each(names, "POST", "", {"enabled": False})

    async def restore(self, names: Sequence[str]) -> None:
        """Take connections again."""
        await self._each(names, "POST", "", {"enabled": True})

    async def mute(self, names: Sequence[str]) -> None:
        """Swallow what is sent over these links, both ways, and close nothing."""
        await self._add_both(names, "mute", "timeout", {"timeout": 0})

    async def delay(self, names: Sequence[str], milliseconds: int) -> None:
        """Bring everything later, by up to half more or less."""
        await self._add_both(
            names, "delay", "latency", {"latency": milliseconds, "jitter": milliseconds // 2}
        )

    async def lift(self, names: Sequence[str], toxic: str) -> None:
        """End a mute (which closes what was muted) or a delay."""
        for side in ("up", "down"):
            await self._each(names, "DELETE", f"/toxics/{toxic}-{side}", None)

    async def _add_both(
        self, names: Sequence[str], toxic: str, kind: str, attributes: Mapping[str, int]
    ) -> None:
        for side in ("up", "down"):
            described = {
                "name": f"{toxic}-{side}",
                "type": kind,
                "stream": f"{side}stream",
                "attributes": dict(attributes),
            }
            await self._each(names, "POST", "/toxics", described)

    async def _each(self, names: Sequence[str], method: str, path: str, body: Any) -> None:
        for name in names:
            await self._change(method, f"/proxies/{name}{path}", body)

    async def _change(self, method: str, path: str, body: Any) -> None:
        try:
            await self._call(method, path, body)
        except urllib.error.HTTPError as refusal:
            if not (method == "DELETE" and refusal.code == _NOT_FOUND):  # gone with a toxiproxy that hung
                raise
        except OSError:
            await self.stop()
            await self.start(self._log_file)
            for link in self._links.values():
                await self._call("POST", "/proxies", link)

    async def _call(self, method: str, path: str, body: Any = None) -> None:
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json", "User-Agent": "dtf chaos"}
        request = urllib.request.Request(
            f"http://{self._api.address}{path}", data=data, method=method, headers=headers
        )
        await asyncio.to_thread(_open, request)


def _open(request: urllib.request.Request) -> None:
    with urllib.request.urlopen(request, timeout=CALL_SECONDS) as response:
        response.read()
