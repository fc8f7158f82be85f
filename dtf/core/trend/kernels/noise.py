"""The same arithmetic as in `changes.noise`, `changes.segments` and `changes.regime`. Sorting is left to numpy, which is faster."""

import math

import numpy as np

from dtf.core.trend.changes.arrays import Places, Vector
from dtf.core.trend.changes.noise import HAMPEL_LIMIT, HAMPEL_REACH, MOST_MEMORY, ROUNDING, SIGMA_PER_MAD
from dtf.core.trend.changes.regime import NEARLY_ALL
from dtf.core.trend.kernels.jit import compiled

assert HAMPEL_REACH == 4, "`clipped` knows medians of nine alone"


@compiled
def middle_of_ordered(ordered: Vector) -> float:
    """Median of ascending values."""
    half = len(ordered) // 2
    middle: float = ordered[half] if len(ordered) % 2 else 0.5 * (ordered[half - 1] + ordered[half])
    return middle


@compiled
def scale_of_ordered(ordered: Vector) -> float:
    """Standard deviation of ascending values around their median, by the median deviation or the 80 % quantile."""
    count = len(ordered)
    if count == 0:
        return 0.0
    centre = middle_of_ordered(ordered)
    right = count // 2
    while right > 0 and ordered[right - 1] - centre >= 0.0:
        right -= 1
    while right < count and ordered[right] - centre < 0.0:
        right += 1
    left = right - 1
    middle = size = 0.0
    for rank in range(count * 4 // 5 + 1):  # deviations, ascending, from the centre outwards
        above = ordered[right] - centre if right < count else np.inf
        below = centre - ordered[left] if left >= 0 else np.inf
        if above <= below:
            size, right = above, right + 1
        else:
            size, left = below, left - 1
        if rank == count // 2:
            middle = size
    return max(middle * SIGMA_PER_MAD, size / 1.2816 * 0.8)


@compiled
def resolution(ordered: Vector) -> float:
    """Smallest distance between two of ascending values that differ."""
    grain = max(abs(ordered[0]), abs(ordered[-1])) * 4e-16
    bar = grain * 4.0
    least = apart = np.inf
    for at in range(len(ordered) - 1):
        step = ordered[at + 1] - ordered[at]
        least = min(least, step)
        if step > bar:
            apart = min(apart, step)
    if not (least > bar and least < np.inf):
        least = apart if apart < np.inf else 0.0
    found: float = max(max(least, grain), 1e-300)
    return found


@compiled
def noise_of_ordered(one: Vector, two: Vector, grain: float) -> tuple[float, float]:
    """Standard deviation and memory, from ascending differences of neighbours and of neighbours but one."""
    near, far = scale_of_ordered(one), scale_of_ordered(two)
    least = grain * ROUNDING
    if near <= 0.0:
        return least, 0.0
    ratio = far / near
    memory = min(max(ratio * ratio - 1.0, 0.0), MOST_MEMORY)
    return max(near / math.sqrt(2.0 * (1.0 - memory)), least), memory


@compiled
def clipped(values: Vector, sigma: float) -> Vector:
    """The values, five or more, with spikes pulled back to the limit around the median of nine neighbours."""
    count = len(values)
    padded = np.empty(count + 8)
    padded[4 : count + 4] = values
    for at in range(4):
        padded[at], padded[count + 4 + at] = values[3 - at], values[count - 1 - at]
    low, middle, high = np.empty(count + 6), np.empty(count + 6), np.empty(count + 6)
    for at in range(count + 6):
        one, two, three = padded[at], padded[at + 1], padded[at + 2]
        least, most = min(one, two), max(one, two)
        centre = min(most, three)
        high[at] = max(most, three)
        low[at], middle[at] = min(least, centre), max(least, centre)
    limit = HAMPEL_LIMIT * sigma
    pulled = np.empty(count)
    for at in range(count):
        one = max(max(low[at], low[at + 3]), low[at + 6])
        two, three = middle[at], middle[at + 3]
        two = max(min(max(two, three), middle[at + 6]), min(two, three))
        three = min(min(high[at], high[at + 3]), high[at + 6])
        centre = max(min(max(one, two), three), min(one, two))
        pulled[at] = min(max(values[at], centre - limit), centre + limit)
    return pulled


@compiled
def noise_of_residuals(residuals: Vector, parameters: int, grain: float) -> tuple[float, float, float]:
    """Standard deviation, memory and long-run variance over the variance."""
    count = len(residuals)
    total = along = 0.0
    for at in range(count):
        total += residuals[at] * residuals[at]
    variance = total / max(count - parameters, 1)
    least = grain * ROUNDING
    sigma = max(math.sqrt(variance), least)
    if count < 4 or variance <= least * least:
        return sigma, 0.0, 1.0
    for at in range(1, count):
        along += residuals[at] * residuals[at - 1]
    raw = along / total
    memory = min(max(raw + (parameters + 1.0 + 3.0 * max(raw, 0.0)) / count, 0.0), MOST_MEMORY)
    return sigma, memory, (1.0 + memory) / (1.0 - memory) * beyond(residuals, raw)


@compiled
def beyond(residuals: Vector, memory: float) -> float:
    """Long-run variance over the variance of what the autoregression leaves; 1 or more, and at most 4."""
    count = len(residuals) - 1
    if count < 40:
        return 1.0
    left = np.empty(count)
    total = 0.0
    for at in range(count):
        left[at] = residuals[at + 1] - memory * residuals[at]
        total += left[at] * left[at]
    if total <= 0.0:
        return 1.0
    reach = int(4.0 * (count / 100.0) ** 0.25) + 1
    ratio = 1.0
    for lag in range(1, reach + 1):
        along = 0.0
        for at in range(lag, count):
            along += left[at] * left[at - lag]
        ratio += 2.0 * (1.0 - lag / (reach + 1.0)) * along / total
    return min(max(ratio - 1.3 * math.sqrt(reach / count), 1.0), 4.0)


@compiled
def line_through(
    positions: Vector, values: Vector, weights: Vector
) -> tuple[float, float, float, float, float]:
    """Centre, level, slope, weight and spread of the line that fits all of these best."""
    stretch = float(len(values))
    w = wx = wxx = wy = wxy = 0.0
    for at in range(len(values)):
        x = positions[at] / stretch
        weighs = weights[at] * x
        w += weights[at]
        wx += weighs
        wxx += weighs * x
        wy += weights[at] * values[at]
        wxy += weighs * values[at]
    spread = max(wxx - wx * wx / w, 0.0)
    slope = (wxy - wx * wy / w) / spread if spread > 1e-12 else 0.0
    return wx / w * stretch, wy / w, slope / stretch, w, spread * (stretch * stretch)


@compiled
def regime(
    positions: Places,
    values: Vector,
    weights: Vector,
    ordered: tuple[Vector, Vector, Vector],
    is_flat: bool,
    value_limit: float,
) -> tuple[tuple[float, float, float, float, float], float, float, float, Vector]:
    """Line, standard deviation, memory, unit of weights, and sizes of what is left; see `regime.regime_of`.

    Ascending are the values, and differences of neighbours and of neighbours but one.
    """
    count = len(values)
    unit = 0.0
    for at in range(count):
        unit += weights[at]
    unit /= count
    weighs = weights / unit
    grain, middle = resolution(ordered[0]), middle_of_ordered(ordered[0])
    rough = noise_of_ordered(ordered[1], ordered[2], grain)[0]
    pulled = clipped(values, rough)
    x = np.empty(count)
    for at in range(count):
        pulled[at] = (pulled[at] - middle) / rough
        x[at] = positions[at] - positions[0]
    centre, level, slope, weight, spread = line_through(x, pulled, weighs)
    if is_flat:
        slope, spread = 0.0, np.inf
    residuals, limited = np.empty(count), np.empty(count)
    for at in range(count):
        residual = (values[at] - middle) / rough - level - (x[at] - centre) * slope
        residuals[at] = residual
        limited[at] = min(max(residual, -value_limit), value_limit) * math.sqrt(weighs[at])
    sigma, memory, _ = noise_of_residuals(limited, 2, grain / rough)
    sigma = max(sigma, 1e-9)
    memory = min(memory + (0.4 + 1.4 * memory) / math.sqrt(count), MOST_MEMORY)
    for at in range(count):
        residuals[at] = abs(residuals[at]) / sigma
    line = (centre + positions[0], middle + level * rough, slope * rough, weight, spread)
    return line, sigma * rough, memory, unit, residuals


@compiled
def prospects(memory: float, quantile: float, shape: tuple[int, int, float]) -> tuple[Vector, Vector]:
    """What `regime.inflation_of` and, for weights of 1, `regime.bounds_of` give; `shape`: REACH, SUSPECTED_FROM, SUSPICION / BAR."""
    reach, suspected_from, suspicion = shape
    inflation, bounds = np.empty(reach), np.empty(reach)
    rest, power = 1.0 - memory, 1.0
    for at in range(reach):
        k = at + 1.0
        power *= memory
        inflation[at] = (1.0 + memory) / rest - 2.0 * memory * (1.0 - power) / (k * (rest * rest))
        bounds[at] = math.sqrt(inflation[at] * k / 1.0) * (quantile * NEARLY_ALL)
        if at >= suspected_from - 1:
            bounds[at] *= suspicion
    return inflation, bounds
