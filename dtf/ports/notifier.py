"""A way to tell people of findings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dtf.api.v1 import findings_pb2


class NotifierError(Exception):
    """A message did not go out. `is_retryable` says whether sending it again can help."""

    def __init__(self, message: str, *, is_retryable: bool, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.is_retryable = is_retryable
        self.retry_after_seconds = retry_after_seconds
        """How long the receiver asks to be left alone; 0: it did not say."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Findings told together."""

    title: str
    """One line."""
    lines: Sequence[str]
    """One sentence a finding, or a group of findings, the worst first; cost that moved last."""
    findings: Sequence[findings_pb2.Finding]


class Notifier(Protocol):
    """One receiver."""

    @property
    def name(self) -> str:
        """ "webhook", "slack" or "mail"."""
        ...

    async def send(self, notice: Notice) -> None:
        """Deliver the notice. Raises NotifierError."""
        ...
