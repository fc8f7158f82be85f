"""Series that look like those which people collect, with breaks that are known: yearly growth, populations, passengers,
exchange rates, prices, sensors, counts, pictures' lines, epidemics, several metrics at once.

They are neither "noise + steps" nor copies of any data set: each kind is a law with its numbers drawn anew. Noise
remembers, grows with the level, is rounded; walks walk; seasons multiply; some series hold nothing. Each break has a
chance that a person sees it; five annotators mark what they see, a little off, and now and then something that is not
there. Numbers below 10,000 belong to the bench.
"""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

from bench.accuracy_environment import Peer
from bench.accuracy_marks import measure_annotated

Floats = np.ndarray[Any, np.dtype[np.float64]]
Random = np.random.Generator

ANNOTATORS = 5
IMAGINED = 0.08
"""Chance that an annotator marks something where nothing is."""
CLEAR, LIKELY, FAINT = 0.95, 0.8, 0.5
"""Chance that an annotator sees a break."""


@dataclass(frozen=True, slots=True)
class Made:
    """A series and its breaks."""

    values: Floats
    """Shape (n, d)."""
    breaks: tuple[tuple[int, float], ...] = ()
    """First position of a new regime, and the chance that a person sees it."""
    blur: float = 0.7
    """Standard deviation of where a person puts a break, positions."""

    @property
    def places(self) -> list[int]:
        """Of the breaks."""
        return [place for place, _ in self.breaks]


def remembering(random: Random, length: int, memory: float) -> Floats:
    """Autoregressive noise with a standard deviation of 1, shape (length,)."""
    white = random.standard_normal(length)
    for position in range(1, length):
        white[position] = memory * white[position - 1] + np.sqrt(1 - memory**2) * white[position]
    return np.asarray(white, dtype=np.float64)


def bent(length: int, start: float, slopes: Sequence[tuple[int, float]]) -> Floats:
    """A path from `start` whose slope is another from each place on, shape (length,)."""
    rises = np.zeros(length)
    for place, slope in slopes:
        rises[place:] = slope
    rises[0] = 0.0
    return np.asarray(start + np.cumsum(rises), dtype=np.float64)


def places(random: Random, length: int, count: int, least: int) -> list[int]:
    """So many places, at least `least` from each other and the ends."""
    free = length - least * (count + 1)
    cuts = np.sort(random.integers(0, max(free, 0) + 1, count))
    return [int(cut + least * (number + 1)) for number, cut in enumerate(cuts)]


def column(values: Any) -> Floats:
    """As a series of one dimension, shape (n, 1)."""
    return np.asarray(values, dtype=np.float64).reshape(len(values), -1)


def growth(random: Random) -> Made:
    """Yearly output of a country: it grows by a rate that remembers; a crisis, or another rate from some year on."""
    length = int(random.integers(35, 62))
    count = int(random.choice([0, 1, 1, 2]))
    cuts = places(random, length, count, 9)
    slopes, breaks = [(0, random.uniform(0.02, 0.06))], []
    jumps = np.zeros(length)
    for cut in cuts:
        if random.random() < 0.4:
            jumps[cut:] -= random.uniform(0.15, 0.35)
            breaks.append((cut, LIKELY))
        else:
            slopes.append((cut, slopes[-1][1] + random.choice([-1, 1]) * random.uniform(0.05, 0.09)))
            breaks.append((cut, LIKELY))
    noise = random.uniform(0.015, 0.03) * remembering(random, length, random.uniform(0.4, 0.8))
    values = np.exp(bent(length, random.uniform(3, 8), slopes) + jumps + noise)
    return Made(column(values), tuple(breaks), 1.2)


def population(random: Random) -> Made:
    """A smooth rise, nearly without noise, monthly or yearly; at times it turns."""
    length = int(random.choice([60, 120, 400, 800]))
    x = np.linspace(0, 1, length)
    bend = random.uniform(-0.4, 0.4)
    values = 100 * (1 + random.uniform(0.3, 1.5) * (x + bend * x * (1 - x)))
    breaks = []
    if random.random() < 0.35:
        cut = int(random.uniform(0.3, 0.7) * length)
        values += random.choice([-1, 1]) * random.uniform(60, 150) * np.maximum(x - x[cut], 0)
        breaks.append((cut, LIKELY))
    walk = np.cumsum(remembering(random, length, 0.8)) * 0.15 / np.sqrt(length)
    season = 0.15 * np.sin(2 * np.pi * np.arange(length) / 12) * (length > 100)
    return Made(column(np.round(values * 1000 * (1 + 0.01 * walk) + 100 * season)), tuple(breaks), 2.0)


def passengers(random: Random) -> Made:
    """Monthly travellers: growth times season times noise; often a crash after which the level comes back slowly."""
    length = int(random.integers(150, 470))
    kind = random.choice(["none", "crash", "crash", "kink"])
    month = np.arange(length)
    pattern = np.exp(random.uniform(0.08, 0.3) * np.sin(2 * np.pi * (month + random.uniform(0, 12)) / 12))
    pattern *= np.exp(0.05 * random.standard_normal(12)[month % 12])
    slopes, jumps, breaks = [(0, random.uniform(0.001, 0.005))], np.zeros(length), []
    if kind == "crash":
        (cut,) = places(random, length, 1, 40)
        depth, back = random.uniform(0.25, 0.6), random.uniform(30, 150)
        jumps[cut:] -= depth * np.exp(-np.arange(length - cut) / back)
        breaks.append((cut, CLEAR))
    elif kind == "kink":
        (cut,) = places(random, length, 1, 50)
        slopes.append((cut, slopes[0][1] + random.choice([-1, 1]) * random.uniform(0.006, 0.012)))
        breaks.append((cut, LIKELY))
    noise = random.uniform(0.02, 0.05) * remembering(random, length, 0.5)
    values = random.uniform(1e3, 1e6) * np.exp(bent(length, 0.0, slopes) + jumps + noise) * pattern
    return Made(column(np.round(values)), tuple(breaks), 1.5)


def exchange_rate(random: Random) -> Made:
    """A rate that walks; a currency may fall at once, and walk on."""
    length = int(random.integers(200, 420))
    step = random.uniform(0.008, 0.02)
    moves = step * random.standard_normal(length) * np.exp(0.3 * remembering(random, length, 0.9))
    breaks = []
    if random.random() < 0.6:
        (cut,) = places(random, length, 1, 30)
        fall = random.uniform(10, 18) * step * random.choice([-1, 1])
        moves[cut : cut + 3] += fall / 3
        breaks.append((cut, LIKELY))
    return Made(column(np.exp(4 + np.cumsum(moves))), tuple(breaks), 1.2)


def price(random: Random) -> Made:
    """A price with drift that walks; a boom or a slump begins, in which it goes one way."""
    length = int(random.integers(250, 760))
    step = random.uniform(0.01, 0.02)
    moves = step * random.standard_normal(length) + 0.0003
    breaks: list[tuple[int, float]] = []
    if random.random() < 0.65:
        cut = int(random.uniform(0.25, 0.7) * length)
        last = min(length, cut + int(random.uniform(25, 80)))
        moves[cut:last] += random.choice([-1, 1]) * random.uniform(0.6, 1.0) * 1.2 / (last - cut)
        breaks += [(cut, LIKELY), *([(last, LIKELY)] if last < length - 20 else [])]
    return Made(column(np.exp(3 + np.cumsum(moves))), tuple(breaks), 2.0)


def sensor(random: Random) -> Made:
    """A log of a sensor: levels that jump, noise that remembers, outliers, rounded values."""
    length = int(random.integers(300, 700))
    count = int(random.integers(1, 8))
    cuts = places(random, length, count, 18)
    values = 0.6 * remembering(random, length, random.uniform(0.2, 0.7))
    breaks = []
    for cut in cuts:
        size = random.uniform(2.5, 7)
        values[cut:] += random.choice([-1, 1]) * size
        breaks.append((cut, CLEAR if size > 3.5 else LIKELY))
    is_odd = random.random(length) < random.uniform(0.005, 0.03)
    values[is_odd] += random.choice([-1, -1, 1], int(is_odd.sum())) * random.uniform(5, 15, int(is_odd.sum()))
    return Made(column(np.round(1e4 + 800 * values)), tuple(breaks), 0.8)


def counts(random: Random) -> Made:
    """Events a year: a Poisson law whose rate changes once or twice, or slowly."""
    length = int(random.integers(60, 130))
    kind = random.choice(["step", "step", "two", "none", "slow"])
    rate = np.full(length, random.uniform(2.5, 20))
    breaks = []
    if kind in ("step", "two"):
        for cut in places(random, length, 1 if kind == "step" else 2, 20):
            factor = random.uniform(2.2, 3.5)
            rate[cut:] *= factor if random.random() < 0.5 else 1 / factor
            breaks.append((cut, LIKELY))
    elif kind == "slow":
        rate = rate * np.linspace(1, random.uniform(1.5, 2.5), length)
    return Made(column(random.poisson(rate)), tuple(breaks), 1.5)


def flow(random: Random) -> Made:
    """Yearly flow of a river, monthly robberies, daily calls: noise around a level that may change once."""
    length = int(random.integers(45, 140))
    values = remembering(random, length, random.uniform(0, 0.35))
    breaks = []
    if random.random() < 0.65:
        (cut,) = places(random, length, 1, 14)
        values[cut:] += random.choice([-1, 1]) * random.uniform(1.8, 3.0)
        breaks.append((cut, LIKELY))
    return Made(column(np.round(900 + 130 * values)), tuple(breaks), 1.0)


def quality(random: Random) -> Made:
    """Measures of a process: noise with one step, a drift that begins, a lone outlier, or nothing."""
    length = int(random.integers(150, 500))
    kind = random.choice(["step", "drift", "outlier", "none"])
    values = random.standard_normal(length)
    breaks = []
    (cut,) = places(random, length, 1, 50)
    if kind == "step":
        values[cut:] += random.choice([-1, 1]) * random.uniform(2.5, 4.5)
        breaks.append((cut, CLEAR))
    elif kind == "drift":
        values += random.uniform(3, 5) * np.linspace(0, 1, length)
    elif kind == "outlier":
        values[cut] += 9
    return Made(column(np.round(50 + 2 * values, 2)), tuple(breaks), 0.7)


def short_curve(random: Random) -> Made:
    """A debt, a birth rate, a length of rails: a few smooth years and a clear kink or jump."""
    length = int(random.integers(15, 45))
    kind = random.choice(["kink", "kink", "kink", "jump", "none"])
    noise = random.uniform(0.1, 0.3) * remembering(random, length, 0.5)
    slope = random.uniform(-0.4, 0.4)
    values = bent(length, 10.0, [(0, slope)])
    breaks = []
    if kind != "none":
        (cut,) = places(random, length, 1, 6)
        if kind == "kink":
            other = slope + random.choice([-1, 1]) * random.uniform(0.8, 2.0)
            values = bent(length, 10.0, [(0, slope), (cut, other)])
        else:
            values[cut:] += random.choice([-1, 1]) * random.uniform(2.5, 5)
        breaks.append((cut, CLEAR))
    return Made(column(np.round(values + noise, 2)), tuple(breaks), 0.8)


def picture_line(random: Random) -> Made:
    """A line across a picture: objects of a brightness and a texture each, edges a few values wide."""
    length = int(random.integers(300, 500))
    cuts = places(random, length, int(random.integers(3, 9)), 22)
    values, breaks, level = np.empty(length), [], random.uniform(60, 180)
    for start, end in zip([0, *cuts], [*cuts, length], strict=True):
        tilt = random.uniform(-8, 8) * np.linspace(0, 1, end - start)
        texture = random.choice([2.0, 4.0, 9.0]) * remembering(random, end - start, random.uniform(0.3, 0.8))
        values[start:end] = level + tilt + texture
        if start:
            breaks.append((start, CLEAR))
        edge = random.uniform(30, 80)
        level += edge if level < 30 + edge or (level + edge < 225 and random.random() < 0.5) else -edge
    smooth = np.convolve(np.pad(values, 1, mode="edge"), [0.2, 0.6, 0.2], mode="valid")
    return Made(column(np.clip(np.round(smooth), 0, 255)), tuple(breaks), 0.8)


def seasonal(random: Random) -> Made:
    """Accidents or sales a month: season, noise that grows with the level, a law that lowers it, or a slow change."""
    length = int(random.integers(96, 240))
    month = np.arange(length)
    values = random.uniform(0.08, 0.2) * np.sin(2 * np.pi * (month + random.uniform(0, 12)) / 12)
    values += 0.1 * random.standard_normal(12)[month % 12]
    values += random.uniform(0.05, 0.08) * remembering(random, length, 0.3)
    values += random.uniform(-0.2, 0.2) * month / length
    breaks = []
    if random.random() < 0.65:
        (cut,) = places(random, length, 1, 24)
        values[cut:] += random.choice([-1, 1]) * random.uniform(0.25, 0.45)
        breaks.append((cut, LIKELY))
    return Made(column(np.round(1500 * np.exp(values))), tuple(breaks), 1.5)


def business(random: Random) -> Made:
    """Unemployment, inventories: waves without a clock, as an autoregression of order two makes them; once a clear break at most."""
    length = int(random.integers(150, 330))
    period, damping = random.uniform(40, 110), random.uniform(0.95, 0.985)
    first, second = 2 * damping * np.cos(2 * np.pi / period), -(damping**2)
    white, values = random.standard_normal(length + 200), np.zeros(length + 200)
    for position in range(2, length + 200):
        values[position] = first * values[position - 1] + second * values[position - 2] + white[position]
    values = values[200:] / values.std()
    breaks = []
    if random.random() < 0.4:
        (cut,) = places(random, length, 1, 30)
        values[cut:] += random.choice([-1, 1]) * random.uniform(2.5, 4)
        breaks.append((cut, LIKELY))
    return Made(column(np.round(6 + 1.2 * values, 2)), tuple(breaks), 2.0)


def epidemic(random: Random) -> Made:
    """Cases a week: outbreaks that come back, until something ends them, or nothing does."""
    length = int(random.integers(300, 990))
    period = random.uniform(45, 60)
    phase = 2 * np.pi * (np.arange(length) + random.uniform(0, 50)) / period
    size = np.exp(0.5 * remembering(random, length, 0.98))
    rate = 30 + 900 * size * np.exp(2.2 * (np.sin(phase) - 1))
    breaks = []
    if random.random() < 0.7:
        (cut,) = places(random, length, 1, 120)
        rate[cut:] *= random.uniform(0.04, 0.15)
        breaks.append((cut, LIKELY))
    noisy = random.negative_binomial(8, 8 / (8 + rate))
    return Made(column(noisy), tuple(breaks), 3.0)


def activity(random: Random) -> Made:
    """A runner's pace and distance a second, a room's light, temperature and air: phases that all metrics share."""
    length = int(random.integers(250, 520))
    cuts = places(random, length, int(random.integers(1, 7)), 25)
    dimensions = int(random.integers(2, 5))
    values = np.stack([remembering(random, length, 0.6) for _ in range(dimensions)], axis=1)
    side = 1.0
    for cut in cuts:
        sizes = random.uniform(2.5, 7, dimensions) * (random.random(dimensions) < 0.7)
        sizes[0] = random.uniform(4, 7)
        values[cut:] += side * sizes
        side = -side
    return Made(np.round(20 + 3 * values, 2), tuple((cut, CLEAR) for cut in cuts), 1.0)


class BrokenSeries(Protocol):
    """A series and where it breaks."""

    @property
    def values(self) -> Floats:
        """Shape (n, d)."""

    @property
    def places(self) -> list[int]:
        """First positions of new regimes."""


class Hand(Protocol):
    """A collection, whoever made it."""

    @property
    def title(self) -> str:
        """In one line."""

    @property
    def names(self) -> list[str]:
        """Of the kinds of series."""

    def made(self, kind: str, number: int) -> tuple[BrokenSeries, dict[str, list[int]]]:
        """The series of a kind with this number, and what each annotator marks in it."""


@dataclass(frozen=True, slots=True)
class Collection:
    """Kinds of series by one hand."""

    title: str
    seed: int
    kinds: tuple[Callable[[Random], Made], ...]

    @property
    def names(self) -> list[str]:
        """Of the kinds."""
        return [kind.__name__ for kind in self.kinds]

    def made(self, kind: str, number: int) -> tuple[Made, dict[str, list[int]]]:
        """The series of a kind with this number, and what each annotator marks in it."""
        place = self.names.index(kind)
        random = np.random.default_rng([self.seed, place, number])
        series = self.kinds[place](random)
        length = len(series.values)
        marks = {}
        for annotator in range(ANNOTATORS):
            seen = [cut for cut, chance in series.breaks if random.random() < chance]
            off = np.round(series.blur * random.standard_normal(len(seen))).astype(int)
            mine = {int(np.clip(cut + each, 1, length - 1)) for cut, each in zip(seen, off, strict=True)}
            if random.random() < IMAGINED:
                mine.add(int(random.integers(length // 10 + 1, length - length // 10)))
            marks[str(annotator)] = sorted(mine)
        return series, marks


FIRST = Collection(
    "Look-alikes of collected series, their breaks known",
    55,
    (
        growth,
        population,
        passengers,
        exchange_rate,
        price,
        sensor,
        counts,
        flow,
        quality,
        short_curve,
        picture_line,
        seasonal,
        business,
        epidemic,
        activity,
    ),
)


def write_folder(folder: Path, collection: Hand, numbers: Sequence[int]) -> None:
    """These series of each kind, in the format of the Turing Change Point Dataset."""
    annotations = {}
    for kind in collection.names:
        for number in numbers:
            series, marks = collection.made(kind, number)
            name = f"{kind}_{number}"
            annotations[name] = marks
            content = {
                "name": name,
                "n_obs": len(series.values),
                "n_dim": series.values.shape[1],
                "series": [
                    {"label": f"V{place}", "type": "float", "raw": each.tolist()}
                    for place, each in enumerate(series.values.T)
                ],
            }
            (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "annotations.json").write_text(json.dumps(annotations))


def measure_lookalikes(
    collection: Hand, least: int, peers: Sequence[Peer], pool: ProcessPoolExecutor
) -> dict[str, Any]:
    """F1 and covering of each on so many series or a few more, the same number of each kind, and of ours by kind."""
    with TemporaryDirectory(prefix="dtf-lookalikes-") as folder:
        write_folder(Path(folder), collection, range(-(-least // len(collection.names))))
        figures = measure_annotated(Path(folder), peers, pool)
    by_kind = {kind: _kind_means(kind, figures["each"]) for kind in collection.names}
    return {"title": collection.title, **figures, "by_kind": by_kind}


def _kind_means(kind: str, each: dict[str, Any]) -> dict[str, float]:
    """Ours, and the zero's, on the series of a kind."""
    mine = [scores for name, scores in each.items() if name.rpartition("_")[0] == kind]
    return {key: fmean(scores[key] for scores in mine) for key in ("f1", "cover", "none_f1", "none_cover")}
