"""Which faults strike, in which order: drawn from a seed, each kind equally often."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault to come."""

    number: int
    """From 1, over all stacks."""
    kind: str
    seed: int
    """For whatever the fault draws."""


def share(planned: Iterator[Planned], stack: int, stacks: int) -> list[Planned]:
    """What one of several stacks is dealt of them."""
    return [each for each in planned if each.number % stacks == stack]


def plan(seed: str, kinds: Sequence[str], count: int) -> Iterator[Planned]:
    """`count` faults: every kind once in a shuffled order, then all again in another."""
    draw = random.Random(seed)
    number = 0
    while number < count:
        for kind in draw.sample(list(kinds), len(kinds)):
            number += 1
            if number > count:
                return
            yield Planned(number, kind, draw.getrandbits(32))
