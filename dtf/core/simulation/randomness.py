"""Random numbers from a seed, the same everywhere (SplitMix64: Steele, Lea, Flood 2014, OOPSLA)."""

_MASK = 2**64 - 1


class SplitMix64:
    """A stream of 64-bit numbers."""

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def next(self) -> int:
        """The next number in [0, 2**64)."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return mixed ^ (mixed >> 31)

    def below(self, bound: int) -> int:
        """A number in [0, bound)."""
        return self.next() % bound

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * (self.next() / 2**64)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.uniform(0, 1) < probability

    def eight_bytes(self) -> bytes:
        """A nonce."""
        return self.next().to_bytes(8, "big")
