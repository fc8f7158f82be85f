"""What README.md tells a reader to type works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("names", "prints"),
    [
        ("dtf.connect", ["run_created", "run_finished", "passed: 2"]),
        ("dtf.trends", ["30 step 0.2", "confirmed"]),
    ],
)
def test_each_python_example_runs_and_prints_what_it_should(
    tmp_path: Path, names: str, prints: list[str]
) -> None:
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(examples) == 2
    (example,) = [each for each in examples if names in each]
    (tmp_path / "dtf.toml").touch()
    (tmp_path / "example.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [text for text in prints if text not in done.stdout] == []


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
