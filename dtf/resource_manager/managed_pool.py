"""What there is to look after: a pool and its provider; and what the pools of one resource manager share."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dtf.api.v1 import scaling_pb2
from dtf.core.scaling.adaptive import PoolTelemetry
from dtf.core.scaling.allocation import Allocation
from dtf.core.scaling.policy import ScalingPolicy
from dtf.ports.capacity import CapacityProvider, LaunchRequest
from dtf.ports.clock import Clock
from dtf.resource_manager.fleet import Fleet
from dtf.resource_manager.state_file import ManagerState


async def _nothing() -> None:
    """A provider that needs no start."""


@dataclass(frozen=True, slots=True)
class ManagedPool:
    """A pool to be looked after, and where its workers come from."""

    policy: ScalingPolicy
    provider: CapacityProvider
    start: Callable[[], Awaitable[None]] = _nothing
    """What the provider needs before it is asked anything; done again until it does not raise ProviderError."""
    cpus: float = 0.0
    memory_bytes: int = 0
    gpus: int = 0
    is_spot: bool = False
    quarantine_ratio: float = 0.2
    """Share of the workers that may be in quarantine at once; 0: none ever is."""
    probation_seconds: float = 300.0

    def request(self, launch_id: str) -> LaunchRequest:
        """What the provider is asked for."""
        return LaunchRequest(
            launch_id,
            self.policy.pool,
            self.policy.slots,
            self.policy.labels,
            cpus=self.cpus,
            memory_bytes=self.memory_bytes,
            gpus=self.gpus,
            is_spot=self.is_spot,
        )


@dataclass(frozen=True, slots=True)
class Office:
    """What the pools of one resource manager share."""

    state: ManagerState
    fleet: Fleet
    clock: Clock
    announce: Callable[[scaling_pb2.ScalingDecision], None]
    """Publish a decision soon."""
    save: Callable[[], Awaitable[None]]
    allocate: Callable[[str, int], Allocation | None]
    """What a pool is to do at an instant; None: all that it can."""
    telemetry: Callable[[str, int], PoolTelemetry | None]
    """What a pool's workers say of their machines."""
    wake_all: Callable[[], None]
    """Have every pool decide anew: what one has given up another may take."""
    tasks: asyncio.TaskGroup
