"""Workers as machines of a cloud, one a launch, whatever the cloud.

    launched ──▶ runs ──▶ ended: its console is read for how its worker ended ──▶ exited ──▶ forgotten
                  └─ not found for longer than a cloud takes to show what it has ──▶ exited

What is known comes from lists of all machines with our labels, every `poll_seconds`. The clouds show what
was made, and what was written to a console, only after a while.
"""

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ParamSpec, TypeVar

from dtf.adapters.cloud_bootstrap import Boot, Outcome, boot_script, outcome_in
from dtf.adapters.cloud_machines import CALL_SECONDS, Cloud, Machine
from dtf.ports.capacity import (
    Instance,
    InstanceState,
    LaunchRequest,
    ProviderError,
    WorkerCommand,
    WorkerEnvironment,
)
from dtf.ports.clock import Clock

MISSING_SECONDS = 60.0
"""A machine that lists lack for so long is gone: they may lack a new one for some seconds."""
CONSOLE_SECONDS = 30.0
"""How long, after a machine shut itself down, its console is asked for how its worker ended."""
CALLS_SECONDS = 10 * CALL_SECONDS
"""The longest that a call with all its attempts is waited for."""
LONGEST_PAUSE_SECONDS = 60.0
ENDED_BY_US = "was ended as asked"
VANISHED = "is gone, and the cloud does not say how"

_log = logging.getLogger("dtf.cloud")
_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(slots=True)
class Launch:
    """One launch, and what became of it."""

    machine: Machine
    seen_at: float
    is_ended_by_us: bool = False
    is_told: bool = False
    """`exits` has yielded it, or the caller of `launch` was told."""
    ended_at: float | None = None
    """When its end was first seen."""
    outcome: Outcome | None = None
    """How its worker ended, once the console said so."""
    exit: Instance | None = None

    def instance(self) -> Instance:
        """As the port tells it."""
        return self.exit or _instance(self.machine, InstanceState.RUNNING)


class CloudProvider:
    """A CapacityProvider whose instances are machines of `cloud`. Call `start` first."""

    def __init__(
        self,
        cloud: Cloud,
        command: WorkerCommand,
        *,
        boot: Boot,
        clock: Clock,
        environment: WorkerEnvironment | None = None,
        poll_seconds: float = 10.0,
        console_seconds: float = CONSOLE_SECONDS,
    ) -> None:
        self._cloud = cloud
        self._command = command
        self._boot = boot
        self._clock = clock
        self._environment = environment
        self._poll_seconds = poll_seconds
        self._console_seconds = console_seconds
        self._launches: dict[str, Launch] = {}
        self._forgotten: dict[str, Machine] = {}
        self._refreshing = asyncio.Lock()

    async def start(self) -> None:
        """Check the credentials, and find the machines of an earlier provider."""
        await self._call(self._cloud.connect)
        await self._refresh()

    async def launch(self, request: LaunchRequest) -> Instance:
        """Make a machine unless its launch is known or there."""
        known = self._launches.get(request.launch_id)
        if known is None:
            environment = await self._environment_of(request)
            script = boot_script(self._boot, request, self._command(request), environment)
            machine = await self._call(self._cloud.launch, request, script)
            known = self._launches.setdefault(
                request.launch_id, Launch(machine, self._clock.monotonic(), is_told=machine.has_exited)
            )
            await self._settle(known)
        return known.instance()

    async def list_instances(self) -> Sequence[Instance]:
        """Every machine with our labels that was not forgotten, by launch id."""
        await self._refresh()
        return [launch.instance() for _, launch in sorted(self._launches.items())]

    async def terminate(self, launch_id: str, grace_seconds: float) -> None:
        """Have its cloud end the machine, which tells its worker; how long it waits then is the cloud's to say."""
        launch = self._launches.get(launch_id)
        if launch is None or launch.exit is not None or launch.is_ended_by_us:
            return
        launch.is_ended_by_us = True
        try:
            await self._call(self._cloud.end, launch.machine)
        except BaseException:
            launch.is_ended_by_us = False
            raise

    async def forget(self, launch_id: str) -> None:
        """Remove what is left of an exited machine; while that cannot be done, it is tried with each list."""
        launch = self._launches.get(launch_id)
        if launch is None or launch.exit is None:
            return
        del self._launches[launch_id]
        self._forgotten[launch_id] = launch.machine
        await self._remove(launch.machine)

    async def exits(self) -> AsyncIterator[Instance]:
        """Each running machine as it exits."""
        pause = self._poll_seconds
        while True:
            try:
                await self._refresh()
                pause = self._poll_seconds
            except ProviderError as fault:
                pause = max(self._poll_seconds, min(2 * pause, LONGEST_PAUSE_SECONDS))
                _log.warning("machines cannot be looked at (%s); again in %.1f s", fault, pause)
            for launch in list(self._launches.values()):
                if launch.exit is not None and not launch.is_told:
                    launch.is_told = True
                    yield launch.exit
            await self._clock.sleep(pause)

    async def close(self) -> None:
        """Close the connections; the machines go on."""
        await self._call(self._cloud.close)

    async def _environment_of(self, request: LaunchRequest) -> Mapping[str, str]:
        if self._environment is None:
            return {}
        given = self._environment(request)
        return await given if inspect.isawaitable(given) else given

    async def _refresh(self) -> None:
        """Take in every machine there is."""
        async with self._refreshing:
            began = self._clock.monotonic()
            await self._absorb(await self._call(self._cloud.find), began)
            for launch in list(self._launches.values()):
                unseen_for = began - launch.seen_at
                if unseen_for >= MISSING_SECONDS or (launch.is_ended_by_us and unseen_for > 0):
                    launch.machine = replace(launch.machine, has_exited=True, reason=VANISHED)
                await self._settle(launch)

    async def _absorb(self, machines: Iterable[Machine], began: float) -> None:
        present: set[str] = set()
        for machine in machines:
            present.add(machine.launch_id)
            forgotten = self._forgotten.get(machine.launch_id)
            if forgotten is not None and forgotten.name == machine.name:
                await self._remove(machine)
                continue
            launch = self._launches.get(machine.launch_id)
            if launch is None:
                self._launches[machine.launch_id] = Launch(machine, began)
            elif launch.exit is None:
                launch.machine, launch.seen_at = machine, began
        for launch_id in [each for each in self._forgotten if each not in present]:
            del self._forgotten[launch_id]

    async def _settle(self, launch: Launch) -> None:
        """Decide how a machine ended that has."""
        machine = launch.machine
        if launch.exit is not None or not (machine.has_exited or machine.is_ending):
            return
        if machine.has_shut_down or machine.is_ending:
            await self._read_console(launch)
        if not machine.has_exited:
            return
        now = self._clock.monotonic()
        if launch.ended_at is None:
            launch.ended_at = now
        if launch.is_ended_by_us:
            launch.exit = _instance(machine, InstanceState.EXITED, ENDED_BY_US, is_clean=True)
            return
        outcome = launch.outcome if machine.has_shut_down else None
        if machine.has_shut_down and outcome is None and now - launch.ended_at < self._console_seconds:
            return
        if outcome is None:
            launch.exit = _instance(machine, InstanceState.EXITED, machine.reason)
        else:
            launch.exit = _instance(machine, InstanceState.EXITED, outcome.reason, is_clean=outcome.is_clean)

    async def _read_console(self, launch: Launch) -> None:
        if launch.outcome is None and not launch.is_ended_by_us:
            with contextlib.suppress(ProviderError):  # it is asked again, and done without in the end
                console = await self._call(self._cloud.console, launch.machine)
                launch.outcome = outcome_in(console, launch.machine.launch_id)

    async def _remove(self, machine: Machine) -> None:
        try:
            await self._call(self._cloud.remove, machine)
        except ProviderError as fault:
            _log.warning("%s has ended and could not be removed yet: %s", machine.name, fault)

    async def _call(self, call: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            async with asyncio.timeout(CALLS_SECONDS):
                return await asyncio.to_thread(call, *args, **kwargs)
        except TimeoutError as error:
            raise ProviderError(f"the cloud did not answer within {CALLS_SECONDS:g} s") from error


def _instance(
    machine: Machine, state: InstanceState, reason: str = "", *, is_clean: bool = False
) -> Instance:
    is_running = state is InstanceState.RUNNING
    return Instance(
        machine.launch_id,
        state,
        machine.launched_at_ns,
        f"machine {machine.name}",
        reason,
        is_clean,
        machine.interruption if is_running else "",
    )
