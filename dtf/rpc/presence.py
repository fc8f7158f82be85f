"""Whether a process that listened still does: a connection is held to it that says nothing.

The kernel closes the connection when the process dies, at once and without its help. Only a
connection that stood, ended, and is then refused counts as a death: a stopped process, a cut
network and an address that never answered say nothing.
"""

import asyncio
import contextlib

from dtf.ports.clock import Clock

CONNECT_SECONDS = 2.0
RETRY_SECONDS = 0.5
WILDCARDS = ("0.0.0.0", "[::]", "")


class Presence:
    """Watches one address after the other. Run `run` in a task."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._address = ""
        self._has_stood = False
        self._changed = asyncio.Event()
        self.is_gone = False
        """What listened at the address does not any more."""

    def follow(self, address: str) -> None:
        """Watch `address` from now on; the same again changes nothing."""
        host, _, _port = address.rpartition(":")
        address = "" if host in WILDCARDS else address
        if address != self._address:
            self._address, self._has_stood, self.is_gone = address, False, False
            self._changed.set()
            self._changed = asyncio.Event()

    async def run(self) -> None:
        """Watch for ever."""
        while True:
            changed = self._changed
            if self._address and not self.is_gone:
                await self._hold_until(changed, self._address)
            else:
                await changed.wait()

    async def _hold_until(self, changed: asyncio.Event, address: str) -> None:
        """Hold a connection until it ends or another address is to be watched."""
        async with asyncio.TaskGroup() as tasks:
            parts = [tasks.create_task(self._hold(address)), tasks.create_task(_wait(changed))]
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in parts:
                part.cancel()

    async def _hold(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except ConnectionRefusedError:
            self.is_gone = self._has_stood and address == self._address
            await self._pause()
            return
        except (OSError, TimeoutError, ValueError):
            await self._pause()
            return
        self._has_stood = True
        try:
            with contextlib.suppress(OSError):
                while await reader.read(1 << 16):
                    pass
        finally:
            writer.close()

    async def _pause(self) -> None:
        if not self.is_gone:
            await self._clock.sleep(RETRY_SECONDS)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
