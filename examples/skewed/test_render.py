"""160 cases of unequal length in two classes, and the longest case of the suite."""

import time

import pytest
from durations import duration_seconds


class TestSmall:
    @pytest.mark.parametrize("number", range(100))
    def test_page(self, number: int) -> None:
        time.sleep(duration_seconds(f"small-{number}", 100) / 2)
        assert number >= 0


class TestLarge:
    @pytest.mark.parametrize("number", range(60))
    def test_page(self, number: int) -> None:
        time.sleep(duration_seconds(f"large-{number}", 60))
        assert number >= 0


def test_whole_book() -> None:
    """The longest case; without it known beforehand it is begun late and the others wait for it."""
    time.sleep(5.0)
