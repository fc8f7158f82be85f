"""58 files as a benchmark of monitoring has them, made here: `PART=watched`.

Folders, numbers of files, lengths, windows and labels are laid out as in the Numenta Anomaly Benchmark (Lavin and Ahmad
2015); nothing in the values is taken from it. A window is a tenth of its file over the number of its windows, with the mark in
the middle; windows that meet are one. How hard the files are was set by published detectors alone (`accuracy_baselines.py`):
theirs is the order and about the score that is published for the real files. Corpora below 100 belong to the bench.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.accuracy_folders import LabelledSeries
from bench.accuracy_marks import measure_labelled
from bench.accuracy_watched_kinds import KINDS
from bench.accuracy_watched_shapes import Floats, Random, Watched

WINDOW_RATIO = 0.1
"""Share of a file that its windows have together."""
BEGIN = datetime(2014, 2, 14, 14, 27, tzinfo=UTC).timestamp()
GAPS, REPEATS = 1.5, 0.3
"""Mean number of gaps in a file, and of hours that a clock set back tells twice."""


def watched(kind: str, corpus: int, number: int) -> LabelledSeries:
    """The file of a kind with this number in this corpus."""
    folder, _, make = KINDS[kind]
    random = np.random.default_rng([58, list(KINDS).index(kind), corpus, number])
    made = make(random)
    name = f"{folder}/{kind}_{corpus}_{number}.csv"
    windows = tuple(windows_around(made.marks, len(made.values)))
    return LabelledSeries(name, moments_of(random, made, folder.startswith("made")), made.values, windows)


def watched_corpus(corpus: int) -> Iterator[LabelledSeries]:
    """The 58 files of a corpus."""
    for kind, (_, count, _) in KINDS.items():
        for number in range(count):
            yield watched(kind, corpus, number)


def windows_around(marks: tuple[int, ...], length: int) -> list[tuple[int, int]]:
    """First and last position of each window; those that meet are one."""
    half = int(WINDOW_RATIO * length / max(len(marks), 1) / 2)
    windows: list[tuple[int, int]] = []
    for mark in sorted(marks):
        first, last = max(0, mark - half), min(length - 1, mark + half)
        if windows and first <= windows[-1][1]:
            windows[-1] = (windows[-1][0], last)
        else:
            windows.append((first, last))
    return windows


def moments_of(random: Random, made: Watched, is_clean: bool) -> Floats:
    """Seconds since 1970 of each value, shape (n,): whole minutes, gaps, and now and then an hour that comes twice."""
    length = len(made.values)
    steps = np.full(length, made.interval)
    if not made.is_regular:
        steps = 60.0 * np.ceil(random.exponential(made.interval / 60.0, length))
    if not is_clean:
        for place in random.integers(1, length, random.poisson(GAPS)):
            steps[place] += made.interval * int(random.integers(1, 60))
        for place in random.integers(1, length, random.poisson(REPEATS)):
            steps[place] -= 3600.0
    return np.asarray(BEGIN + np.cumsum(steps), dtype=np.float64)


def write_watched(folder: Path, corpus: Iterable[LabelledSeries]) -> None:
    """These files in the format of the Numenta Anomaly Benchmark."""
    windows: dict[str, list[list[str]]] = {}
    for series in corpus:
        path = folder / "data" / series.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("timestamp", "value"))
            for time, value in zip(series.times.tolist(), series.values.tolist(), strict=True):
                writer.writerow((_text(time), repr(value)))
        windows[series.name] = [
            [_text(float(series.times[edge])) for edge in window] for window in series.windows
        ]
    labels = folder / "labels" / "combined_windows.json"
    labels.parent.mkdir(parents=True, exist_ok=True)
    labels.write_text(json.dumps(windows))


def _text(time: float) -> str:
    return datetime.fromtimestamp(time, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


def measure_watched(corpora: Iterable[int], pool: ProcessPoolExecutor) -> dict[str, Any]:
    """NAB's score of ours and of the baselines on all files of these corpora, read from a folder as anybody's would be."""
    with TemporaryDirectory(prefix="dtf-watched-") as folder:
        write_watched(Path(folder), (each for corpus in corpora for each in watched_corpus(corpus)))
        return measure_labelled(Path(folder), pool)
