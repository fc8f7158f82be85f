"""Where workers come from.

A provider starts and ends the machines or processes that run `dtf worker`. What it is asked for
carries the asker's identity of the launch, so that asking twice launches once, also after the
asker was killed between asking and hearing the answer.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class ProviderError(Exception):
    """The provider could not do what was asked; the message says why and what to do."""


class QuotaExceeded(ProviderError):
    """There is no room: a quota is used up, or the provider has no capacity left. Asking again at once is no use."""


class InstanceState(StrEnum):
    """Where an instance stands."""

    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """One worker to launch."""

    launch_id: str
    """Unique for ever; also the worker's identity. Letters, digits, '-', '_' and '.'."""
    pool: str
    slots: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    cpus: float = 0
    """Processors the worker needs, all its slots together; 0: what the provider gives by default."""
    memory_bytes: int = 0
    """Memory the worker needs; 0: what the provider gives by default."""
    gpus: int = 0
    is_spot: bool = False
    """It may be taken away again, and costs less."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A launch that the provider knows."""

    launch_id: str
    state: InstanceState
    launched_at_ns: int
    """Nanoseconds since 1970-01-01 UTC."""
    handle: str
    """What the provider calls it, for people: "process 4711"."""
    reason: str = ""
    """How it ended: "was killed by signal 9", "exited with code 3 (…)"; empty while it runs."""
    is_clean: bool = False
    """It ended by itself, without an error."""
    interruption: str = ""
    """The provider has announced that it will take it away: when and why. Empty: it has not."""


WorkerCommand = Callable[[LaunchRequest], Sequence[str]]
"""What a launch runs."""
WorkerEnvironment = Callable[[LaunchRequest], Mapping[str, str] | Awaitable[Mapping[str, str]]]
"""The variables it is given beside the provider's own; a join token is issued for each launch."""


class CapacityProvider(Protocol):
    """Starts, lists and ends instances. Every call may raise ProviderError."""

    async def launch(self, request: LaunchRequest) -> Instance:
        """Launch one; a launch id that is known, running or exited, is returned and not launched again."""
        ...

    async def list_instances(self) -> Sequence[Instance]:
        """Every instance launched and not forgotten, also by an earlier process, by launch id."""
        ...

    async def terminate(self, launch_id: str, grace_seconds: float) -> None:
        """Ask an instance to end, and end it hard after `grace_seconds`; returns once that is under way.

        Nothing happens if it is unknown or has exited.
        """
        ...

    async def forget(self, launch_id: str) -> None:
        """Drop an exited instance from the list; it is unknown from now on."""
        ...

    def exits(self) -> AsyncIterator[Instance]:
        """Each running instance as it exits, from the call on, without end; one caller at a time."""
        ...

    async def close(self) -> None:
        """Let go; instances stay as they are."""
        ...
