"""The same idea as `accuracy_lookalikes` by another hand, which had not read the first one's laws: 37 kinds, a person's idea
of each.

The engine's rules for partitions were made while the first set was looked at, so the second one says more of series that
nobody has looked at. It has been looked at since, with numbers from 100 on; the bench takes those below.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.accuracy_lookalikes import Collection, Floats, Made, Random, column

BLUR = 1.3
"""Positions."""


def memory(random: Random, length: int, share: float, size: float) -> Floats:
    """Autoregressive noise whose innovations have this standard deviation, shape (length,)."""
    noise = random.standard_normal(length) * size
    noise[0] /= np.sqrt(1.0 - share * share)
    for position in range(1, length):
        noise[position] += share * noise[position - 1]
    return np.asarray(noise, dtype=np.float64)


def market(random: Random, length: int, size: float) -> Floats:
    """Returns whose spread comes in clusters and whose tails are heavy, shape (length,)."""
    spread, moves = 1.0, np.zeros(length)
    for position in range(length):
        moves[position] = np.sqrt(spread) * random.standard_t(5) / 1.29
        spread = 0.05 + 0.1 * moves[position] ** 2 + 0.85 * spread
    return np.asarray(size * moves, dtype=np.float64)


def mean_of(values: Floats, width: int) -> Floats:
    """Running mean, shape like the values'."""
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.asarray(np.convolve(padded, np.ones(width) / width, "valid"), dtype=np.float64)


def path(length: int, knots: Sequence[float], heights: Sequence[float]) -> Floats:
    """Straight from knot to knot, shape (length,)."""
    return np.asarray(np.interp(np.arange(length), knots, heights), dtype=np.float64)


def year(length: int, turn: float, period: int = 12) -> Floats:
    """A sine, shape (length,)."""
    return np.asarray(np.sin(2 * np.pi * np.arange(length) / period + turn), dtype=np.float64)


def made(values: Any, *breaks: tuple[int, float]) -> Made:
    """With the chance that a person sees each break."""
    return Made(column(values), tuple(breaks), BLUR)


def share_price(random: Random) -> Made:
    return made(np.round(100 * np.exp(np.cumsum(market(random, 583, 0.004))), 2))


def coin(random: Random) -> Made:
    first, second, third = (int(random.integers(*each)) for each in ((330, 430), (520, 620), (640, 700)))
    rates = np.repeat([0.0015, 0.006, 0.014, -0.009], np.diff([0, first, second, third, 774]))
    values = 600 * np.exp(np.cumsum(rates + market(random, 774, 0.022)))
    return made(values, (first, 0.4), (second, 0.8), (third, 0.9))


def oil(random: Random) -> Made:
    rise, fall = int(random.integers(150, 220)), int(random.integers(300, 330))
    low = fall + int(random.integers(15, 30))
    values = path(500, [0, rise, fall, low, 500], np.log([30, 30, 105, 45, 75]).tolist())
    values = np.exp(values + memory(random, 500, 0.95, 0.018))
    return made(np.round(values, 2), (rise, 0.4), (fall, 0.8), (low, 0.9))


def inventories(random: Random) -> Made:
    fall = int(random.integers(190, 215))
    low = fall + int(random.integers(10, 16))
    values = path(330, [0, fall, low, 330], [13.6, 14.2, 14.05, 14.5]) + memory(random, 330, 0.97, 0.002)
    return made(np.round(np.exp(values)), (fall, 0.9), (low, 0.9))


def leaving(random: Random) -> Made:
    cut = int(random.integers(7, 10))
    values = path(15, [0, cut, cut + 2, 14], [2200, 1400, 200, 15])
    return made(np.round(values * np.exp(0.03 * random.standard_normal(15))), (cut, 0.8))


def births(random: Random) -> Made:
    first = int(random.integers(150, 175))
    second = first + int(random.integers(20, 30))
    values = path(301, [0, first, second, second + 45, 301], [5.8, 5.7, 5.1, 2.7, 2.4])
    values = values + mean_of(memory(random, 301, 0.8, 0.04), 5)
    return made(np.round(values, 2), (first, 0.7), (second, 0.3), (second + 45, 0.6))


def emissions(random: Random) -> Made:
    middle, last = int(random.integers(135, 155)), int(random.integers(175, 185))
    first = middle - 50
    noise = memory(random, 215, 0.7, 0.35)
    noise[:first] = np.abs(0.05 * random.standard_normal(first))
    values = path(215, [0, first, middle, last, 215], [0.02, 0.6, 4.0, 17.0, 15.5]) + noise
    values[:first] = noise[:first]
    return made(values, (first, 0.3), (middle, 0.8), (last, 0.6))


def building(random: Random) -> Made:
    top = int(random.integers(150, 165))
    low = top + int(random.integers(40, 60))
    values = path(331, [0, top, low, 331], [10.4, 11.3, 10.9, 11.5]) + 0.1 * year(331, 0.4)
    values = values + 0.03 * year(331, 1.6, 6) + 0.02 * random.standard_normal(331)
    return made(np.round(np.exp(values)), (top, 0.95), (low, 0.95))


def debt(random: Random) -> Made:
    low = int(random.integers(11, 14))
    values = path(21, [0, low, low + 4, 20], [60, 30, 115, 100]) + 3 * random.standard_normal(21)
    return made(np.round(values, 1), (low, 0.9), (low + 4, 0.6))


def broken_economy(random: Random) -> Made:
    top = int(random.integers(18, 40))
    low = min(56, top + int(random.integers(4, 12)))
    values = path(58, [0, top, low, 58], [1, 1.7, 1.25, 2.2]) + memory(random, 58, 0.7, 0.03)
    return made(np.exp(values) * 1e9, (top, 0.7), (low, 0.6))


def steady_economy(random: Random) -> Made:
    values = path(58, [0, 25, 58], [1, 1.9, 2.3]) + memory(random, 58, 0.8, 0.015)
    return made(np.exp(values) * 1e10, (25, 0.5))


def crisis(random: Random) -> Made:
    cut = int(random.integers(12, 15))
    values = path(24, [0, cut, cut + 1, 23], [150, 340, 315, 320]) + 4 * random.standard_normal(24)
    return made(values * 1e9, (cut, 0.9))


def air(random: Random) -> Made:
    cut = int(random.integers(42, 52))
    rise = (np.maximum(0, np.arange(104) - cut) / 22.0) ** 1.9 * 14
    return made(np.round(280 + memory(random, 104, 0.5, 1.0) + rise, 2), (cut + 8, 0.7))


def league(random: Random) -> Made:
    first, second, third = (int(random.integers(*each)) for each in ((18, 24), (42, 50), (88, 96)))
    knots = [0, first, first + 10, second, third - 1, third, 118]
    values = path(118, knots, [300, 350, 1100, 1400, 3000, 4700, 5100])
    values = values * np.exp(memory(random, 118, 0.4, 0.09))
    return made(np.round(values), (first, 0.8), (second, 0.5), (third, 0.6))


def visitors(random: Random) -> Made:
    cut = int(random.integers(135, 150))
    values = path(199, [0, cut, 199], np.log([15e3, 3.5e4, 1.2e5]).tolist()) + 0.9 * year(199, -1.8)
    values = values + 0.25 * year(199, 1.6, 6) + 0.06 * random.standard_normal(199)
    return made(np.round(np.exp(values)), (cut, 0.7))


def airport(random: Random) -> Made:
    cut, weak = int(random.integers(285, 300)), int(random.integers(90, 170))
    since = np.arange(468) - cut
    dip = 0.45 * np.exp(-np.maximum(0, since) / 8.0) * (since >= 0)
    values = path(468, [0, cut, 468], [14.1, 14.9, 15.2]) + 0.14 * year(468, -1.5) - dip
    values = values + memory(random, 468, 0.8, 0.025)
    values = values + path(468, [0, weak, weak + 10, 468], [0, 0, -0.15, -0.15])
    return made(np.round(np.exp(values)), (cut, 0.95), (weak, 0.3))


def illness(random: Random) -> Made:
    cut = int(random.integers(450, 560))
    strength = np.where((np.arange(991) // 52) % 2 == 0, 1.4, 0.6)
    values = np.exp(5.5 + 1.1 * strength * year(991, 0.5, 52) + memory(random, 991, 0.85, 0.18))
    values = values * np.exp(-np.clip((np.arange(991) - cut) / 60.0, 0.0, 2.2))
    return made(np.round(values), (cut, 0.7), (cut + 110, 0.3))


def river(random: Random) -> Made:
    cut = int(random.integers(22, 60))
    values = 1050 + memory(random, 100, 0.15, 130) - 250 * (np.arange(100) >= cut)
    return made(np.round(values), (cut, 0.9))


def banned(random: Random) -> Made:
    top, low = int(random.integers(24, 30)), int(random.integers(36, 42))
    values = path(54, [0, top - 12, top, low, 54], [6, 40, 380, 100, 30]) + 12 * random.standard_normal(54)
    return made(np.round(values, 1), (top - 12, 0.4), (top, 0.9), (low, 0.8))


def machine(random: Random) -> Made:
    length = int(random.integers(300, 350))
    cuts = np.sort(random.choice(np.arange(40, length - 40), int(random.integers(1, 4)), replace=False))
    size = random.uniform(15, 40)
    values = 100 + 10 * random.standard_normal(length)
    for cut in cuts:
        values[cut:] += random.choice([-1, 1]) * size
    return made(np.round(values, 1), *((int(cut), 0.95) for cut in cuts))


def machine_with_outlier(random: Random) -> Made:
    values = 50 + 3 * random.standard_normal(317)
    values[int(random.integers(50, 280))] += 40
    return made(np.round(values, 2))


def machine_at_rest(random: Random) -> Made:
    return made(random.poisson(3, 325).astype(np.float64))


def tracks(random: Random) -> Made:
    first, last = int(random.integers(8, 12)), int(random.integers(22, 26))
    values = path(37, [0, first, last, 37], [4, 4.4, 15, 15.5]) + 0.12 * random.standard_normal(37)
    return made(np.round(values, 2), (first, 0.8), (last, 0.8))


def fallen_share(random: Random) -> Made:
    cut = int(random.integers(170, 200))
    moves = market(random, 600, 0.012)
    moves[:cut] += 0.004
    moves[cut : cut + 12] -= 0.09
    moves[cut + 12 : cut + 260] -= 0.006
    return made(np.round(300 * np.exp(np.cumsum(moves)), 2), (cut, 0.95), (cut + 12, 0.4))


def calls(random: Random) -> Made:
    cut = int(random.integers(30, 38))
    values = path(53, [0, cut - 16, cut, 53], [2.4, 2.6, 2.6, 5.0]) * np.exp(
        0.07 * random.standard_normal(53)
    )
    return made(np.round(values * 1e9), (cut, 0.8))


def runner(random: Random) -> Made:
    cuts = np.cumsum(random.integers(30, 70, 8))
    cuts = cuts[cuts < 361]
    paces = np.where(np.arange(len(cuts) + 1) % 2 == 0, 3.1, 6.3) + 0.3 * random.standard_normal(
        len(cuts) + 1
    )
    pace = mean_of(np.repeat(paces, np.diff([0, *cuts, 376])), 5) + memory(random, 376, 0.5, 0.18)
    way = np.cumsum(5 / np.maximum(2, pace)) + memory(random, 376, 0.6, 0.1)
    return made(np.stack([pace, way], axis=1), *((int(cut), 0.95) for cut in cuts))


def pieces(random: Random, length: int, least: int, counts: tuple[int, int]) -> list[int]:
    """Cuts at random, those too near to the one before left out."""
    drawn = np.sort(random.choice(np.arange(15, length - 15), int(random.integers(*counts)), replace=False))
    return [
        int(cut)
        for before, cut in zip([0, *drawn.tolist()], drawn.tolist(), strict=False)
        if cut - before > least
    ]


def picture(random: Random) -> Made:
    cuts = pieces(random, 481, 12, (5, 10))
    greys = random.uniform(30, 200, len(cuts) + 1)
    values = np.zeros(481)
    for grey, start, end in zip(greys, [0, *cuts], [*cuts, 481], strict=True):
        shade = np.linspace(0, random.uniform(-15, 15), end - start)
        values[start:end] = grey + shade + memory(random, end - start, 0.6, 0.8 * random.uniform(2, 14))
    chances = np.minimum(0.95, np.abs(np.diff(greys)) / 60).tolist()
    return made(np.round(np.clip(values, 0, 255)), *zip(cuts, chances, strict=True))


def accidents(random: Random) -> Made:
    cut = int(random.integers(55, 85))
    values = 1700 + 220 * year(108, 2) + 90 * random.standard_normal(108) - path(108, [0, 108], [0, 60])
    return made(np.round(values - 330 * (np.arange(108) >= cut)), (cut, 0.95))


def licences(random: Random) -> Made:
    values = path(205, [0, 205], [2500, 11000]) + memory(random, 205, 0.6, 600)
    values[int(random.integers(120, 150))] -= 4500
    return made(np.round(np.abs(values)))


def jobless(random: Random) -> Made:
    knots = np.array([0, 30, 60, 95, 130, 165, 190, 213])
    knots[1:-1] += random.integers(-5, 6, 6)
    heights = np.array([3.5, 5, 9.5, 6.5, 8, 4.2, 5.5, 3.8]) + 0.6 * random.standard_normal(8)
    values = mean_of(path(214, knots.tolist(), heights.tolist()), 7)
    values = values + mean_of(memory(random, 214, 0.6, 0.12), 3)
    return made(np.round(values, 1), *((int(knot), 0.45) for knot in knots[1:-1]))


def nation(random: Random) -> Made:
    cut = int(random.integers(440, 470))
    values = (
        path(816, [0, cut, 816], [1.5e5, 2.5e5, 3.3e5]) + 50 * year(816, 0) + memory(random, 816, 0.9, 20)
    )
    return made(np.round(values), (cut, 0.5))


def devalued(random: Random) -> Made:
    cut = int(random.integers(95, 115))
    values = np.cumsum(market(random, 247, 0.012)) + path(247, [0, cut, cut + 9, 247], [0, 0, 0.6, 0.6])
    return made(np.round(75 * np.exp(values), 2), (cut, 0.9), (cut + 9, 0.6))


def coal(random: Random) -> Made:
    top = int(random.integers(10, 16))
    values = path(105, [0, top, 40, 105], [1.0e6, 1.2e6, 7e5, 1e4])
    values[top + 4 : top + 6] *= 0.5
    return made(np.round(values * np.exp(0.02 * random.standard_normal(105))), (40, 0.6), (top, 0.6))


def well(random: Random) -> Made:
    cuts = pieces(random, 675, 14, (8, 14))
    level, levels = 1.2e5, [1.2e5]
    for _ in cuts:
        side = (1 if level < 1.22e5 else -1) * (1 if random.random() < 0.8 else -1)
        level = float(np.clip(level + side * random.uniform(4e3, 2.2e4), 1e5, 1.45e5))
        levels.append(level)
    values = np.repeat(levels, np.diff([0, *cuts, 675])) + 2300 * random.standard_normal(675)
    is_out = random.random(675) < 0.012
    values[is_out] -= random.uniform(1e4, 4e4, int(is_out.sum()))
    chances = np.minimum(0.95, np.abs(np.diff(levels)) / 8e3).tolist()
    return made(np.round(values, 2), *zip(cuts, chances, strict=True))


def share_and_trade(random: Random) -> Made:
    calm, crash = int(random.integers(300, 330)), int(random.integers(80, 250))
    price = 100 * np.exp(np.cumsum(market(random, 622, 0.011) + 0.001 * (np.arange(622) > calm)))
    price[crash:] *= 0.6
    trade = np.exp(16 + memory(random, 622, 0.7, 0.3) - 0.5 * (np.arange(622) > calm))
    trade[crash : crash + 2] *= 4
    return made(np.stack([price, np.round(trade)], axis=1), (crash, 0.95), (calm, 0.3))


def room(random: Random) -> Made:
    is_used, breaks, at = np.zeros(509), [], int(random.integers(40, 80))
    while at < 479:
        stay = int(random.integers(60, 100))
        is_used[at : at + stay] = 1
        breaks.append((at, 0.85))
        if at + stay < 499:
            breaks.append((at + stay, 0.8))
        at += stay + int(random.integers(80, 120))
    warmth = 20.5 + mean_of(is_used, 25) * 1.8 + memory(random, 509, 0.97, 0.04)
    damp = 26 + memory(random, 509, 0.99, 0.06)
    light = is_used * 427 + 3 + np.where(is_used > 0, 12, 2) * random.standard_normal(509)
    breath = 450 + mean_of(is_used, 41) * 500 + memory(random, 509, 0.9, 10)
    return made(np.round(np.stack([warmth, damp, light, breath], axis=1), 2), *breaks)


def dancer(random: Random) -> Made:
    turns, breaks, at, side = np.zeros(609), [], 0, int(random.integers(3))
    while at < 609:
        if at:
            breaks.append((at, 0.5))
        end = at + int(random.integers(15, 50))
        turns[at:end] = (0.18, 0.0, -0.18)[side]
        at, side = end, (side + 1 + int(random.integers(2))) % 3
    angle = np.cumsum(turns + 0.08 * random.standard_normal(609))
    way = 0.5 * np.cumsum(np.stack([np.cos(angle), np.sin(angle)], axis=1), axis=0)
    return made(np.hstack([way + 0.3 * random.standard_normal((609, 2)), np.sin(angle)[:, None]]), *breaks)


AGAIN = Collection(
    "Look-alikes of collected series by another hand",
    77,
    (
        *(share_price, coin, oil, inventories, leaving, births, emissions, building, debt, broken_economy),
        *(steady_economy, crisis, air, league, visitors, airport, illness, river, banned, machine),
        *(machine_with_outlier, machine_at_rest, tracks, fallen_share, calls, runner, picture, accidents),
        *(licences, jobless, nation, devalued, coal, well, share_and_trade, room, dancer),
    ),
)
