"""A run of faults over several stacks at once, each a process with a mount namespace of its own."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dtf.cli.lifeline import VARIABLE, Lifeline
from dtf.settings.project import make_private_dir
from tests.chaos.clocks import find_compiler
from tests.chaos.disk import namespace_command, why_no_disk
from tests.chaos.faults import HARM, KIND_NAMES, KINDS
from tests.chaos.proxies import find_toxiproxy
from tests.chaos.system import Means
from tests.chaos.table import Struck, Tally

ROUND_FAULTS = 120
"""So many one system takes before the next one is made: tails, epochs and snapshots pile up."""
_ROOT = Path(__file__).resolve().parents[2]
_END_SECONDS = 90.0
_LINE_LIMIT_BYTES = 1 << 24


@dataclass(slots=True)
class Campaign:
    """What is asked for, and what came of it."""

    seed: str
    faults: int
    parallel: int
    kinds: Sequence[str]
    directory: Path
    round_faults: int = ROUND_FAULTS
    keep: bool = False
    tell: Callable[[str], None] = lambda _line: None
    tally: Tally = field(default_factory=Tally)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Stacks whose harness itself failed."""
    _lifeline: Lifeline = field(init=False)
    """Stacks end with us, however we end."""

    @property
    def is_clean(self) -> bool:
        """Nothing happened that may not."""
        return self.tally.is_clean and not self.failures and not self.broken

    async def run(self) -> None:
        """Strike with everything that was asked for."""
        make_private_dir(self.directory)
        self._lifeline = Lifeline()
        try:
            async with asyncio.TaskGroup() as group:
                for stack in range(self.parallel):
                    group.create_task(self._stack(stack))
        finally:
            await self._lifeline.end(_END_SECONDS)

    async def _stack(self, stack: int) -> None:
        command = [sys.executable, "-m", "tests.chaos.stack", "--seed", self.seed, "--stack", str(stack)]
        command += [
            "--stacks",
            str(self.parallel),
            "--faults",
            str(self.faults),
            "--round-faults",
            str(self.round_faults),
        ]
        command += ["--kinds", ",".join(self.kinds), "--directory", str(self.directory)]
        command += ["--keep"] if self.keep else []
        errors = self.directory / f"stack-{stack}.err"
        with errors.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *namespace_command(command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=_ROOT,
                limit=_LINE_LIMIT_BYTES,
                env={**os.environ, VARIABLE: str(self._lifeline.descriptor)},
                pass_fds=[self._lifeline.descriptor],
            )
            try:
                assert process.stdout is not None
                while line := await process.stdout.readline():
                    self._take(json.loads(line))
                code = await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if code not in (0, 1) or (code == 1 and not self.failures):
            last = errors.read_text(errors="replace").strip().splitlines()[-1:]
            self.broken.append(f"stack {stack} ended with {code}: {''.join(last)} ({errors})")

    def _take(self, said: dict[str, Any]) -> None:
        match said:
            case {"struck": document}:
                struck = Struck(**document)
                self.tally.struck.append(struck)
                recovered = f"{struck.recovery_seconds:.1f} s" if struck.recovery_seconds >= 0 else "NEVER"
                flight = f"{struck.leases} leases, {struck.waiting} requests in flight"
                self.tell(
                    f"{len(self.tally.struck):>5}/{self.faults} stack {struck.stack} #{struck.number:<4} "
                    f"{struck.kind:<20} {recovered:>7}  {flight}; {struck.detail}"
                )
            case {"round": document}:
                self.rounds.append(document)
                self.tell(
                    "round {number} of stack {stack}: {runs} runs, {verdicts} verdicts, {commits} commits, "
                    "{epochs} epochs checked".format(**document)
                )
            case {"failed": document}:
                self.failures.append(document)
                for found in document["found"]:
                    self.tally.found[found["kind"]][found["column"]] += 1
                    self.tell(f"  FOUND after {found['kind']}: {found['column']}: {found['what']}")
            case _:
                raise ValueError(f"a stack said {said!r}")


def available(wanted: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Of the wanted kinds: those this machine can do, and (name, why not) of the others."""
    means = Means(find_toxiproxy(), find_compiler(), why_no_disk())
    chosen = [kind for kind in (*KINDS, HARM) if kind.name in (wanted or KIND_NAMES)]
    left_out = [(kind.name, why) for kind in chosen if (why := kind.why_not(means))]
    missing = {name for name, _ in left_out}
    return [kind.name for kind in chosen if kind.name not in missing], left_out


def new_directory() -> Path:
    """Where a campaign works, if nobody says."""
    return Path(tempfile.mkdtemp(prefix="dtf-chaos-"))
