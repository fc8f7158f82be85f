"""Load without pause: clients that submit, watch and keep a journal of what they were told.

What the tasks do, they note in a file themselves (`executions`): "begin TOKEN" and "end TOKEN".
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio

from dtf.api.v1 import common_pb2, run_service_pb2
from dtf.client.client import Client
from dtf.client.run import RunHandle
from dtf.client.submission import SubmissionFailed
from dtf.ports.clock import Clock

BATCH_TASKS = 6
BATCHES_PER_RUN = 40
BATCHES_PER_CALLABLE_RUN = 10
CALLABLE_PAUSE_SECONDS = 20.0
"""Between two runs of callables, unless some are wanted: each process that ran some serves one run, and costs a
third of a second of processor time."""
OUTSTANDING_TASKS = 18
"""Tasks of one client that may wait for their verdicts."""
INFRASTRUCTURE_RETRIES = 20
"""Chance may kill the workers of one case again and again: that must not become its verdict."""
PAUSE_SECONDS = 0.1
PROBE_TASKS = 2
SCRIPT = """\
echo "begin $1" >>"$2"
sleep "$3"
echo "end $1" >>"$2"
"""


@dataclass(slots=True)
class Submitted:
    """What a client was told of one run."""

    run_id: str
    created_at: float
    names: list[str] = field(default_factory=list)
    """Tasks that were acknowledged, in order."""
    acknowledged_at: list[float] = field(default_factory=list)
    """When, for each of them."""
    sealed_at: float = 0.0
    """0: the seal was not acknowledged."""
    seen: Counter[int] = field(default_factory=Counter)
    """How often the client saw a verdict of each task while it watched."""
    is_finished: bool = False
    """The client saw its end."""
    cancelled: bool = False
    has_callables: bool = False


class Load:
    """Clients of one system. `run` keeps `clients` of them busy until `stop`."""

    def __init__(self, client: Client, directory: Path, clock: Clock, seed: int) -> None:
        self.journal: dict[str, Submitted] = {}
        self.waiting = 0
        """Requests sent and not answered yet: their commits are being made."""
        self.sending = asyncio.Event()
        """Set while there are any."""
        self.troubles: Counter[str] = Counter()
        self.executions = directory / "executions"
        self._client = client
        self._directory = directory
        self._clock = clock
        self._draw = random.Random(seed)
        self._stopping = asyncio.Event()
        self._callables_wanted = asyncio.Event()
        self._progress = asyncio.Event()
        (directory / "task.sh").write_text(SCRIPT)

    def stop(self) -> None:
        """Submit no more; what was submitted is to finish."""
        self._stopping.set()
        self._callables_wanted.set()

    def want_callables(self) -> None:
        """Let the next run of callables begin."""
        self._callables_wanted.set()

    @property
    def callables_run(self) -> bool:
        """Whether tasks that are callables have begun and not ended, as far as the clients know."""
        return any(
            each.has_callables and each.seen and len(each.seen) < len(each.names) and not each.is_finished
            for each in self.journal.values()
        )

    async def stream(self, name: str, function: str = "") -> None:
        """One client: run after run until told to stop; each is watched to its end."""
        async with asyncio.TaskGroup() as watchers:
            number = 0
            while not self._stopping.is_set():
                number += 1
                if function and number > 1:
                    await self._pause_callables()
                    if self._stopping.is_set():
                        return
                handle = await self._create(f"{name}-{number}", function)
                if handle is None:
                    continue
                submitted = self.journal[handle.run_id]
                submitted.has_callables = bool(function)
                watchers.create_task(self._watch(handle, submitted))
                try:
                    await self._fill(handle, submitted, f"{name}-{number}", function)
                except (SubmissionFailed, grpc.aio.AioRpcError) as error:
                    self._note(error)
                    await self._give_up(submitted)

    async def probe(self, name: str) -> None:
        """A small run from its submission to its end, tried again until it is through."""
        while True:
            handle = await self._create(name, "")
            if handle is None:
                continue
            submitted = self.journal[handle.run_id]
            try:
                await self._submit(handle, submitted, self._tasks(name, 0, PROBE_TASKS, ""))
                await handle.seal()
                submitted.sealed_at = self._clock.monotonic()
            except (SubmissionFailed, grpc.aio.AioRpcError) as error:
                self._note(error)
                await self._give_up(submitted)
                continue
            await self._watch(handle, submitted)
            return

    # -- one run

    async def _create(self, name: str, function: str) -> RunHandle | None:
        request = run_service_pb2.CreateRunRequest(
            suite=f"chaos-{name}", templates=[self._template(function)]
        )
        self._sent(1)
        try:
            handle = await self._client.create_run(request)
        except grpc.aio.AioRpcError as error:
            self._note(error)
            await self._clock.sleep(PAUSE_SECONDS)
            return None
        finally:
            self._sent(-1)
        self.journal[handle.run_id] = Submitted(handle.run_id, self._clock.monotonic())
        return handle

    def _template(self, function: str) -> common_pb2.TaskTemplate:
        retry = common_pb2.RetryPolicy(infrastructure_retries=INFRASTRUCTURE_RETRIES)
        template = common_pb2.TaskTemplate(retry=retry, timeout_seconds=60.0)
        if function:
            template.callable.CopyFrom(
                common_pb2.CallableSpec(
                    function=function, working_dir=str(self._directory), import_path=[str(_ROOT)]
                )
            )
        else:
            argv = ["sh", str(self._directory / "task.sh")]
            template.command.CopyFrom(common_pb2.CommandSpec(argv=argv, working_dir=str(self._directory)))
        return template

    def _tasks(self, name: str, first: int, count: int, function: str) -> list[common_pb2.TaskSpec]:
        tasks: list[common_pb2.TaskSpec] = []
        for index in range(first, first + count):
            token = f"{name}/{index}"
            seconds = self._draw.choice((0.02, 0.05, 0.1))
            payload: Sequence[object] = [token, str(self.executions), seconds if function else str(seconds)]
            tasks.append(common_pb2.TaskSpec(name=token, payload=json.dumps(payload)))
        return tasks

    async def _fill(self, handle: RunHandle, submitted: Submitted, name: str, function: str) -> None:
        for batch in range(BATCHES_PER_CALLABLE_RUN if function else BATCHES_PER_RUN):
            if self._stopping.is_set():
                break
            await self._submit(
                handle, submitted, self._tasks(name, batch * BATCH_TASKS, BATCH_TASKS, function)
            )
            while (
                len(submitted.names) - len(submitted.seen) > OUTSTANDING_TASKS and not self._stopping.is_set()
            ):
                await self._next_progress()
        await handle.seal()
        submitted.sealed_at = self._clock.monotonic()

    async def _next_progress(self) -> None:
        self._progress.clear()
        with suppress(TimeoutError):  # to see whether it is time to stop
            async with asyncio.timeout(1.0):
                await self._progress.wait()

    async def _pause_callables(self) -> None:
        self._callables_wanted.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(CALLABLE_PAUSE_SECONDS):
                await self._callables_wanted.wait()

    async def _submit(
        self, handle: RunHandle, submitted: Submitted, tasks: Sequence[common_pb2.TaskSpec]
    ) -> None:
        self._sent(1)
        try:
            await handle.submit_many(tasks)
        finally:
            self._sent(-1)
        now = self._clock.monotonic()
        submitted.names += [task.name for task in tasks]
        submitted.acknowledged_at += [now] * len(tasks)

    async def _watch(self, handle: RunHandle, submitted: Submitted) -> None:
        """See every verdict of the run, whoever leads; begins again where it was when a stream fails for good."""
        after = 0
        while not submitted.is_finished:
            try:
                async for watched in handle.watch(after_sequence=after, omit_details=True):
                    after = max(after, watched.sequence)
                    if watched.event is None:
                        continue
                    if watched.event.HasField("run_finished"):
                        submitted.is_finished = True
                    if watched.event.HasField("results_accepted"):
                        submitted.seen.update(watched.event.results_accepted.tasks)
                    self._progress.set()
            except grpc.aio.AioRpcError as error:
                self._note(error)
                if error.code() == grpc.StatusCode.NOT_FOUND:
                    return  # it was acknowledged: the books will say that it is lost
                await self._clock.sleep(PAUSE_SECONDS)
            except TimeoutError as error:
                self._note(error)  # nobody led for as long as a client waits; somebody will

    async def _give_up(self, submitted: Submitted) -> None:
        submitted.cancelled = True
        while True:
            try:
                await self._client.cancel_run(submitted.run_id, "a submission failed")
            except grpc.aio.AioRpcError as error:
                self._note(error)
                if error.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND):
                    return  # it has ended, or is gone
                await self._clock.sleep(PAUSE_SECONDS)
            else:
                return

    def _sent(self, change: int) -> None:
        self.waiting += change
        if self.waiting:
            self.sending.set()
        else:
            self.sending.clear()

    def _note(self, error: BaseException) -> None:
        cause = error.__cause__ if isinstance(error, SubmissionFailed) else error
        code = cause.code().name if isinstance(cause, grpc.aio.AioRpcError) else type(error).__name__
        self.troubles[code] += 1


_ROOT = Path(__file__).resolve().parents[2]
