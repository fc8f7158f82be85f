"""Commands that wait for the writer's turn, and how much they are taken to weigh."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from dtf.coordinator.commits import Settle
from dtf.core.run.commands import Command

DEFAULT_WEIGHT_BYTES = 256
"""What a command is taken to add to a commit when its sender does not say."""


@dataclass(frozen=True, slots=True)
class QueuedCommand:
    """A command, and who hears of it."""

    command: Command
    settle: Settle | None
    weight: int
    """Bytes that it is taken to add to a commit."""
    is_patient: bool
    """It waits while the log fails; one that is not is refused then."""


class CommandQueue:
    """Commands in the order they came; `waiting_bytes` is their weight together."""

    __slots__ = ("_items", "waiting_bytes")

    def __init__(self) -> None:
        self._items: deque[QueuedCommand] = deque()
        self.waiting_bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: QueuedCommand) -> None:
        """Add a command behind the others."""
        self._items.append(item)
        self.waiting_bytes += item.weight

    def take(self) -> QueuedCommand:
        """Remove the command that waits longest. Raises IndexError if none waits."""
        item = self._items.popleft()
        self.waiting_bytes -= item.weight
        return item

    def drop(self, is_chosen: Callable[[QueuedCommand], bool]) -> list[QueuedCommand]:
        """Remove the commands that are chosen; they are returned, the others keep their order."""
        dropped = [item for item in self._items if is_chosen(item)]
        self._items = deque(item for item in self._items if not is_chosen(item))
        self.waiting_bytes = sum(item.weight for item in self._items)
        return dropped
