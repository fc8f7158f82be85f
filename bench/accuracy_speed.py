"""What analysing costs: processor time for whole histories and for one more point, memory, many series."""

import time
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from statistics import median
from typing import Any

from bench.accuracy_environment import Peer, ask, say
from bench.accuracy_families import benchmark_history
from dtf.core.trend.changes import ChangeStream
from dtf.core.trend.compiled import load_kernels, without_kernels
from dtf.trends import Analysis, analyze

LENGTHS = (1_000, 10_000, 100_000)
AIMS = {10_000: 0.100, 100_000: 2.4}
"""Seconds of processor time."""
APPEND_AIM = 0.005
APPENDS = 300
MANY, MANY_LENGTH, MANY_AIM = 10_000, 200, 60.0
PROCESSES = 2
FIRST, GIVEN_UP = 500, 2.0


def measure_speed(peers: Sequence[Peer], pool: ProcessPoolExecutor) -> dict[str, Any]:
    """Everything that is timed, ours and the peers'."""
    is_compiled = load_kernels()  # imports and compiling are not measured
    assert analyze(benchmark_history(3_000)).change_points is not None
    say(f"speed: histories of {', '.join(f'{each:,}' for each in LENGTHS)} points")
    figures: dict[str, Any] = {
        "lengths": list(LENGTHS),
        "ours": [seconds_to_analyze(length) for length in LENGTHS],
        "is_compiled": is_compiled,
        "plain": seconds_without_kernels(),
        "peers": {},
    }
    for peer in peers:
        answer = ask(peer, {"speed": list(LENGTHS)})
        if answer is not None:
            figures["peers"][peer.name] = answer.answers
    figures["append"] = seconds_to_append(LENGTHS[-1])
    figures["memory_bytes_a_point"] = [memory(length) / length for length in LENGTHS[1:]]
    figures["many"] = measure_many(pool)
    return figures


def seconds_to_analyze(length: int) -> float:
    """Processor time until the change points of a history are there; the better of two for short ones."""
    values = benchmark_history(length)
    rounds = []
    for _ in range(2 if length <= 10_000 else 1):
        begun = time.process_time()
        found: Analysis = analyze(values)
        assert found.change_points is not None
        rounds.append(time.process_time() - begun)
    return min(rounds)


def seconds_without_kernels() -> list[float]:
    """The same of each length where numba is not installed."""
    with without_kernels():
        return [seconds_to_analyze(length) for length in LENGTHS]


def seconds_to_append(length: int) -> dict[str, float]:
    """Processor time of one more point behind `length` of them."""
    values = benchmark_history(length + APPENDS).tolist()
    stream = ChangeStream()
    stream.extend([float(each) for each in range(length)], values[:length])
    took = []
    for position in range(length, length + APPENDS):
        begun = time.process_time()
        stream.append(float(position), values[position])
        took.append(time.process_time() - begun)
    return {"median": median(took), "mean": sum(took) / len(took), "longest": max(took)}


def memory(length: int) -> int:
    """Most bytes in use while a history is analysed, its values aside."""
    values = benchmark_history(length)
    tracemalloc.start()
    assert analyze(values).change_points is not None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def measure_many(pool: ProcessPoolExecutor) -> dict[str, float]:
    """Seconds of the clock and of the processors for many short series on two processes.

    When the first ones show that it will take more than GIVEN_UP times the aim, the rest is estimated from them.
    """
    say(f"speed: {MANY:,} series of {MANY_LENGTH} points on {PROCESSES} processes")
    begun = time.perf_counter()
    used = list(pool.map(analyze_one, range(FIRST), chunksize=20))
    seconds = time.perf_counter() - begun
    if seconds * MANY / FIRST > GIVEN_UP * MANY_AIM:
        scale = MANY / FIRST
        return {"measured": FIRST, "seconds": seconds * scale, "cpu_seconds": sum(used) * scale}
    used += pool.map(analyze_one, range(FIRST, MANY), chunksize=100)
    return {"measured": MANY, "seconds": time.perf_counter() - begun, "cpu_seconds": sum(used)}


def analyze_one(number: int) -> float:
    """Processor time of one short series."""
    values = benchmark_history(MANY_LENGTH, number)
    begun = time.process_time()
    assert analyze(values).change_points is not None  # found when it is asked for
    return time.process_time() - begun
