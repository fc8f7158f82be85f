"""Predictive: what comes by day and week is forecast, and workers for it are there before it is.

The history is the tasks that came in each five minutes, two weeks of it. The model is a ridge
regression (scikit-learn) on the time of day and week (harmonics) and on what came lately and at this
time a day and a week ago. It is looked back at before it is trusted: fitted on the older part, it
forecasts the newer part bin by bin, and so does persistence ("as much as in the bin before"). Only
where its mean absolute error is clearly the smaller is it used, and the comparison is in the
decision. The interval comes from the same errors: their quantiles, which is split conformal
prediction (Lei et al. 2018) and assumes no distribution.

What it says is added to target tracking: the larger of the two counts, so that a bad forecast costs
idle workers at most up to the interval's upper end, and never a wait.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from dtf.api.v1 import scaling_pb2
from dtf.core.scaling.forecast import MISSED_RATIO, poisson_quantile
from dtf.core.scaling.measure import Measured
from dtf.core.scaling.policy import ScalingPolicy
from dtf.core.scaling.rates import NANOS
from dtf.core.scaling.recommendation import Recommendation
from dtf.core.scaling.target import recommend_target
from dtf.core.scaling.traffic import HISTORY_BIN_SECONDS, Traffic

DAY_BINS = 24 * 3600 // HISTORY_BIN_SECONDS
WEEK_BINS = 7 * DAY_BINS
LEAST_BINS = 2 * DAY_BINS
"""Two days: without a second one nothing is known of a day's shape."""
HARMONICS = 4
LAGS = 3
TESTED_RATIO = 0.25
"""Share of the history that is forecast to see how well that goes."""
BETTER_RATIO = 0.9
"""An error above this share of persistence's is not clearly smaller."""
INTERVAL_RATIO = 0.9
"""Share of what came that lay within the interval, looking back."""


@dataclass(frozen=True, slots=True)
class ArrivalForecast:
    """Tasks expected in the present bin."""

    expected: float
    low: float
    high: float
    error: float
    """Mean absolute error of the model, looking back, in tasks a bin."""
    persistence_error: float
    """The same of "as much as in the bin before"."""

    @property
    def error_ratio(self) -> float:
        """The model's error over persistence's."""
        return self.error / self.persistence_error if self.persistence_error else math.inf

    @property
    def is_used(self) -> bool:
        """Whether the model beat persistence on this very stream."""
        return self.error_ratio <= BETTER_RATIO


def recommend_predictive(measured: Measured, policy: ScalingPolicy) -> Recommendation:
    """Target tracking, and workers for what the forecast says."""
    target = recommend_target(measured, policy)
    slots = 0.0
    said: list[tuple[str, int, str]] = []
    best: ArrivalForecast | None = None
    for part in measured.classes:
        forecast = forecast_arrivals(part.traffic, measured.now_ns + int(measured.startup_seconds * NANOS))
        if forecast is None:
            said.append(("seasonal", 0, f"less than {LEAST_BINS * HISTORY_BIN_SECONDS // 3600} h of history"))
            continue
        best = forecast if best is None or forecast.high > best.high else best
        said.append(("seasonal", 0, _compare(forecast)))
        if forecast.is_used:
            mean = part.traffic.mean_seconds(measured.now_ns, 0.0)
            offered = forecast.high / HISTORY_BIN_SECONDS * mean * part.share
            slots += poisson_quantile(offered, MISSED_RATIO)
    workers = math.ceil(slots / policy.slots - 1e-9)
    if best is not None:
        said[-1] = ("seasonal", workers, said[-1][2])

    def explain() -> str:
        if best is None or workers < target.workers:
            return target.explain()
        rate = 60 / HISTORY_BIN_SECONDS
        return (
            f"{best.expected * rate:.1f} tasks a minute are forecast ({best.low * rate:.1f} to "
            f"{best.high * rate:.1f}), error {best.error_ratio:.0%} of persistence's"
        )

    def say_forecast() -> scaling_pb2.Forecast:
        message = scaling_pb2.Forecast() if target.forecast is None else target.forecast()
        if best is not None:
            message.method = "seasonal" if best.is_used else "lead time; seasonal lost to persistence"
            message.rate = best.expected / HISTORY_BIN_SECONDS
            message.rate_low, message.rate_high = (
                best.low / HISTORY_BIN_SECONDS,
                best.high / HISTORY_BIN_SECONDS,
            )
            message.error_ratio = min(best.error_ratio, 1e6)
        return message

    next_bin_ns = (measured.now_ns // (HISTORY_BIN_SECONDS * NANOS) + 1) * HISTORY_BIN_SECONDS * NANOS
    wake_at_ns = next_bin_ns - int(measured.startup_seconds * NANOS) % (HISTORY_BIN_SECONDS * NANOS)
    if wake_at_ns <= measured.now_ns:
        wake_at_ns += HISTORY_BIN_SECONDS * NANOS
    return Recommendation(
        max(workers, target.workers),
        explain,
        lambda: [*target.parts(), *said],
        hold_kind=target.hold_kind,
        explain_hold=target.explain_hold,
        forecast=say_forecast,
        wake_at_ns=min(wake_at_ns, target.wake_at_ns or wake_at_ns),
    )


def forecast_arrivals(traffic: Traffic, at_ns: int) -> ArrivalForecast | None:
    """Tasks of the bin that `at_ns` is in; None while there is too little history.

    Only bins that have ended are looked at, so that within a bin the answer stays the same.
    """
    this = at_ns // (HISTORY_BIN_SECONDS * NANOS)
    complete = traffic.history[:-1]
    if traffic.last_bin < this:
        # bins since the last arrival were empty, the newest one but for what it had already
        complete = traffic.history + [0] * (this - 1 - traffic.last_bin)
    if len(complete) < LEAST_BINS:
        return None
    return _forecast(tuple(complete[-2 * WEEK_BINS :]), this if traffic.last_bin < this else traffic.last_bin)


@lru_cache(maxsize=8)
def _forecast(history: tuple[int, ...], next_bin: int) -> ArrivalForecast:
    """The bin after `history`, whose number is `next_bin`."""
    import numpy  # lazily: a pool that does not forecast needs neither
    from sklearn.linear_model import Ridge

    first = next_bin - len(history)
    longest = WEEK_BINS if len(history) > WEEK_BINS + DAY_BINS else DAY_BINS
    rows = [_features(history, first, position, longest) for position in range(longest, len(history) + 1)]
    features = numpy.array(rows)
    came = numpy.array(history[longest:], dtype=float)
    tested = max(12, int(len(came) * TESTED_RATIO))
    model = Ridge(
        alpha=1.0
    ).fit(  # type: ignore[no-untyped-call]  # scikit-learn is not typed
        features[: len(came) - tested], came[:-tested]
    )
    looked_back = numpy.maximum(0.0, model.predict(features[len(came) - tested : len(came)]))
    errors = came[-tested:] - looked_back
    persisted = numpy.array(history[-tested - 1 : -1], dtype=float)
    model = Ridge(alpha=1.0).fit(features[:-1], came)  # type: ignore[no-untyped-call]  # as above
    expected = max(0.0, float(model.predict(features[-1:])[0]))
    beyond = (1.0 - INTERVAL_RATIO) / 2
    low, high = (float(numpy.quantile(errors, share)) for share in (beyond, 1.0 - beyond))
    return ArrivalForecast(
        expected=expected,
        low=max(0.0, expected + low),
        high=max(0.0, expected + high),
        error=float(numpy.abs(errors).mean()),
        persistence_error=float(numpy.abs(came[-tested:] - persisted).mean()),
    )


def _features(history: Sequence[int], first: int, position: int, longest: int) -> list[float]:
    """What is known before the bin at `position`: the time, and what came before."""
    number = first + position
    day, week = 2 * math.pi * number / DAY_BINS, 2 * math.pi * number / WEEK_BINS
    row: list[float] = []
    for harmonic in range(1, HARMONICS + 1):
        row += [math.sin(harmonic * day), math.cos(harmonic * day)]
    if longest == WEEK_BINS:
        row += [math.sin(week), math.cos(week), float(history[position - WEEK_BINS])]
    row += [float(history[position - lag]) for lag in range(1, LAGS + 1)]
    row.append(float(history[position - DAY_BINS]))
    return row


def _compare(forecast: ArrivalForecast) -> str:
    verdict = "used" if forecast.is_used else "not used"
    return (
        f"{verdict}: off by {forecast.error:.1f} tasks in five minutes, persistence by "
        f"{forecast.persistence_error:.1f}"
    )
