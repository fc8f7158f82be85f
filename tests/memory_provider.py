"""A CapacityProvider in memory that passes the port's contract suite."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from dtf.ports.capacity import Instance, InstanceState, LaunchRequest, ProviderError, QuotaExceeded
from dtf.ports.clock import Clock


class MemoryProvider:
    """Instances that exist in a dictionary; tests end them with `end`."""

    def __init__(self, clock: Clock) -> None:
        self.requests: list[LaunchRequest] = []
        self.terminated: list[str] = []
        self.failure = ""
        """While set, launching raises ProviderError with it."""
        self.silence = ""
        """While set, listing raises ProviderError with it."""
        self.quota = ""
        """While set, launching raises QuotaExceeded with it."""
        self._clock = clock
        self._instances: dict[str, Instance] = {}
        self._exits: asyncio.Queue[Instance] = asyncio.Queue()
        self._changed = asyncio.Condition()

    @property
    def running(self) -> list[str]:
        """Launch ids of what runs."""
        return [i.launch_id for i in self._instances.values() if i.state is InstanceState.RUNNING]

    async def wait_for_running(self, *launch_ids: str) -> None:
        """Return when exactly these run."""
        async with self._changed:
            await self._changed.wait_for(lambda: sorted(self.running) == sorted(launch_ids))

    async def wait_for_requests(self, count: int) -> None:
        """Return when so many launches were made."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= count)

    async def launch(self, request: LaunchRequest) -> Instance:
        """A running instance, unless the launch is known."""
        if self.failure:
            raise ProviderError(self.failure)
        if self.quota:
            raise QuotaExceeded(self.quota)
        if request.launch_id not in self._instances:
            self.requests.append(request)
            self._instances[request.launch_id] = Instance(
                request.launch_id, InstanceState.RUNNING, self._clock.now_ns(), f"memory {request.launch_id}"
            )
            await self._announce()
        return self._instances[request.launch_id]

    async def list_instances(self) -> Sequence[Instance]:
        """All that were not forgotten."""
        if self.silence:
            raise ProviderError(self.silence)
        return [instance for _, instance in sorted(self._instances.items())]

    async def terminate(self, launch_id: str, grace_seconds: float) -> None:
        """End it at once."""
        if launch_id in self.running:
            self.terminated.append(launch_id)
            await self.end(launch_id, "exited with code 0", is_clean=True)

    async def end(self, launch_id: str, reason: str, *, is_clean: bool = False) -> None:
        """The instance exits by itself."""
        ended = replace(
            self._instances[launch_id], state=InstanceState.EXITED, reason=reason, is_clean=is_clean
        )
        self._instances[launch_id] = ended
        self._exits.put_nowait(ended)
        await self._announce()

    def interrupt(self, launch_id: str, announcement: str) -> None:
        """Announce that it will be taken away."""
        self._instances[launch_id] = replace(self._instances[launch_id], interruption=announcement)

    def lose(self, launch_id: str) -> Instance:
        """Somebody removed it behind our back, or the list lacks it; nobody says so."""
        return self._instances.pop(launch_id)

    def find(self, instance: Instance) -> None:
        """The list has it again."""
        self._instances[instance.launch_id] = instance

    async def forget(self, launch_id: str) -> None:
        """Drop an exited one."""
        if launch_id in self._instances and launch_id not in self.running:
            del self._instances[launch_id]

    async def exits(self) -> AsyncIterator[Instance]:
        """As they exit."""
        while True:
            yield await self._exits.get()

    async def close(self) -> None:
        """Nothing to let go of."""

    async def _announce(self) -> None:
        async with self._changed:
            self._changed.notify_all()
