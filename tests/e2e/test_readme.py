"""What README.md tells a reader to type works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs_and_prints_its_verdicts(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "dtf.toml").touch()
    (tmp_path / "example.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "run_created" in done.stdout
    assert "run_finished" in done.stdout
    assert "passed: 2" in done.stdout


def test_every_dtf_command_it_names_exists() -> None:
    named = set(re.findall(r"(?<![\w./])dtf ([a-z][a-z-]+)", README)) - {"runs"}
    helped = subprocess.run(
        [sys.executable, "-m", "dtf.cli.main", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    commands = set(re.findall(r"^  ([a-z-]+)", helped, re.MULTILINE))
    assert {word for word in named if word not in commands} == set()


def test_every_make_target_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"make ([a-z0-9]+)", README)) <= targets


def test_every_page_it_links_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []
