"""Metrics as monitoring collects them, with anomalies that are known: machines, requests, costs, sensors, traffic, mentions.

Each kind is a law with its numbers drawn anew; no number is taken from any data set. As in real files, much that is odd
is nobody's anomaly: bursts, changes of level, stretches that stand still, busy days. What a person marks is the beginning
of what is odd for its file, and now and then something that hardly shows.
"""

from collections.abc import Callable

import numpy as np

from bench.accuracy_watched_shapes import (
    DAY,
    Random,
    Watched,
    bump,
    day_shape,
    metric,
    moments,
    places,
    remembering,
)

# what was made to be looked at: two weeks in five-minute values


def plain(random: Random, kind: int) -> Watched:
    """A wave, a square wave, a wave with little noise, a line, noise: nothing is wrong."""
    length = 14 * DAY
    phase = np.arange(length) % DAY
    busy = np.where((phase >= 108) & (phase < 216), 1.0, 0.0)
    match kind:
        case 0:
            values = 20 + 60 * busy
        case 1:
            values = 20 + 60 * busy + random.uniform(0, 1, length)
        case 2:
            values = 20 + 60 * busy + random.uniform(0, 9, length)
        case 3:
            values = np.full(length, 45.0)
        case _:
            values = random.uniform(10, 60, length)
    return metric(values)


def working_days(random: Random, kind: int) -> Watched:
    """Work from nine to six, until a day without it, one too high or too low, or one that stands still in between."""
    length = 14 * DAY
    at = np.arange(length)
    phase = at % DAY
    busy = (phase >= 108) & (phase < 216)
    day = int(random.integers(9, 12))
    values = np.where(busy, random.uniform(70, 85), 20.0) + random.uniform(0, 9, length)
    (begins,) = (day * DAY + 108,)
    odd = (at >= begins) & (at < begins + 108)
    match kind:
        case 0:
            values[odd] = random.uniform(40, 50)
        case 1:
            values[odd] += random.uniform(35, 80)
        case 2:
            values[odd] -= random.uniform(35, 60)
        case _:
            values[odd] = 20 + random.uniform(0, 9, odd.sum())
    return metric(values, (begins + int(random.integers(0, 60)),))


def spikes_now_and_then(random: Random, kind: int) -> Watched:
    """Spikes at random; from one place on there are more of them, or they are higher."""
    length = 14 * DAY
    (place,) = places(random, length, 1, 0.55)
    rate = np.full(length, random.uniform(0.008, 0.02))
    height = np.full(length, 20.0)
    if kind == 0:
        rate[place : place + 200] *= random.uniform(5, 12)
    else:
        height[place : place + 200] *= random.uniform(1.8, 3)
    struck = random.random(length) < rate
    values = np.where(struck, height * random.uniform(0.8, 1.1, length), 0.0)
    if kind == 1:
        values += random.uniform(0, 1.5, length)
    return metric(values, (place,))


# machines


def idle_processor(random: Random) -> Watched:
    """Next to nothing, in steps of what the agent can tell; a job now and then."""
    length = int(random.choice([4032, 4032, 4730]))
    grain = random.choice([0.002, 0.066, 0.1, 0.2])
    values = 2 * grain + grain * np.abs(random.standard_normal(length)).round()
    for place in moments(random, length, random.uniform(0, 8)):
        values[place] += grain * random.uniform(3, 12)
    marks = places(random, length, int(random.integers(1, 4)))
    for mark in marks:
        match random.integers(4):
            case 0:
                values[mark : mark + int(random.integers(1, 4))] += grain * random.uniform(12, 40)
            case 1:
                values[mark:] += grain * random.uniform(1.5, 4)
            case 2:
                values += grain * random.uniform(4, 15) * bump(length, mark, 1, random.uniform(10, 60))
            case _:
                values[mark : mark + 40] += grain * random.poisson(2.0, len(values[mark : mark + 40]))
    return metric(np.round(values, 4), tuple(marks))


def steady_processor(random: Random) -> Watched:
    """A level with noise; deployments move it, load comes in waves, some of it is marked."""
    length = 4032
    noise = random.uniform(0.3, 2.5)
    base = random.uniform(20, 50)
    values = base + noise * remembering(random, length, random.uniform(0.0, 0.7))
    if random.random() < 0.4:
        values += noise * random.uniform(0.5, 3) * day_shape(random, length, DAY)
    for place in moments(random, length, random.uniform(0, 10)):
        values[place : place + int(random.integers(1, 3))] += (
            noise * random.choice([-1, 1]) * random.exponential(5)
        )
    for place in moments(random, length, 0.6):
        values[place:] += noise * random.choice([-1, 1]) * random.uniform(1, 5)
    marks = places(random, length, int(random.integers(1, 4)))
    for mark in marks:
        size = noise * random.choice([-1, 1, 1])
        match random.integers(4):
            case 0:
                values[mark : mark + int(random.integers(1, 5))] += size * random.uniform(8, 25)
            case 1:
                values[mark:] += size * random.uniform(2.5, 8)
            case 2:
                values += size * random.uniform(4, 12) * bump(length, mark, 6, random.uniform(30, 100))
            case _:
                end = mark + int(random.integers(30, 200))
                values[mark:end] += (values[mark:end] - base) * random.uniform(1.5, 4)
    return metric(np.round(np.clip(values, 0, 100), 3), tuple(marks))


def batch_processor(random: Random) -> Watched:
    """Low with a job every few hours that takes all there is; one is missing, hangs, or comes at another time."""
    length = 4032
    every = int(random.choice([12, 36, 72, 144, 288]))
    lasts = max(1, int(every * random.uniform(0.03, 0.25)))
    at = np.arange(length)
    jitter = np.round(random.normal(0, random.choice([0.0, 0.0, 1.0, 2.0]), length // every + 2)).astype(int)
    starts = np.arange(0, length, every) + jitter[: len(np.arange(0, length, every))]
    heights = random.uniform(0.75, 1.15, len(starts)) * random.uniform(30, 80)
    marks = places(random, length, int(random.integers(1, 3)))
    load = np.zeros(length)
    missing = [mark for mark in marks if random.random() < 0.35]
    for start, height in zip(starts, heights, strict=True):
        if not any(start <= mark < start + every * 1.0 for mark in missing) and random.random() > 0.01:
            load[max(start, 0) : max(start, 0) + lasts] += height
    marks = [
        int(starts[np.searchsorted(starts, mark)]) if mark in missing and mark < starts[-1] else mark
        for mark in marks
    ]
    values = random.uniform(2, 12) + load + random.uniform(0.3, 3) * np.abs(remembering(random, length, 0.5))
    for mark in marks:
        if mark in missing:
            continue
        if random.random() < 0.6:
            end = mark + int(random.integers(10, 120))
            values[mark:end] = random.uniform(60, 99) + remembering(random, len(values[mark:end]), 0.3)
        else:
            values[mark:] += random.uniform(8, 30)
    for place in moments(random, length, random.uniform(0, 6)):
        values[place : place + int(random.integers(1, 4))] += random.uniform(10, 60)
    return metric(np.round(np.clip(values, 0, 100), 3), tuple(sorted(marks)) if at.size else ())


def bytes_moved(random: Random) -> Watched:
    """Bytes read or written: nothing for long, bursts over three powers of ten, a backup by the clock."""
    length = int(random.choice([1243, 4032, 4730]))
    floor = random.choice([0.0, 40.0, 1e4])
    values = floor * np.exp(0.1 * random.standard_normal(length))
    heavy = 10 ** random.uniform(5, 7)
    busy = random.random(length) < random.uniform(0.01, 0.25)
    values += busy * heavy * np.exp(random.uniform(0.5, 1.2) * random.standard_normal(length)) / 6
    if random.random() < 0.6:
        every = int(random.choice([12, 72, 288]))
        values[int(random.integers(every)) :: every] += heavy * random.uniform(1, 3)
    marks = places(random, length, int(random.integers(1, 3)))
    for mark in marks:
        match random.integers(3):
            case 0:
                values[mark : mark + int(random.integers(1, 3))] += heavy * random.uniform(6, 20)
            case 1:
                end = mark + int(random.integers(15, 120))
                values[mark:end] += (
                    heavy * random.uniform(0.5, 3) * random.uniform(0.5, 1.5, len(values[mark:end]))
                )
            case _:
                values[mark:] += heavy * random.uniform(0.15, 0.7)
    for place in moments(random, length, random.uniform(0, 5)):
        values[place] += heavy * random.uniform(1, 8)
    return metric(np.round(values), tuple(marks))


def requests(random: Random) -> Watched:
    """Requests in five minutes: counts with a day, more varied than Poisson's."""
    length = 4032
    rate = random.uniform(15, 120) * np.exp(random.uniform(0.2, 0.7) * day_shape(random, length, DAY))
    rate *= np.exp(0.25 * remembering(random, length, 0.9))
    marks = places(random, length, int(random.integers(1, 3)))
    for mark in marks:
        size = random.choice([-1.0, 1.0, 1.0])
        rate *= np.exp(size * random.uniform(1.2, 2.2) * bump(length, mark, 3, random.uniform(8, 60)))
    for place in moments(random, length, random.uniform(1, 6)):
        rate *= np.exp(random.uniform(0.4, 1.3) * bump(length, place, 2, random.uniform(2, 10)))
    spread = random.uniform(4, 12)
    return metric(random.negative_binomial(spread, spread / (spread + rate)).astype(np.float64), tuple(marks))


def group_size(random: Random) -> Watched:
    """What a group of machines that scales itself has in use: levels that move by steps, at times to nothing."""
    length = int(random.choice([4032, 4621]))
    level, levels = random.uniform(25, 35), np.zeros(length)
    at = 0
    while at < length:
        lasts = int(random.exponential(250)) + 20
        levels[at : at + lasts] = level
        at += lasts
        level = float(np.clip(level + random.normal(0, 2.5), 15, 45))
    values = levels + random.uniform(0.3, 1.2) * remembering(random, length, 0.8)
    marks = places(random, length, int(random.integers(1, 4)))
    for mark in marks:
        end = mark + int(random.integers(3, 300))
        values[mark:end] *= random.choice([0.0, 0.4, 0.65, 1.5])
    return metric(np.round(values, 3), tuple(marks))


# what things cost, hour by hour


def cost(random: Random) -> Watched:
    """What a click or a thousand views cost by the hour: a weak day, heavy noise, spikes, a campaign's other level."""
    length = int(random.integers(1538, 1650))
    spread = random.uniform(0.12, 0.4)
    logs = spread * remembering(random, length, random.uniform(0.2, 0.75))
    logs += random.uniform(0.0, 0.35) * day_shape(random, length, 24)
    for place in moments(random, length, random.uniform(0.3, 1.6)):
        logs[place:] += random.normal(0, 0.35)
    for place in moments(random, length, random.uniform(2, 14)):
        logs[place] += random.exponential(2.2 * spread)
    marks = places(random, length, int(random.integers(1, 4)))
    for mark in marks:
        if random.random() < 0.75:
            logs[mark : mark + int(random.integers(1, 4))] += max(5 * spread, random.uniform(0.8, 2.2))
        else:
            end = mark + int(random.integers(10, 60))
            logs[mark:end] += random.choice([-1, 1]) * random.uniform(3, 5) * spread
    return metric(np.round(random.uniform(0.1, 1) * np.exp(logs), 6), tuple(marks), 3600.0)


# systems whose failure was looked into


def room(random: Random) -> Watched:
    """A room's temperature by the hour: days, weather that wanders, a cooling that fails."""
    length = 7267
    values = 70 + 4 * remembering(random, length, 0.985) + 1.5 * day_shape(random, length, 24)
    values += 0.6 * random.standard_normal(length)
    marks = places(random, length, 2, 0.4)
    for mark in marks:
        size = random.choice([-1, 1]) * random.uniform(6, 14)
        values += size * bump(length, mark, int(random.integers(1, 12)), random.uniform(10, 40))
    return metric(np.round(values, 4), tuple(marks), 3600.0)


def misconfigured_group(random: Random) -> Watched:
    """Load that jumps between a few levels by the hour for weeks; then it stays up."""
    length = 18_050
    phase = np.arange(length) % DAY
    usual = 35 + 20 * np.sin(2 * np.pi * phase / DAY) + 12 * remembering(random, length, 0.9)
    usual += 25 * (random.random(length) < 0.03)
    (place,) = places(random, length, 1, 0.75)
    usual[place : place + 1500] = 75 + 14 * remembering(random, len(usual[place : place + 1500]), 0.5)
    for begin in moments(random, length, 4):
        usual[begin : begin + 80] += random.uniform(10, 40)
    return metric(np.round(np.clip(usual, 0, 100), 3), (place,))


def request_latency(random: Random) -> Watched:
    """Milliseconds near a level with a few excursions; before the end it fails."""
    length = 4032
    values = 45 + 1.8 * remembering(random, length, 0.3)
    for place in moments(random, length, 12):
        values[place] += random.exponential(5)
    marks = places(random, length, 3, 0.3)
    for number, mark in enumerate(marks):
        if number < 2:
            values[mark : mark + int(random.integers(1, 6))] += random.choice([-1, 1]) * random.uniform(9, 30)
        else:
            values[mark : mark + 60] += random.uniform(3, 12) * random.standard_normal(
                len(values[mark : mark + 60])
            )
    return metric(np.round(values, 3), tuple(marks))


def machine(random: Random) -> Watched:
    """A large machine's temperature: it wanders slowly, is shut down as planned, and breaks down after odd signs."""
    length = 22_695
    values = 86 + 7 * remembering(random, length, 0.997) + 1.2 * remembering(random, length, 0.7)
    for place in moments(random, length, 5):
        values -= random.uniform(8, 18) * bump(length, place, 6, random.uniform(10, 40))
    marks = places(random, length, 4, 0.16)
    for mark in marks:
        if random.random() < 0.75:
            values -= random.uniform(22, 60) * bump(
                length, mark, int(random.integers(4, 30)), random.uniform(30, 120)
            )
        else:
            values -= random.uniform(8, 14) * bump(length, mark, 60, 200)
    return metric(values, tuple(marks))


def passengers(random: Random) -> Watched:
    """Taxi passengers in half an hour: days and weeks, holidays, a storm."""
    length, day = 10_320, 48
    week = 1 + 0.12 * np.sin(2 * np.pi * np.arange(length) / (7 * day))
    shape = day_shape(random, length, day, 1.3)
    values = 15_000 * week * (1 + 0.62 * shape) * np.exp(0.05 * remembering(random, length, 0.8))
    values *= np.exp(0.08 * remembering(random, length, 0.999))
    marks = places(random, length, 5, 0.5)
    for mark in marks:
        end = mark + int(random.integers(20, 60))
        values[mark:end] *= random.choice([0.35, 0.55, 0.7, 1.4])
    for place in moments(random, length, 8):
        values[place : place + 30] *= random.uniform(0.8, 1.2)
    return metric(np.round(np.maximum(values, 10)), tuple(marks), 1800.0)


def keys(random: Random, kind: int) -> Watched:
    """How long keys are held, or how often pressed: people come and go; then another person types."""
    length = 1882 if kind == 0 else 5315
    away = np.repeat(random.random(length // 8 + 1) < random.uniform(0.4, 0.7), 8)[:length]
    values = np.where(away, 0.0, 0.09 + 0.03 * np.abs(random.standard_normal(length)))
    if kind:
        values = np.where(away, random.uniform(0, 0.02), random.exponential(0.8, length))
    for place in moments(random, length, 6):
        values[place] += random.exponential(4 * np.std(values))
    marks = places(random, length, 2, 0.35)
    for mark in marks:
        end = mark + int(random.integers(20, 90))
        values[mark:end] = values[mark:end] * random.uniform(1.5, 3) + np.std(values) * random.uniform(0, 1)
    return metric(np.round(values, 8), tuple(marks))


# roads


def occupancy(random: Random) -> Watched:
    """Share of the time that a vehicle is on a loop: low at night, rush hours, jams."""
    length = int(random.integers(2380, 2500))
    day = int(random.choice([130, 170, 240]))
    values = (
        7 * np.exp(0.7 * day_shape(random, length, day, 1.6)) * np.exp(0.3 * remembering(random, length, 0.5))
    )
    marks = places(random, length, int(random.integers(1, 3)))
    for mark in marks:
        values *= np.exp(random.uniform(1.2, 1.8) * bump(length, mark, 2, random.uniform(3, 15)))
    for place in moments(random, length, random.uniform(2, 8)):
        values *= np.exp(random.uniform(0.5, 1.1) * bump(length, place, 2, random.uniform(2, 8)))
    return metric(np.round(np.clip(values, 0, 60), 2), tuple(marks), 600.0, is_regular=False)


def speed(random: Random) -> Watched:
    """Miles an hour on a free road, whole numbers; slow in some rush hours, slower in a jam."""
    length = int(random.integers(1127, 2500))
    day = int(random.choice([110, 170, 240]))
    values = (
        random.uniform(60, 78) + 4 * remembering(random, length, 0.4) - 3 * day_shape(random, length, day)
    )
    for place in range(int(random.integers(day)), length, day):
        if random.random() < 0.45:
            values -= random.uniform(5, 22) * bump(length, place, 4, random.uniform(3, 9))
    marks = places(random, length, int(random.integers(1, 5)))
    for mark in marks:
        values -= random.uniform(22, 50) * bump(
            length, mark, int(random.integers(1, 5)), random.uniform(3, 15)
        )
    return metric(np.round(np.clip(values, 5, 90)), tuple(marks), 600.0, is_regular=False)


def travel_time(random: Random) -> Watched:
    """Seconds between two places: rush hours, heavy tails, a day of jams."""
    length = int(random.integers(2160, 2500))
    day = int(random.choice([130, 170]))
    logs = 0.3 * day_shape(random, length, day) + 0.3 * remembering(random, length, 0.4)
    logs += 0.12 * random.standard_t(3, length)
    for place in moments(random, length, random.uniform(6, 20)):
        logs[place : place + int(random.integers(1, 3))] += random.exponential(0.7)
    marks = places(random, length, int(random.integers(2, 4)))
    for mark in marks:
        if random.random() < 0.6:
            logs += random.uniform(1.4, 2.2) * bump(length, mark, 2, random.uniform(2, 12))
        else:
            logs[mark : mark + 60] += random.uniform(0.7, 1.2)
    return metric(np.round(200 * np.exp(logs)), tuple(marks), 600.0, is_regular=False)


# mentions


def mentions(random: Random) -> Watched:
    """How often a name is written in five minutes: days, weekends, bursts of all sizes of which the largest are marked."""
    length = int(random.integers(15_820, 15_910))
    level = 10 ** random.uniform(0.3, 2.0)
    rate = level * np.exp(random.uniform(0.3, 0.7) * day_shape(random, length, DAY))
    rate *= np.exp(0.25 * remembering(random, length, 0.95) + 0.15 * remembering(random, length, 0.999))
    marks = places(random, length, int(random.integers(2, 5)))
    for place in moments(random, length, random.uniform(20, 70)):
        rate *= 1 + min(random.pareto(1.6), 6) * bump(
            length, place, int(random.integers(1, 4)), random.uniform(1, 10)
        )
    for mark in marks:
        size = random.uniform(3, 25) if random.random() < 0.8 else random.uniform(1, 3)
        rate *= 1 + size * bump(length, mark, int(random.integers(1, 5)), random.uniform(4, 50))
    spread = random.uniform(3, 15)
    return metric(random.negative_binomial(spread, spread / (spread + rate)).astype(np.float64), tuple(marks))


def _of(make: Callable[[Random, int], Watched], kind: int) -> Callable[[Random], Watched]:
    return lambda random: make(random, kind)


KINDS: dict[str, tuple[str, int, Callable[[Random], Watched]]] = {
    **{f"plain_{kind}": ("made_without", 1, _of(plain, kind)) for kind in range(5)},
    **{f"working_days_{kind}": ("made_with", 1, _of(working_days, kind)) for kind in range(4)},
    **{f"spikes_{kind}": ("made_with", 1, _of(spikes_now_and_then, kind)) for kind in range(2)},
    "idle_processor": ("machines", 3, idle_processor),
    "steady_processor": ("machines", 5, steady_processor),
    "batch_processor": ("machines", 3, batch_processor),
    "bytes_moved": ("machines", 4, bytes_moved),
    "requests": ("machines", 1, requests),
    "group_size": ("machines", 1, group_size),
    "cost": ("costs", 6, cost),
    "room": ("causes", 1, room),
    "misconfigured_group": ("causes", 1, misconfigured_group),
    "request_latency": ("causes", 1, request_latency),
    "machine": ("causes", 1, machine),
    "passengers": ("causes", 1, passengers),
    "keys_0": ("causes", 1, _of(keys, 0)),
    "keys_1": ("causes", 1, _of(keys, 1)),
    "occupancy": ("roads", 2, occupancy),
    "speed": ("roads", 3, speed),
    "travel_time": ("roads", 2, travel_time),
    "mentions": ("mentions", 10, mentions),
}
"""Folder, how many files of 58, and law, by name of the kind."""
