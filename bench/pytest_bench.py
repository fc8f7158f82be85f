"""`make bench NAME=pytest`: whole pytest commands, ours beside pytest-xdist and plain pytest.

Two suites: 1,000 cases that do nothing, and one whose durations are skewed (a long case late in the
collection). Ours runs on two workers of a stack that is up, whose warm processes have imported
pytest and nothing of the suite, and once more cold, with nothing up and nothing left behind. The
commands take turns; before each, the machine has come to rest, so that none pays for what another
left to do. What is measured is what the user waits for: from exec to exit.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

WORKERS = 2
NOOP_CASES = 1000
NOOP_FILES = 10
SKEWED_CASES = 64
SHORT_SECONDS = 0.02
LONG_SECONDS = 1.5
LONG_POSITIONS = (30, 60)
"""Late, and next to others of a scheduler's last chunk."""
COMMAND_TIMEOUT_SECONDS = 300.0
REST_STEP_SECONDS = 0.4
REST_CPU_SECONDS = 0.03
REST_TIMEOUT_SECONDS = 20.0
SPARE_SECONDS = 2.5
"""A worker starts the process for the next run a little after the last one was taken."""
QUIET = ("-q", "-p", "no:cacheprovider")
XDIST = f"pytest-xdist -n {WORKERS}"


@dataclass(frozen=True)
class Suite:
    """Something to run."""

    name: str
    directory: Path
    cases: int


@dataclass(frozen=True)
class Way:
    """One way to run a suite."""

    name: str
    arguments: tuple[str, ...]


WAYS = (
    Way("pytest --dtf, warm", ("-p", "dtf", "--dtf")),
    Way(XDIST, ("-p", "xdist", "-n", str(WORKERS))),
    Way("plain pytest", ()),
)
COLD = Way("pytest --dtf, cold", ("-p", "dtf", "--dtf", "--dtf-workers", str(WORKERS)))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--rounds", type=int, default=7, help="times each command runs")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a text file, always
    with tempfile.TemporaryDirectory(prefix="dtf-bench-") as scratch:
        suites = [write_noop(Path(scratch) / "noop"), write_skewed(Path(scratch) / "skewed")]
        times = {suite.name: measure(suite, options.rounds) for suite in suites}
    print_table(suites, times)
    if options.json:
        print(json.dumps(result(suites, times)))
    return 0


def write_noop(directory: Path) -> Suite:
    """1,000 cases that do nothing."""
    directory.mkdir()
    (directory / "dtf.toml").touch()
    for number in range(NOOP_FILES):
        lines = [f"def test_{case}():\n    pass\n\n" for case in range(NOOP_CASES // NOOP_FILES)]
        (directory / f"test_{number:02}.py").write_text("\n".join(lines))
    return Suite("1,000 no-op cases", directory, NOOP_CASES)


def write_skewed(directory: Path) -> Suite:
    """Most cases are short, two are long."""
    directory.mkdir()
    (directory / "dtf.toml").touch()
    body = ["import time\n"]
    for case in range(SKEWED_CASES):
        seconds = LONG_SECONDS if case in LONG_POSITIONS else SHORT_SECONDS
        body.append(f"def test_{case:02}():\n    time.sleep({seconds})\n")
    (directory / "test_skewed.py").write_text("\n\n".join(body))
    return Suite("skewed durations", directory, SKEWED_CASES)


def measure(suite: Suite, rounds: int) -> dict[str, list[float]]:
    """Seconds of each way, in rounds; the ways take turns."""
    times: dict[str, list[float]] = {way.name: [] for way in (*WAYS, COLD)}
    cold = suite.directory.with_name(suite.directory.name + "-cold")
    shutil.copytree(suite.directory, cold)
    times[COLD.name] = [run(COLD, cold, suite.cases) for _ in range(min(rounds, 3))]
    dtf(suite.directory, "up", "--workers", str(WORKERS))
    try:
        for way in WAYS:  # once unmeasured: byte code, and for ours the durations it plans with
            run(way, suite.directory, suite.cases)
        for number in range(rounds):
            print(f"  {suite.name}: round {number + 1} of {rounds}")
            for way in WAYS if number % 2 else WAYS[::-1]:
                rest(SPARE_SECONDS)
                times[way.name].append(run(way, suite.directory, suite.cases))
    finally:
        dtf(suite.directory, "down")
    return times


def run(way: Way, directory: Path, cases: int) -> float:
    """Seconds one command takes; it must have passed every case."""
    command = [sys.executable, "-m", "pytest", *QUIET, *way.arguments]
    began = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_TIMEOUT_SECONDS,
        env=environment(),
    )
    seconds = time.perf_counter() - began
    if done.returncode or f"{cases} passed" not in done.stdout:
        raise SystemExit(
            f"error: {' '.join(command)} in {directory} failed ({done.returncode}):\n{done.stdout}{done.stderr}"
        )
    return seconds


def environment() -> dict[str, str]:
    """Ours, less what would make the commands differ: each loads its own plug-in and no other."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("PYTEST_", "DTF_SERVER"))}
    return kept | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def dtf(directory: Path, *arguments: str) -> None:
    """Run a dtf command."""
    subprocess.run(
        [sys.executable, "-m", "dtf.cli.main", *arguments],
        cwd=directory,
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=COMMAND_TIMEOUT_SECONDS,
        env=environment(),
    )


def rest(at_least_seconds: float) -> None:
    """Return when nothing of ours is at work any more."""
    time.sleep(at_least_seconds)
    deadline = time.monotonic() + REST_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        before = psutil.cpu_times()
        time.sleep(REST_STEP_SECONDS)
        after = psutil.cpu_times()
        busy = sum(after[:3]) - sum(before[:3])
        if busy < REST_CPU_SECONDS * (psutil.cpu_count() or 1) + 0.1:
            return


def print_table(suites: Sequence[Suite], times: dict[str, dict[str, list[float]]]) -> None:
    """Medians and ranges."""
    for suite in suites:
        ours = statistics.median(times[suite.name][WAYS[0].name])
        # Said in the table, because it is what the warm figure rests on and the cold one lacks.
        print(
            f"\n{suite.name}, {WORKERS} workers, {psutil.cpu_count()} processors"
            "; warm: ours knows the durations of an earlier run, cold: it knows none"
        )
        print(f"  {'':<22}{'median':>9}{'least':>9}{'most':>9}{'cases/s':>10}{'ours is':>10}")
        for name, values in times[suite.name].items():
            median = statistics.median(values)
            print(
                f"  {name:<22}{median:>8.2f}s{min(values):>8.2f}s{max(values):>8.2f}s"
                f"{suite.cases / median:>10,.0f}{median / ours:>9.2f}x"
            )


def result(suites: Sequence[Suite], times: dict[str, dict[str, list[float]]]) -> dict[str, object]:
    """The JSON object; ratios above 1 say that we are faster."""

    def medians(choose: Callable[[str], bool]) -> dict[str, float]:
        return {
            f"{name} ({suite.name})": round(statistics.median(values), 4)
            for suite in suites
            for name, values in times[suite.name].items()
            if choose(name)
        }

    ours = {suite.name: statistics.median(times[suite.name][WAYS[0].name]) for suite in suites}
    ratio = {
        f"{way.name} ({suite.name})": round(
            statistics.median(times[suite.name][way.name]) / ours[suite.name], 3
        )
        for suite in suites
        for way in WAYS[1:]
    }
    return {
        "bench": "pytest",
        "unit": "seconds",
        "ours": medians(lambda name: "--dtf" in name),
        "peers": medians(lambda name: "--dtf" not in name),
        "ratio": ratio,
    }


if __name__ == "__main__":
    sys.exit(main())
