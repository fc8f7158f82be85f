"""Fakes that pass the contract suites of their ports."""

import asyncio
import heapq
from itertools import count


class FakeClock:
    """Virtual time: it moves when told to, and wakes the sleepers it passes in order."""

    def __init__(self, now_ns: int = 1_700_000_000_000_000_000) -> None:
        self._now_ns = now_ns
        self._elapsed_ns = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._counter = count()
        self._ids = count()
        self._slept = asyncio.Event()

    def now_ns(self) -> int:
        """Virtual time in nanoseconds since 1970-01-01 UTC."""
        return self._now_ns + self._elapsed_ns

    def monotonic(self) -> float:
        """Virtual seconds since the clock was made."""
        return self._elapsed_ns / 1e9

    async def sleep(self, seconds: float) -> None:
        """Return when `advance` has passed the moment."""
        wake_ns = self._elapsed_ns + max(0, round(seconds * 1e9))
        if wake_ns <= self._elapsed_ns:
            await _let_others_run()
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (wake_ns, next(self._counter), future))
        self._slept.set()
        await future

    def new_id(self, length: int = 16) -> str:
        """Identifiers in a row: aa…a, aa…b, and so on."""
        number, letters = next(self._ids), []
        for _ in range(length):
            number, digit = divmod(number, 24)
            letters.append("abcdefghijkmnpqrstuvwxyz"[digit])
        return "".join(reversed(letters))

    @property
    def sleeper_count(self) -> int:
        """How many sleep now."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Move time by `seconds`, stopping at each sleeper on the way so that it can sleep again."""
        end_ns = self._elapsed_ns + round(seconds * 1e9)
        await _let_others_run()
        while self._sleepers and self._sleepers[0][0] <= end_ns:
            wake_ns, _, future = heapq.heappop(self._sleepers)
            self._elapsed_ns = max(self._elapsed_ns, wake_ns)
            if not future.done():
                future.set_result(None)
                await _let_others_run()
        self._elapsed_ns = end_ns
        await _let_others_run()

    def jump(self, seconds: float) -> None:
        """Time passes while this process stands still: nobody wakes before the next `advance`."""
        self._elapsed_ns += round(seconds * 1e9)

    async def wait_for_sleeper(self) -> None:
        """Return when somebody sleeps, at once if somebody does."""
        while not self.sleeper_count:
            self._slept.clear()
            await self._slept.wait()


async def _let_others_run(turns: int = 20) -> None:
    """Give every task that is ready a few turns of the loop."""
    for _ in range(turns):
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(turn.set_result, None)
        await turn
