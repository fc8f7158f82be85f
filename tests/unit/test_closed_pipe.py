"""`dtf … | head -0`: a reader that goes away is no failure."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("words", [["--help"], ["config"], ["bisect", "--list"], ["config", "--json"]])
def test_a_reader_that_goes_away_is_no_failure(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "dtf.cli.main", *words],
            stdout=closed,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (0, b"")
