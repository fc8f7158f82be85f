"""The third hand's kinds of series: economies, prices, counts, processes, sensors; pure."""

from collections.abc import Callable

import numpy as np

from bench.accuracy_third_shapes import (
    CLEAR,
    FAINT,
    FAIR,
    Break,
    Drawn,
    Random,
    between,
    months,
    polyline,
    smooth,
)


def output_of_a_country(random: Random) -> Drawn:
    """Yearly GDP: growth, mostly even; in some a crisis, after which it grows from lower, or slower."""
    count = between(random, 50, 62)
    rate = np.full(count, random.uniform(0.015, 0.04))
    breaks: tuple[Break, ...] = ()
    if random.random() < 0.5:
        at = between(random, 0.35 * count, 0.75 * count)
        rate[at:] *= random.uniform(0.1, 0.4)
        breaks = (Break(at, FAIR, 1.5),)
    noise = 0.012 * random.standard_normal(count)
    return Drawn(100 * np.exp(np.cumsum(rate + noise)), breaks)


def output_through_unrest(random: Random) -> Drawn:
    """Yearly GDP that rises steeply, falls in a revolution or war for years, and rises again."""
    count = between(random, 50, 60)
    fall = between(random, 14, 22)
    end = fall + between(random, 5, 14)
    top, low = random.uniform(2.2, 3.5), random.uniform(1.1, 1.8)
    line = polyline(count, [(0, 0.8), (fall, top), (end, low), (count - 1, low + random.uniform(0.9, 2.0))])
    return Drawn(line + 0.07 * smooth(random, count, 0.4), (Break(fall, 1.6, 0.8), Break(end, 1.1, 1.2)))


def young_country(random: Random) -> Drawn:
    """Twenty-odd yearly values: up, then a crisis, then level."""
    count = between(random, 20, 26)
    crisis = between(random, 11, 16)
    slump = random.uniform(0.04, 0.12)
    line = polyline(
        count, [(0, 1.0), (crisis - 1, 1.6), (crisis + 1, 1.6 - slump), (count - 1, 1.62 - slump)]
    )
    return Drawn(line + 0.015 * random.standard_normal(count), (Break(crisis, FAIR, 0.8),))


def public_debt(random: Random) -> Drawn:
    """Some 21 yearly shares: falling, shooting up in a crisis, then held or falling."""
    count = between(random, 19, 24)
    up = between(random, 9, 12)
    held = up + between(random, 4, 5)
    line = polyline(count, [(0, 70), (up, 28), (held, 118), (count - 1, random.uniform(75, 115))])
    return Drawn(line + 2.0 * random.standard_normal(count), (Break(up, CLEAR, 0.6), Break(held, FAIR, 0.7)))


def emptied_town(random: Random) -> Drawn:
    """Fifteen counts of inhabitants: up for a century, then down to a handful."""
    count = 15
    peak = between(random, 4, 6)
    gone = between(random, 10, 12)
    line = polyline(count, [(0, 1300), (peak, 2500), (gone - 1, 1200), (gone, 60), (count - 1, 8)])
    noise = 1 + 0.06 * random.standard_normal(count)
    return Drawn(np.maximum(line * noise, 3.0), (Break(gone, CLEAR, 0.4), Break(peak, -0.2, 0.8)))


def births_a_woman(random: Random) -> Drawn:
    """Two to three centuries: level, falling through the transition, level at two."""
    count = between(random, 220, 300)
    fall = between(random, 0.35 * count, 0.5 * count)
    low = fall + between(random, 50, 90)
    line = polyline(count, [(0, 5.1), (fall, 4.7), (low, 2.3), (count - 1, 1.9)])
    breaks = [Break(fall, 1.3, 3.5), Break(low, 0.8, 4.0)]
    if random.random() < 0.5 and low + 45 < count:
        boom = low + between(random, 5, 15)
        line[boom : boom + 20] += random.uniform(0.5, 0.9) * np.hanning(20)
        breaks.append(Break(boom + 16, FAINT, 3.0))
    return Drawn(line + 0.12 * smooth(random, count, 0.7), tuple(breaks))


def people_of_a_country(random: Random) -> Drawn:
    """Monthly population: hundreds of values along a smooth, nearly straight line; nobody marks much."""
    count = between(random, 600, 816)
    speed = 1.0 + 0.2 * np.cumsum(random.standard_normal(count)) / np.sqrt(count)
    return Drawn(150 + 0.2 * np.cumsum(speed) + 0.05 * np.sin(2 * np.pi * np.arange(count) / 12))


def carbon(random: Random) -> Drawn:
    """Yearly concentration or emission: slow, then ever faster."""
    count = between(random, 95, 110)
    bend = between(random, 0.4 * count, 0.6 * count)
    line = 295 + 0.12 * np.arange(count) + 1.1 * np.clip(np.arange(count) - bend, 0, None) ** 1.15
    return Drawn(line + 0.7 * smooth(random, count, 0.5), (Break(bend, 0.6, 3.0),))


def emissions_by_month(random: Random) -> Drawn:
    """Monthly values with a season, a slope and one change of it."""
    count = between(random, 200, 220)
    bend = between(random, 0.4 * count, 0.7 * count)
    line = polyline(count, [(0, 380), (bend, 470), (count - 1, random.uniform(440, 490))])
    wobble = 8 * smooth(random, count, 0.8)
    return Drawn(line + 12 * months(random, count) + wobble, (Break(bend, -0.2, 8.0),))


def oil_price(random: Random) -> Drawn:
    """Weekly price: wandering, a climb, a crash within weeks, a partial recovery."""
    count = between(random, 440, 500)
    top = between(random, 0.45 * count, 0.7 * count)
    low = top + between(random, 16, 28)
    back = low + between(random, 70, 110)
    knots = [(0, 0.0), (top, 1.1), (low, 0.05), (min(back, count - 1), 0.6), (count, 0.65)]
    walk = 0.022 * np.cumsum(random.standard_t(4, count)) / np.sqrt(2)
    walk -= np.linspace(0, walk[-1], count)
    price = 40 * np.exp(polyline(count, knots) + walk)
    return Drawn(price, (Break(top, 1.5, 3.0), Break(low, 1.2, 2.5), Break(back, FAINT, 6.0)))


def coin_price(random: Random) -> Drawn:
    """Daily price: low for long, an explosion, a burst, wide swings after it."""
    count = between(random, 600, 774)
    start = between(random, 0.45 * count, 0.6 * count)
    peak = start + between(random, 70, 130)
    knots = [(0, 6.0), (start, 6.9), (peak, 9.6), (peak + 45, 8.8), (count - 1, random.uniform(8.6, 9.0))]
    spread = np.where(np.arange(count) < start, 0.012, 0.03)
    walk = np.cumsum(spread * random.standard_t(4, count)) * 0.4
    price = np.exp(polyline(count, knots) + walk)
    return Drawn(price, (Break(start + 25, 1.2, 8.0), Break(peak, 1.5, 2.0), Break(peak + 45, FAIR, 4.0)))


def ruined_share(random: Random) -> Drawn:
    """Daily price of a share: a plateau, a fall that ruins it, little after it."""
    count = between(random, 520, 600)
    fall = between(random, 0.35 * count, 0.6 * count)
    ground = fall + between(random, 25, 60)
    steps = 0.013 * random.standard_t(4, count)
    line = polyline(count, [(0, 5.3), (fall, 5.5), (ground, 3.3), (count - 1, 3.0)])
    walk = np.cumsum(steps)
    walk -= np.linspace(0, walk[-1], count)
    return Drawn(np.exp(line + walk), (Break(fall, 1.7, 3.0), Break(ground, 1.3, 3.0)))


def share_and_volume(random: Random) -> Drawn:
    """Two dimensions: price, which falls overnight on the news, and its volume, which bursts."""
    count = between(random, 560, 622)
    news = between(random, 0.45 * count, 0.75 * count)
    walk = np.cumsum(0.02 * random.standard_normal(count))
    walk[news:] -= 0.75
    volume = np.exp(0.4 * smooth(random, count, 0.4) + 0.2 * random.standard_t(4, count))
    volume[news : news + 4] *= 8
    return Drawn(np.column_stack([30 * np.exp(walk), volume]), (Break(news, CLEAR, 0.4),))


def currency(random: Random) -> Drawn:
    """Monthly exchange rate: quiet wandering, a devaluation within months, quiet at the new level."""
    count = between(random, 200, 247)
    fall = between(random, 0.4 * count, 0.7 * count)
    line = polyline(count, [(0, 70), (fall, 66), (fall + 7, random.uniform(115, 135)), (count - 1, 118)])
    walk = 5.5 * smooth(random, count, 0.95)
    return Drawn(line + walk, (Break(fall + 3, 1.8, 1.8), Break(fall + 14, FAINT, 4.0)))


def measles(random: Random) -> Drawn:
    """Weekly cases: epidemics every second year until the vaccine, a tenth of them after it."""
    count = between(random, 880, 990)
    weeks = np.arange(count)
    vaccine = between(random, 0.35 * count, 0.6 * count)
    wave = np.exp(2.1 * np.sin(2 * np.pi * weeks / 104) + 0.7 * np.sin(2 * np.pi * weeks / 52 + 1.0))
    size = np.where(weeks < vaccine, 500.0, random.uniform(25, 70))
    cases = size * wave * np.exp(0.3 * smooth(random, count, 0.8)) / 3
    return Drawn(np.round(cases), (Break(vaccine, 1.2, 12.0),))


def visitors(random: Random) -> Drawn:
    """Monthly visitors of a country that is discovered: a season whose height grows with the level."""
    count = between(random, 180, 200)
    found = between(random, 0.6 * count, 0.75 * count)
    season = np.exp(0.55 * months(random, count))
    line = polyline(count, [(0, 3.0), (found, 3.9), (count - 1, 5.3)])
    return Drawn(
        np.exp(line) * season * np.exp(0.05 * random.standard_normal(count)), (Break(found, 0.9, 6.0),)
    )


def airport(random: Random) -> Drawn:
    """Monthly passengers: growth, a season, an attack or a slump at once, growth again."""
    count = between(random, 400, 468)
    shock = between(random, 0.45 * count, 0.65 * count)
    line = polyline(count, [(0, 20), (shock - 1, 31), (shock, 24.5), (count - 1, random.uniform(36, 44))])
    season = 1 + 0.1 * months(random, count)
    values = line * season * (1 + 0.035 * smooth(random, count, 0.7))
    return Drawn(values, (Break(shock, 1.0, 1.5),))


def airport_in_peace(random: Random) -> Drawn:
    """Monthly passengers with a season, slow trend and no break."""
    count = between(random, 400, 468)
    line = polyline(count, [(0, 15), (0.5 * count, 20), (count - 1, random.uniform(22, 27))])
    return Drawn(line * (1 + 0.09 * months(random, count)) * (1 + 0.03 * smooth(random, count, 0.8)))


def river(random: Random) -> Drawn:
    """A hundred yearly flows with one step of one and a half to two deviations."""
    count = 100
    dam = between(random, 25, 70)
    values = 1100 + 130 * smooth(random, count, 0.2)
    values[dam:] -= random.uniform(200, 270)
    return Drawn(values, (Break(dam, 1.3, 1.2),))


def ozone_layer(random: Random) -> Drawn:
    """Some fifty yearly emissions: up, down by treaty, low."""
    count = between(random, 50, 58)
    treaty = between(random, 22, 30)
    low = treaty + between(random, 7, 12)
    line = polyline(count, [(0, 40), (treaty, 150), (low, 35), (count - 1, 12)])
    return Drawn(line + 4 * smooth(random, count, 0.3), (Break(treaty, 1.7, 0.9), Break(low, 0.9, 1.4)))


def road_deaths(random: Random) -> Drawn:
    """Monthly casualties with a season; a law lowers them, in some a crisis of oil did so before."""
    count = between(random, 108, 192)
    law = between(random, 0.65 * count, 0.85 * count)
    values = 1650 + 190 * months(random, count) + 90 * random.standard_normal(count)
    values[law:] -= 370
    breaks = [Break(law, 1.2, 1.3)]
    if random.random() < 0.6:
        crisis = between(random, 0.25 * count, 0.45 * count)
        values[crisis:] -= 200
        breaks.append(Break(crisis, 0.2, 1.8))
    return Drawn(values, tuple(breaks))


def auctioned_licence(random: Random) -> Drawn:
    """Monthly price of a licence: climbing, months in which the rule changed, then capped."""
    count = between(random, 190, 205)
    cap = between(random, 0.7 * count, 0.8 * count)
    line = polyline(count, [(0, 14), (0.4 * count, 38), (cap, 84), (cap + 3, 75), (count - 1, 90)])
    values = line + 3.0 * smooth(random, count, 0.75)
    dip = between(random, 0.4 * count, 0.55 * count)
    values[dip] -= 18
    return Drawn(values, (Break(cap, 0.9, 2.0), Break(int(0.4 * count), FAINT, 5.0)))


def miners(random: Random) -> Drawn:
    """A century of men in the pits: up, a slow and then a fast decline, a strike that is one year's."""
    count = between(random, 95, 110)
    peak = between(random, 8, 18)
    close = between(random, 44, 54)
    line = polyline(count, [(0, 900), (peak, 1200), (close, 690), (close + 16, 290), (count - 1, 10)])
    values = line + 18 * smooth(random, count, 0.5)
    strike = between(random, peak + 3, close - 5)
    values[strike] *= 0.8
    return Drawn(values, (Break(peak, 0.6, 1.5), Break(close, 1.0, 2.0), Break(close + 16, FAIR, 2.0)))


def jobless(random: Random) -> Drawn:
    """Monthly unemployment: long swings with straight flanks, whose turning points people mark or do not."""
    count = between(random, 190, 214)
    turns = np.cumsum([between(random, 22, 50) for _ in range(9)])
    turns = turns[turns < count - 12]
    swings = random.uniform(0.8, 1.8, len(turns) + 1) * np.where(np.arange(len(turns) + 1) % 2, 1, -1)
    knots = zip([0, *turns.tolist(), count - 1], [5.0, *(5.0 + swings)], strict=True)
    line = polyline(count, list(knots))
    breaks = tuple(Break(int(each), -0.1, 3.0) for each in turns)
    return Drawn(line + 0.1 * smooth(random, count, 0.6) + 0.08 * months(random, count), breaks)


def nuisance_calls(random: Random) -> Drawn:
    """Four years of monthly counts: level, a new level by degrees, a dip."""
    count = between(random, 48, 54)
    up = between(random, 24, 34)
    line = polyline(count, [(0, 2.3), (up, 2.5), (up + 6, 4.6), (count - 1, 4.9)])
    return Drawn(line + 0.22 * random.standard_normal(count), (Break(up + 1, 1.5, 1.8),))


def railway(random: Random) -> Drawn:
    """Some 37 yearly lengths: cut back, then kept; or held and then cut at once."""
    count = between(random, 34, 40)
    at = between(random, 10, 24)
    if random.random() < 0.5:
        line = polyline(count, [(0, 11.6), (at, 8.9), (count - 1, 8.7)])
        breaks = (Break(at, 1.2, 1.3),)
    else:
        line = polyline(count, [(0, 11.0), (at - 1, 10.8), (at, 9.3), (count - 1, 9.0)])
        breaks = (Break(at, CLEAR, 0.4),)
    return Drawn(line + 0.07 * smooth(random, count, 0.4), breaks)


def building_trade(random: Random) -> Drawn:
    """Monthly spending or stocks: growth for decades, a crisis, growth again; in some a season."""
    count = between(random, 300, 335)
    crisis = between(random, 0.5 * count, 0.7 * count)
    ground = crisis + between(random, 25, 55)
    line = polyline(count, [(0, 45), (crisis, 100), (ground, 68), (count - 1, 112)])
    season = 1 + random.choice([0.0, 0.08]) * months(random, count)
    values = line * season + 1.0 * smooth(random, count, 0.9)
    return Drawn(values, (Break(crisis, 1.4, 3.0), Break(ground, 1.1, 4.0)))


def account(random: Random) -> Drawn:
    """Daily balance: jumps with each payment, decays; a regime throughout."""
    count = between(random, 300, 600)
    paid = np.zeros(count)
    paid[between(random, 0, 25) :: 30] = 1.0
    values = np.zeros(count)
    for each in range(1, count):
        values[each] = 0.94 * values[each - 1] + paid[each] * random.uniform(0.7, 1.3)
    return Drawn(1000 * values + 20 * random.standard_normal(count))


def control_step(random: Random) -> Drawn:
    """A process under control that steps once, two to four deviations."""
    count = between(random, 300, 500)
    at = between(random, 0.25 * count, 0.8 * count)
    values = random.standard_normal(count)
    values[at:] += random.uniform(2.0, 4.0)
    return Drawn(values, (Break(at, CLEAR, 0.7),))


def control_spread(random: Random) -> Drawn:
    """A process whose spread grows or shrinks three to four times, once."""
    count = between(random, 300, 500)
    at = between(random, 0.3 * count, 0.7 * count)
    values = random.standard_normal(count)
    values[at:] *= random.choice([1 / 3.5, 3.5])
    return Drawn(values, (Break(at, 1.5, 3.0),))


def control_held(random: Random) -> Drawn:
    """A process under control throughout, in some with single wild values."""
    count = between(random, 300, 500)
    values = 20 + random.standard_normal(count)
    wild = random.random(count) < random.choice([0.0, 0.01])
    return Drawn(values + wild * random.choice([-6.0, 6.0], count))


def scanline(random: Random) -> Drawn:
    """A row of an image: shades with sharp edges, one stretch of texture."""
    count = 481
    edges = np.sort(random.choice(np.arange(25, 455, 12), between(random, 4, 7), replace=False))
    shades = [random.uniform(30, 220)]
    for _ in edges:
        shades.append((shades[-1] + random.uniform(40, 150) - 30) % 190 + 30)
    place = np.searchsorted(edges, np.arange(count), side="right")
    rough = random.uniform(2, 7, len(shades))
    rough[between(random, 0, len(shades) - 1)] *= 3
    values = np.asarray(shades)[place] + rough[place] * smooth(random, count, 0.6)
    steps = np.abs(np.diff(shades)) / (rough[:-1] + rough[1:])
    found = (
        Break(int(at), float(np.clip(step / 2 - 0.4, -0.5, 2)), 0.8)
        for at, step in zip(edges, steps, strict=True)
    )
    return Drawn(values, tuple(found))


def bore_hole(random: Random) -> Drawn:
    """Readings of a probe in rock: layers as levels, wild values downwards."""
    count = between(random, 600, 675)
    edges = np.sort(random.choice(np.arange(30, count - 20, 18), between(random, 6, 10), replace=False))
    levels = 1.2e5 + np.cumsum(
        random.choice([-1, 1], len(edges) + 1) * random.uniform(3e3, 1.2e4, len(edges) + 1)
    )
    place = np.searchsorted(edges, np.arange(count), side="right")
    values = levels[place] + 1.9e3 * smooth(random, count, 0.35)
    wild = random.random(count) < 0.015
    steps = np.abs(np.diff(levels)) / 3e3
    found = (
        Break(int(at), float(np.clip(step - 1, -0.3, 2)), 0.8) for at, step in zip(edges, steps, strict=True)
    )
    return Drawn(values - wild * random.uniform(1e4, 5e4, count), tuple(found))


def run_with_intervals(random: Random) -> Drawn:
    """Two dimensions of a runner's watch: pace, fast and slow in turn, and the distance it adds up to."""
    count = between(random, 340, 376)
    edges = np.cumsum([between(random, 40, 60), *(between(random, 18, 40) for _ in range(20))])
    edges = edges[edges < count - 15][: between(random, 5, 9)]
    fast = np.searchsorted(edges, np.arange(count), side="right") % 2
    speed = 2.6 + 1.5 * fast + 0.22 * smooth(random, count, 0.5)
    values = np.column_stack([speed, np.cumsum(speed)])
    return Drawn(values, tuple(Break(int(each), 1.4, 1.2) for each in edges))


def dance(random: Random) -> Drawn:
    """Three dimensions of an animal's path that turns and shakes throughout, changing its way now and then."""
    count = between(random, 560, 609)
    path = np.cumsum(smooth(random, count, 0.9)), np.cumsum(smooth(random, count, 0.9))
    return Drawn(np.column_stack([*path, np.sin(np.cumsum(0.2 * smooth(random, count, 0.8)))]))


def room(random: Random) -> Drawn:
    """Four dimensions of an office: heat, damp, light and air, with the working days as plateaus."""
    count = between(random, 480, 509)
    day = count // 4
    lit = np.zeros(count)
    breaks = []
    for start in range(between(random, 10, 40), count - 40, day):
        end = start + between(random, 38, 46)
        lit[start:end] = 1.0
        breaks += [Break(start, 1.5, 1.2), Break(end, 1.2, 1.5)]
    lag = np.convolve(lit, np.exp(-np.arange(30) / 8) / 8)[:count]
    columns = [
        20.5 + 1.6 * lag + 0.12 * smooth(random, count, 0.9),
        25.0 + 2.5 * smooth(random, count, 0.98),
        430 * lit + 12 * random.standard_normal(count),
        450 + 500 * lag + 25 * smooth(random, count, 0.7),
    ]
    return Drawn(np.column_stack(columns), tuple(breaks))


def home_runs(random: Random) -> Drawn:
    """A century of a league's yearly runs: eras that begin with a rule, and a war's dip."""
    count = between(random, 105, 118)
    era, modern = between(random, 18, 24), between(random, 72, 84)
    line = polyline(
        count, [(0, 0.2), (era, 0.2), (era + 6, 0.5), (modern, 0.8), (modern + 8, 1.1), (count - 1, 1.05)]
    )
    values = line + 0.05 * smooth(random, count, 0.5)
    war = between(random, 42, 48)
    values[war : war + 3] -= 0.15
    return Drawn(values, (Break(era + 2, 1.0, 2.0), Break(modern + 4, 0.3, 3.0), Break(war, FAINT, 1.5)))


KINDS: tuple[Callable[[Random], Drawn], ...] = (
    output_of_a_country,
    output_through_unrest,
    young_country,
    public_debt,
    emptied_town,
    births_a_woman,
    people_of_a_country,
    carbon,
    emissions_by_month,
    oil_price,
    coin_price,
    ruined_share,
    share_and_volume,
    currency,
    measles,
    visitors,
    airport,
    airport_in_peace,
    river,
    ozone_layer,
    road_deaths,
    auctioned_licence,
    miners,
    jobless,
    nuisance_calls,
    railway,
    building_trade,
    account,
    control_step,
    control_spread,
    control_held,
    scanline,
    bore_hole,
    run_with_intervals,
    dance,
    room,
    home_runs,
)
