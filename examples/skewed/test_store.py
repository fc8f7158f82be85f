"""40 cases, one of which is skipped, and one of which fails at its first attempt."""

import time
from pathlib import Path

import pytest
from durations import duration_seconds


@pytest.mark.parametrize("number", range(38))
def test_key(number: int) -> None:
    time.sleep(duration_seconds(f"store-{number}", 38))
    assert number in range(38)


@pytest.mark.skip(reason="needs a tape drive")
def test_tape() -> None:
    raise AssertionError("there is no tape drive")


def test_takes_two_attempts(worker_id: str, testrun_uid: str) -> None:
    """Flaky on purpose: on a worker it fails once in each run, so that its second attempt passes."""
    if worker_id == "master":
        return
    marker = Path(__file__).with_name(".dtf") / f"attempted-{testrun_uid}"
    if not marker.exists():
        marker.touch()
        pytest.fail("the first attempt fails")
    marker.unlink()
