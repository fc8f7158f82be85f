"""Workers that have nothing of the client but its coordinator: another home, directory and (as root) user."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dtf
from tests.integration.worker_rig import PATIENCE_SECONDS, TOKEN, Rig, WorkerProcess

NOBODY = 65534
COMMAND_SECONDS = 250.0
IMPORTABLE = (str(Path(dtf.__file__).parent.parent), sysconfig.get_path("purelib"))
"""Where dtf and what it needs are imported from."""


def python_of_nobody() -> list[str] | None:
    """How a Python like ours is started as nobody; None: it cannot be.

    An interpreter below root's home is out of others' reach; one of the system, given our packages, is not.
    """
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        return None
    own = f"python{sys.version_info.major}.{sys.version_info.minor}"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(IMPORTABLE), "HOME": "/"}
    for python in (sys.executable, shutil.which(own, path="/usr/local/bin:/usr/bin:/bin")):
        if python is None:
            continue
        argv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", python]
        code = "import subprocess, sys, dtf, grpc; subprocess.run([sys.executable, '-c', 'import msgspec'], check=True)"
        probe = subprocess.run(
            [*argv, "-c", code], env=environment, cwd="/", capture_output=True, check=False
        )
        if probe.returncode == 0:
            return argv
    return None


class Elsewhere:
    """A machine of another user, as far as one machine can be two."""

    def __init__(self, rig: Rig, directory: Path) -> None:
        self.rig = rig
        self.directory = directory
        self.home = directory / "home"
        self.work = directory / "work"
        self.cache = self.home / ".cache" / "dtf" / "workspaces"
        for path in (self.home, self.work):
            path.mkdir(mode=0o700)
        self.token_file = directory / "token"
        self.token_file.write_text(TOKEN)
        self.python = python_of_nobody()
        if self.python is not None:
            for path in (directory, self.home, self.work, self.token_file):
                os.chown(path, NOBODY, NOBODY)

    async def worker(self, *options: str, **environment: str) -> "WorkerElsewhere":
        """Start a worker there and wait until its session is open."""
        worker = WorkerElsewhere(self, options, environment)
        self.rig.workers.append(worker)
        await worker.ready()
        return worker

    @property
    def cells(self) -> list[Path]:
        """Workspaces that are ready."""
        return sorted(path.parent for path in self.cache.glob("*/ready.json"))


class WorkerElsewhere(WorkerProcess):
    """A `dtf worker` process of another user."""

    def __init__(self, there: Elsewhere, options: Sequence[str], more: dict[str, str]) -> None:
        interpreter = there.python or [sys.executable]
        argv = [*interpreter, "-P", "-m", "dtf.cli.main", "--project", str(there.work)]
        argv += ["worker", "--server", there.rig.address, "--token-file", str(there.token_file), *options]
        self.log_path = there.rig.directory / f"worker-{len(there.rig.workers)}.log"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(there.home),
            "PYTHONPATH": os.pathsep.join(IMPORTABLE),
            **more,
        }
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                cwd=there.work,
                start_new_session=True,
            )


@contextmanager
def elsewhere(rig: Rig) -> Iterator[Elsewhere]:
    """A place that is gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="dtf-elsewhere-"))
    try:
        yield Elsewhere(rig, directory)
    finally:
        shutil.rmtree(directory)


class Client:
    """A project of ours, and `dtf` and pytest called in it against the rig's coordinator."""

    def __init__(self, rig: Rig, project: Path) -> None:
        self.rig = rig
        self.project = project

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project."""
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def git(self, *arguments: str) -> None:
        """Call git."""
        identity = ("-c", "user.name=dtf", "-c", "user.email=dtf@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=self.project, check=True, capture_output=True)

    async def pytest(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """`pytest --dtf ARGUMENTS`."""
        return await self._run(
            [sys.executable, "-m", "pytest", "-p", "no:randomly", "--dtf", *arguments], environment
        )

    async def dtf(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """`dtf ARGUMENTS`."""
        return await self._run([sys.executable, "-m", "dtf.cli.main", *arguments], environment)

    async def json(self, *arguments: str) -> dict[str, object]:
        """What `dtf ARGUMENTS --json` prints."""
        ended = await self.dtf(*arguments)
        document = json.loads(ended.stdout)
        assert isinstance(document, dict)
        return document

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start Python with these arguments."""
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.project,
            env=self._environment({}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("DTF_")}
        server = {"DTF_RUN_SERVER": self.rig.address, "DTF_RUN_TOKEN_FILE": str(self.rig.token_file)}
        return {**own, "COLUMNS": "150", **server, **more}

    async def _run(self, argv: list[str], more: dict[str, str]) -> "subprocess.CompletedProcess[str]":
        environment = self._environment(more)
        return await asyncio.to_thread(
            subprocess.run,
            argv,
            cwd=self.project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=COMMAND_SECONDS,
        )


__all__ = ["NOBODY", "PATIENCE_SECONDS", "Client", "Elsewhere", "elsewhere"]
