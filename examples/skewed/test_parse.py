"""120 cases of unequal length."""

import time

import pytest
from durations import duration_seconds


@pytest.mark.parametrize("number", range(120))
def test_document(number: int) -> None:
    time.sleep(duration_seconds(f"parse-{number}", 120))
    assert f"{number}".isdigit()
