"""Un-fsynced loss of the broker's tail: a copy of its store from before is put back; an operator repairs."""

import asyncio
import shutil
import signal
import subprocess
from pathlib import Path

from dtf.adapters.jetstream_log import JetStreamLog
from tests.chaos.system import COORDINATORS, System
from tests.chaos.watch import LogWatch

LOST_COMMITS = 12
"""At least so many commits are forgotten."""
REPAIR_SECONDS = 60.0


class RepairFailed(Exception):
    """`dtf log repair` did not bring back what the broker forgot."""


async def lose_tail(system: System, watch: LogWatch, *, accept: bool = False) -> str:
    """Copy the store, let the log grow, put the copy back, repair, go on.

    With `accept` the operator lets the log go on without what it lost: then something is lost, a submission
    at least.
    """
    copy = system.directory / "store-of-before"
    await _copy_store(system, copy)
    copied, submitted = watch.sequence, watch.submissions
    while watch.sequence < copied + LOST_COMMITS or (accept and watch.submissions == submitted):
        await watch.moved()
    coordinators = [system.members[name] for name in COORDINATORS]
    for member in coordinators:
        member.hold()
    try:
        await _put_back(system, copy)
        lost = watch.sequence
        detected = await _wait_until_refused(system)
        said = await _repair(system, await _head(system) if accept else None)
    finally:
        for member in coordinators:
            member.release()
    return f"store of message {copied} put back at {lost}; coordinators ended with {detected}; {said}"


async def _copy_store(system: System, copy: Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    system.broker.send(signal.SIGSTOP)
    try:
        await asyncio.to_thread(shutil.copytree, system.store_dir, copy)
    finally:
        system.broker.send(signal.SIGCONT)


async def _put_back(system: System, copy: Path) -> None:
    system.broker.hold()
    try:
        system.broker.send(signal.SIGKILL)
        await system.broker.down.wait()
        shutil.rmtree(system.store_dir)
        await asyncio.to_thread(shutil.copytree, copy, system.store_dir)
    finally:
        system.broker.release()
    await system.broker.ready.wait()


async def _wait_until_refused(system: System) -> str:
    """The exit codes of the coordinators, once both have noticed and ended."""
    members = [system.members[name] for name in COORDINATORS]
    for member in members:
        await member.down.wait()
    return " and ".join(str(member.exit_codes[-1]) for member in members)


async def _head(system: System) -> int:
    log = await JetStreamLog.attach(system.nats, "default", system.clock)
    try:
        return (await log.head()).last_sequence
    finally:
        await log.close()


async def _repair(system: System, accepted: int | None) -> str:
    """What `dtf log repair` says on each coordinator's machine. Raises RepairFailed if any has the last word against it.

    Where both led within what was forgotten, each has a part of it: who led last can go on only when the other has.
    """
    options = [] if accepted is None else ["--accept-loss", str(accepted)]
    said: list[str] = []
    for _ in COORDINATORS:
        answers = {name: await _repair_on(system, name, options) for name in COORDINATORS}
        said += [f"{name}: {answer}"[:300] for name, answer in answers.items()]
        refused = [answer for answer in answers.values() if not answer.startswith("exit 0:")]
        if not refused or accepted is not None:
            break
    if len(refused) > (0 if accepted is None else len(COORDINATORS) - 1):
        raise RepairFailed("\n".join(said))
    return "; ".join(answer.replace("\n", " / ") for answer in said)


async def _repair_on(system: System, name: str, options: list[str]) -> str:
    done = await asyncio.to_thread(
        subprocess.run,
        system.dtf(name, "log", "repair", *options),
        env=system.environment(name),
        capture_output=True,
        text=True,
        timeout=REPAIR_SECONDS,
    )
    return f"exit {done.returncode}: {(done.stdout + done.stderr).strip()}"
