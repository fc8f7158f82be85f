"""Histories of benchmark runs for tests of findings: a log of many runs, each with what a benchmark measured."""

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dtf.api.v1 import events_pb2, findings_pb2
from dtf.core.trend.names import NameBook
from dtf.core.trend.series_book import SeriesBook, Vault
from dtf.core.trend.series_points import AnalyzedLogFold, SeriesKey
from tests.trend_events import (
    PASSED,
    accepted,
    callable_template,
    commit,
    finished,
    granted,
    registered,
    run_created,
    tasks_submitted,
)

SUITE = "bench"
LATENCY = SeriesKey(SUITE, "load", "latency", "local")
THROUGHPUT = SeriesKey(SUITE, "load", "throughput", "local")
_PACE_SECONDS = 3600.0
METRICS = (("duration_seconds", "s", 1.0), ("cpu_seconds", "s", 0.8), ("peak_memory_bytes", "bytes", 1e8))

Matrix = NDArray[np.float64]


def noise(seed: int, count: int, level: float, sigma: float) -> list[float]:
    """A level with normal noise."""
    source = random.Random(seed)
    return [source.gauss(level, sigma) for _ in range(count)]


def stepped(values: Sequence[float], at: int, by: float) -> list[float]:
    """The values, from position `at` on higher by `by`."""
    return [value + by * (index >= at) for index, value in enumerate(values)]


def bench_run(number: int, latency: float, throughput: float) -> list[events_pb2.Commit]:
    """Run number `number`, an hour after the one before, of two commits a revision."""
    run_id = f"r{number:04d}"
    at = number * _PACE_SECONDS
    detail = events_pb2.CaseDetail(
        measurements=[
            events_pb2.Measurement(metric="latency", value=latency, unit="s", is_lower_better=True),
            events_pb2.Measurement(metric="throughput", value=throughput, unit="1", is_lower_better=False),
        ]
    )
    results = accepted(
        (0, 0, PASSED, 1.0), run_id=run_id, details=[detail.SerializeToString()], completed=[1]
    )
    created = run_created(run_id, SUITE, f"rev{number // 2:04d}", callable_template("bench:load"))
    return [
        commit(at, created, tasks_submitted("load", run_id=run_id)),
        commit(at + 1, granted(0, run_id=run_id)),
        commit(at + 2, results),
        commit(at + 3, finished(run_id, passed=1)),
    ]


def bench_history(
    latencies: Sequence[float], throughputs: Sequence[float] | None = None
) -> list[events_pb2.Commit]:
    """A run for each latency (s), with a throughput each; without them one that is pure noise."""
    steady = throughputs or noise(77, len(latencies), 500.0, 10.0)
    commits = [commit(0, registered())]
    for number, (latency, throughput) in enumerate(zip(latencies, steady, strict=True)):
        commits += bench_run(number, latency, throughput)
    return commits


def bench_on_two_pools(run_id: str = "r1", at: float = 0.0) -> list[events_pb2.Commit]:
    """A run whose only case runs in two tasks, each on a worker of another pool, and measures the same."""
    commits = [commit(at, registered("w1", "here"), registered("w2", "there"))]
    created = run_created(run_id, "bench", "rev1", callable_template("bench:load"))
    commits += [
        commit(at + 1, created, tasks_submitted("load", "load", run_id=run_id)),
        commit(at + 2, *(granted(task, run_id=run_id, worker_id=f"w{task + 1}") for task in (0, 1))),
    ]
    for task, worker_id in enumerate(("w1", "w2")):
        detail = events_pb2.CaseDetail(
            measurements=[
                events_pb2.Measurement(metric=metric, value=task + 1.0, unit="s", case_name="big")
                for metric in ("latency", "wait")
            ]
        )
        details = [detail.SerializeToString()]
        results = (task, 0, PASSED, 1.0)
        commits.append(
            commit(at + 3 + task, accepted(results, run_id=run_id, worker_id=worker_id, details=details))
        )
    return [*commits, commit(at + 5, finished(run_id, passed=2))]


def measured(kind: str, seed: int, count: int = 250) -> Matrix:
    """Rows of three metrics of runs in which nothing happened, shape (count, 3)."""
    source = np.random.default_rng(seed)
    shared = source.normal(size=(count, 1))
    match kind:
        case "shared":
            deviations = shared + 0.3 * source.normal(size=(count, 3))
        case "heavy":
            deviations = source.standard_t(3, size=(count, 3))
        case _:
            deviations = source.normal(size=(count, 3))
            for index in range(1, count):
                deviations[index] += 0.5 * deviations[index - 1]
    return np.asarray([level for *_, level in METRICS] * (1.0 + 0.02 * deviations), dtype=np.float64)


def case_history(rows: Matrix, prefix: str = "r") -> list[events_pb2.Commit]:
    """A run of one case for each row."""
    commits = [commit(0, registered())]
    for number, (duration, cpu, memory) in enumerate(rows.tolist()):
        run_id, at = f"{prefix}{number:04d}", number * 3600.0
        results = accepted((0, 0, PASSED, duration), run_id=run_id, completed=[1])
        results.cpu_seconds.append(cpu)
        results.peak_memory_bytes.append(int(memory))
        created = run_created(run_id, "bench", f"rev{number:04d}", callable_template("bench:load"))
        commits += [
            commit(at, created, tasks_submitted("load", run_id=run_id)),
            commit(at + 1, granted(0, run_id=run_id)),
            commit(at + 2, results, finished(run_id, passed=1)),
        ]
    return commits


def search(
    commits: Sequence[events_pb2.Commit], vault: Vault
) -> tuple[SeriesBook, list[findings_pb2.Finding]]:
    """Everything found in a log, searched from end to end."""
    fold, book = AnalyzedLogFold(NameBook()), SeriesBook(vault)
    found: list[findings_pb2.Finding] = []
    for sequence, each in enumerate(commits, start=1):
        fold.apply(each, sequence)
        for point in fold.take_series_points():
            found += book.append(point)
    return book, found
