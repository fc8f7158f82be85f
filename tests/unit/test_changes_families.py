"""False alarms, delays and kinds on families of noise, with fixed seeds and room: the bench has the figures."""

import numpy as np
import pytest

from dtf.core.trend.changes import ChangeStream
from dtf.core.trend.findings import ChangeKind
from tests.unit.changing_series import FAMILIES, noise_of, with_step

SERIES = 20
MOST_FALSE = 3
"""Of 20: with a true rate of 5 % more come in 2 % of draws, and the seeds are fixed."""


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_raises_hardly_any_alarm(family: str) -> None:
    false = 0
    for seed in range(70_000, 70_000 + SERIES):
        stream = ChangeStream()
        told = [*stream.extend(np.arange(200), noise_of(family, 200, seed)), *stream.change_points]
        false += any(family != "drift" or change.kind is not ChangeKind.DRIFT for change in told)
    assert false <= MOST_FALSE


@pytest.mark.parametrize("family", FAMILIES)
def test_long_noise_raises_hardly_any_alarm(family: str) -> None:
    false = 0
    for seed in range(71_000, 71_006):
        stream = ChangeStream()
        told = [*stream.extend(np.arange(1_000), noise_of(family, 1_000, seed)), *stream.change_points]
        false += any(family != "drift" or change.kind is not ChangeKind.DRIFT for change in told)
    assert false <= 2


@pytest.mark.parametrize(("size", "most_delay"), [(5.0, 2), (3.0, 5)])
def test_steps_are_seen_soon_and_where_they_are(size: float, most_delay: int) -> None:
    delays, errors = [], []
    for seed in range(72_000, 72_025):
        values = with_step("iid", 200, seed, at=100, size=size)
        stream = ChangeStream()
        first = 999
        for place, value in enumerate(values[:130]):
            told = [change for change in stream.append(place, value) if abs(change.index - 100) <= 5]
            first = min(first, place - 99) if told else first
        stream.extend(np.arange(130, 200), values[130:])
        delays.append(first)
        errors += [abs(change.index - 100) for change in stream.change_points][:1]
    assert np.median(delays) <= most_delay
    assert len(errors) >= 24
    assert np.mean(errors) <= 0.6


@pytest.mark.parametrize("family", ["iid", "ar", "t3", "spikes", "season"])
def test_a_clear_step_is_one_step_in_any_noise(family: str) -> None:
    found = 0
    for seed in range(73_000, 73_008):
        stream = ChangeStream()
        stream.extend(np.arange(300), with_step(family, 300, seed, at=160, size=7.0))
        places = [change.index for change in stream.change_points if change.kind is ChangeKind.STEP]
        found += len(places) == 1 and abs(places[0] - 160) <= 4
    assert found >= 6


def test_a_drift_that_begins_is_a_drift() -> None:
    for seed in range(74_000, 74_004):
        values = noise_of("iid", 300, seed)
        values[150:] += 0.08 * np.arange(150)
        stream = ChangeStream()
        stream.extend(np.arange(300), values)
        assert [change.kind for change in stream.change_points] == [ChangeKind.DRIFT]
        (change,) = stream.change_points
        assert abs(change.index - 150) <= 15
        assert change.effect.absolute == pytest.approx(12.0, rel=0.15)
