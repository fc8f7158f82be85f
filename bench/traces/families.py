"""Six families of demand, each from a seed: `python -m bench.traces.families DIRECTORY` writes them as CSV.

Rates are in tasks a second, durations in seconds. Arrivals are a Poisson process (thinned where its
rate changes), durations lognormal unless said otherwise.
"""

import math
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from dtf.core.simulation.scaling.trace import Trace, make_trace

HOUR = 3600.0


class Scale(NamedTuple):
    """A variant of a family."""

    rate: float = 1.0
    duration: float = 1.0
    length: float = 1.0


def arrivals(
    source: random.Random, length: float, most: float, rate: Callable[[float], float]
) -> Iterator[float]:
    """Instants of a Poisson process of `rate`, which is at most `most` (Lewis and Shedler 1979, thinning)."""
    at = 0.0
    while True:
        at += source.expovariate(most)
        if at >= length:
            return
        if source.random() * most < rate(at):
            yield at


def lognormal(source: random.Random, mean: float, spread: float) -> float:
    """A duration; `spread` is the standard deviation of its logarithm."""
    return source.lognormvariate(math.log(mean) - spread**2 / 2, spread)


def steady(source: random.Random, scale: Scale) -> Iterator[tuple[float, float]]:
    """Two hours at half a task a second, 20 s each: some ten workers."""
    rate = 0.5 * scale.rate
    for at in arrivals(source, 2 * HOUR * scale.length, rate, lambda _: rate):
        yield at, lognormal(source, 20 * scale.duration, 0.5)


def burst(source: random.Random, scale: Scale) -> Iterator[tuple[float, float]]:
    """Suites: every 15 to 25 minutes 100 to 300 tasks at once, 12 s each, nothing between."""
    at = 0.0
    while at < 4 * HOUR * scale.length:
        for _ in range(round(source.uniform(100, 300) * scale.rate)):
            yield at + source.uniform(0, 2), lognormal(source, 12 * scale.duration, 0.8)
        at += source.uniform(900, 1500)


def diurnal(source: random.Random, scale: Scale) -> Iterator[tuple[float, float]]:
    """Two days; at noon twelve times as much as at midnight, 30 s each."""

    def rate(at: float) -> float:
        day = 2 * math.pi * at / (24 * HOUR)
        return scale.rate * (0.02 + 0.22 * (1 - math.cos(day)) / 2)

    for at in arrivals(source, 48 * HOUR * scale.length, 0.24 * scale.rate, rate):
        yield at, lognormal(source, 30 * scale.duration, 0.7)


def heavy_tailed(source: random.Random, scale: Scale) -> Iterator[tuple[float, float]]:
    """Three hours; durations by a Pareto law of index 1.3 from 4 s on, cut at one hour."""
    rate = 0.4 * scale.rate
    for at in arrivals(source, 3 * HOUR * scale.length, rate, lambda _: rate):
        yield at, min(4 * scale.duration * source.paretovariate(1.3), HOUR)


def flash_crowd(source: random.Random, scale: Scale) -> Iterator[tuple[float, float]]:
    """Three hours of a trickle; from one hour on thirty times as much for ten minutes, fading over twenty."""

    def rate(at: float) -> float:
        since = at - HOUR * scale.length
        crowd = 0.0 if since < 0 else 1.0 if since < 600 else math.exp(-(since - 600) / 400)
        return scale.rate * (0.1 + 2.9 * crowd)

    for at in arrivals(source, 3 * HOUR * scale.length, 3.0 * scale.rate, rate):
        yield at, lognormal(source, 15 * scale.duration, 0.6)


def long_jobs(source: random.Random, scale: Scale) -> Iterator[tuple[float, float]]:
    """Twelve hours; a task every 100 s, of 10 to 50 minutes."""
    rate = 0.01 * scale.rate
    for at in arrivals(source, 12 * HOUR * scale.length, rate, lambda _: rate):
        yield at, scale.duration * source.uniform(600, 3000)


FAMILIES: dict[str, Callable[[random.Random, Scale], Iterator[tuple[float, float]]]] = {
    "steady": steady,
    "burst": burst,
    "diurnal": diurnal,
    "heavy-tailed": heavy_tailed,
    "flash-crowd": flash_crowd,
    "long-jobs": long_jobs,
}


AS_IS = Scale()


def make_family(family: str, seed: int = 1, scale: Scale = AS_IS) -> Trace:
    """One trace."""
    source = random.Random(f"{family}/{seed}")
    rows = [(round(at, 3), round(duration, 3), 1.0) for at, duration in FAMILIES[family](source, scale)]
    return make_trace(family, rows)


def make_month(seed: int = 1, minutes: int = 30 * 24 * 60) -> Trace:
    """Demand by the minute for thirty days, about 500,000 tasks: days and weeks in it, 50 s each."""
    source = random.Random(f"month/{seed}")
    rows = []
    for minute in range(minutes):
        day = 2 * math.pi * minute / (24 * 60)
        is_weekend = minute // (24 * 60) % 7 >= 5
        rate = 11.6 * 1.19 * (1 - 0.8 * math.cos(day)) * (0.45 if is_weekend else 1.0)
        count = round(source.gauss(rate, math.sqrt(rate)))
        rows += [(minute * 60.0, round(lognormal(source, 50, 0.8), 3), 1.0) for _ in range(count)]
    return make_trace("month", rows)


def write(directory: Path) -> None:
    """Every family as a CSV file."""
    directory.mkdir(parents=True, exist_ok=True)
    for family in FAMILIES:
        trace = make_family(family)
        lines = [
            f"{at:g},{duration:g}\n" for at, duration in zip(trace.submits, trace.durations, strict=True)
        ]
        (directory / f"{family}.csv").write_text("submit_seconds,duration_seconds\n" + "".join(lines))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
