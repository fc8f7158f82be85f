"""Ten more shapes of demand, for looking at a policy from other sides: `make bench NAME=scaling PART=shapes`.

Rates are in tasks a second, durations in seconds; seeds as in `families`.
"""

import random
from collections.abc import Callable, Iterator

from bench.traces.families import HOUR, arrivals, lognormal
from dtf.core.simulation.scaling.trace import Trace, make_trace

DAY = 24 * HOUR
Rows = Iterator[tuple[float, float]]


def nightly(source: random.Random) -> Rows:
    """Five nights of 400 tasks at two, a task in three minutes by day."""
    for night in range(5):
        at = night * DAY + 2 * HOUR + source.uniform(0, 300)
        for _ in range(400):
            yield at + source.uniform(0, 5), lognormal(source, 60, 0.6)
        for day_at in arrivals(source, 20 * HOUR, 0.005, lambda _: 0.005):
            yield night * DAY + 3 * HOUR + day_at, lognormal(source, 30, 0.5)


def weekday(source: random.Random) -> Rows:
    """A week of office hours."""

    def rate(at: float) -> float:
        return 0.15 if at // DAY < 5 and 8 <= at / HOUR % 24 < 18 else 0.004

    for at in arrivals(source, 7 * DAY, 0.15, rate):
        yield at, lognormal(source, 40, 0.6)


def mixed(source: random.Random) -> Rows:
    """Many tasks of 5 s among few of ten minutes."""
    for at in arrivals(source, 4 * HOUR, 0.3, lambda _: 0.3):
        yield at, lognormal(source, 5, 0.5)
    for at in arrivals(source, 4 * HOUR, 0.01, lambda _: 0.01):
        yield at, source.uniform(300, 900)


def trickle(source: random.Random) -> Rows:
    """A task in fifty seconds."""
    for at in arrivals(source, 8 * HOUR, 0.02, lambda _: 0.02):
        yield at, lognormal(source, 20, 0.5)


def on_off(source: random.Random) -> Rows:
    """Ten minutes of work, ten of none."""
    for at in arrivals(source, 4 * HOUR, 0.5, lambda at: 0.5 if at // 600 % 2 == 0 else 0.0):
        yield at, lognormal(source, 15, 0.5)


def one_burst(source: random.Random) -> Rows:
    """5,000 tasks at once."""
    for _ in range(5000):
        yield source.uniform(0, 3), lognormal(source, 10, 0.8)


def ramp(source: random.Random) -> Rows:
    """From nothing to two tasks a second in three hours."""
    for at in arrivals(source, 3 * HOUR, 2.0, lambda at: 2 * at / (3 * HOUR)):
        yield at, lognormal(source, 20, 0.5)


def five_minutes(source: random.Random) -> Rows:
    """Thirty tasks every five minutes to the second."""
    for beat in range(72):
        for _ in range(30):
            yield 300.0 * beat + source.uniform(0, 1), lognormal(source, 40, 0.4)


def suites(source: random.Random) -> Rows:
    """Suites of 10 to 70 tasks, at random, every five minutes on average."""
    for at in arrivals(source, 6 * HOUR, 1 / 300, lambda _: 1 / 300):
        for _ in range(source.randint(10, 70)):
            yield at + source.uniform(0, 2), lognormal(source, 20, 0.7)


def few(source: random.Random) -> Rows:
    """A task in twenty minutes."""
    for at in arrivals(source, DAY, 1 / 1200, lambda _: 1 / 1200):
        yield at, lognormal(source, 120, 0.7)


SHAPES: dict[str, Callable[[random.Random], Rows]] = {
    "nightly": nightly,
    "weekday": weekday,
    "mixed": mixed,
    "trickle": trickle,
    "on-off": on_off,
    "one-burst": one_burst,
    "ramp": ramp,
    "five-minutes": five_minutes,
    "suites": suites,
    "few": few,
}


def make_shape(shape: str, seed: int = 1) -> Trace:
    """One trace."""
    source = random.Random(f"{shape}/{seed}")
    rows = [(round(at, 3), round(duration, 3), 1.0) for at, duration in SHAPES[shape](source)]
    return make_trace(shape, rows)
