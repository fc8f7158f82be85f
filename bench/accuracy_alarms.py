"""False alarms on series without a step, and how soon and where a step is found.

Ours is watched as a user watches it: each point is appended, and every change point that ever shows,
provisional ones included, counts, whether it stays or not. The peers are asked once, with the whole
series, which spares them what they say and take back on the way.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

import numpy as np

from bench.accuracy_environment import Peer, ask, say
from bench.accuracy_families import (
    DRIFT_FAMILY,
    FAMILIES,
    STEP_AT,
    STEP_SIZES,
    noise,
    with_step,
)
from bench.accuracy_scores import MARGIN, wilson
from dtf.core.trend.changes import ChangeStream
from dtf.core.trend.findings import ChangeKind, ChangePoint, ChangeState, TrendLabel
from dtf.core.trend.slopes import find_trend

ALARM_AIM = 0.05
DELAY_AIMS = {3.0: 4, 5.0: 2}
"""Points, by step size in sigma."""
LENGTHS = (200, 1000)
DRIFTING = (TrendLabel.RISING, TrendLabel.FALLING)
LEFT_IN_PEERS, LEFT_IN_DELAYS, LEFT_IN_ASKED = 2, 4, 4
"""One series in so many is given to the peers, which are slower, or analysed anew with each point."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What we said of one series without a step."""

    alarm: str
    """Kind and place of the first false change point that ever showed; empty: none."""
    is_alarm_at_end: bool
    is_drift_found: bool
    """At the end, as a change point or as the trend; only counted where there is one."""


def watch(family: str, length: int, number: int) -> Watched:
    """Append a series. `extend` returns what each `append` would have, which a test holds it to."""
    stream, values = ChangeStream(), noise(family, length, number)
    said = stream.extend(np.arange(length, dtype=np.float64), values)
    false = [each for each in said if is_false(family, each)]
    alarm = f"{false[0].kind} at {false[0].index}" if false else ""
    kinds = [each.kind for each in stream.change_points]
    at_end = any(is_false(family, each) for each in stream.change_points)
    is_drift = family == DRIFT_FAMILY and (ChangeKind.DRIFT in kinds or find_trend(values).label in DRIFTING)
    return Watched(alarm, at_end, is_drift)


def is_ever_asked_wrong(family: str, length: int, number: int) -> bool:
    """Whether who analyses the series anew with each further point is ever told of a false change point."""
    stream = ChangeStream()
    for position, value in enumerate(noise(family, length, number).tolist()):
        stream.append(float(position), value)
        if any(is_false(family, each) for each in stream.change_points):
            return True
    return False


def is_false(family: str, change: ChangePoint) -> bool:
    """Whether a change point is a false alarm: one that shows, and is not a drift where there is one."""
    if change.state is ChangeState.WENT_AWAY:
        return False
    return not (family == DRIFT_FAMILY and change.kind is ChangeKind.DRIFT)


def measure_alarms(count: int, peers: Sequence[Peer], pool: ProcessPoolExecutor) -> list[dict[str, Any]]:
    """One row a family and length: shares of series with a false alarm."""
    rows = []
    for length in LENGTHS:
        total = count if length == LENGTHS[0] else max(1, count // 2)
        for family in FAMILIES:
            say(f"false alarms: {total} series of {length:,} points, {family}")
            numbers = range(total)
            ours = list(pool.map(watch, [family] * total, [length] * total, numbers, chunksize=8))
            row: dict[str, Any] = {"family": family, "length": length, "series": total}
            row["ours"] = share([bool(each.alarm) for each in ours])
            row["ours_at_end"] = share([each.is_alarm_at_end for each in ours])
            row["drift_found"] = mean(each.is_drift_found for each in ours)
            row["alarms"] = {number: each.alarm for number, each in enumerate(ours) if each.alarm}
            if length == LENGTHS[0]:
                some = range(0, total, LEFT_IN_ASKED)
                columns = [family] * len(some), [length] * len(some), some
                asked = list(pool.map(is_ever_asked_wrong, *columns))
                row["asked_anew"] = share(asked)
            row["peers"] = peers_alarms(family, length, numbers[::LEFT_IN_PEERS], peers)
            rows.append(row)
    return rows


def peers_alarms(
    family: str, length: int, numbers: Sequence[int], peers: Sequence[Peer]
) -> dict[str, dict[str, float]]:
    """The share of series each peer finds a change in."""
    series = [noise(family, length, number).tolist() for number in numbers]
    answers = {peer.name: ask(peer, {"series": series}) for peer in peers}
    return {
        name: share([bool(found) for found in answer.answers])
        for name, answer in answers.items()
        if answer is not None
    }


def share(events: Sequence[bool]) -> dict[str, float]:
    """How often something was so, with its 95 % interval."""
    low, high = wilson(sum(events), len(events))
    return {"share": sum(events) / len(events), "low": low, "high": high}


@dataclass(frozen=True, slots=True)
class Found:
    """When a step was first given within the margin, and where."""

    delay: int
    """Points of the new regime; 0: never."""
    error: float
    """Positions between the step and where it was put then."""
    last_error: float
    """The same after all points; infinite: it is not given within the margin."""


def find_step(size: float, number: int) -> Found:
    """Append a series with a step point by point."""
    stream, delay, error = ChangeStream(), 0, math.inf
    for position, value in enumerate(with_step(size, number).tolist()):
        said = stream.append(float(position), value)
        if position >= STEP_AT and not delay and _nearest(said) <= MARGIN:
            delay, error = position + 1 - STEP_AT, _nearest(said)
    last = _nearest(stream.change_points)
    return Found(delay, error, last if last <= MARGIN else math.inf)


def _nearest(changes: Sequence[ChangePoint]) -> float:
    places = [each.index for each in changes if each.state is not ChangeState.WENT_AWAY]
    return min((abs(each - STEP_AT) for each in places), default=math.inf)


def measure_delays(count: int, peers: Sequence[Peer], pool: ProcessPoolExecutor) -> list[dict[str, Any]]:
    """One row a step size: points until it is found, how often it is, and how far off it is put."""
    rows = []
    for size in STEP_SIZES:
        say(f"detection delay: {count} series with a step of {size:g} sigma")
        ours = list(pool.map(find_step, [size] * count, range(count), chunksize=8))
        row: dict[str, Any] = {"size": size, "series": count, "ours": summary(ours)}
        settled = [each.last_error for each in ours if each.last_error < math.inf]
        row["ours"]["last_location_error"] = mean(settled) if settled else None
        row["peers"] = peers_delays(size, range(0, count, LEFT_IN_DELAYS), peers)
        rows.append(row)
    return rows


def peers_delays(
    size: float, numbers: Sequence[int], peers: Sequence[Peer]
) -> dict[str, dict[str, float | None]]:
    """The same of each peer, asked again after each point."""
    series = [with_step(size, number).tolist() for number in numbers]
    summaries = {}
    for peer in peers:
        answer = ask(peer, {"series": series, "from": STEP_AT, "margin": MARGIN})
        if answer is not None:
            found = [
                Found(0, math.inf, math.inf)
                if each is None
                else Found(each[0], abs(each[1] - STEP_AT), math.inf)
                for each in answer.answers
            ]
            summaries[peer.name] = summary(found)
    return summaries


def summary(found: Sequence[Found]) -> dict[str, float | None]:
    """Median delay (None: most are never found), the share found and the mean location error of those."""
    middle = median([each.delay or math.inf for each in found])
    errors = [each.error for each in found if each.delay]
    return {
        "median": middle if middle < math.inf else None,
        "found": len(errors) / len(found),
        "location_error": mean(errors) if errors else None,
    }
