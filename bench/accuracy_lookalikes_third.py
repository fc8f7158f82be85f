"""Look-alikes by a third hand, written from what is published about the kinds of series in the Turing benchmark.

Made before the engine's rules or the other two collections were read, and not from any value or mark of
the benchmark itself: yearly, quarterly, monthly and weekly series of 15 to 990 values, some with several
dimensions, with regimes as people see them: levels, slopes, bursts, spread. Annotators differ as people
do: some are eager and some are not, a weak break is seen by the eager alone, and where a bend is, is a
matter of opinion, while where a step is, is not. Set so that who finds nothing has about the F1 and
covering that are published for the benchmark (.65 to .67, .58), and one annotator against the other four .83.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.accuracy_third_kinds import KINDS
from bench.accuracy_third_shapes import Break, Drawn, Random

ANNOTATORS = 5
EAGERNESS = 0.8
"""Standard deviation of how eager an annotator is, in the unit of a break's salience."""
DISAGREEMENT = 0.8
"""The same of what one makes of a single break."""
SHRUGS = 0.1
"""How often a person is through with a series without a mark."""
ODD_MARKS = 0.25
"""How often a person marks what nobody made."""
BLUR = 1.2
"""How far apart people put a break, in units of its spread."""


@dataclass(frozen=True)
class ThirdCollection:
    """Kinds of series and how five people would mark them; as Collection of the first two hands is used."""

    title: str
    seed: int
    kinds: tuple[Callable[[Random], Drawn], ...]

    @property
    def names(self) -> list[str]:
        """Of the kinds."""
        return [kind.__name__ for kind in self.kinds]

    def made(self, kind: str, number: int) -> tuple[Drawn, dict[str, list[int]]]:
        """The series of a kind with this number, its values of shape (n, d), and what each annotator marks."""
        place = self.names.index(kind)
        random = np.random.default_rng([self.seed, place, number])
        drawn = self.kinds[place](random)
        values = drawn.values.reshape(len(drawn.values), -1)
        marks = {str(each): _marks(random, drawn.breaks, len(values)) for each in range(ANNOTATORS)}
        return Drawn(values, drawn.breaks), marks


def _marks(random: Random, breaks: Sequence[Break], count: int) -> list[int]:
    """What one person marks in a series of so many values."""
    mood = EAGERNESS * random.standard_normal()
    found = set()
    for each in breaks:
        if each.salience + mood + DISAGREEMENT * random.standard_normal() > 0:
            found.add(round(each.at + BLUR * each.spread * random.standard_normal()))
    if random.random() < SHRUGS:
        found.clear()
    if random.random() < ODD_MARKS:
        found.add(int(random.integers(count // 8, count - count // 8)))
    return sorted({int(np.clip(each, 1, count - 1)) for each in found})


THIRD = ThirdCollection(
    "Look-alikes by a third hand, made from the benchmark's published kinds, annotators who differ in eagerness",
    2020,
    KINDS,
)
