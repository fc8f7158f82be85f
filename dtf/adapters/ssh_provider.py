"""Workers on hosts of one's own, reached by ssh.

A launch goes to the host with the most free slots. Where it went is written down before it goes, so that
an answer that was lost is asked for at that host and nowhere else, and so that the launches of a host
that is down are known as before, by a provider of a later process too. The hosts themselves say what
became of their launches (dtf/adapters/ssh_script.py).
"""

import asyncio
import contextlib
import inspect
import logging
import shlex
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from dtf.adapters.kubernetes_objects import Owner
from dtf.adapters.ssh_host import HostDown, SshHost, read_hosts
from dtf.adapters.ssh_script import (
    ALREADY_THERE,
    RemoteLaunch,
    directory_of,
    forget_script,
    launch_script,
    list_script,
    read_launches,
    signal_script,
)
from dtf.adapters.worker_command import worker_command
from dtf.ports.capacity import (
    Instance,
    InstanceState,
    LaunchRequest,
    ProviderError,
    QuotaExceeded,
    WorkerCommand,
    WorkerEnvironment,
)
from dtf.ports.clock import Clock
from dtf.settings.providers import SshSettings

SLICE_SECONDS = 0.25
"""How late, at most, what had its grace is ended hard."""
REPEAT_SECONDS = 5.0
"""Between two SIGKILLs to one group."""

_log = logging.getLogger("dtf.ssh")


class Placement(msgspec.Struct):
    """What is on disk of one launch."""

    launch_id: str
    host: str
    launched_at_ns: int
    slots: int


@dataclass(slots=True)
class _Launch:
    """A launch on its host."""

    host: SshHost
    remote: RemoteLaunch
    confirmed_at: int
    """Number of the last look at its host when it was made or seen."""
    is_starting: bool = False
    is_placed: bool = False
    """The host has it, as far as is known."""
    kill_at: float | None = None
    is_told: bool = False

    def instance(self) -> Instance:
        """As the provider tells of it."""
        remote = self.remote
        return Instance(
            remote.launch_id,
            InstanceState.EXITED if remote.has_exited else InstanceState.RUNNING,
            remote.launched_at_ns,
            f"process {remote.process_id} on {self.host.name}",
            remote.reason,
            remote.has_exited and remote.code == 0,
        )


def ssh_worker_command(settings: SshSettings) -> WorkerCommand:
    """The command line of a worker on a host."""
    return worker_command(shlex.split(settings.program))


class SshProvider:
    """A CapacityProvider whose instances are processes on other hosts. Call `start` first."""

    def __init__(
        self,
        command: WorkerCommand,
        *,
        settings: SshSettings,
        owner: Owner,
        records_dir: Path,
        clock: Clock,
        environment: WorkerEnvironment | None = None,
    ) -> None:
        self._command = command
        self._settings = settings
        self._directory = directory_of(settings.directory, owner)
        self._records_dir = records_dir
        self._clock = clock
        self._environment = environment
        # A path of a socket is 107 characters at most, so not below the state directory.
        self._control_dir = Path(tempfile.mkdtemp(prefix="dtf-ssh-"))
        self._hosts: dict[str, SshHost] = {}
        self._faults: dict[str, str] = {}
        """Why each host that is down is."""
        self._launches: dict[str, _Launch] = {}
        self._forgotten: dict[str, SshHost] = {}
        """Where launches that were forgotten are still to be removed."""
        self._looks_begun = 0
        self._looked_at = -float("inf")

    async def start(self) -> None:
        """Find the launches of an earlier provider."""
        self._records_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._hosts = {host.name: host for host in read_hosts(self._settings, self._control_dir)}
        for path in sorted(self._records_dir.glob("*.json")):
            self._recall(path)
        await self._refresh()

    async def launch(self, request: LaunchRequest) -> Instance:
        """Start a worker on a host that has room, unless its launch is known."""
        known = self._launches.get(request.launch_id)
        if known is not None and known.is_placed:
            return known.instance()
        variables = {**self._settings.environment, **await self._environment_of(request)}
        faults: list[str] = []
        while True:
            launch = known or self._place(request, faults)
            try:
                await self._start(launch, request, variables)
            except HostDown as fault:
                self._went_down(launch.host, fault)
                self._drop(launch)
                faults.append(str(fault))
                known = None
                continue
            return launch.instance()

    async def list_instances(self) -> Sequence[Instance]:
        """Every launch that was not forgotten, by launch id; those of hosts that are down as they were."""
        await self._refresh()
        if len(self._faults) == len(self._hosts):
            raise ProviderError(f"no host answers: {'; '.join(self._faults.values())}")
        return [launch.instance() for _, launch in sorted(self._launches.items()) if launch.is_placed]

    async def terminate(self, launch_id: str, grace_seconds: float) -> None:
        """SIGTERM to the worker now, SIGKILL to its process group after `grace_seconds`."""
        launch = self._launches.get(launch_id)
        if launch is None or launch.remote.has_exited or launch.kill_at is not None:
            return
        await launch.host.run(signal_script(self._directory, launch_id, "TERM"))
        launch.kill_at = self._clock.monotonic() + grace_seconds

    async def forget(self, launch_id: str) -> None:
        """Remove what is left of an exited launch; while its host is down, it is tried with each look."""
        launch = self._launches.get(launch_id)
        if launch is None or not launch.remote.has_exited:
            return
        self._drop(launch)
        self._forgotten[launch_id] = launch.host
        await self._remove(launch_id, launch.host)

    async def exits(self) -> AsyncIterator[Instance]:
        """Each running instance as it exits."""
        while True:
            await self._end_overdue()
            if self._clock.monotonic() - self._looked_at >= self._settings.poll_seconds:
                await self._refresh()
            for launch in list(self._launches.values()):
                if launch.remote.has_exited and not launch.is_told:
                    launch.is_told = True
                    yield launch.instance()
            await self._clock.sleep(min(SLICE_SECONDS, self._settings.poll_seconds))

    async def close(self) -> None:
        """Let go of the connections; the workers go on."""
        async with asyncio.TaskGroup() as tasks:
            for host in self._hosts.values():
                tasks.create_task(host.disconnect())
        await asyncio.to_thread(shutil.rmtree, self._control_dir, ignore_errors=True)

    # -- launching

    async def _environment_of(self, request: LaunchRequest) -> Mapping[str, str]:
        if self._environment is None:
            return {}
        given = self._environment(request)
        return await given if inspect.isawaitable(given) else given

    def _place(self, request: LaunchRequest, faults: Sequence[str]) -> _Launch:
        """The launch on the host with the most room. Raises ProviderError, QuotaExceeded."""
        up = [host for host in self._hosts.values() if host.name not in self._faults]
        if not up:
            raise ProviderError(f"no host answers: {'; '.join([*self._faults.values()] or faults)}")
        host = max(up, key=self._free_slots)
        if self._free_slots(host) < request.slots:
            room = ", ".join(f"{each.name} {max(0, self._free_slots(each))} of {each.slots}" for each in up)
            down = f"; down: {', '.join(self._faults)}" if self._faults else ""
            raise QuotaExceeded(
                f"no host has {request.slots} slots free ({room}{down}); add hosts or slots to ssh.hosts, "
                "or lower pool.max_workers"
            )
        remote = RemoteLaunch(request.launch_id, self._clock.now_ns(), request.slots, 0, has_exited=False)
        launch = _Launch(host, remote, self._looks_begun)
        self._launches[request.launch_id] = launch
        self._write(launch)
        return launch

    def _free_slots(self, host: SshHost) -> int:
        taken = (
            launch.remote.slots
            for launch in self._launches.values()
            if launch.host is host and not launch.remote.has_exited
        )
        return host.slots - sum(taken)

    async def _start(self, launch: _Launch, request: LaunchRequest, variables: Mapping[str, str]) -> None:
        script = launch_script(
            self._directory,
            launch.remote,
            self._command(request),
            variables,
            working_dir=self._settings.working_dir,
            setup=self._settings.setup,
        )
        launch.is_starting = True  # a look that began before it was there does not say that it is gone
        try:
            answer = await launch.host.run(script)
        finally:
            launch.is_starting = False
            launch.confirmed_at = self._looks_begun
        if answer.code not in (0, ALREADY_THERE):
            self._drop(launch)
            raise ProviderError(
                f"{launch.host.name} could not start {request.launch_id}: "
                f"{answer.said or f'its shell ended with code {answer.code}'}"
            )
        launch.is_placed = True
        await self._look_at(launch.host)

    # -- watching

    async def _refresh(self) -> None:
        """Look at every host; those that do not answer are named."""
        async with asyncio.TaskGroup() as tasks:
            for host in self._hosts.values():
                tasks.create_task(self._look_or_note(host))
        self._looked_at = self._clock.monotonic()
        for launch_id, host in list(self._forgotten.items()):
            if host.name not in self._faults:
                await self._remove(launch_id, host)

    async def _look_or_note(self, host: SshHost) -> None:
        try:
            await self._look_at(host)
        except ProviderError as fault:
            self._went_down(host, fault)
            return
        if self._faults.pop(host.name, ""):
            _log.info("%s answers again", host.name)

    def _went_down(self, host: SshHost, fault: ProviderError) -> None:
        if host.name not in self._faults:
            _log.warning("%s; its workers are taken to go on, and others are used", fault)
        self._faults[host.name] = str(fault)

    async def _look_at(self, host: SshHost) -> None:
        """Take in what a host says of its launches."""
        self._looks_begun += 1
        number = self._looks_begun
        answer = await host.run(list_script(self._directory))
        if answer.code:
            raise ProviderError(f"{host.name} does not say what runs on it: {answer.said or answer.written}")
        there = {remote.launch_id: remote for remote in read_launches(answer.written)}
        for launch_id, remote in there.items():
            if launch_id not in self._forgotten:
                self._see(host, remote, number)
        for launch in list(self._launches.values()):
            if launch.host is not host or launch.remote.has_exited or launch.remote.launch_id in there:
                continue
            if not launch.is_starting and launch.confirmed_at < number:
                self._is_gone(launch)

    def _see(self, host: SshHost, remote: RemoteLaunch, number: int) -> None:
        launch = self._launches.get(remote.launch_id)
        if launch is None:
            launch = _Launch(host, remote, number, is_placed=True, is_told=remote.has_exited)
            self._launches[remote.launch_id] = launch
            self._write(launch)
        elif launch.host is host and not launch.remote.has_exited:
            launch.remote, launch.is_placed = remote, True
            launch.confirmed_at = max(launch.confirmed_at, number)

    def _is_gone(self, launch: _Launch) -> None:
        if not launch.is_placed:
            self._drop(launch)  # it never got there
            return
        _log.warning("%s has no trace left of %s", launch.host.name, launch.remote.launch_id)
        launch.remote = replace(launch.remote, has_exited=True)

    async def _end_overdue(self) -> None:
        """End hard what had its grace."""
        now = self._clock.monotonic()
        for launch in list(self._launches.values()):
            if launch.kill_at is None or launch.kill_at > now or launch.remote.has_exited:
                continue
            launch.kill_at = now + REPEAT_SECONDS
            with contextlib.suppress(ProviderError):  # its host is down, which the looks tell
                launch_id = launch.remote.launch_id
                await launch.host.run(signal_script(self._directory, launch_id, "KILL", is_group=True))

    async def _remove(self, launch_id: str, host: SshHost) -> None:
        with contextlib.suppress(ProviderError):
            await host.run(forget_script(self._directory, launch_id))
            self._forgotten.pop(launch_id, None)

    # -- what is on disk

    def _recall(self, path: Path) -> None:
        try:
            record = msgspec.json.decode(path.read_bytes(), type=Placement)
        except (OSError, msgspec.MsgspecError):
            return
        if path != self._path(record.launch_id):
            return  # it was not written by us
        host = self._hosts.get(record.host)
        if host is None:
            _log.warning(
                "%s was launched on %s, which ssh.hosts no longer names", record.launch_id, record.host
            )
            return
        remote = RemoteLaunch(record.launch_id, record.launched_at_ns, record.slots, 0, has_exited=False)
        self._launches[record.launch_id] = _Launch(host, remote, 0, is_placed=True)

    def _drop(self, launch: _Launch) -> None:
        self._launches.pop(launch.remote.launch_id, None)
        self._path(launch.remote.launch_id).unlink(missing_ok=True)

    def _write(self, launch: _Launch) -> None:
        remote = launch.remote
        record = Placement(remote.launch_id, launch.host.name, remote.launched_at_ns, remote.slots)
        scratch = self._path(remote.launch_id).with_suffix(".new")
        scratch.write_bytes(msgspec.json.encode(record))
        scratch.replace(self._path(remote.launch_id))

    def _path(self, launch_id: str) -> Path:
        return self._records_dir / f"{launch_id}.json"
