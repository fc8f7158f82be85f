"""A real Slurm for tests: munged, slurmctld and one slurmd, on free ports, in a directory of its own.

The programs are Debian's (`apt-get install slurm-wlm`). The node is this machine with more processors
than it has, so that jobs do not wait for each other.
"""

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from tests.ports import free_ports
from tests.processes import processes_of

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
READY_SECONDS = 60.0
STOP_SECONDS = 60.0
PROCESSORS = 64
MEMORY_MEBIBYTES = 64_000
_SUPERUSERS_PATH = "/usr/sbin:/sbin"


def missing_programs() -> list[str]:
    """Those of Slurm's programs that this machine lacks."""
    return [program for program in PROGRAMS if _which(program) is None]


class SlurmCluster:
    """One cluster of one node; partitions main, short (of one minute), and low and lowest, which high preempts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.logs = directory / "logs"
        self.node = socket.gethostname().partition(".")[0]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports = free_ports(2)

    @property
    def configuration(self) -> Path:
        """slurm.conf."""
        return self.directory / "slurm.conf"

    def start(self) -> None:
        """Start all and return when the node takes jobs."""
        for name in ("state", "spool", "logs", "munge"):
            (self.directory / name).mkdir(parents=True)
        self._start_munge()
        self.configuration.write_text(self._configuration())
        self.start_controller()
        self._start("slurmd", "-D")
        self.until_node_is_up()

    @property
    def running(self) -> frozenset[str]:
        """The daemons that were started and not ended."""
        return frozenset(self._processes)

    def start_controller(self, *options: str) -> None:
        """Start slurmctld and return when it answers; with -c it has forgotten every job."""
        self._start("slurmctld", "-D", *options)
        self._wait_for("slurmctld", "scontrol", "ping", answers=("UP",))
        if "slurmd" in self._processes:
            self.until_node_is_up()

    def stop_controller(self) -> None:
        """End slurmctld in good order, with its state saved: killed, it may lose jobs of the last seconds; jobs go on."""
        process = self._processes.pop("slurmctld")
        process.terminate()
        process.wait(STOP_SECONDS)

    def resume_node(self) -> None:
        """Have a node that was set down take jobs again; it is refused where the node came back by itself."""
        self._run("scontrol", "update", f"nodename={self.node}", "state=resume")
        self.until_node_is_up()

    def until_node_is_up(self) -> None:
        """Return when the node takes jobs."""
        self._wait_for("slurmd", "sinfo", "-h", "-o", "%T|", answers=("idle|", "mixed|", "allocated|"))

    def stop(self) -> None:
        """End all of it, jobs too."""
        for process in reversed(self._processes.values()):
            process.send_signal(signal.SIGKILL)
            process.wait(STOP_SECONDS)
        left = processes_of(self.directory)
        for one in left:
            with contextlib.suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(left, timeout=STOP_SECONDS)

    def run(self, program: str, *arguments: str, script: str = "") -> str:
        """What a program of Slurm's wrote."""
        done = self._run(program, *arguments, script=script)
        assert done.returncode == 0, f"{program} {arguments}: {done.stderr}"
        return done.stdout

    def _run(self, program: str, *arguments: str, script: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *arguments],
            input=script,
            capture_output=True,
            text=True,
            env={**os.environ, "SLURM_CONF": str(self.configuration)},
            timeout=READY_SECONDS,
            check=False,
        )

    def _start(self, program: str, *arguments: str) -> None:
        path = _which(program)
        assert path is not None
        with (self.directory / f"{program}.log").open("ab") as log:
            self._processes[program] = subprocess.Popen(
                [path, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={**os.environ, "SLURM_CONF": str(self.configuration)},
            )

    def _start_munge(self) -> None:
        directory = self.directory / "munge"
        key = directory / "key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(1024))
        files = {name: directory / name for name in ("socket", "pid-file", "log-file", "seed-file")}
        options = [f"--{name}={path}" for name, path in files.items()]
        self._start("munged", "--foreground", "--force", "--num-threads=2", f"--key-file={key}", *options)
        deadline = time.monotonic() + READY_SECONDS
        while not files["socket"].exists():
            self._pause("munged", deadline)

    def _wait_for(self, waited_for: str, program: str, *arguments: str, answers: Sequence[str]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not any(answer in self._run(program, *arguments).stdout for answer in answers):
            self._pause(waited_for, deadline)

    def _pause(self, program: str, deadline: float) -> None:
        process = self._processes[program]
        if process.poll() is not None or time.monotonic() > deadline:
            log = (self.directory / f"{program}.log").read_text(errors="replace")
            raise AssertionError(f"{program} is not ready:\n{log[-4000:]}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)

    def _configuration(self) -> str:
        directory, user = self.directory, getpass.getuser()
        controller, daemon = self._ports
        return f"""
ClusterName=tests
SlurmctldHost={self.node}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={directory}/munge/socket
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=1
MessageTimeout=5
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
NodeName={self.node} NodeAddr=127.0.0.1 CPUs={PROCESSORS} RealMemory={MEMORY_MEBIBYTES} State=UNKNOWN
PartitionName=main Nodes={self.node} Default=YES PriorityTier=5 PreemptMode=OFF DefMemPerCPU=100
PartitionName=low Nodes={self.node} PriorityTier=1 PreemptMode=CANCEL GraceTime=600 DefMemPerCPU=100
PartitionName=lowest Nodes={self.node} PriorityTier=1 PreemptMode=CANCEL DefMemPerCPU=100
PartitionName=high Nodes={self.node} PriorityTier=10 PreemptMode=OFF DefMemPerCPU=100
PartitionName=short Nodes={self.node} MaxTime=1 DefMemPerCPU=100
"""


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_SUPERUSERS_PATH}")


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """One Slurm for the session."""
    if missing := missing_programs():
        pytest.skip(f"left out: this machine has no {', '.join(missing)}; `apt-get install slurm-wlm`")
    cluster = started_slurm(tmp_path_factory)
    try:
        yield cluster
    finally:
        cluster.stop()


def started_slurm(directories: pytest.TempPathFactory, attempts: int = 3) -> SlurmCluster:
    """A Slurm whose node takes jobs; another one where somebody took a port before it did."""
    while True:
        attempts -= 1
        cluster = SlurmCluster(directories.mktemp("slurm"))
        try:
            cluster.start()
        except BaseException as error:
            cluster.stop()
            if not isinstance(error, AssertionError) or attempts == 0:
                raise
        else:
            return cluster
