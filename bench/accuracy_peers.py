"""Change points by other tools: run by the interpreter of the peers' environment, without dtf.

    python accuracy_peers.py PEER < request.json > answer.json

A request is one of
    {"series": [[…], …]}                                 change points of each series
    {"series": …, "from": 100, "margin": 5}              each series again with each further point, as who
                                                         watches it does, until a step at "from" is found
    {"speed": [1000, …]}                                 seconds for a history of that many points
A value may be a list: a series of several dimensions. A change point is the first position of the
new regime. The answer has a list with one entry a series, and the seconds of processor time. Each
tool runs with its documented defaults.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from accuracy_families import benchmark_history

Values = np.ndarray[Any, np.dtype[np.float64]]
Find = Callable[[Values], list[int]]
"""From shape (n, d) to change points."""


def ruptures() -> tuple[str, Find]:
    """PELT for changes of the mean, penalty 2 ln n a dimension; values over their standard deviation."""
    import ruptures as library

    least = 2

    def find(values: Values) -> list[int]:
        if len(values) < 2 * least:
            return []  # it refuses what cannot be cut
        spread = values.std(axis=0)
        scaled = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        penalty = 2.0 * values.shape[1] * math.log(len(values))
        found = library.KernelCPD("linear", min_size=least).fit(scaled).predict(pen=penalty)
        return [int(each) for each in found[:-1]]

    return f"ruptures {version_of('ruptures')} (KernelCPD linear, 2 ln n)", find


def otava() -> tuple[str, Find]:
    """E-divisive with a t-test: AnalysisOptions() as it is, each dimension a metric."""
    from otava.series import AnalysisOptions, Metric, Series

    def find(values: Values) -> list[int]:
        names = [str(number) for number in range(values.shape[1])]
        data = {name: values[:, number].tolist() for number, name in enumerate(names)}
        metrics = {name: Metric() for name in names}
        series = Series("series", None, list(range(len(values))), metrics, data, {})
        groups = series.analyze(AnalysisOptions()).change_points_by_time
        return [int(group.index) for group in groups]

    return f"apache-otava {version_of('apache-otava')}", find


def asv() -> tuple[str, Find]:
    """The step detection behind `asv publish`; one dimension after the other."""
    from asv.step_detect import detect_steps

    def find(values: Values) -> list[int]:
        found = {int(step[0]) for column in values.T for step in detect_steps(column.tolist())}
        return sorted(found - {0})

    return f"asv {version_of('asv')}", find


PEERS = {"ruptures": ruptures, "otava": otava, "asv": asv}


def version_of(distribution: str) -> str:
    """What is installed."""
    from importlib.metadata import version

    return version(distribution)


def main() -> None:
    """Answer the request on standard input."""
    name, find = PEERS[sys.argv[1]]()
    request = json.load(sys.stdin)
    find(np.random.default_rng(0).standard_normal((60, 1)))  # imports and compiled parts are not measured
    begun = time.process_time()
    answers: list[Any]
    if "speed" in request:
        answers = [timed(find, benchmark_history(length)) for length in request["speed"]]
    elif "from" in request:
        answers = [
            delay(find, column(each), request["from"], request["margin"]) for each in request["series"]
        ]
    else:
        answers = [find(column(each)) for each in request["series"]]
    json.dump({"name": name, "answers": answers, "seconds": time.process_time() - begun}, sys.stdout)


def column(series: list[Any]) -> Values:
    """Shape (n, d); what is missing takes the last value before it."""
    values = np.asarray(series, dtype=float).reshape(len(series), -1)
    for position, dimension in zip(*np.nonzero(np.isnan(values)), strict=True):
        before = values[: position + 1, dimension]
        known = before[~np.isnan(before)]
        values[position, dimension] = known[-1] if len(known) else np.nanmedian(values[:, dimension])
    return values


def delay(find: Find, values: Values, step: int, margin: int) -> tuple[int, int] | None:
    """Points of the new regime needed to find its step, and the position given; None: never."""
    for length in range(step + 1, len(values) + 1):
        near = [each for each in find(values[:length]) if abs(each - step) <= margin]
        if near:
            return length - step, near[0]
    return None


def timed(find: Find, values: Values) -> float:
    """Seconds of processor time for one series; the better of two for short ones."""
    rounds = []
    for _ in range(2 if len(values) <= 10_000 else 1):
        begun = time.process_time()
        find(values.reshape(-1, 1))
        rounds.append(time.process_time() - begun)
    return min(rounds)


if __name__ == "__main__":
    main()
