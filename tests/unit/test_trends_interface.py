"""`dtf.trends`: what users hand in, what they get, and how little it takes to import it."""

import json
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dtf.trends
from dtf.trends import ChangeKind, ChangeState, Impact

HEAVY = ("pandas", "sklearn", "scipy", "numba", "grpc", "google", "matplotlib", "click", "duckdb", "nats")


def step_series(size: float = 5.0, before: int = 60, after: int = 40, seed: int = 7) -> list[float]:
    """Noise of 1 around 100, then around 100 + `size`."""
    values = 100.0 + np.random.default_rng(seed).standard_normal(before + after)
    values[before:] += size
    return [float(each) for each in values]


def test_a_step_is_found_where_it_is_with_its_size() -> None:
    analysis = dtf.trends.analyze(step_series(), lower_is_better=True)
    (change,) = analysis.change_points
    assert (change.index, change.kind, change.state) == (60, ChangeKind.STEP, ChangeState.CONFIRMED)
    assert change.effect.interval.low < 5.0 < change.effect.interval.high
    assert change.effect.relative == pytest.approx(0.05, abs=0.01)
    assert change.impact is Impact.REGRESSION
    assert 0.99 < change.confidence <= 1.0
    assert repr(analysis).startswith("<Analysis of 100 values: step +")


def test_the_direction_says_whether_a_rise_is_good() -> None:
    (change,) = dtf.trends.analyze(step_series(), lower_is_better=False).change_points
    assert change.impact is Impact.IMPROVEMENT
    (change,) = dtf.trends.analyze(step_series()).change_points
    assert change.impact is Impact.CHANGE


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(lambda found: tuple(found), id="a tuple"),
        pytest.param(lambda found: np.asarray(found), id="an array"),
        pytest.param(lambda found: np.asarray(found, dtype=np.float32), id="an array of single precision"),
        pytest.param(lambda found: pd.Series(found), id="a pandas Series"),
        pytest.param(
            lambda found: pd.Series(found, index=[f"commit {n}" for n in range(len(found))]), id="of commits"
        ),
        pytest.param(lambda found: iter(found), id="an iterator"),
        pytest.param(lambda found: [str(each) for each in found], id="numbers as text"),
        pytest.param(lambda found: np.ma.masked_array(found, mask=False), id="a masked array"),
    ],
)
def test_values_may_be_whatever_holds_numbers(values: Any) -> None:
    found = dtf.trends.analyze(values(step_series()))
    assert [each.index for each in found.change_points] == [60]
    assert [each.time for each in found.change_points] == [60.0]


MOMENTS = [datetime(2026, 5, 1, tzinfo=UTC) + timedelta(hours=number) for number in range(100)]
EAST = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    "times",
    [
        pytest.param(MOMENTS, id="datetimes"),
        pytest.param([each.replace(tzinfo=None) for each in MOMENTS], id="datetimes without a zone"),
        pytest.param([each.astimezone(EAST) for each in MOMENTS], id="datetimes of another zone"),
        pytest.param([each.timestamp() for each in MOMENTS], id="seconds"),
        pytest.param([int(each.timestamp()) for each in MOMENTS], id="whole seconds"),
        pytest.param(np.asarray([each.timestamp() for each in MOMENTS]), id="an array of seconds"),
        pytest.param([each.isoformat() for each in MOMENTS], id="ISO text"),
        pytest.param([f"{each:%Y-%m-%dT%H:%M:%S}Z" for each in MOMENTS], id="ISO text with Z"),
        pytest.param(
            [f"{each.astimezone(EAST):%Y-%m-%d %H:%M:%S+02:00}" for each in MOMENTS], id="ISO text of a zone"
        ),
        pytest.param(
            np.asarray([each.replace(tzinfo=None) for each in MOMENTS], dtype="datetime64[s]"),
            id="datetime64",
        ),
        pytest.param(
            list(np.asarray([each.replace(tzinfo=None) for each in MOMENTS], dtype="datetime64[ms]")),
            id="a list of them",
        ),
        pytest.param([pd.Timestamp(each) for each in MOMENTS], id="pandas Timestamps"),
        pytest.param(pd.DatetimeIndex(MOMENTS), id="a DatetimeIndex"),
        pytest.param(pd.Series(MOMENTS), id="a Series of Timestamps"),
    ],
)
def test_times_may_be_whatever_says_when(times: Any) -> None:
    (change,) = dtf.trends.analyze(step_series(), times).change_points
    assert change.time == MOMENTS[60].timestamp()


def test_dates_are_midnights_utc() -> None:
    analysis = dtf.trends.analyze([1.0, 2.0], [date(2026, 5, 1), date(2026, 5, 2)])
    assert analysis.times.tolist() == [1777593600.0, 1777680000.0]


@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_the_index_of_a_pandas_series_is_its_times(zone: str | None) -> None:
    index = pd.date_range("2026-05-01", periods=100, freq="D", tz=zone)
    (change,) = dtf.trends.analyze(pd.Series(step_series(), index=index)).change_points
    assert change.time == index[60].timestamp()


@pytest.mark.parametrize(
    ("values", "times", "message"),
    [
        ([1, 2, 3], [1, 2], "there are 3 values but 2 times"),
        ([1, "fast", 3], None, "value 1 is 'fast', which is no number"),
        (
            [1, 2],
            ["2026-05-01", "soon"],
            "time 1 is 'soon': wanted a datetime, seconds since 1970 or ISO text",
        ),
        ([1, 2], [0, None], "time 1 is None"),
        ([1, 2], [0.0, float("nan")], "time 1 is nan"),
        ([1, 2], np.asarray(["2026-05-01", "NaT"], dtype="datetime64[s]"), "time 1 is"),
        ([1, 2, 3], [5, 7, 6], r"time 2 \(6\) is before time 1 \(7\): sort the series by time first"),
        ([[1, 2], [3, 4]], None, "wanted one dimension: value 0 has 2 entries"),
        (np.ones((3, 2)), None, r"wanted one dimension, not shape \(3, 2\)"),
        (
            pd.DataFrame({"mean": [1], "median": [2]}),
            None,
            r"give a column of it, as frame\['mean'\] \(it has mean, median\)",
        ),
        (5.0, None, "wanted a list, an array, a pandas Series or the path of a file, not float"),
        ({1: 2}, None, "not dict"),
    ],
)
def test_what_cannot_be_analysed_is_refused_in_one_line(values: Any, times: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        dtf.trends.analyze(values, times)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "2 values but 1 weights"),
        ([1.0, 0.0], "weight 1 is 0: a weight is above 0"),
        ([1, "a"], "weight 1 is 'a'"),
    ],
)
def test_weights_are_checked(weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dtf.trends.analyze([1.0, 2.0], weights=weights)


def test_a_missing_value_takes_a_position() -> None:
    values: list[float | None] = [*step_series()]
    values[10] = None
    values[20] = float("nan")
    analysis = dtf.trends.analyze(values)
    assert [each.index for each in analysis.change_points] == [60]
    assert np.flatnonzero(np.isnan(analysis.values)).tolist() == [10, 20]


@pytest.mark.parametrize("values", [[], [1.0], [3.0] * 50, [None] * 20])
def test_too_little_is_no_change(values: list[float | None]) -> None:
    analysis = dtf.trends.analyze(values)
    assert analysis.change_points == ()
    assert analysis.seasonality is None


def test_equal_times_are_allowed() -> None:
    found = dtf.trends.analyze(step_series(), [number // 2 for number in range(100)])
    assert [each.index for each in found.change_points] == [60]


def test_a_file_is_analysed_by_its_path(tmp_path: Path) -> None:
    rows = "".join(
        f"2026-05-01T00:{number // 60:02}:{number % 60:02},c{number},{each}\n"
        for number, each in enumerate(step_series())
    )
    path = tmp_path / "latency.csv"
    path.write_text("time,commit,ms\n" + rows)
    for given in (path, str(path)):
        analysis = dtf.trends.analyze(given, lower_is_better=True)
        (change,) = analysis.change_points
        assert (change.index, change.time, change.impact) == (60, 1777593660.0, Impact.REGRESSION)
        assert analysis.revision(change.index) == "c60"
        assert analysis.time_text(change.index) == "2026-05-01 00:01:00"


def test_a_file_of_several_series_wants_a_name(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(ValueError, match="holds 2 series: name one of 'a', 'b' as `column`"):
        dtf.trends.analyze(path)
    assert dtf.trends.analyze(path, column="b").values.tolist() == [2.0, 4.0]
    with pytest.raises(ValueError, match="has no series 'c'; it has 'a', 'b'"):
        dtf.trends.analyze(path, column="c")


def test_a_stream_ends_with_what_analyze_finds() -> None:
    values = step_series()
    stream = dtf.trends.Stream(lower_is_better=True)
    said = [stream.append(when, value) for when, value in zip(MOMENTS, values, strict=True)]
    assert said[:60] == [[]] * 60
    (first,) = next(findings for findings in said if findings)
    assert isinstance(first, dtf.trends.ChangePoint)
    assert abs(first.index - 60) <= 5
    assert (first.state, first.impact) == (ChangeState.PROVISIONAL, Impact.REGRESSION)
    assert stream.change_points == dtf.trends.analyze(values, MOMENTS, lower_is_better=True).change_points


def test_a_stream_goes_on_where_its_state_was_taken() -> None:
    values = step_series()
    whole, part = dtf.trends.Stream(anomalies=True), dtf.trends.Stream(anomalies=True)
    for number, value in enumerate(values[:61]):
        assert whole.append(number, value) == part.append(number, value)
    part = dtf.trends.Stream.restore(json.loads(json.dumps(part.state())))
    for number, value in enumerate(values[61:], start=61):
        assert whole.append(number, value) == part.append(number, value)
    assert whole.state() == part.state()


def test_a_stream_refuses_a_late_value_and_takes_an_equal_time() -> None:
    stream = dtf.trends.Stream()
    stream.append("2026-05-01T12:00", 1.0)
    stream.append("2026-05-01T12:00", 2.0)
    with pytest.raises(
        ValueError, match=r"time 2026-05-01T11:00 is before the last one: give values in order of time"
    ):
        stream.append("2026-05-01T11:00", 3.0)
    with pytest.raises(ValueError, match="the value is 'x', which is no number"):
        stream.append("2026-05-01T13:00", "x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weight is 0"):
        stream.append("2026-05-01T13:00", 3.0, 0.0)


def test_a_spike_is_an_anomaly_and_no_change() -> None:
    values = step_series(size=0.0, before=300, after=100)
    values[350] += 40.0
    analysis = dtf.trends.analyze(values)
    assert analysis.change_points == ()
    assert 350 in [each.index for each in analysis.anomalies]
    with_anomalies, without = dtf.trends.Stream(anomalies=True), dtf.trends.Stream()
    found = [with_anomalies.append(number, value) for number, value in enumerate(values)]
    assert [type(each) for each in found[350]] == [dtf.trends.Anomaly]
    assert not any(without.append(number, value) for number, value in enumerate(values))


def test_a_detector_scores_between_0_and_1_and_high_for_what_was_never_seen() -> None:
    values = step_series(size=0.0, before=300, after=100)
    detector = dtf.trends.AnomalyDetector()
    scores = [detector.update(when, value) for when, value in enumerate(values)]
    assert all(0.0 <= each <= 1.0 for each in scores)
    assert detector.update(400, 500.0) > 0.99
    restored = dtf.trends.AnomalyDetector.restore(json.loads(json.dumps(detector.state())))
    assert restored.update(401, 100.0) == detector.update(401, 100.0)
    with pytest.raises(ValueError, match="minimum 5 is above maximum 1"):
        dtf.trends.AnomalyDetector(minimum=5, maximum=1)
    with pytest.raises(ValueError, match="maximum is nan: wanted a number, or None"):
        dtf.trends.AnomalyDetector(maximum=float("nan"))


def test_a_detector_takes_a_value_of_a_clock_set_back_as_the_newest() -> None:
    rising, falling = dtf.trends.AnomalyDetector(), dtf.trends.AnomalyDetector()
    values = step_series(size=0.0)
    hours = [
        datetime(2026, 5, 1, tzinfo=UTC) + timedelta(hours=at if at < 60 else at - 1) for at in range(100)
    ]
    back = [falling.update(when, value) for when, value in zip(hours, values, strict=True)]
    assert back == [rising.update(when, value) for when, value in zip(MOMENTS, values, strict=True)]
    with pytest.raises(ValueError, match="the time is 'noon'"):
        falling.update("noon", 1.0)


def test_trend_and_forecast_are_those_of_the_newest_regime() -> None:
    values = np.asarray(step_series())
    values[60:] += 0.5 * np.arange(40)
    analysis = dtf.trends.analyze(values, lower_is_better=True)
    assert analysis.trend.label is dtf.trends.TrendLabel.DEGRADING
    assert analysis.trend.slope_interval.low < 0.5 < analysis.trend.slope_interval.high
    forecast = analysis.forecast(5)
    assert len(forecast.values) == len(forecast.low) == len(forecast.high) == 5
    assert forecast.low[0] < 125.0 < forecast.high[0]
    with pytest.raises(ValueError, match="horizon is 0"):
        analysis.forecast(0)


def test_a_season_is_found_with_its_period() -> None:
    noise = np.asarray(step_series(size=0.0, before=200, after=100))
    analysis = dtf.trends.analyze(noise + 5.0 * np.sin(2 * np.pi * np.arange(300) / 12))
    assert analysis.seasonality is not None
    assert analysis.seasonality.period == 12


def test_a_frame_has_a_row_a_value_with_what_was_found() -> None:
    frame = dtf.trends.analyze(step_series(), MOMENTS).to_pandas()
    assert frame.index[0] == pd.Timestamp("2026-05-01", tz="UTC")
    assert frame.loc[frame["change"].notna(), ["change", "state"]].to_numpy().tolist() == [
        ["step", "confirmed"]
    ]
    assert frame["regime"].tolist() == [0] * 60 + [1] * 40
    assert frame["level"].iloc[0] == pytest.approx(100.0, abs=0.5)
    assert frame["level"].iloc[-1] == pytest.approx(105.0, abs=0.5)
    assert len(frame) == 100


def test_an_interval_is_a_pair_as_well() -> None:
    (change,) = dtf.trends.analyze(step_series()).change_points
    low, high = change.effect.interval
    assert (low, high) == (change.effect.interval.low, change.effect.interval.high)
    assert change.effect.interval[0] == low
    assert len(change.effect.relative_interval) == 2


def test_a_number_beyond_all_numbers_is_refused_in_a_sentence() -> None:
    for refused in (
        lambda: dtf.trends.analyze([1.0] * 3, [10**400] * 3),
        lambda: dtf.trends.Stream().append(10**400, 1.0),
        lambda: dtf.trends.Stream().append(1, 1.0, 10**400),
    ):
        with pytest.raises(ValueError, match="is 1000000") as told:
            refused()
        assert len(str(told.value)) < 250


def test_times_of_any_year_keep_their_moment() -> None:
    """The year 3000 is beyond what 64 bits of nanoseconds hold, and a tenth of a second is no sum of halves."""
    values = step_series(before=20, after=20)
    seconds = np.datetime64("3000-01-01", "s") + np.arange(40)
    assert dtf.trends.analyze(values, seconds).to_dict()["change_points"][0]["time"] == "3000-01-01 00:00:20"
    tenths = [datetime(3200, 1, 1, tzinfo=UTC) + timedelta(milliseconds=100 * at) for at in range(40)]
    assert dtf.trends.analyze(values, tenths).to_pandas().index[1] == pd.Timestamp("3200-01-01T00:00:00.1Z")


def test_everything_found_is_plain_json() -> None:
    document = dtf.trends.analyze([*step_series(), None], [*MOMENTS, MOMENTS[-1]]).to_dict()
    read = json.loads(json.dumps(document, allow_nan=False))
    assert read["change_points"][0]["time"] == "2026-05-03 12:00:00"
    assert read["change_points"][0]["effect"]["interval"]["low"] < 5.0


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, dtf.trends; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert not set(done.stdout.split()) & set(HEAVY)


def test_analysing_imports_nothing_heavy_either() -> None:
    code = (
        "import sys, dtf; dtf.trends.analyze([1.0, 2.0] * 50).change_points; "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert not set(done.stdout.split()) & {"pandas", "sklearn", "grpc", "matplotlib"}


def test_the_public_names_are_these() -> None:
    assert set(dtf.trends.__all__) == {
        "ALARM_SCORE", "Analysis", "Anomaly", "AnomalyDetector", "AnomalyKind", "ChangeKind", "ChangePoint",
        "ChangeState", "Effect", "Finding", "Forecast", "Impact", "Interval", "Seasonality", "Stream", "Trend", "TrendLabel",
        "analyze", "load",
    }  # fmt: skip
    assert all(hasattr(dtf.trends, name) for name in dtf.trends.__all__)


def test_a_search_for_anomalies_that_tells_how_far_it_is_finds_the_same() -> None:
    values = np.random.default_rng(4).standard_normal(3_000)
    values[2_500] += 30.0
    told: list[int] = []
    analysis = dtf.trends.analyze(values)
    analysis.search_anomalies(told.append)
    assert told == [2048, 3000]
    assert analysis.anomalies == dtf.trends.analyze(values).anomalies != ()


def test_a_search_that_tells_how_far_it_is_finds_the_same() -> None:
    values = np.random.default_rng(3).standard_normal(12_000)
    values[7_000:] += 3.0
    told: list[int] = []
    watched = dtf.trends.analyze(values)
    watched.search(told.append)
    assert told == [5_000, 10_000, 12_000]
    assert watched.change_points == dtf.trends.analyze(values).change_points
    watched.search(told.append)
    assert len(told) == 3, "it is known already"


def test_what_pandas_calls_missing_is_missing_in_a_stream_too() -> None:
    stream, detector = dtf.trends.Stream(), dtf.trends.AnomalyDetector()
    absent: Any = pd.NA
    assert stream.append("2026-05-01 12:00:00 +0200", absent) == []
    assert detector.update(pd.Timestamp("2026-05-01", tz="Asia/Tokyo"), absent) == 0.0
    for weight in ("x", None, pd.NA, float("nan")):
        with pytest.raises(ValueError, match=r"weight is .*: it is above 0"):
            stream.append("2026-05-02", 1.0, weight)  # type: ignore[arg-type]


def test_an_index_that_is_no_order_of_times_is_told_as_such() -> None:
    with pytest.raises(
        ValueError, match=r"sort the series by time first; these are the Series' index: \.reset"
    ):
        dtf.trends.analyze(pd.Series([1.0, 2.0], index=[5, 4]))
    with pytest.raises(ValueError, match=r"a DataFrame is no series: give a column of it, as frame\['a'\]"):
        dtf.trends.analyze(pd.DataFrame({"a": [1.0]}))


def test_too_few_values_are_not_said_to_have_no_change() -> None:
    assert repr(dtf.trends.analyze([1.0] * 11)) == "<Analysis of 11 values: too few for a change>"
    assert repr(dtf.trends.analyze([1.0] * 12)) == "<Analysis of 12 values: no change>"


def test_milliseconds_taken_for_seconds_do_not_break_what_is_said() -> None:
    values = np.random.default_rng(1).standard_normal(60) + np.repeat([10.0, 20.0], 30)
    analysis = dtf.trends.analyze(values, [1.7e12 + 1e3 * at for at in range(60)])
    assert analysis.to_dict()["change_points"][0]["time"] == 1.7e12 + 30e3
    assert len(analysis.to_pandas()) == 60
