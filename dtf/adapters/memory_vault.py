"""The analyzer's series in memory, for tests and rehearsals."""

from collections.abc import Mapping, Sequence

from dtf.core.trend.series_points import SeriesKey
from dtf.ports.series_vault import VaultCheckpoint


class MemoryVault:
    """The SeriesVault port in memory."""

    def __init__(self) -> None:
        self._series: dict[SeriesKey, bytes] = {}
        self._checkpoint = VaultCheckpoint()

    def load(self, key: SeriesKey) -> bytes | None:
        """See the port."""
        return self._series.get(key)

    def keys(self, suite: str) -> Sequence[SeriesKey]:
        """See the port."""
        return sorted(key for key in self._series if suite in ("", key.suite))

    async def save(self, series: Mapping[SeriesKey, bytes], checkpoint: VaultCheckpoint) -> None:
        """See the port."""
        self._series.update(series)
        self._checkpoint = checkpoint

    async def checkpoint(self) -> VaultCheckpoint:
        """See the port."""
        return self._checkpoint

    async def clear(self) -> None:
        """See the port."""
        self._series.clear()
        self._checkpoint = VaultCheckpoint()

    async def close(self) -> None:
        """Nothing is held."""
