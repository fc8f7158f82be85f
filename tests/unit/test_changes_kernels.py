"""The compiled kernels of the change-point engine say what numpy says, to the last bit, and are used only where they may be."""

import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from dtf.core.trend import compiled, kernels
from dtf.core.trend import seasonality as seasons
from dtf.core.trend.changes import ChangeStream
from dtf.core.trend.changes import noise as noises
from dtf.core.trend.changes import watch as watching
from dtf.core.trend.changes.arrays import Vector
from dtf.core.trend.changes.look import look_at
from dtf.core.trend.changes.regime import regime_of
from dtf.core.trend.changes.search import Search, profile
from dtf.core.trend.changes.segments import Sums
from dtf.core.trend.changes.settling import residuals_of, series_of
from dtf.core.trend.changes.variance import spreads_of
from dtf.core.trend.kernels.jit import compiled as compiled_function


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> "Use":
    """Switches between the two."""
    state = compiled._Kernels()
    state.is_tried = True
    monkeypatch.setattr(compiled, "_KERNELS", state)
    return Use(state)


class Use:
    def __init__(self, state: compiled._Kernels) -> None:
        self._state = state

    def numpy(self) -> None:
        self._state.module = None

    def numba(self) -> None:
        self._state.module = kernels


def series(length: int, seed: int) -> Vector:
    """Noise with steps, a drift, ties and spikes."""
    random = np.random.default_rng([20_950, length, seed])
    steps = np.cumsum((random.random(length) < 0.01) * random.normal(0.0, 3.0, length))
    values = random.standard_normal(length) + steps + np.linspace(0.0, seed, length)
    values[random.random(length) < 0.02] += 9.0
    return np.round(values, 1) if seed % 2 else values


@pytest.mark.parametrize("length", [10, 11, 13, 47, 129, 700, 1024])
@pytest.mark.parametrize("seed", range(4))
def test_searches_find_the_same_gains_and_partitions(use: Use, length: int, seed: int) -> None:
    weights = np.random.default_rng(length).integers(1, 5, length) / 2.0 if seed % 3 else np.ones(length)
    sums = Sums(np.arange(length, dtype=np.float64), series(length, seed), weights)
    found = []
    for switch in (use.numpy, use.numba):
        switch()
        search = Search(sums)
        prices = [(change, 0.6 * change) for change in (0.5, 3.0, 20.0, 21.0, 80.0)]
        partitions = [search.best_partition(change_cost=change, slope_cost=slope) for change, slope in prices]
        found.append((search._gains.tobytes(), partitions))
    assert found[0] == found[1]
    assert length < 20 or any(found[0][1])


def test_profiles_cost_the_same(use: Use) -> None:
    values = series(129, 2)
    sums = Sums(np.arange(129, dtype=np.float64), values, np.ones(129))
    found = []
    for switch in (use.numpy, use.numba):
        switch()
        found.append(profile(sums, 1, 128, 2.0).tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("length", [5, 6, 9, 47, 192, 700])
@pytest.mark.parametrize("seed", range(3))
def test_noise_is_the_same(use: Use, length: int, seed: int) -> None:
    values = series(length, seed)
    found = []
    for switch in (use.numpy, use.numba):
        switch()
        ordered = noises.ordered_of(values)
        grain = noises.resolution(ordered)
        rough = noises.noise_of_differences(values, grain)
        left = noises.noise_of_residuals(values - values.mean(), 2, grain)
        found.append((grain, rough, left, noises.clipped(values, rough.sigma).tobytes()))
    assert found[0] == found[1]


def test_noise_of_equal_values_is_their_resolution(use: Use) -> None:
    values = np.full(30, 7.0)
    for switch in (use.numpy, use.numba):
        switch()
        grain = noises.resolution(values)
        assert grain == pytest.approx(7.0 * 4e-16)
        assert noises.noise_of_differences(values, grain).sigma == pytest.approx(0.29 * grain)
        assert noises.noise_of_residuals(values - 7.0, 1, grain).sigma == pytest.approx(0.29 * grain)


@pytest.mark.parametrize("cuts", [[], [50], [20, 90, 200]])
def test_partitions_leave_the_same(use: Use, cuts: list[int]) -> None:
    values = series(300, 2)
    weights = np.random.default_rng(4).integers(1, 5, 300) / 2.0
    found = []
    for switch in (use.numpy, use.numba):
        switch()
        parts = series_of(values, weights, 0.01)
        noise = noises.noise_of_differences(values, 0.01)
        residuals, parameters = residuals_of(parts, cuts, noise)
        spreads = spreads_of(residuals * np.where(np.arange(300) < 150, 1.0, 4.0), cuts, noise, 1e-6)
        found.append((residuals.tobytes(), parameters, spreads))
    assert found[0] == found[1]
    assert found[0][2]


@pytest.mark.parametrize("seed", range(6))
def test_newest_values_score_the_same(use: Use, seed: int) -> None:
    random = np.random.default_rng([20_951, seed])
    count = int(random.integers(1, 120))
    learned, positions = random.standard_t(2, 200), np.arange(200 + count)
    weights = np.ones(count) if seed % 2 else random.uniform(0.5, 3.0, count)
    deviations = random.standard_t(2, count) * 2.0
    regime = regime_of(positions[:200], learned, np.ones(200))
    assert regime is not None
    found = []
    for switch in (use.numpy, use.numba):
        switch()
        found.append(watching._scores(regime, positions[200:], deviations, weights).tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("seed", range(12))
def test_regimes_foretell_and_alarm_the_same(use: Use, seed: int) -> None:
    random = np.random.default_rng([20_952, seed])
    count, fresh = int(random.integers(8, 257)), int(random.integers(1, 60))
    values, positions = random.standard_normal(count + fresh + 20), np.arange(count + fresh + 20)
    values[count + 20 + fresh // 2 :] += (0.0, 2.0, 4.0)[seed % 3]
    values[count + 20] += (0.0, 4.0)[seed % 2]
    weights = random.integers(1, 4, count + fresh + 20) / 1.0 if seed % 4 == 3 else np.ones(len(values))
    found: list[tuple[object, ...]] = []
    for switch in (use.numpy, use.numba):
        switch()
        regime = regime_of(positions[:count], values[:count], weights[:count])
        assert regime is not None
        alarm = watching.watch(regime, positions[count:], values[count:], weights[count:], fresh, 0)
        arrays = [each.tobytes() for each in (regime.sizes, regime.inflation, regime.bounds)]
        found.append((regime.line, regime.sigma, regime.memory, regime.quantile, *arrays, alarm))
    assert found[0] == found[1]


@pytest.mark.parametrize("length", [40, 63, 200, 700])
def test_spectra_are_the_same(use: Use, length: int) -> None:
    values = series(length, 2) + 2.0 * np.sin(np.arange(length) / 2.0)
    found = []
    for switch in (use.numpy, use.numba):
        switch()
        looks = seasons._looks(values)
        quotients = [seasons._quotients(look) for look in looks]
        evident = [seasons._most_evident(each, length) for each in quotients]
        found.append((b"".join(each.tobytes() for each in [*looks, *quotients]), evident))
    assert found[0] == found[1]


def test_a_stream_leaves_the_same_state_with_either(use: Use) -> None:
    values = series(2_500, 1)
    states = []
    for switch in (use.numpy, use.numba):
        switch()
        stream = ChangeStream()
        news = stream.extend(np.arange(len(values)), values)
        states.append((news, stream.change_points, stream.state()))
    assert states[0] == states[1]
    assert states[0][1]


def test_kernels_are_loaded_when_there_is_work_for_them(use: Use) -> None:
    compiled._KERNELS.is_tried = False
    for _ in range(compiled.WORTH_AFTER):
        assert compiled.kernels() is None
    assert isinstance(compiled.kernels(), ModuleType)
    assert compiled.loaded_kernels() is kernels


def test_without_numba_there_are_none_and_looks_go_on(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled._KERNELS.is_tried = False
    for name in [each for each in sys.modules if each.startswith("dtf.core.trend.kernels")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numba", None)
    assert not compiled.load_kernels()
    values = series(100, 0) + 8.0 * (np.arange(100) >= 50)
    assert look_at(np.arange(100), values, np.ones(100), None).boundaries


def test_what_cannot_be_cached_is_compiled_all_the_same() -> None:
    made: dict[str, Callable[[float], float]] = {}
    exec(
        "def double(x):\n    return x + x", made
    )  # of no file, as in folders that cannot be written to: no cache
    assert compiled_function(made["double"])(2.0) == 4.0


def test_kernels_are_put_aside_and_taken_up_again(use: Use) -> None:
    use.numba()
    with compiled.without_kernels():
        assert compiled.kernels() is None
    assert compiled.kernels() is kernels
