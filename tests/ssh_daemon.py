"""A real sshd for tests, on a free port, with keys of its own; whoever logs in is at home in its directory."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.ports import free_ports
from tests.processes import processes_of

PROGRAMS = ("sshd", "ssh", "ssh-keygen")
READY_SECONDS = 60.0
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class SshDaemon:
    """One host: this machine with another home directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home = directory / "home"
        self.home.mkdir(parents=True)
        self.port = free_ports(1)[0]
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("host_key", "client_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)], check=True
            )
        self._write_configuration()

    @property
    def name(self) -> str:
        """As ssh.hosts names it."""
        return f"{getpass.getuser()}@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and return when it listens."""
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        path = shutil.which("sshd", path=_PATH)
        assert path is not None
        with (self.directory / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [path, "-D", "-e", "-f", str(self.directory / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + READY_SECONDS
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log_text = (self.directory / "sshd.log").read_text(errors="replace")
                raise AssertionError(f"sshd is not ready:\n{log_text}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)

    def cut(self) -> None:
        """End it with all its connections, as an unplugged network does; what it started goes on."""
        if self._process is None:
            return
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL)
        self._process.kill()
        self._process.wait(READY_SECONDS)
        self._process = None

    def stop(self) -> None:
        """End it, and what it started."""
        self.cut()
        left = processes_of(self.directory)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=READY_SECONDS)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _write_configuration(self) -> None:
        directory = self.directory
        authorized = directory / "authorized_keys"
        authorized.write_bytes((directory / "client_key.pub").read_bytes())
        (directory / "sshd_config").write_text(f"""
ListenAddress 127.0.0.1:{self.port}
HostKey {directory}/host_key
AuthorizedKeysFile {authorized}
PidFile {directory}/sshd.pid
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxSessions 100
MaxStartups 100
SetEnv HOME={self.home}
ForceCommand cd; eval "$SSH_ORIGINAL_COMMAND"
""")
        known = f"[127.0.0.1]:{self.port} {(directory / 'host_key.pub').read_text()}"
        (directory / "known_hosts").write_text(known)


def client_configuration(daemons: list[SshDaemon], path: Path) -> Path:
    """The configuration of an ssh that knows these hosts, and is strict about it."""
    known = "".join((daemon.directory / "known_hosts").read_text() for daemon in daemons)
    known_hosts = path.with_suffix(".known")
    known_hosts.write_text(known)
    keys = "".join(f"IdentityFile {daemon.directory}/client_key\n" for daemon in daemons)
    path.write_text(
        f"{keys}IdentitiesOnly yes\nUserKnownHostsFile {known_hosts}\nStrictHostKeyChecking yes\n"
    )
    return path


def skip_without_ssh() -> None:
    """Skips the test, by name, where a program is missing."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=_PATH) is None]
    if missing:
        pytest.skip(f"left out: this machine has no {', '.join(missing)}; `apt-get install openssh-server`")


@pytest.fixture(scope="session")
def ssh_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshDaemon]:
    """One sshd for the session."""
    skip_without_ssh()
    daemon = started_daemon(tmp_path_factory)
    yield daemon
    daemon.stop()


def started_daemon(directories: pytest.TempPathFactory, attempts: int = 3) -> SshDaemon:
    """An sshd that listens; another one where somebody took its port before it did."""
    while True:
        attempts -= 1
        daemon = SshDaemon(directories.mktemp("ssh"))
        try:
            daemon.start()
        except AssertionError:
            daemon.stop()
            if attempts == 0:
                raise
        else:
            return daemon
