"""Metrics of one run taken together: what noise raises, what a broken proportion raises, and the state of it."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from dtf.adapters.memory_vault import MemoryVault
from dtf.api.v1 import events_pb2, findings_pb2
from dtf.core.trend import series_points
from dtf.core.trend.finding_text import finding_sentence
from dtf.core.trend.names import NameBook
from dtf.core.trend.series_points import AnalyzedLogFold
from dtf.core.trend.together import RESHAPED_AFTER, RowValue, Together
from tests.trend_histories import METRICS, Matrix, bench_on_two_pools, case_history, measured, search

COUNT = 250


def row_of(values: NDArray[np.float64]) -> list[RowValue]:
    """A run's values with their names."""
    return [
        RowValue(name, unit, float(value)) for (name, unit, _), value in zip(METRICS, values, strict=True)
    ]


def fed(rows: Matrix) -> tuple[Together, list[int]]:
    """All rows taken up, and which of them were unusual."""
    together = Together([name for name, *_ in METRICS])
    return together, [
        index
        for index, values in enumerate(rows)
        if together.append(float(index), row_of(values)) is not None
    ]


@pytest.mark.parametrize("kind", ["shared", "heavy", "remembering"])
def test_noise_is_seldom_unusual(kind: str) -> None:
    alarms = [fed(measured(kind, seed))[1] for seed in range(2)]
    assert sum(map(len, alarms)) <= 0.01 * COUNT * len(alarms)


def test_a_proportion_that_breaks_is_unusual_and_says_which_metric() -> None:
    rows = measured("shared", 5)
    together, _ = fed(rows)
    broken = np.array([1.03, 0.776, 1e8])
    assert (rows.min(axis=0) < broken).all() and (broken < rows.max(axis=0)).all(), "each is usual"
    found = together.append(float(COUNT), row_of(broken))
    assert found is not None
    worst = found.contributions[0]
    assert worst.metric in ("duration_seconds", "cpu_seconds")
    assert abs(sum(each.share for each in found.contributions) - 1.0) < 1e-9
    assert together.append(COUNT + 1.0, row_of(broken)) is None, "the next such run is no news"


def test_a_restart_goes_on_as_it_was() -> None:
    rows = measured("shared", 6, 160)
    rows[150] = [1.03, 0.776, 1e8]
    whole, found = fed(rows)
    assert found == [150]
    again = Together([name for name, *_ in METRICS])
    told = []
    for index, values in enumerate(rows):
        if index % 37 == 0:
            again = Together.restore(json.loads(json.dumps(again.state())))
        if again.append(float(index), row_of(values)) is not None:
            told.append(index)
    assert told == found
    assert again.state() == whole.state()


def test_other_metrics_take_over_when_they_stay() -> None:
    together, _ = fed(measured("shared", 7, 60))
    two = [RowValue("duration_seconds", "s", 1.0), RowValue("cpu_seconds", "s", 0.8)]
    for index in range(RESHAPED_AFTER - 1):
        together.append(100.0 + index, two)
    assert len(together.state()["metrics"]) == 3
    together.append(200.0, two)
    assert together.state()["metrics"] == ["duration_seconds", "cpu_seconds"]
    assert together.append(201.0, two) is None


def test_a_run_of_the_log_is_a_finding_of_the_metric_that_fits_least() -> None:
    rows = measured("shared", 8, 160)
    rows[150] = [1.03, 0.776, 1e8]
    _, findings = search(case_history(rows), MemoryVault())
    (found,) = [
        each
        for each in findings
        if each.kind == findings_pb2.FINDING_KIND_MULTIVARIATE and each.series.case_name
    ]
    assert (found.run_id, found.revision, found.index) == ("r0150", "rev0150", 150)
    assert found.series.metric == found.contributions[0].metric
    assert found.impact == findings_pb2.FINDING_IMPACT_CHANGE
    assert "unusual together: load" in finding_sentence(found)
    assert "where the others say" in finding_sentence(found)


def fold_of(commits: Sequence[events_pb2.Commit]) -> AnalyzedLogFold:
    """A fold that has read these."""
    fold = AnalyzedLogFold(NameBook())
    for sequence, each in enumerate(commits, start=1):
        fold.apply(each, sequence)
    return fold


def test_each_pool_has_its_metrics_taken_together() -> None:
    points = fold_of(bench_on_two_pools()).take_series_points()
    rows = [
        (each.key.case, each.key.pool, each.row) for each in points if each.row and each.key.case == "big"
    ]
    assert rows == [
        ("big", pool, (RowValue("latency", "s", value), RowValue("wait", "s", value)))
        for pool, value in (("here", 1.0), ("there", 2.0))
    ]


def test_sets_of_metrics_beyond_the_bound_are_left_out_and_that_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fold = fold_of(case_history(measured("shared", 9, 4)))
    assert fold.together_limit == 0
    monkeypatch.setattr(series_points, "MOST_TOGETHER", 1)
    fold = fold_of(case_history(measured("shared", 9, 4)))
    assert {each.key.case for each in fold.take_series_points() if each.row} == {"load"}
    assert fold.together_limit == 1, "the suite's own set was left out"
    again = AnalyzedLogFold(NameBook())
    again.restore(json.loads(json.dumps(fold.state())))
    assert again.together_limit == 1
