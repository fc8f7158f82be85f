"""What a strategy says, before the rules."""

from collections.abc import Callable
from dataclasses import dataclass, field

from dtf.api.v1 import scaling_pb2


@dataclass(slots=True)
class Recommendation:
    """Workers, and why. What costs time to say is said when it is asked for."""

    workers: int
    explain: Callable[[], str]
    """The recommendation in one sentence."""
    parts: list[tuple[str, int, str]] = field(default_factory=list)
    """What each consideration alone would have: name, workers, in words."""
    hold: tuple[str, str] | None = None
    """Kind and reason of leaving the pool as it is, where that is not simply that it suffices."""
    forecast: Callable[[], scaling_pb2.Forecast] | None = None
    wake_at_ns: int | None = None
    """When time alone will have changed it."""
