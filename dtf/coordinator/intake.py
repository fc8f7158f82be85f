"""What clients submit, from its arrival to its commit: paced by bytes, and refused before it piles up.

    arrived ──▶ waiting (its stream is not read on) ──▶ taken in (decided, on its way to the log) ──▶ durable
       └── too much waits already: Overloaded, try again in a moment

A stream that waits is not read, so gRPC's own flow control holds its client back: one that keeps to
the protocol is paced by this and never refused. Refusals are for those who open stream beside
stream: what the coordinator holds for all clients together stays within the two limits.
"""

import asyncio
from collections import deque

from dtf.coordinator.commits import Outcome
from dtf.coordinator.writer import Writer
from dtf.core.run.commands import Command
from dtf.rpc.errors import Overloaded

MAX_TAKEN_BYTES = 32 * 2**20
"""Some seconds of the log's work at its fastest, and more than 16 full commits in flight can hold."""
MAX_WAITING_BYTES = 32 * 2**20
RETRY_SECONDS = 1.0


class Intake:
    """The way of clients' commands to the writer."""

    def __init__(
        self,
        writer: Writer,
        *,
        max_taken_bytes: int = MAX_TAKEN_BYTES,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._writer = writer
        self._max_taken_bytes = max_taken_bytes
        self._max_waiting_bytes = max_waiting_bytes
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.taken_bytes = 0
        """Of commands that are not durable yet."""
        self.waiting_bytes = 0
        """Of commands that wait to be taken in."""
        self.refused_count = 0

    async def begin(self, command: Command, size: int) -> "asyncio.Future[Outcome]":
        """Queue a command when there is room for it; its outcome comes with the future. Raises Overloaded.

        The caller may go away: the command's bytes count until the writer has done with it, so the
        future must be awaited through `asyncio.shield`.
        """
        await self._enter(size)
        future = self._writer.begin(command, weight=size)
        future.add_done_callback(lambda _: self._leave(size))
        return future

    async def submit(self, command: Command, size: int) -> Outcome:
        """The same for a caller who waits: return once it is durable. Raises Rejection."""
        outcome = await asyncio.shield(await self.begin(command, size))
        if outcome.error is not None:
            raise outcome.error
        return outcome

    def _has_room(self, size: int) -> bool:
        return not self.taken_bytes or self.taken_bytes + size <= self._max_taken_bytes

    async def _enter(self, size: int) -> None:
        if not self._line and self._has_room(size):
            self.taken_bytes += size
            return
        if self.waiting_bytes + size > self._max_waiting_bytes:
            self.refused_count += 1
            raise Overloaded(
                f"{self.waiting_bytes >> 20} MiB of submissions wait for the log already; "
                f"try again in {RETRY_SECONDS:g} s",
                retry_after_seconds=RETRY_SECONDS,
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (size, turn)
        self._line.append(place)
        self.waiting_bytes += size
        try:
            await turn
        except asyncio.CancelledError:
            if place in self._line:
                self._line.remove(place)
                self.waiting_bytes -= size
                self._advance()
            elif not turn.cancelled():
                self._leave(size)  # its turn came as its caller went
            raise

    def _leave(self, size: int) -> None:
        self.taken_bytes -= size
        self._advance()

    def _advance(self) -> None:
        while self._line and self._has_room(self._line[0][0]):
            size, turn = self._line.popleft()
            self.waiting_bytes -= size
            if not turn.cancelled():
                self.taken_bytes += size
                turn.set_result(None)
