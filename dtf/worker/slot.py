"""Room for one attempt at a time: what is in it."""

from dataclasses import dataclass

from dtf.worker.command_attempt import CommandAttempt
from dtf.worker.warm_process import WarmProcess


@dataclass(slots=True)
class Slot:
    """Holds a warm process, or a command, or nothing."""

    process: WarmProcess | None = None
    command: CommandAttempt | None = None
    bound_at: float = 0.0

    @property
    def is_free(self) -> bool:
        """Whether nothing runs and nothing is bound."""
        return self.process is None and self.command is None
