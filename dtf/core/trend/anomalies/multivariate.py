"""Whether the values of several metrics at one time belong together.

An isolation forest (Liu, Ting and Zhou, ICDM 2008; scikit-learn) cuts the space of the newest rows at random
until each stands alone: what few cuts suffice for is unusual, though each of its values may be usual. Rows
are first made comparable, each metric by its own median and spread, and joined by how far each is off what
the others say of it (a linear fit), since cuts along the axes do not see a broken proportion. How unusual
is ranked in its own past, so the score is as calibrated as that of one series. Seeds are fixed: the same
rows have the same scores.
"""

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtf.core.trend.anomalies.ranks import Ranks

Matrix = NDArray[np.float64]

WINDOW = 512
"""Newest rows that are learned from; twice the sample a tree of the paper takes."""
FIRST_FIT = 50
"""Rows before the first forest."""
REFIT_RATIO = 0.5
"""A forest is grown anew when so many more rows have come, as a share of those it knows, at most half a window."""
TREES = 50
"""The paper's path lengths settle well before its 100, and every row runs through all of them."""
SAMPLE = 256
"""Rows that a tree is grown from: the paper's, and scikit-learn's default."""
EULER = 0.5772156649015329
SEED = 20_081_215
RIDGE = 1e-3
STATE_VERSION = 1


class MultivariateDetector:
    """Scores rows of `width` values one at a time. ValueError if a row has another width."""

    def __init__(self, width: int) -> None:
        if width < 2:
            raise ValueError(f"width is {width}; several metrics are two or more, one has an AnomalyDetector")
        self._width = width
        self._rows: deque[tuple[float, ...]] = deque(maxlen=WINDOW)
        self._count = 0
        self._fitted_at = 0
        self._ranks = Ranks()
        self._model: _Model | None = None

    def explain(self, row: Sequence[float]) -> "list[Explained] | None":
        """How each value of a row stands to the others, by the rows known so far; None: they are too few."""
        if self._model is None or not all(math.isfinite(value) for value in row):
            return None
        return self._model.explain(row)

    def update(self, time: float, row: Sequence[float]) -> float:
        """The score of `row`, in [0, 1]; 0 while little is known. Rows with a value that is not finite are left out."""
        if len(row) != self._width:
            raise ValueError(f"{len(row)} values in a row of {self._width} metrics")
        if not all(math.isfinite(value) for value in row):
            return 0.0
        score = 0.0
        if self._model:
            oddness = self._model.oddness(np.asarray([row], dtype=np.float64))[0]
            score = 1.0 - self._ranks.share(oddness)
            self._ranks.add(oddness)
        self._rows.append(tuple(row))
        self._count += 1
        if self._count >= max(
            FIRST_FIT, self._fitted_at + min(WINDOW // 2, math.ceil(REFIT_RATIO * self._fitted_at))
        ):
            self._fit()
        return score

    def _fit(self) -> None:
        """A new forest of the newest rows."""
        rows = np.asarray(self._rows, dtype=np.float64)
        if not self._model:
            # a row does not compare with those that the forest was grown from, so each half is judged by the other's
            half = len(rows) // 2
            judged = [*_Model(rows[half:]).oddness(rows[:half]), *_Model(rows[:half]).oddness(rows[half:])]
            self._ranks = Ranks(judged)
        self._fitted_at = self._count
        self._model = _Model(rows)

    def state(self) -> dict[str, Any]:
        """As JSON has it; the forest is grown again from the rows it was grown from."""
        return {
            "version": STATE_VERSION,
            "width": self._width,
            "rows": [list(row) for row in self._rows],
            "count": self._count,
            "fitted_at": self._fitted_at,
            "ranks": self._ranks.numbers,
            "fitted_rows": self._model.rows.tolist() if self._model else [],
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "MultivariateDetector":
        """The detector whose `state` this is: it goes on as that would have. ValueError for another version's."""
        if state.get("version") != STATE_VERSION:
            raise ValueError(
                f"the state is of version {state.get('version')}, this reads {STATE_VERSION}; replay the rows"
            )
        made = cls(int(state["width"]))
        made._rows.extend(tuple(map(float, row)) for row in state["rows"])
        made._count, made._fitted_at = int(state["count"]), int(state["fitted_at"])
        made._ranks = Ranks(map(float, state["ranks"]))
        if state["fitted_rows"]:
            made._model = _Model(np.asarray(state["fitted_rows"], dtype=np.float64))
        return made


class Explained(NamedTuple):
    """One value of a row."""

    expected: float
    """What the other values say, by a linear fit, in the metric's unit."""
    distance: float
    """How far it is from that, in the mean absolute distance of the rows known."""
    reach: float
    """Its distance from the median over that of the row that is furthest from it."""


class _Model:
    """A forest and what rows are made comparable by."""

    def __init__(self, rows: Matrix) -> None:
        from sklearn.ensemble import IsolationForest

        self.rows = rows
        self._middle = np.median(rows, axis=0)
        spread = np.mean(np.abs(rows - self._middle), axis=0)
        self._spread = np.where(spread > 0.0, spread, 1.0)
        scaled = self._scaled(rows)
        count, width = scaled.shape
        # what each metric is expected to be by the others: the partial regression, read off the precision
        precision = np.linalg.inv(scaled.T @ scaled / count + RIDGE * np.eye(width))
        self._fits = precision / np.diag(precision)[:, None]
        rests = np.mean(np.abs(scaled @ self._fits.T), axis=0)
        self._rests = np.where(rests > 0.0, rests, 1.0)
        forest = IsolationForest(n_estimators=TREES, random_state=SEED)  # type: ignore[no-untyped-call]  # not typed
        forest.fit(self._features(rows))
        self._trees = [_Tree(tree.tree_) for tree in forest.estimators_]
        self._usual_depth = _mean_depth(min(SAMPLE, count))

    def _scaled(self, rows: Matrix) -> Matrix:
        return np.asarray((rows - self._middle) / self._spread, dtype=np.float64)

    def _features(self, rows: Matrix) -> Matrix:
        """Shape (rows, 2 · width): each value, and what the others do not explain of it."""
        scaled = self._scaled(rows)
        return np.hstack([scaled, scaled @ self._fits.T / self._rests])

    def explain(self, row: Sequence[float]) -> list[Explained]:
        """How each value stands to the others."""
        values = np.asarray(row, dtype=np.float64)
        rests = self._scaled(values) @ self._fits.T
        expected = values - rests * self._spread
        reach = np.max(np.abs(self.rows - self._middle), axis=0)
        away = np.abs(values - self._middle) / np.where(reach > 0.0, reach, 1.0)
        return [
            Explained(*each)
            for each in zip(expected.tolist(), (rests / self._rests).tolist(), away.tolist(), strict=True)
        ]

    def oddness(self, rows: Matrix) -> list[float]:
        """The paper's anomaly score of each row, in (0, 1)."""
        depths = [
            sum(tree.depth(row) for tree in self._trees) / TREES for row in self._features(rows).tolist()
        ]
        return [2.0 ** (-depth / self._usual_depth) for depth in depths]


class _Tree:
    """One tree as lists: scikit-learn's own scoring takes milliseconds for a single row, this microseconds."""

    def __init__(self, tree: Any) -> None:
        self._left: list[int] = tree.children_left.tolist()
        self._right: list[int] = tree.children_right.tolist()
        self._feature: list[int] = tree.feature.tolist()
        self._threshold: list[float] = tree.threshold.tolist()
        self._rest = [_mean_depth(count) for count in tree.n_node_samples.tolist()]

    def depth(self, row: list[float]) -> float:
        """Cuts until the row stands alone; those not made, as it would take among so many on average."""
        node = depth = 0
        while (left := self._left[node]) >= 0:
            node = left if row[self._feature[node]] <= self._threshold[node] else self._right[node]
            depth += 1
        return depth + self._rest[node]


def _mean_depth(count: int) -> float:
    """Of a failed search in a binary tree of so many (Liu et al., equation 1)."""
    if count <= 1:
        return 0.0
    return 2.0 * (math.log(count - 1) + EULER) - 2.0 * (count - 1) / count if count > 2 else 1.0
