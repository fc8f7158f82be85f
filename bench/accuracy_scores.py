"""How findings are scored against marks of humans, and shares with their uncertainty; pure.

F1 and covering: van den Burg and Williams, An Evaluation of Change Point Detection Algorithms (2020),
section 3.2, with the margin of 5 and position 0 counted as a change point of everybody. NAB: Lavin and
Ahmad, Evaluating Real-time Anomaly Detection Algorithms (2015), section III, in the form in which
NAB's own scorer rounds window edges.
"""

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Whole = np.ndarray[Any, np.dtype[np.int64]]
MARGIN = 5


def wilson(count: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    if total == 0:
        return 0.0, 1.0
    share, square = count / total, z * z / total
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / total + square / (4 * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def matched(marks: Collection[int], found: Iterable[int], margin: int = MARGIN) -> int:
    """How many marks have a finding within `margin` of their own; nearest first, a finding serves one mark."""
    free = set(found)
    count = 0
    for mark in sorted(marks):
        nearest = min(free, key=lambda each: (abs(mark - each), each), default=None)
        if nearest is not None and abs(mark - nearest) <= margin:
            free.remove(nearest)
            count += 1
    return count


def f1(annotations: Mapping[str, Iterable[int]], found: Iterable[int], margin: int = MARGIN) -> float:
    """F1 against several annotators: precision against all of them together, recall averaged over each."""
    marks = [{0, *each} for each in annotations.values()]
    findings = {0, *found}
    precision = matched(set().union(*marks), findings, margin) / len(findings)
    recall = sum(matched(each, findings, margin) / len(each) for each in marks) / len(marks)
    return 2 * precision * recall / (precision + recall)


def covering(annotations: Mapping[str, Iterable[int]], found: Iterable[int], length: int) -> float:
    """How well the segments found cover those of each annotator, by Jaccard index; averaged over annotators."""
    findings = segments(found, length)
    covers = [_cover(segments(each, length), findings) / length for each in annotations.values()]
    return sum(covers) / len(covers)


def segments(changes: Iterable[int], length: int) -> list[tuple[int, int]]:
    """Half-open segments between change points."""
    edges = [0, *sorted({each for each in changes if 0 < each < length}), length]
    return list(itertools.pairwise(edges))


def _cover(wanted: Sequence[tuple[int, int]], given: Sequence[tuple[int, int]]) -> float:
    return sum((end - start) * max(_jaccard((start, end), each) for each in given) for start, end in wanted)


def _jaccard(one: tuple[int, int], other: tuple[int, int]) -> float:
    shared = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    return shared / ((one[1] - one[0]) + (other[1] - other[0]) - shared)


@dataclass(frozen=True, slots=True)
class NabProfile:
    """What a detection, a false one and a miss are worth."""

    true_positive: float = 1.0
    false_positive: float = 0.11
    false_negative: float = 1.0


STANDARD = NabProfile()
PROBATION_RATIO, PROBATION_MOST = 0.15, 750
"""Of a file, and in points: nothing is scored before."""


def probation(length: int) -> int:
    """Points at the beginning of a file that are not scored."""
    return min(math.floor(PROBATION_RATIO * length), PROBATION_MOST)


def nab_reward(position: float) -> float:
    """What a detection is worth by its place: -1 at a window's left edge, 0 at its right one, above 0 behind it."""
    return -1.0 if position >= 3.0 else 2.0 / (1.0 + math.exp(5.0 * position)) - 1.0


@dataclass(frozen=True, slots=True)
class NabFile:
    """A file's scores beside its windows."""

    scores: Floats
    """The detector's score at each position, shape (n,)."""
    windows: tuple[tuple[int, int], ...]
    """First and last position of each labelled window, both included, in order."""


def nab_worth(file: NabFile, profile: NabProfile = STANDARD) -> tuple[Floats, Whole]:
    """What a detection at each position is worth, and its window's number, or -1; shape (n,) each."""
    length = len(file.scores)
    worth, window_of = np.full(length, -profile.false_positive), np.full(length, -1, dtype=np.int64)
    for number, (first, last) in enumerate(file.windows):
        width = last - first + 1
        behind = file.windows[number + 1][0] if number + 1 < len(file.windows) else length
        for position in range(first, last + 1):
            gain = nab_reward(-(last - position + 1) / width) / nab_reward(-1.0)
            worth[position], window_of[position] = profile.true_positive * gain, number
        for position in range(last + 1, behind):
            worth[position] = profile.false_positive * nab_reward((position - last) / max(1, width - 1))
    return worth, window_of


def nab_raw(file: NabFile, threshold: float, profile: NabProfile = STANDARD) -> float:
    """A file's raw score: the best detection of each window, less every false one, less every miss."""
    worth, window_of = nab_worth(file, profile)
    return _nab_sum(file, worth, window_of, threshold, profile)


def _nab_sum(file: NabFile, worth: Floats, window_of: Whole, threshold: float, profile: NabProfile) -> float:
    start = probation(len(file.scores))
    alarms = np.flatnonzero(file.scores >= threshold)
    alarms = alarms[alarms >= start]
    total = float(worth[alarms[window_of[alarms] < 0]].sum())
    for number in range(len(file.windows)):
        mine = alarms[window_of[alarms] == number]
        if len(mine):
            total += float(worth[mine].max())
        elif file.windows[number][1] >= start:
            total -= profile.false_negative
    return total


def nab_score(
    files: Sequence[NabFile], thresholds: Sequence[float], profile: NabProfile = STANDARD
) -> list[float]:
    """The corpus' score at each threshold: 0 is a detector that never speaks, 100 a perfect one."""
    parts = [(file, *nab_worth(file, profile)) for file in files]
    count = sum(window[1] >= probation(len(file.scores)) for file in files for window in file.windows)
    if count == 0:
        return [math.nan for _ in thresholds]
    null, perfect = -profile.false_negative * count, profile.true_positive * count
    return [
        100.0 * (sum(_nab_sum(*part, threshold, profile) for part in parts) - null) / (perfect - null)
        for threshold in thresholds
    ]
