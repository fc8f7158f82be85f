"""The demo: the pool grows and shrinks, and the summary says what the suite did."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.processes import wait_until_gone

SUITE = Path(__file__).parents[2] / "examples" / "skewed"


def test_the_demo_shows_a_pool_that_grows_and_shrinks_and_ends_with_a_report(tmp_path: Path) -> None:
    suite = tmp_path / "skewed"
    shutil.copytree(SUITE, suite, ignore=shutil.ignore_patterns(".dtf", "__pycache__"))
    script = f"from pathlib import Path; from dtf.cli.demo_command import Demo; raise SystemExit(Demo(Path({str(suite)!r})).run())"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^319 passed, 1 flaky, 1 skipped in ", done.stdout, re.MULTILINE)
    peak = re.search(r"^pool +1 → (\d) ", done.stdout, re.MULTILINE)
    assert peak is not None
    assert int(peak[1]) >= 3
    assert re.search(r"^afterwards .*\b1 workers", done.stdout, re.MULTILINE)
    page = re.search(r"^report +(\S+)$", done.stdout, re.MULTILINE)
    assert page is not None
    assert (tmp_path / page[1]).read_text().startswith("<!doctype html>")
    assert wait_until_gone(tmp_path) == []
