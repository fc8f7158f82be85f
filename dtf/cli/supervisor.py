"""The supervisor of one project's stack: starts its parts, restarts what dies, stops with its last user.

    python -P -m dtf.cli.supervisor PROJECT_DIR      settings as JSON on the first line of standard input

Parts start in the order nats-server, then coordinator and trend analyzer, then resource manager, and
stop in the reverse order. Ports are chosen at the first start and stay, so that the others find a
part again that died. What the supervisor knows of its parts is in their settings file
(`.dtf/settings.json`), which is written anew before each start.

    starting ──all parts ready──▶ serving ──last member left · `dtf down` · SIGTERM──▶ stopping
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
import secrets
import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from dtf.adapters.nats_server import NatsServer
from dtf.adapters.system_clock import SystemClock
from dtf.cli.exit_codes import ExitCode
from dtf.cli.lifeline import VARIABLE, Lifeline
from dtf.cli.stack_members import MemberEvents, Members
from dtf.cli.stack_parts import CommandPart, NatsPart, Part, PartFailed, RestartPolicy
from dtf.client.stack import StackAddresses, addresses_document, write_private
from dtf.ports.clock import Clock
from dtf.settings.loader import dump_settings, parse_settings
from dtf.settings.model import Settings
from dtf.settings.project import make_private_dir, state_dir

_LEFTOVER_TIMEOUT_SECONDS = 20.0
_CANCEL_TIMEOUT_SECONDS = 20.0
_log = logging.getLogger("dtf.supervisor")


class StackFailed(Exception):
    """The stack cannot go on."""

    def __init__(self, what: str, *advice: str) -> None:
        super().__init__(what)
        self.what = what
        self.advice = advice


class StackPlan:
    """What the parts are told: settings, files and addresses of this stack, as far as they are known."""

    def __init__(self, project_dir: Path, settings: Settings) -> None:
        self.project_dir = project_dir
        self.state = state_dir(project_dir)
        self.secrets = make_private_dir(self.state / "secrets")
        self.logs = make_private_dir(self.state / "logs")
        self.settings_file = self.state / "settings.json"
        token_file = self.secrets / "token"
        if not token_file.exists():
            write_private(token_file, secrets.token_urlsafe(32) + "\n")
        self.owns_broker = not settings.nats.url
        self.settings = self._with_files(settings, str(token_file))

    def _with_files(self, settings: Settings, token_file: str) -> Settings:
        nats = settings.nats
        if self.owns_broker:
            nats = replace(nats, credentials_file=str(self.secrets / "nats"))
        return replace(
            settings,
            nats=nats,
            coordinator=replace(
                settings.coordinator,
                token_file=token_file,
                state_dir=str(self.state),
                blob_dir=settings.coordinator.blob_dir or str(self.state / "blobs"),
            ),
            worker=replace(settings.worker, token_file=token_file, pool=settings.pool.name),
            store=replace(settings.store, path=settings.store.path or str(self.state / "metrics.duckdb")),
            run=replace(settings.run, token_file=token_file),
        )

    def broker_ready(self, url: str) -> None:
        """The broker listens."""
        self.settings = replace(self.settings, nats=replace(self.settings.nats, url=url))

    def coordinator_ready(self, ready: dict[str, Any]) -> None:
        """The coordinator listens, and will listen there again."""
        address = str(ready["address"])
        self.settings = replace(
            self.settings,
            coordinator=replace(self.settings.coordinator, listen=address),
            worker=replace(self.settings.worker, server=address),
            run=replace(self.settings.run, server=address),
        )

    def analyzer_ready(self, ready: dict[str, Any]) -> None:
        """The trend analyzer listens, and will listen there again."""
        address = str(ready["address"])
        self.settings = replace(
            self.settings, analyzer=replace(self.settings.analyzer, listen=address, server=address)
        )

    def arguments(self, command: str) -> list[str]:
        """Command line of a part, with the settings as they are now in its file."""
        write_private(self.settings_file, dump_settings(self.settings))
        return ["--project", str(self.project_dir), "--settings", str(self.settings_file), command]

    def addresses(self) -> StackAddresses:
        """Where the parts are."""
        settings = self.settings
        return StackAddresses(
            server=settings.run.server,
            analysis=settings.analyzer.server,
            nats=settings.nats.url,
            token_file=settings.run.token_file,
            nats_credentials_file=settings.nats.credentials_file,
            namespace=settings.coordinator.namespace,
            supervisor_pid=os.getpid(),
            pool_min=settings.pool.min_workers,
            pool_max=settings.pool.max_workers,
        )


class Supervisor:
    """Runs one stack from its start to its end."""

    def __init__(self, plan: StackPlan, lifeline: Lifeline, lock: int, clock: Clock) -> None:
        self._plan = plan
        self._lifeline = lifeline
        self._lock = lock
        self._clock = clock
        self._stop = asyncio.Event()
        self._failure: StackFailed | None = None
        self._orphans: asyncio.Queue[frozenset[str]] = asyncio.Queue()
        self._pending_orphans: set[str] = set()
        self._restarts: dict[str, int] = {}
        self._members = Members(
            MemberEvents(
                on_empty=self._stop_when_orphans_are_cancelled,
                on_orphaned=self._take_orphans,
                on_runs_changed=self._remember_attached,
                on_stop=self._stop_for,
                describe=self._describe,
            )
        )
        self._stages = self._make_parts()
        self._is_serving = False
        self._is_empty = False

    @property
    def members(self) -> Members:
        """Who uses the stack."""
        return self._members

    @property
    def _parts(self) -> list[Part]:
        return [part for stage in self._stages for part in stage]

    def _make_parts(self) -> list[list[Part]]:
        plan = self._plan
        broker: list[Part] = []
        if plan.owns_broker:
            server = NatsServer(
                plan.state / "nats",
                Path(plan.settings.nats.credentials_file),
                log_file=plan.logs / "nats-server.log",
            )
            broker.append(NatsPart(server, plan.broker_ready))
        coordinator = self._command("coordinator", plan.coordinator_ready)
        analyzer = self._command("trend-analyzer", plan.analyzer_ready)
        manager = self._command("resource-manager", lambda ready: None)
        stages: list[list[Part]] = [broker, [coordinator, analyzer], [manager]]
        return [stage for stage in stages if stage]

    def _command(self, name: str, on_ready: Any) -> CommandPart:
        return CommandPart(
            name,
            lambda: self._plan.arguments(name),
            log_file=self._plan.logs / f"{name}.log",
            working_dir=self._plan.project_dir,
            inherited=(self._lifeline.descriptor, self._lock),
            on_ready=on_ready,
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
            _log.error("%s; %s", first.what, "; ".join(first.advice))
            self._members.tell("fatal", text=first.what, advice=list(first.advice))
            self._end()

    async def _serve(self) -> None:
        for stage in self._stages:
            self._members.tell("progress", text=f"starting {', '.join(part.name for part in stage)}")
            async with asyncio.TaskGroup() as starting:
                for part in stage:
                    starting.create_task(self._start_first(part))
        await self._cancel_left_behind()
        async with asyncio.TaskGroup() as keeping:
            for part in self._parts:
                keeping.create_task(self._keep(part))
            keeping.create_task(self._cancel_orphans())
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
            self._members.tell("note", text=f"{part.name} ended ({how}); it is being restarted")
            await self._clock.sleep(delay)
            try:
                await part.start()
            except PartFailed as failure:
                how = failure.what
                continue
            self._restarts[part.name] = self._restarts.get(part.name, 0) + 1
            self._write_stack_file()
            self._members.tell("note", text=f"{part.name} is back")
            how = await part.wait()

    def _announce(self) -> None:
        self._is_serving = True
        self._write_stack_file()
        self._members.tell("ready", addresses=addresses_document(self._plan.addresses()))
        _log.info("the stack serves at %s", self._plan.addresses().server)

    def _write_stack_file(self) -> None:
        document = addresses_document(self._plan.addresses())
        document["parts"] = {part.name: part.process_id for part in self._parts}
        write_private(self._plan.state / "stack.json", json.dumps(document, indent=1))

    def _describe(self) -> dict[str, Any]:
        return {
            "is_serving": self._is_serving,
            "is_kept_up": self._members.is_kept_up,
            "members": self._members.count,
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

    # Runs whose client went away: they are cancelled, by a child that speaks gRPC, before the stack stops.

    @property
    def _attached_file(self) -> Path:
        return self._plan.state / "attached.json"

    def _remember_attached(self) -> None:
        runs = sorted(self._members.attached_runs | self._pending_orphans)
        write_private(self._attached_file, json.dumps(runs))

    def _take_orphans(self, runs: frozenset[str]) -> None:
        self._pending_orphans |= runs
        self._orphans.put_nowait(runs)

    async def _cancel_left_behind(self) -> None:
        """Runs attached to members of an earlier stack that was killed: nobody waits for them any more."""
        try:
            runs = json.loads(self._attached_file.read_text())
        except (OSError, ValueError):
            return
        if isinstance(runs, list) and runs:
            await self._cancel(frozenset(map(str, runs)))
            self._remember_attached()

    async def _cancel_orphans(self) -> None:
        while True:
            runs = await self._orphans.get()
            await self._cancel(runs)
            self._pending_orphans -= runs
            self._remember_attached()
            if self._is_empty:
                self._stop_when_orphans_are_cancelled()

    async def _cancel(self, runs: Iterable[str]) -> None:
        arguments = self._plan.arguments("cancel")
        _log.info("cancelling %s: the client went away", ", ".join(sorted(runs)))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "dtf.cli.main", *arguments, "--reason", "its client went away"),
            *sorted(runs),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            pass_fds=(self._lifeline.descriptor,),
        )
        try:
            async with asyncio.timeout(_CANCEL_TIMEOUT_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def _stop_when_orphans_are_cancelled(self) -> None:
        self._is_empty = True
        if self._members.count or self._members.is_kept_up:
            self._is_empty = False
        elif not self._pending_orphans or not self._is_serving:
            self._end()

    def _end(self) -> None:
        self._members.is_closing = True
        self._stop.set()

    def _stop_for(self, who: str) -> None:
        if not self._stop.is_set():
            self._members.tell("fatal", text=f"the stack was stopped by {who}", advice=[])
            self._end()

    def stop(self) -> None:
        """Stop in good order, as SIGTERM asks."""
        self._stop_for(f"a signal to its supervisor (process {os.getpid()})")

    async def _shut_down(self) -> None:
        self._members.stop_listening()
        (self._plan.state / "supervisor.json").unlink(missing_ok=True)
        for part in reversed(self._parts):
            await part.stop()
        if not await self._lifeline.end(_LEFTOVER_TIMEOUT_SECONDS):
            _log.error("some processes of the stack did not end within %.0f s", _LEFTOVER_TIMEOUT_SECONDS)
        (self._plan.state / "stack.json").unlink(missing_ok=True)
        _log.info("the stack has stopped")


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


async def _supervise(project_dir: Path, lock: int) -> ExitCode:
    starter = await _open_standard_input()
    plan = StackPlan(project_dir, await _read_settings(starter))
    lifeline = Lifeline()
    os.environ[VARIABLE] = str(lifeline.descriptor)
    supervisor = Supervisor(plan, lifeline, lock, SystemClock())
    members = supervisor.members
    await members.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, supervisor.stop)
    document = {"pid": os.getpid(), "port": members.port, "secret": members.secret}
    write_private(plan.state / "supervisor.json", json.dumps(document))
    _say_that_it_listens()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(_await_end(starter, members))
        code = await supervisor.run()
        waiting.cancel()
    return code


async def _await_end(starter: asyncio.StreamReader, members: Members) -> None:
    while await starter.read(1 << 16):
        pass
    members.starter_left()


def _say_that_it_listens() -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write('{"ready": true}\n')
        sys.stdout.flush()
    # The starter reads no more; what imports might print must not reach a broken pipe.
    os.dup2(2, 1)


def _take_lock(state: Path) -> int:
    """The lock that says a stack of this project lives; parts inherit it. Exits if another holds it."""
    lock = os.open(state / "supervisor.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.stderr.write("another supervisor of this project lives\n")
        raise SystemExit(ExitCode.UNAVAILABLE) from None
    return lock


def main() -> None:
    """Entry point of the supervisor process."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    project_dir = Path(sys.argv[1]).resolve()
    lock = _take_lock(make_private_dir(state_dir(project_dir)))
    sys.exit(asyncio.run(_supervise(project_dir, lock)))


if __name__ == "__main__":
    main()
