"""One host that is reached by the system's ssh.

The user's own ssh is used, not a library: what works at the prompt works here, with the configuration,
agent, jump hosts, hardware keys and known hosts that are set up for it, and nothing is trusted that the
user's ssh does not trust. It never asks (BatchMode), and one connection serves all that is asked of a
host (ControlMaster), for a minute after the last.

    ProviderError
    ├── HostDown       there was no connection: nothing was done
    └── HostSilent     there was no answer: what was asked may have been done
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dtf.ports.capacity import ProviderError
from dtf.settings.providers import SshSettings

ANSWER_SECONDS = 30.0
SSH_FAILED = 255
"""The exit code of ssh where it, not what it ran, failed (ssh(1), EXIT STATUS)."""
_HOST = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?P<name>\[[^\]]+\]|[^:@\s\[\]-][^:@\s]*)(?::(?P<port>\d+))?")
_SLOTS = re.compile(r"slots=([1-9]\d*)")
_NOT_CONNECTED = (
    "connection refused",
    "connection timed out",
    "could not resolve hostname",
    "no route to host",
    "network is unreachable",
    "permission denied",
    "host key verification failed",
    "connection closed by",
    "kex_exchange_identification",
    "too many authentication failures",
    "bad configuration option",
    "no such identity",
)


class HostDown(ProviderError):
    """There was no connection; nothing was done."""


class HostSilent(ProviderError):
    """There was no answer; what was asked may have been done."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a script came to."""

    code: int
    written: str
    said: str


class SshHost:
    """Runs shell scripts on one host."""

    def __init__(self, name: str, slots: int, settings: SshSettings, control_dir: Path) -> None:
        found = _HOST.fullmatch(name)
        if found is None:
            raise ProviderError(f'ssh.hosts: {name!r} is not a host; write "user@host:port"')
        self.name = name
        self.slots = slots
        self._settings = settings
        self._control_dir = control_dir
        self._destination = found["name"].strip("[]")
        self._user = found["user"] or ""
        self._port = found["port"] or ""

    async def run(self, script: str) -> Answer:
        """Have its shell read `script`. Raises HostDown, HostSilent, ProviderError."""
        return await self._run(self._arguments("sh -s"), script)

    async def disconnect(self) -> None:
        """Let go of its connection."""
        try:
            await self._run(["-O", "exit", *self._arguments("")], "")
        except ProviderError:
            return  # there was none

    async def _run(self, arguments: Sequence[str], script: str) -> Answer:
        try:
            process = await asyncio.create_subprocess_exec(
                *("ssh", *arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # a Ctrl-C at our terminal is not for it
            )
        except OSError as error:
            raise ProviderError(
                f"ssh cannot be run: {error.strerror}; install it (Debian: openssh-client)"
            ) from error
        try:
            async with asyncio.timeout(self._settings.connect_seconds + ANSWER_SECONDS):
                written, said = await process.communicate(script.encode())
        except TimeoutError:
            raise HostSilent(f"{self.name} did not answer within {ANSWER_SECONDS:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        words = " ".join(said.decode(errors="replace").split())
        if process.returncode == SSH_FAILED:
            raise self._fault(words)
        assert process.returncode is not None
        return Answer(process.returncode, written.decode(errors="replace"), words)

    def _fault(self, words: str) -> ProviderError:
        if any(each in words.lower() for each in _NOT_CONNECTED):
            return HostDown(f"{self.name} is down: {words}; try `ssh {self._shown()} true`")
        return HostSilent(f"the connection to {self.name} was lost: {words}")

    def _shown(self) -> str:
        user = f"{self._user}@" if self._user else ""
        port = f"-p {self._port} " if self._port else ""
        return f"{port}{user}{self._destination}"

    def _arguments(self, command: str) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": str(max(1, round(self._settings.connect_seconds))),
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
            "ControlMaster": "auto",
            "ControlPath": str(self._control_dir / "%C"),
            "ControlPersist": "60",
            "ForwardAgent": "no",
            "ForwardX11": "no",
            **self._settings.options,
        }
        arguments = ["-T"]
        if self._settings.configuration:
            arguments += ["-F", self._settings.configuration]
        for name, value in options.items():
            arguments += ["-o", f"{name}={value}"]
        if self._user:
            arguments += ["-l", self._user]
        if self._port:
            arguments += ["-p", self._port]
        return [*arguments, "--", self._destination, *([command] if command else [])]


def read_hosts(settings: SshSettings, control_dir: Path) -> list[SshHost]:
    """The hosts of the settings. Raises ProviderError."""
    if not settings.hosts:
        raise ProviderError('no hosts are named; write [ssh.hosts] "user@host:port" = "slots=4"')
    hosts = []
    for name, takes in settings.hosts.items():
        slots = _SLOTS.fullmatch(takes.strip())
        if slots is None:
            raise ProviderError(f'ssh.hosts: {name} = {takes!r} is not what a host takes; write "slots=4"')
        hosts.append(SshHost(name, int(slots[1]), settings, control_dir))
    return hosts
