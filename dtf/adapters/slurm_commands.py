"""Slurm's command line: how its programs are run, and what their refusals mean.

The programs are those that users have: no library is needed, and whatever version of Slurm a site runs,
its own programs speak to it. Answers are asked for in columns of our own choosing (`squeue -O`), because
their JSON differs from release to release (22.05 also ignores every filter with it).

    ProviderError
    ├── QuotaExceeded    a limit of an association, a QOS or a partition
    ├── SlurmAway        slurmctld does not answer; tried again until patience ends
    └── SlurmRefusal     it answered no
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dtf.ports.capacity import ProviderError, QuotaExceeded
from dtf.ports.clock import Clock
from dtf.settings.providers import SlurmSettings

ANSWER_SECONDS = 60.0
"""A program that says nothing for so long is ended: Slurm's own MessageTimeout is 10 s, asked a few times."""
PATIENCE_SECONDS = 20.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 4.0

_AWAY = (
    "unable to contact slurm controller",
    "socket timed out",
    "connection refused",
    "zero bytes were transmitted",
    "slurm backup controller in standby mode",
    "slurm_persist_conn_open",
    "resource temporarily unavailable",
    "communication connection failure",
    "transport endpoint is not connected",
    "munge encode failed",
)
_QUOTA = (
    "violates accounting/qos policy",
    "qosmax",
    "qosgrp",
    "assocmax",
    "assocgrp",
    "maxsubmitjob",
    "job limit",
    "slurm temporarily unable to accept job",
    "job array index",
)
"""In what sbatch says; the first is the message of ESLURM_ACCOUNTING_POLICY (slurm_errno.c)."""


class SlurmAway(ProviderError):
    """slurmctld does not answer."""


class SlurmRefusal(ProviderError):
    """Slurm answered no; the message has its words."""


class SlurmCommands:
    """Runs sbatch, squeue and the like."""

    def __init__(
        self, settings: SlurmSettings, clock: Clock, *, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._patience_seconds = patience_seconds
        self._environment = _environment(settings)

    async def run(
        self, program: str, *arguments: str, script: str = "", variables: Mapping[str, str] | None = None
    ) -> str:
        """What it wrote; while slurmctld is away it is run again, if it changes nothing or may come twice.

        Raises SlurmAway, QuotaExceeded, SlurmRefusal.
        """
        give_up_at = self._clock.monotonic() + self._patience_seconds
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self.run_once(program, *arguments, script=script, variables=variables)
            except SlurmAway:
                if self._clock.monotonic() + pause >= give_up_at:
                    raise
            await self._clock.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def run_once(
        self, program: str, *arguments: str, script: str = "", variables: Mapping[str, str] | None = None
    ) -> str:
        """What it wrote; once. After SlurmAway it may have done what was asked all the same."""
        process = await self._start(program, arguments, variables or {})
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                written, said = await process.communicate(script.encode())
        except TimeoutError:
            raise SlurmAway(f"{program} did not answer within {ANSWER_SECONDS:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise refusal(program, said.decode(errors="replace"))
        return written.decode(errors="replace")

    async def _start(
        self, program: str, arguments: Sequence[str], variables: Mapping[str, str]
    ) -> asyncio.subprocess.Process:
        path = str(Path(self._settings.program_dir) / program) if self._settings.program_dir else program
        try:
            return await asyncio.create_subprocess_exec(
                *(path, *arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**self._environment, **variables},
                start_new_session=True,  # a Ctrl-C at our terminal is not for it
            )
        except FileNotFoundError:
            raise ProviderError(
                f"there is no {path} on this machine; install Slurm's client programs (Debian: slurm-client), "
                "or name their directory: slurm.program_dir"
            ) from None
        except OSError as error:
            raise ProviderError(f"{path} cannot be run: {error.strerror}") from error


def refusal(program: str, said: str) -> ProviderError:
    """What the words of a program that failed mean."""
    words = " ".join(line.strip() for line in said.splitlines() if line.strip()) or "it failed without a word"
    words = words.replace(f"{program}: error: ", "")
    lower = words.lower()
    if any(each in lower for each in _AWAY):
        return SlurmAway(f"slurmctld does not answer: {words}; `scontrol ping` tells where it should be")
    if any(each in lower for each in _QUOTA):
        return QuotaExceeded(
            f"Slurm has no room for more: {words}; see `sacctmgr show assoc user=$USER` and `sacctmgr show qos`, "
            "or lower pool.max_workers"
        )
    return SlurmRefusal(f"{program} was refused: {words}")


def _environment(settings: SlurmSettings) -> dict[str, str]:
    """Ours without what is meant for dtf itself, or for a job of Slurm's that we may run in.

    It becomes the environment of the jobs as far as slurm.export lets it.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DTF_", "SLURM_", "SBATCH_", "SQUEUE_", "SCANCEL_")) or name == "SLURM_CONF"
    }
    kept["SLURM_TIME_FORMAT"] = "%s"
    if settings.configuration:
        kept["SLURM_CONF"] = settings.configuration
    return kept
