"""Series whose truth is known: six families of noise without a step, and steps of known size.

Shared by the bench and, without dtf, by the interpreter that runs the peers. Noise has a standard
deviation (for t3: a scale) of 1 around LEVEL. A series is named by its family, length and number, so
that any one of them can be made again alone. Seeds are below 10,000; nobody tunes on them.
"""

from typing import Any

import numpy as np

LEVEL = 100.0
SEASON = 24
FAMILIES = ("iid", "AR(1) .5", "t3", "2 % spikes of 8 sigma", "season 24", "drift of 3 sigma")
DRIFT_FAMILY = FAMILIES[5]
STEP_SIZES = (1.0, 2.0, 3.0, 5.0)
STEP_AT = 100
POINTS_AFTER = 60
"""How long a step is waited for."""
SPIKE_RATIO, SPIKE_SIZE, DRIFT_SIZE = 0.02, 8.0, 3.0
SEASON_AMPLITUDES = (1.0, 2.0, 3.0, 4.0, 5.0)
"""Taken in turn."""

Floats = np.ndarray[Any, np.dtype[np.float64]]


def noise(family: str, length: int, number: int) -> Floats:
    """The series of a family, shape (length,); it holds no step."""
    random = np.random.default_rng([FAMILIES.index(family), length, number])
    white = random.standard_normal(length)
    match FAMILIES.index(family):
        case 0:
            values = white
        case 1:
            values = autoregressive(white, 0.5)
        case 2:
            values = random.standard_t(3, length)
        case 3:
            signs = random.choice((-1.0, 1.0), length)
            values = white + SPIKE_SIZE * signs * (random.random(length) < SPIKE_RATIO)
        case 4:
            amplitude = SEASON_AMPLITUDES[number % len(SEASON_AMPLITUDES)]
            phase = random.random() * SEASON
            values = white + amplitude * np.sin(2 * np.pi * (np.arange(length) + phase) / SEASON)
        case _:
            values = white + random.choice((-1.0, 1.0)) * np.linspace(0.0, DRIFT_SIZE, length)
    return np.asarray(LEVEL + values, dtype=np.float64)


def autoregressive(white: Floats, coefficient: float) -> Floats:
    """AR(1) noise with a standard deviation of 1 from standard normal values, stationary from its first value."""
    values = np.empty_like(white)
    values[0] = white[0]
    scale = np.sqrt(1.0 - coefficient**2)
    for position in range(1, len(white)):
        values[position] = coefficient * values[position - 1] + scale * white[position]
    return values


def with_step(size: float, number: int) -> Floats:
    """Iid noise whose level rises or falls by `size` at STEP_AT; shape (STEP_AT + POINTS_AFTER,)."""
    random = np.random.default_rng([99, int(10 * size), number])
    values = LEVEL + random.standard_normal(STEP_AT + POINTS_AFTER)
    values[STEP_AT:] += size if number % 2 else -size
    return np.asarray(values, dtype=np.float64)


def benchmark_history(length: int, number: int = 0) -> Floats:
    """A long history with a step of 1 to 4 sigma about every 500 points, for measuring speed; shape (length,)."""
    random = np.random.default_rng([77, length, number])
    sizes = random.choice((-1.0, 1.0), length) * random.uniform(1.0, 4.0, length)
    steps = np.cumsum((random.random(length) < 1 / 500) * sizes)
    return np.asarray(LEVEL + steps + random.standard_normal(length), dtype=np.float64)
