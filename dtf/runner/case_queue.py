"""Cases a warm process was given and has not begun, in order."""

from collections import deque
from collections.abc import Iterable

from dtf.runner.channel import CaseItem


class CaseQueue:
    """First in, first out; an attempt is dropped whole and only if none of its cases has begun."""

    def __init__(self) -> None:
        self._items: deque[CaseItem] = deque()
        self._begun: set[int] = set()

    def __len__(self) -> int:
        return len(self._items)

    def extend(self, items: Iterable[CaseItem]) -> None:
        """More cases came."""
        self._items.extend(items)

    def take(self) -> CaseItem:
        """The next case, which begins now."""
        item = self._items.popleft()
        if item.is_last_of_attempt:
            self._begun.discard(item.fence)
        else:
            self._begun.add(item.fence)
        return item

    def drop(self, fences: Iterable[int]) -> list[int]:
        """Forget the attempts of `fences` that have not begun; return which those are."""
        waiting = {item.fence for item in self._items}
        dropped = [fence for fence in fences if fence in waiting and fence not in self._begun]
        gone = set(dropped)
        if gone:
            self._items = deque(item for item in self._items if item.fence not in gone)
        return dropped

    def forget(self, fences: Iterable[int]) -> None:
        """Forget what is left of the attempts of `fences`, begun or not."""
        gone = set(fences)
        self._begun -= gone
        self._items = deque(item for item in self._items if item.fence not in gone)
