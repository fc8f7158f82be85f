"""Series with and without changes, by family and seed."""

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
FAMILIES = ("iid", "ar", "t3", "spikes", "season", "drift")


def noise_of(family: str, length: int, seed: int) -> Vector:
    """A series without changes, of standard deviation near 1 but for what the family is named for."""
    random = np.random.default_rng(seed)
    plain: Vector = random.normal(size=length)
    at = np.arange(length)
    match family:
        case "iid":
            return plain
        case "ar":
            return _autoregression(random.normal(size=length + 50))[50:]
        case "t3":
            heavy: Vector = random.standard_t(3, size=length)
            return heavy
        case "spikes":
            far = 8.0 * (random.random(length) < 0.02) * random.choice([-1.0, 1.0], size=length)
            spiky: Vector = plain + far
            return spiky
        case "season":
            seasonal: Vector = plain + (1.0 + seed % 5) * np.sin(2.0 * np.pi * (at / 24.0 + random.random()))
            return seasonal
        case "drift":
            drifting: Vector = plain + 3.0 * at / length
            return drifting
        case _:
            raise ValueError(f"family {family}, expected one of {FAMILIES}")


def with_step(family: str, length: int, seed: int, *, at: int, size: float) -> Vector:
    """The same with its level changed from position `at` on."""
    values = noise_of(family, length, seed)
    values[at:] += size
    return values


def _autoregression(shocks: Vector) -> Vector:
    values = np.zeros_like(shocks)
    for place in range(1, len(shocks)):
        values[place] = 0.5 * values[place - 1] + shocks[place]
    return values
