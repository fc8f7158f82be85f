"""How long each case takes: the same on every machine and in every run, and very unequal.

Real suites are like that: most cases take milliseconds, a few take as long as all the others. The
durations follow a Pareto distribution (shape 1.3) read off at evenly spread quantiles, in an order
that a hash shuffles, and are capped at two seconds.
"""

import hashlib

SHORTEST_SECONDS = 0.05
LONGEST_SECONDS = 2.0
SHAPE = 1.3


def duration_seconds(name: str, count: int) -> float:
    """The time that the case called `name`, one of `count`, spends."""
    digest = hashlib.sha256(name.encode()).digest()
    quantile = (int.from_bytes(digest[:4], "big") % count + 0.5) / count
    return min(LONGEST_SECONDS, SHORTEST_SECONDS * (1 - quantile) ** (-1 / SHAPE))
