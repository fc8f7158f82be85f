"""What history says of a case, and whether a new duration fits it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

UNUSUAL_SCORE = 3.5
"""Modified z-score above which a value is unusual: Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993)."""
SIGMA_PER_MAD = 1.4826
"""Standard deviation of a normal law over its median absolute deviation."""
LEAST_HISTORY = 5
"""Runs below which nothing is called unusual: with four, one slow machine is a quarter of what is known."""
LEAST_SPREAD_RATIO = 0.05
"""Spread assumed at least, as a share of the median: a few equal values do not make a case exact."""
LEAST_SPREAD_SECONDS = 0.002
"""Spread assumed at least: what a scheduler does to anything."""


@dataclass(frozen=True, slots=True)
class CasePoint:
    """One final verdict of a case as the store has it."""

    case_name: str
    time_ns: int
    run_id: str
    revision: str
    worker_id: str
    verdict: str
    duration_seconds: float | None


@dataclass(frozen=True, slots=True)
class CaseHistory:
    """What the newest runs of one case say. Durations of zero runs are 0."""

    case_name: str
    count: int = 0
    median_seconds: float = 0.0
    mad_seconds: float = 0.0
    last_seconds: float = 0.0
    failed_count: int = 0
    """Runs in which it failed or erred."""
    flaky_count: int = 0


def summarize(case_name: str, points: Sequence[CasePoint]) -> CaseHistory:
    """The history that `points`, oldest first, are."""
    durations = [point.duration_seconds for point in points if point.duration_seconds is not None]
    middle = median(durations) if durations else 0.0
    return CaseHistory(
        case_name=case_name,
        count=len(points),
        median_seconds=middle,
        mad_seconds=median(abs(value - middle) for value in durations) if durations else 0.0,
        last_seconds=durations[-1] if durations else 0.0,
        failed_count=sum(point.verdict in ("failed", "error") for point in points),
        flaky_count=sum(point.verdict == "flaky" for point in points),
    )


def score(duration_seconds: float, history: CaseHistory) -> float:
    """Distance from the history's median in standard deviations of its own spread; negative when faster."""
    spread = max(
        SIGMA_PER_MAD * history.mad_seconds,
        LEAST_SPREAD_RATIO * history.median_seconds,
        LEAST_SPREAD_SECONDS,
    )
    return (duration_seconds - history.median_seconds) / spread


def is_unusual(duration_seconds: float, history: CaseHistory) -> bool:
    """Whether the difference exceeds what the history's own spread explains.

    True when the history has at least LEAST_HISTORY runs and the modified z-score, with the spread
    never taken below its two floors, is above UNUSUAL_SCORE in either direction.
    """
    return history.count >= LEAST_HISTORY and abs(score(duration_seconds, history)) > UNUSUAL_SCORE


@dataclass(frozen=True, slots=True)
class CaseComparison:
    """A case of a run beside its history."""

    point: CasePoint
    history: CaseHistory
    ratio: float
    """Duration over the history's median; 0: no history."""
    is_unusual: bool
    recent_seconds: tuple[float, ...]
    """Newest durations before the run, oldest first."""


RECENT = 20
"""Durations that the small line of a report has room for."""


def compare(point: CasePoint, earlier: Sequence[CasePoint]) -> CaseComparison:
    """A point of a run beside `earlier`, the points of its case before it, oldest first."""
    history = summarize(point.case_name, earlier)
    durations = tuple(each.duration_seconds for each in earlier if each.duration_seconds is not None)
    duration = point.duration_seconds
    has_both = duration is not None and history.median_seconds > 0
    return CaseComparison(
        point=point,
        history=history,
        ratio=duration / history.median_seconds if duration is not None and has_both else 0.0,
        is_unusual=duration is not None and bool(durations) and is_unusual(duration, history),
        recent_seconds=durations[-RECENT:],
    )
