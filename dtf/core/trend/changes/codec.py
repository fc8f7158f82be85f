"""Change points and windows as plain data for JSON: what is not a number is None."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dtf.core.trend.changes.look import Season
from dtf.core.trend.changes.window import Window
from dtf.core.trend.findings import ChangeKind, ChangePoint, ChangeState, Effect, Impact, Interval


def change_point_to_plain(change: ChangePoint) -> dict[str, Any]:
    """The change point as a dictionary of numbers and texts."""
    effect = change.effect
    return {
        "index": change.index,
        "time": change.time,
        "kind": change.kind.value,
        "state": change.state.value,
        "confidence": change.confidence,
        "absolute": effect.absolute,
        "relative": _number(effect.relative),
        "interval": [_number(effect.interval.low), _number(effect.interval.high)],
        "relative_interval": [_number(effect.relative_interval.low), _number(effect.relative_interval.high)],
        "first_index": change.first_index,
        "last_index": change.last_index,
        "level_before": change.level_before,
        "level_after": change.level_after,
        "impact": change.impact.value,
    }


def change_point_from_plain(plain: Mapping[str, Any]) -> ChangePoint:
    """The change point that was written."""
    effect = Effect(
        absolute=float(plain["absolute"]),
        relative=_float(plain["relative"]),
        interval=_interval(plain["interval"]),
        relative_interval=_interval(plain["relative_interval"]),
    )
    return ChangePoint(
        index=int(plain["index"]),
        time=float(plain["time"]),
        kind=ChangeKind(plain["kind"]),
        state=ChangeState(plain["state"]),
        confidence=float(plain["confidence"]),
        effect=effect,
        first_index=int(plain["first_index"]),
        last_index=int(plain["last_index"]),
        level_before=float(plain["level_before"]),
        level_after=float(plain["level_after"]),
        impact=Impact(plain["impact"]),
    )


def window_to_plain(window: Window) -> dict[str, Any]:
    """The window's columns as lists."""
    return {
        "positions": window.positions.tolist(),
        "times": window.times.tolist(),
        "values": window.values.tolist(),
        "weights": window.weights.tolist(),
    }


def window_from_plain(plain: Mapping[str, Any]) -> Window:
    """The window that was written."""
    window = Window()
    columns = (np.asarray(plain[name], dtype=np.float64) for name in ("times", "values", "weights"))
    window.add(np.asarray(plain["positions"], dtype=np.int64), *columns)
    return window


def season_to_plain(season: Season | None) -> dict[str, Any] | None:
    """The season as a dictionary."""
    if season is None:
        return None
    return {"period": season.period, "origin": season.origin, "pattern": list(season.pattern)}


def season_from_plain(plain: Mapping[str, Any] | None) -> Season | None:
    """The season that was written."""
    if plain is None:
        return None
    return Season(int(plain["period"]), int(plain["origin"]), tuple(float(each) for each in plain["pattern"]))


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _interval(ends: list[float | None]) -> Interval:
    return Interval(_float(ends[0]), _float(ends[1]))
