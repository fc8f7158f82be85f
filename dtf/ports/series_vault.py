"""Where the trend analyzer keeps its series while they are not in memory, and over a restart.

Everything in it follows from the log and the analysis stream: a vault that is lost or damaged is
filled again by reading them from the beginning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dtf.core.trend.series_points import SeriesKey


class VaultError(Exception):
    """The vault cannot be used: another process has it open, or it is damaged."""


class VaultUnavailable(VaultError):
    """The disk refuses, as a full one does; the same call may be made again."""


@dataclass(frozen=True, slots=True)
class VaultCheckpoint:
    """What the series in the vault rest on."""

    log_sequence: int = 0
    """Last commit of the log whose points are in them."""
    log_state: str = ""
    """What the log's fold must know to go on behind it, in JSON."""
    analysis_sequence: int = 0
    """Last message of the analysis stream whose imported points are in them."""
    rule_version: int = 0
    """The rules by which they were searched."""


class SeriesVault(Protocol):
    """Bytes by series, with one checkpoint. Every call may raise VaultError."""

    def load(self, key: SeriesKey) -> bytes | None:
        """What was saved of a series, at once; None: nothing."""
        ...

    def keys(self, suite: str) -> Sequence[SeriesKey]:
        """Every series of a suite, in order; of all suites where it is empty."""
        ...

    async def save(self, series: Mapping[SeriesKey, bytes], checkpoint: VaultCheckpoint) -> None:
        """Replace these series and the checkpoint, all or none. Durable on return."""
        ...

    async def checkpoint(self) -> VaultCheckpoint:
        """The newest one; of an empty vault one of zeros."""
        ...

    async def clear(self) -> None:
        """Forget everything."""
        ...

    async def close(self) -> None:
        """Let go of it."""
        ...
