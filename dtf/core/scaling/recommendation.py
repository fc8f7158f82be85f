"""What a strategy says, before the rules."""

from collections.abc import Callable
from dataclasses import dataclass

from dtf.api.v1 import scaling_pb2


@dataclass(slots=True)
class Recommendation:
    """Workers, and why. What costs time to say is said when it is asked for."""

    workers: int
    explain: Callable[[], str]
    """The recommendation in one sentence."""
    parts: Callable[[], list[tuple[str, int, str]]] = list
    """What each consideration alone would have: name, workers, in words."""
    hold_kind: str = ""
    """Of leaving the pool as it is, where that is not simply that it suffices."""
    explain_hold: Callable[[], str] = str
    """Why it is left so."""
    idle_seconds: float | None = None
    """How long an idle worker is kept, where the strategy knows better than the settings' default."""
    forecast: Callable[[], scaling_pb2.Forecast] | None = None
    wake_at_ns: int | None = None
    """When time alone will have changed it."""
