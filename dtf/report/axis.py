"""Round steps for axes."""

import math


def ticks(length: float, about: int) -> list[float]:
    """Round values from 0 up to `length`, some `about` of them."""
    if length <= 0:
        return [0.0]
    step = round_step(length / max(1, about))
    return [index * step for index in range(int(length / step + 1e-9) + 1)]


def round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    for factor in (1, 2, 5, 10):
        if factor * power >= least * (1 - 1e-9):
            return factor * power
    raise AssertionError("ten times the power of ten below is not below")


def tick_text(value: float, step: float) -> str:
    """ "0", "5 s", "0.2 s", "3 min"."""
    if not value:
        return "0"
    if step >= 60:
        return f"{value / 60:g} min"
    return f"{value:.{max(0, -math.floor(math.log10(step)))}f} s" if step < 1 else f"{value:g} s"
