"""The wheel built from the tree installs and works where the tree is not."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*argv: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; its output is in the failure."""
    done = subprocess.run(
        [str(part) for part in argv], cwd=cwd, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of an environment that has the wheel and, of this one, only the dependencies."""
    directory = tmp_path_factory.mktemp("wheel")
    run(
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        directory / "dist",
        ROOT,
        cwd=directory,
    )
    (wheel,) = (directory / "dist").glob("*.whl")
    environment = directory / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    site = environment / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    # A line of a .pth file adds a directory without reading the .pth files in it, and so without
    # the editable install of the tree.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=directory)  # fmt: skip
    # A dependency too, whose command pip would have put there.
    server = Path(sysconfig.get_path("scripts")) / "nats-server"
    (environment / "bin" / "nats-server").symlink_to(server)
    return environment / "bin"


def test_the_command_and_the_stubs_come_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    where = run(
        installed / "python",
        "-c",
        "import dtf.api.v1.events_pb2 as e, dtf.client.connect as c; print(e.__file__, c.__file__)",
        cwd=tmp_path,
    )
    assert str(installed.parent) in where.stdout
    assert str(ROOT) not in where.stdout
    assert "run a suite and wait" in run(installed / "dtf", "--help", cwd=tmp_path).stdout.lower()


def test_a_suite_runs_on_the_wheels_own_stack(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text("def test_one(): pass\ndef test_two(): pass\n")
    done = run(
        installed / "python", "-m", "pytest", "--dtf", "-q", "-p", "no:randomly", "test_it.py", cwd=tmp_path
    )
    assert "2 passed" in done.stdout
    report = run(installed / "dtf", "runs", "--json", cwd=tmp_path)
    assert '"passed": 2' in report.stdout or '"passed":2' in report.stdout
