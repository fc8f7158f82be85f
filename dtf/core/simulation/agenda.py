"""Virtual time: what is to happen, in the order in which it will."""

from collections.abc import Callable
from heapq import heappop, heappush

SECOND = 1_000_000_000
MILLISECOND = 1_000_000


class Agenda:
    """A clock that jumps to the next thing to do. Of two at one instant the earlier entry comes first."""

    def __init__(self, now_ns: int) -> None:
        self.now_ns = now_ns
        self._entries: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, delay_ns: int, action: Callable[[], None]) -> None:
        """Do this later."""
        self.at(self.now_ns + max(0, delay_ns), action)

    def at(self, at_ns: int, action: Callable[[], None]) -> None:
        """Do this then, or now if that is past."""
        self._count += 1
        heappush(self._entries, (max(at_ns, self.now_ns), self._count, action))

    def step(self) -> bool:
        """Go to the next entry and do it; False if there is none."""
        if not self._entries:
            return False
        self.now_ns, _, action = heappop(self._entries)
        action()
        return True
