"""Benchmarks as functions: `dtf run --callable cases:sort_numbers --each sizes.jsonl`."""

import hashlib
import random


def sort_numbers(count: int, seed: int = 1) -> int:
    """Sort `count` numbers; the duration of the case is the measurement."""
    generator = random.Random(seed)
    numbers = [generator.random() for _ in range(count)]
    numbers.sort()
    return len(numbers)


def digest_bytes(size_bytes: int) -> str:
    """Hash `size_bytes` of zeros."""
    return hashlib.sha256(bytes(size_bytes)).hexdigest()


def nothing() -> None:
    """Do nothing: what a task costs by itself."""
