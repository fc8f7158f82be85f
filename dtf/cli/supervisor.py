"""The supervisor of one project's stack: starts its parts, restarts what dies, stops with its last user.

    python -P -m dtf.cli.supervisor PROJECT_DIR      settings as JSON on the first line of standard input

nats-server starts first, then the others together; they stop in the order resource manager, trend
analyzer, coordinator, nats-server. Ports are chosen before and stay, so that the others find a part
again that died. What the supervisor knows of its parts is in their settings file
(`.dtf/settings.json`), which is written anew before each start.

    starting ──all parts ready──▶ serving ──last member left · `dtf down` · SIGTERM · .dtf deleted──▶ stopping
        └───a part failed for good───┴─a part keeps dying──▶ (members are told why) ──▶ stopping

Standard input is a hold on the stack as well: the process that starts the supervisor keeps it open
until it has joined by a connection, so that its death in between leaves nothing behind.
"""

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dtf.adapters.system_clock import SystemClock
from dtf.cli.exit_codes import ExitCode
from dtf.cli.lifeline import VARIABLE, Lifeline
from dtf.cli.orphaned_runs import OrphanedRuns
from dtf.cli.stack_members import MemberEvents, Members
from dtf.cli.stack_parts import DTF_PROGRAM, Part, PartFailed, RestartPolicy
from dtf.cli.stack_plan import StackPlan, make_stages
from dtf.client.stack import addresses_document
from dtf.ports.clock import Clock
from dtf.settings.loader import parse_settings
from dtf.settings.model import Settings
from dtf.settings.project import SUPERVISOR_LOCK, make_private_dir, state_dir, write_private

_LEFTOVER_TIMEOUT_SECONDS = 20.0
_LOCK_TIMEOUT_SECONDS = 2.0
_PROJECT_LOOK_SECONDS = 1.0
_log = logging.getLogger("dtf.supervisor")


class StackFailed(Exception):
    """The stack cannot go on."""

    def __init__(self, what: str, *advice: str) -> None:
        super().__init__(what)
        self.what = what
        self.advice = advice


class Supervisor:
    """Runs one stack from its start to its end."""

    def __init__(
        self, plan: StackPlan, stages: Sequence[Sequence[Part]], orphans: OrphanedRuns, clock: Clock
    ) -> None:
        self._plan = plan
        self._stages = stages
        self._parts = [part for stage in stages for part in stage]
        self._orphans = orphans
        self._clock = clock
        self._stop = asyncio.Event()
        self._failure: StackFailed | None = None
        self._restarts: dict[str, int] = {}
        self._is_serving = False
        self.members = Members(
            MemberEvents(
                on_empty=self._stop_if_unused,
                on_orphaned=orphans.orphaned,
                on_runs_changed=lambda: orphans.attached(self.members.attached_runs),
                on_stop=self.stop_for,
                describe=self._describe,
            ),
            starter_process_id=os.getppid(),
        )

    async def run(self) -> ExitCode:
        """Serve until the stack is no longer wanted, or cannot go on; nothing is left running then."""
        try:
            async with asyncio.TaskGroup() as tasks:
                serving = tasks.create_task(self._serve_or_fail())
                await self._stop.wait()
                serving.cancel()
        finally:
            await self._shut_down()
        return ExitCode.UNAVAILABLE if self._failure else ExitCode.OK

    async def _serve_or_fail(self) -> None:
        try:
            await self._serve()
        except* (StackFailed, PartFailed) as failures:
            first = next(_leaves(failures))
            assert isinstance(first, (StackFailed, PartFailed))
            self._failure = StackFailed(first.what, *first.advice)
            _log.error("%s", "; ".join((first.what, *first.advice)))
            self.members.tell("fatal", text=first.what, advice=list(first.advice))
            self._end()

    async def _serve(self) -> None:
        for stage in self._stages:
            self.members.tell("progress", text=f"starting {', '.join(part.name for part in stage)}")
            async with asyncio.TaskGroup() as starting:
                for part in stage:
                    starting.create_task(self._start_first(part))
        self._orphans.load()
        await self._orphans.cancel_pending()
        async with asyncio.TaskGroup() as keeping:
            for part in self._parts:
                keeping.create_task(self._keep(part))
            keeping.create_task(self._orphans.serve(on_settled=self._stop_if_unused))
            self._announce()

    async def _start_first(self, part: Part) -> None:
        """A first start fails for good when the part says why; one that was killed is tried again."""
        policy = RestartPolicy()
        while True:
            try:
                return await part.start()
            except PartFailed as failure:
                delay = policy.delay_after_death(self._clock.monotonic())
                if failure.is_final or delay is None:
                    raise
                await self._clock.sleep(delay)

    async def _keep(self, part: Part) -> None:
        """Start the part again whenever it ends."""
        policy = RestartPolicy()
        how = await part.wait()
        while True:
            delay = policy.delay_after_death(self._clock.monotonic())
            if delay is None:
                raise StackFailed(
                    f"{part.name} keeps dying: {how}", f"its log is {self._plan.logs / part.name}.log"
                )
            _log.warning("%s ended (%s); it is started again", part.name, how)
            self.members.tell("note", text=f"{part.name} ended ({how}); it is being restarted")
            await self._clock.sleep(delay)
            try:
                await part.start()
            except PartFailed as failure:
                if failure.exit_code == ExitCode.LOG_LOST:
                    raise  # it said what an operator must decide; starting again changes nothing
                how = failure.what
                continue
            self._restarts[part.name] = self._restarts.get(part.name, 0) + 1
            self._write_stack_file()
            self.members.tell("note", text=f"{part.name} is back")
            how = await part.wait()

    def _announce(self) -> None:
        self._is_serving = True
        self._write_stack_file()
        self.members.tell("ready", addresses=addresses_document(self._plan.addresses()))
        _log.info("the stack serves at %s", self._plan.addresses().server)

    def _write_stack_file(self) -> None:
        document = addresses_document(self._plan.addresses())
        document["parts"] = {part.name: part.process_id for part in self._parts}
        write_private(self._plan.state / "stack.json", json.dumps(document, indent=1))

    def _describe(self) -> dict[str, Any]:
        return {
            "is_serving": self._is_serving,
            "is_kept_up": self.members.is_kept_up,
            "members": len(self.members),
            "addresses": addresses_document(self._plan.addresses()),
            "parts": [
                {
                    "name": part.name,
                    "process_id": part.process_id,
                    "restarts": self._restarts.get(part.name, 0),
                }
                for part in self._parts
            ],
        }

    def _stop_if_unused(self) -> None:
        """Stop unless someone uses the stack, or a run must still be cancelled, which calls this again."""
        if self.members.is_unused and (self._orphans.is_settled or not self._is_serving):
            self._end()

    def _end(self) -> None:
        self.members.is_closing = True
        self._stop.set()

    def stop_for(self, who: str) -> None:
        """Stop in good order; members hear that `who` stopped the stack."""
        if not self._stop.is_set():
            self.members.tell("fatal", text=f"the stack was stopped by {who}", advice=[])
            self._end()

    def stop(self) -> None:
        """Stop in good order, as SIGTERM asks."""
        self.stop_for(f"a signal to its supervisor (process {os.getpid()})")

    async def _shut_down(self) -> None:
        self.members.stop_listening()
        (self._plan.state / "supervisor.json").unlink(missing_ok=True)
        for part in reversed(self._parts):
            await part.stop()
        (self._plan.state / "stack.json").unlink(missing_ok=True)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def _read_settings(reader: asyncio.StreamReader) -> Settings:
    line = await reader.readline()
    if not line:
        raise SystemExit(ExitCode.USAGE)
    return parse_settings(line.decode(), "standard input").settings


async def _open_standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    return reader


async def _supervise(project_dir: Path, lock: int, program: Sequence[str]) -> ExitCode:
    starter = await _open_standard_input()
    plan = StackPlan(project_dir, await _read_settings(starter))
    lifeline = Lifeline()
    os.environ[VARIABLE] = str(lifeline.descriptor)
    inherited = (lifeline.descriptor, lock)
    orphans = OrphanedRuns(
        plan.state / "attached.json", lambda: [*program, *plan.arguments("cancel")], inherited
    )
    supervisor = Supervisor(plan, make_stages(plan, inherited, program), orphans, SystemClock())
    await _listen(supervisor, plan)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(_await_end(starter, supervisor.members))
        watching = tasks.create_task(_end_without_state(supervisor, plan.state, lock))
        code = await supervisor.run()
        waiting.cancel()
        watching.cancel()
    plan.release_ports()
    if not await lifeline.end(_LEFTOVER_TIMEOUT_SECONDS):
        _log.error("some processes of the stack did not end within %.0f s", _LEFTOVER_TIMEOUT_SECONDS)
    _log.info("the stack has stopped")
    return code


async def _listen(supervisor: Supervisor, plan: StackPlan) -> None:
    members = supervisor.members
    await members.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, supervisor.stop)
    document = {"pid": os.getpid(), "port": members.port, "secret": members.secret}
    write_private(plan.state / "supervisor.json", json.dumps(document))
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write('{"ready": true}\n')
        sys.stdout.flush()
    os.dup2(2, 1)  # the starter reads no more; what is printed later must not meet a broken pipe


async def _end_without_state(supervisor: Supervisor, state: Path, lock: int) -> None:
    """Stop the stack when its state directory was deleted: nobody could find, join or stop it any more."""
    clock = SystemClock()
    while _is_still_there(state / SUPERVISOR_LOCK, lock):
        await clock.sleep(_PROJECT_LOOK_SECONDS)
    supervisor.stop_for(f"the deletion of {state}")


def _is_still_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


async def _await_end(starter: asyncio.StreamReader, members: Members) -> None:
    while await starter.read(1 << 16):
        pass
    members.starter_left()


def _take_lock(state: Path) -> int:
    """The lock that says a stack of this project lives; parts inherit it. Exits if another holds it.

    Whoever looks whether it is taken holds it for a moment; hence the second tries.
    """
    lock = os.open(state / SUPERVISOR_LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    deadline = time.monotonic() + _LOCK_TIMEOUT_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() > deadline:
                sys.stderr.write("another supervisor of this project lives\n")
                raise SystemExit(ExitCode.UNAVAILABLE) from None
            time.sleep(0.01)


def main(program: Sequence[str] = DTF_PROGRAM) -> None:
    """Entry point of the supervisor process. `program` is the command its parts are subcommands of."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    project_dir = Path(sys.argv[1]).resolve()
    lock = _take_lock(make_private_dir(state_dir(project_dir)))
    sys.exit(asyncio.run(_supervise(project_dir, lock, program)))


if __name__ == "__main__":
    main()
