"""A finished series, analysed. What is expensive is computed when it is first asked for."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from numbers import Integral
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from dtf.core.trend.changes import ChangeStream
from dtf.core.trend.findings import Anomaly, ChangeKind, ChangePoint, Forecast, Seasonality, Trend
from dtf.core.trend.imports.series import ImportedSeries
from dtf.core.trend.scarcity import LEAST_POINTS
from dtf.trends.inputs import Inputs, inputs
from dtf.trends.moments import as_text

LARGEST_HORIZON = 100_000
SEARCHED_AT_ONCE = 5_000
"""Values between two words of how far the search is: some hundredths of a second."""

if TYPE_CHECKING:
    import pandas

    from dtf.trends.plotting import Picture


def analyze(
    values: "Iterable[float | None] | str | PathLike[str]",
    times: Iterable[Any] | None = None,
    *,
    lower_is_better: bool | None = None,
    weights: Iterable[float] | None = None,
    column: str | None = None,
) -> "Analysis":
    """What changed in a series, what is unusual in it and where it goes.

    `values`, shape (n,): a list, an array, a pandas Series (its index, where it says times, is the
    times) or the path of a CSV or another file that `dtf.trends.load` reads, `column` naming the series
    if it holds several. None and NaN are missing values: they take a position and say nothing.

    `times`, shape (n,), rising, equal ones allowed: datetimes, dates, numpy datetime64, pandas
    Timestamps, seconds since 1970 or ISO text; without a zone they are UTC. Without times positions count.

    `weights`, shape (n,), above 0: how many measurements each value sums up.

    `lower_is_better` makes changes regressions and improvements, and a trend improving or degrading.

    Raises ValueError with one line that says what is wrong and where.
    """
    if isinstance(values, str | PathLike):
        from dtf.trends.files import load_one

        if times is not None or weights is not None:
            raise ValueError(
                "a file has times and weights of its own: give `times` and `weights` with values only"
            )
        return analyze_imported(load_one(values, column), lower_is_better)
    if column is not None:
        raise ValueError("`column` names a column of a file, and no file was given")
    return Analysis(inputs(values, times, weights), lower_is_better)


def analyze_imported(series: ImportedSeries, lower_is_better: bool | None = None) -> "Analysis":
    """The same of a series from a file, which may know itself which direction is good."""
    better = series.is_lower_better if lower_is_better is None else lower_is_better
    given = inputs(series.values, series.times or None, series.weights or None)
    dated = replace(given, has_dates=given.has_times and series.has_dates)
    return Analysis(dated, better, name=series.name, revisions=series.revisions)


class Analysis:
    """What was found in a series of n values; positions count from 0."""

    def __init__(
        self,
        series: Inputs,
        lower_is_better: bool | None,
        *,
        name: str = "",
        revisions: Sequence[str] = (),
    ) -> None:
        self.values = series.values
        """Shape (n,); NaN: missing."""
        self.times = series.times
        """Seconds since 1970-01-01 UTC, shape (n,); positions where the series has no times."""
        self.name = name
        self.revisions = tuple(revisions)
        """One a value, or none."""
        self.lower_is_better = lower_is_better
        self.has_times = series.has_times
        self.has_dates = series.has_dates
        """Whether the times are dates, rather than numbers of whatever."""
        self._weights = series.weights

    @cached_property
    def change_points(self) -> tuple[ChangePoint, ...]:
        """Where a new regime begins, in order; the same as `Stream` says when it has seen the last value."""
        return self._search(lambda done: None)

    def search(self, on_progress: Callable[[int], None]) -> None:
        """Find the change points now, saying how many values were searched; they are known afterwards."""
        if "change_points" not in self.__dict__:
            self.__dict__["change_points"] = self._search(on_progress)

    def _search(self, on_progress: Callable[[int], None]) -> tuple[ChangePoint, ...]:
        stream = ChangeStream(lower_is_better=self.lower_is_better)
        weights = np.ones_like(self.values) if self._weights is None else self._weights
        for start in range(0, len(self.values), SEARCHED_AT_ONCE):
            part = slice(start, start + SEARCHED_AT_ONCE)
            stream.extend(self.times[part], self.values[part], weights[part])
            on_progress(min(start + SEARCHED_AT_ONCE, len(self.values)))
        return tuple(stream.change_points)

    @property
    def is_too_short(self) -> bool:
        """Whether it has so few values that no change could have been found."""
        return int(np.isfinite(self.values).sum()) < LEAST_POINTS

    @cached_property
    def seasonality(self) -> Seasonality | None:
        """The repetition, if there is one."""
        from dtf.core.trend.seasonality import find_seasonality

        return find_seasonality(self.values)

    @cached_property
    def trend(self) -> Trend:
        """Direction of the newest regime."""
        from dtf.core.trend.slopes import find_trend

        return find_trend(
            self.values, self.times, since_index=self._newest_regime(), lower_is_better=self.lower_is_better
        )

    @cached_property
    def anomalies(self) -> tuple[Anomaly, ...]:
        """Values that do not belong to their regime, in order; what begins a regime is a change and none of these."""
        return self._find_anomalies(lambda done: None)

    def search_anomalies(self, on_progress: Callable[[int], None]) -> None:
        """Find the anomalies now, saying how many values were scored; they are known afterwards."""
        if "anomalies" not in self.__dict__:
            self.__dict__["anomalies"] = self._find_anomalies(on_progress)

    def _find_anomalies(self, on_progress: Callable[[int], None]) -> tuple[Anomaly, ...]:
        from dtf.core.trend.anomalies import find_anomalies

        return find_anomalies(self.values, self.times, changes=self.change_points, on_progress=on_progress)

    def forecast(self, horizon: int) -> Forecast:
        """The next `horizon` values with intervals. Raises ValueError if `horizon` is not from 1 to LARGEST_HORIZON."""
        from dtf.core.trend.forecast import make_forecast

        if not isinstance(horizon, Integral) or not 1 <= horizon <= LARGEST_HORIZON:
            raise ValueError(
                f"horizon is {horizon!r}: how many values to forecast, 1 or more, at most {LARGEST_HORIZON:,}"
            )
        return make_forecast(
            self.values, horizon=int(horizon), seasonality=self.seasonality, since_index=self._newest_regime()
        )

    def _newest_regime(self) -> int:
        """Where the newest regime begins; a change of the spread begins none."""
        starts = [each.index for each in self.change_points if each.kind is not ChangeKind.VARIANCE]
        return starts[-1] if starts else 0

    def to_pandas(self) -> "pandas.DataFrame":
        """A DataFrame with a row for each value, its index the times.

        Columns: value; level (of the regime, a line where it drifts); regime (0, 1, …); change, state,
        effect, relative and confidence where a regime begins, else missing; anomaly_score where a value
        is anomalous, else 0.
        """
        import pandas

        from dtf.trends.regimes import levels, regimes

        microseconds = np.round(self.times * 1e6) if self.has_dates else None
        index = (
            self.times
            if microseconds is None
            else pandas.DatetimeIndex(microseconds.astype("datetime64[us]"), tz="UTC")
        )
        frame = pandas.DataFrame(
            {
                "value": self.values,
                "level": levels(self.values, self.change_points),
                "regime": regimes(len(self.values), self.change_points),
                "change": pandas.Series([None] * len(self.values), dtype=object),
                "state": pandas.Series([None] * len(self.values), dtype=object),
                "effect": np.nan,
                "relative": np.nan,
                "confidence": np.nan,
                "anomaly_score": 0.0,
            }
        )
        for each in self.change_points:
            frame.loc[each.index, ["change", "state"]] = [str(each.kind), str(each.state)]
            numbers = [each.effect.absolute, each.effect.relative, each.confidence]
            frame.loc[each.index, ["effect", "relative", "confidence"]] = numbers
        for anomaly in self.anomalies:
            frame.loc[anomaly.index : anomaly.end_index - 1, "anomaly_score"] = anomaly.score
        return frame.set_index(pandas.Index(index, name="time" if self.has_dates else None))

    def to_dict(self) -> dict[str, Any]:
        """Everything that was found, for JSON; NaN is None, times of dates are ISO text."""
        found = {
            "name": self.name,
            "values": len(self.values),
            "lower_is_better": self.lower_is_better,
            "is_too_short": self.is_too_short,
            "change_points": [
                {**asdict(each), "revision": self.revision(each.index)} for each in self.change_points
            ],
            "trend": asdict(self.trend),
            "anomalies": [{**asdict(each), "revision": self.revision(each.index)} for each in self.anomalies],
            "seasonality": asdict(self.seasonality) if self.seasonality else None,
        }
        plain: dict[str, Any] = _plain(found, self.has_dates)
        return plain

    def forecast_dict(self, horizon: int) -> dict[str, Any]:
        """A forecast, for JSON."""
        plain: dict[str, Any] = _plain(asdict(self.forecast(horizon)), self.has_dates)
        return plain

    def picture(self, unit: str = "") -> "Picture":
        """What `dtf.trends.plotting` draws."""
        from dtf.trends.plotting import Picture

        return Picture(
            self.name or "series",
            self.values,
            self.times,
            self.has_dates,
            self.change_points,
            self.anomalies,
            unit,
        )

    def revision(self, index: int) -> str:
        """The revision of a value; empty if it is not known."""
        return self.revisions[index] if index < len(self.revisions) else ""

    def time_text(self, index: int) -> str:
        """The time of a value as people read it; its position where the series has no times."""
        if self.has_dates:
            return as_text(float(self.times[index]))
        return f"{self.times[index]:.10g}"

    def __repr__(self) -> str:
        from dtf.trends.wording import change_sentence

        changes = "; ".join(change_sentence(each) for each in self.change_points) or (
            "too few for a change" if self.is_too_short else "no change"
        )
        return f"<Analysis of {len(self.values)} values: {changes}>"


def _plain(value: Any, has_dates: bool, key: str = "") -> Any:
    match value:
        case dict():
            return {name: _plain(each, has_dates, name) for name, each in value.items()}
        case list() | tuple():
            return [_plain(each, has_dates) for each in value]
        case float() if key == "time" and has_dates:
            return as_text(value)
        case float():
            return value if np.isfinite(value) else None
        case str():
            return str(value)
        case _:
            return value
