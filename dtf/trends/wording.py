"""Findings in words, the same wherever they are shown."""

import math

from dtf.core.trend.findings import ChangeKind, ChangePoint, Interval


def amount(value: float) -> str:
    """A signed number with four digits, as +3.142."""
    return f"{value:+.4g}"


def percent(share: float) -> str:
    """A signed share as people say it, as +23 % or +0.4 %."""
    return "–" if not math.isfinite(share) else f"{100 * share:+.{0 if abs(share) >= 0.1 else 1}f} %"


def percent_interval(interval: Interval) -> str:
    """As (18 to 29); empty where the level before was 0."""
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return ""
    return f"({percent(interval.low).removesuffix(' %')} to {percent(interval.high).removesuffix(' %')})"


def change_sentence(change: ChangePoint) -> str:
    """As: step +23 % (+18 to +29) at 120, confirmed. Or: spread +110 % (+70 to +150) at 120, confirmed."""
    relative = change.effect.relative
    size = percent(relative) if math.isfinite(relative) else amount(change.effect.absolute)
    kind = "spread" if change.kind is ChangeKind.VARIANCE else str(change.kind)
    interval = percent_interval(change.effect.relative_interval)
    words = [kind, size, interval, f"at {change.index},", change.state.replace("_", " ")]
    return " ".join(word for word in words if word)
