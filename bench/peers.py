"""`make peers`: strangers' suites through `pytest --dtf` give what plain pytest gives.

click, packaging and itsdangerous come from their sdists on PyPI into a cache outside the tree, with
what their tests need, in an environment that also has this dtf. Each suite runs plain and with 1, 2
and 4 workers; node ids, the outcome of every phase of every case, the exit code and the JUnit file
(but for times) must be equal. Exit code 1 if one is not.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

WORKER_COUNTS = (1, 2, 4)
RUN_TIMEOUT_SECONDS = 900
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")
BENCH_DIR = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    """A suite."""

    name: str
    version: str
    requirements: tuple[str, ...] = ()
    """What its tests import besides pytest and itself."""


PEERS = (
    Peer("click", "8.5.1"),
    Peer("packaging", "26.3", ("pretend", "tomli_w", "hypothesis")),
    Peer("itsdangerous", "2.2.0", ("freezegun",)),
)


@dataclass(frozen=True)
class Outcome:
    """What one run of a suite said."""

    exit_code: int
    cases: dict[str, list[str]]
    junit: str
    seconds: float
    output: str

    def differences(self, other: "Outcome") -> list[str]:
        """What `other` says otherwise, one line each."""
        found = []
        if self.exit_code != other.exit_code:
            found.append(f"exit code {other.exit_code} instead of {self.exit_code}")
        for name in sorted(self.cases.keys() | other.cases.keys()):
            ours, theirs = other.cases.get(name), self.cases.get(name)
            if ours != theirs:
                found.append(f"{name}: {ours} instead of {theirs}")
        if not found and self.junit != other.junit:
            found.append("the JUnit files differ")
        return found


def main() -> int:
    """Run the check; 0 if nothing differs."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a text file, always
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="suites to run; all unless given")
    parser.add_argument("--verbose", action="store_true", help="show pytest's output where something differs")
    options = parser.parse_args()
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    print(f"suites and their environment are in {cache}")
    python = make_environment(cache)
    print(f"{'suite':<22}{'cases':>7}{'plain':>9}" + "".join(f"{f'{n} workers':>12}" for n in WORKER_COUNTS))
    is_equal = True
    for peer in PEERS:
        if not options.names or peer.name in options.names:
            is_equal &= check(peer, python, unpack(peer, cache, python), options.verbose)
    return 0 if is_equal else 1


def cache_dir() -> Path:
    """Where sdists and the environment are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dtf" / "peers"


def make_environment(cache: Path) -> Path:
    """A Python with the suites' needs and, behind them, this environment with dtf."""
    python = cache / "venv" / "bin" / "python"
    if not python.exists():
        print("making the environment")
        subprocess.run([sys.executable, "-m", "venv", cache / "venv"], check=True)
    site = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    )
    ours = sysconfig.get_path("purelib")
    (site / "zz_dtf.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    return python


def unpack(peer: Peer, cache: Path, python: Path) -> Path:
    """The suite's tree, downloaded, installed and unpacked afresh."""
    archive = cache / f"{peer.name}-{peer.version}.tar.gz"
    if not archive.exists():
        print(f"downloading {peer.name} {peer.version}")
        subprocess.run(
            [python, *PIP, "download", "--no-deps", "--no-binary", peer.name, f"{peer.name}=={peer.version}"],
            check=True,
            cwd=cache,
        )
    marker = cache / "venv" / f"{peer.name}-{peer.version}.installed"
    if not marker.exists():
        print(f"installing {peer.name} {peer.version} and what its tests need")
        # --ignore-installed: another version may be seen in the environment behind.
        install = [str(python), *PIP, "install", "--ignore-installed"]
        subprocess.run([*install, "--no-deps", str(archive)], check=True)
        if peer.requirements:
            subprocess.run([*install, *peer.requirements], check=True)
        marker.touch()
    tree = cache / f"{peer.name}-{peer.version}"
    shutil.rmtree(tree, ignore_errors=True)
    with tarfile.open(archive) as file:
        file.extractall(cache, filter="data")
    return tree


def check(peer: Peer, python: Path, tree: Path, is_verbose: bool) -> bool:
    """Run one suite each way and print a line of the table; whether all were equal."""
    plain = run(python, tree, ())
    cells, notes = [], []
    for count in WORKER_COUNTS:
        ours = run(python, tree, ("-p", "dtf", "--dtf", "--dtf-workers", str(count)))
        differences = plain.differences(ours)
        cells.append(f"{ours.seconds:.1f} s {'=' if not differences else 'X'}")
        notes += [f"  with {count} workers: {difference}" for difference in differences[:20]]
        if differences and is_verbose:
            notes.append(ours.output)
    print(
        f"{peer.name + ' ' + peer.version:<22}{len(plain.cases):>7}{plain.seconds:>7.1f} s"
        + "".join(f"{cell:>12}" for cell in cells)
        + f"   exit code {plain.exit_code}"
    )
    for note in notes:
        print(note)
    return not notes


def run(python: Path, tree: Path, arguments: tuple[str, ...]) -> Outcome:
    """Run a suite in its tree."""
    record, junit = tree / "peers-record.json", tree / "peers-junit.xml"
    for path in (record, junit):
        path.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "PEERS_RECORD": str(record),
        "PYTHONPATH": str(BENCH_DIR),
        # A stranger's environment: pytest and nothing that happens to be installed here.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_ADDOPTS": "",
        "DTF_NATS_SERVER": str(Path(sysconfig.get_path("scripts")) / "nats-server"),
    }
    (tree / "dtf.toml").touch()
    began = time.monotonic()
    done = subprocess.run(
        [python, "-m", "pytest", "-p", "peers_recorder", f"--junitxml={junit}", *arguments],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_TIMEOUT_SECONDS,
    )
    seconds = time.monotonic() - began
    if not record.exists() or not junit.exists():
        raise SystemExit(
            f"error: pytest {' '.join(arguments)} in {tree} did not end:\n{done.stdout}{done.stderr}"
        )
    cases = json.loads(record.read_text())
    return Outcome(done.returncode, cases, junit_without_times(junit), seconds, done.stdout + done.stderr)


def junit_without_times(path: Path) -> str:
    """A JUnit file less its times, host and addresses of objects."""
    root = ElementTree.parse(path).getroot()
    for element in root.iter():
        for name in ("time", "timestamp", "hostname"):
            element.attrib.pop(name, None)
    return re.sub(r"0x[0-9a-f]{6,}", "0x", ElementTree.tostring(root, encoding="unicode"))


if __name__ == "__main__":
    sys.exit(main())
