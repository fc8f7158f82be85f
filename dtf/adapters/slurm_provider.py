"""Workers as jobs of a Slurm cluster.

A launch is a batch job, or a task of a job array where several come at once. Its comment says whose it
is and which launch, so whoever starts later finds it again in the queue, and so does a launch whose
answer was lost: the queue is looked at before anything is submitted.

slurmctld remembers a job that has ended for a while (MinJobAge, 300 s unless told otherwise); one that
it forgot before it was seen to end is looked up in the accounting (sacct), if the cluster has one.
While slurmctld is away the launches stay as they are known: jobs that run go on without it.
"""

import asyncio
import inspect
import logging
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dtf.adapters.kubernetes_objects import Owner
from dtf.adapters.slurm_book import JobBook, JobLaunch
from dtf.adapters.slurm_commands import (
    FIRST_PAUSE_SECONDS,
    PATIENCE_SECONDS,
    SlurmAway,
    SlurmCommands,
    SlurmRefusal,
)
from dtf.adapters.slurm_jobs import (
    PENDING,
    Job,
    accounting_arguments,
    queue_arguments,
    read_accounting,
    read_queue,
)
from dtf.adapters.slurm_script import (
    PreparedLaunch,
    fits_an_array,
    job_options,
    job_script,
    job_variables,
    resource_options,
)
from dtf.adapters.worker_command import worker_command
from dtf.adapters.worker_log import last_words
from dtf.ports.capacity import (
    Instance,
    LaunchRequest,
    ProviderError,
    QuotaExceeded,
    WorkerCommand,
    WorkerEnvironment,
)
from dtf.ports.clock import Clock
from dtf.settings.providers import SlurmSettings

SLICE_SECONDS = 0.25
"""How late, at most, what had its grace is ended hard."""
UNKILLABLE_SECONDS = 10.0
"""After this long the whole job is cancelled, whatever holds its shell."""
LONGEST_PAUSE_SECONDS = 30.0
"""Between looks at the queue while slurmctld is away."""

_log = logging.getLogger("dtf.slurm")


@dataclass(slots=True)
class _Waiting:
    """A launch that is to be submitted."""

    prepared: PreparedLaunch
    options: list[str]
    error: ProviderError | None = None
    is_done: bool = False


def slurm_worker_command(settings: SlurmSettings) -> WorkerCommand:
    """The command line of a worker on a node."""
    return worker_command(settings.program.split() or [sys.executable, "-P", "-m", "dtf.cli.main"])


class SlurmProvider:
    """A CapacityProvider whose instances are batch jobs. Call `start` first."""

    def __init__(
        self,
        command: WorkerCommand,
        *,
        settings: SlurmSettings,
        owner: Owner,
        logs_dir: Path,
        clock: Clock,
        environment: WorkerEnvironment | None = None,
        working_dir: Path | None = None,
        commands: SlurmCommands | None = None,
    ) -> None:
        """`logs_dir`: where workers write unless slurm.log_dir says otherwise."""
        self._command = command
        self._settings = settings
        self._owner = owner
        self._logs_dir = Path(settings.log_dir or logs_dir).absolute()
        self._clock = clock
        self._environment = environment
        self._working_dir = working_dir
        self._slurm = commands or SlurmCommands(settings, clock)
        self._book = JobBook()
        self._waiting: dict[str, _Waiting] = {}
        self._submitting = asyncio.Lock()
        self._looked_at = -float("inf")

    async def start(self) -> None:
        """Find the launches of an earlier provider."""
        self._logs_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self._refresh()

    async def launch(self, request: LaunchRequest) -> Instance:
        """Submit a job unless its launch is known; launches that come meanwhile are submitted at once."""
        if known := self._book.get(request.launch_id):
            return self._instance(known)
        waiting = await self._prepare(request)
        self._waiting[request.launch_id] = waiting
        try:
            async with self._submitting:
                if not waiting.is_done:
                    await self._submit(self._batch_with(waiting))
        finally:
            if self._waiting.get(request.launch_id) is waiting:
                del self._waiting[request.launch_id]
        launch = self._book.get(request.launch_id)
        if launch is None:
            raise waiting.error or ProviderError(
                f"{request.launch_id} was submitted and is gone; launch it again"
            )
        return self._instance(launch)

    async def list_instances(self) -> Sequence[Instance]:
        """Every job with our comment that was not forgotten, by launch id."""
        await self._refresh()
        return [self._instance(launch) for launch in self._book.launches()]

    async def terminate(self, launch_id: str, grace_seconds: float) -> None:
        """SIGTERM to the worker now, SIGKILL to it after `grace_seconds`; one that waits leaves the queue."""
        launch = self._book.get(launch_id)
        if launch is None or launch.has_exited or launch.is_ended_by_us:
            return
        launch.kill_at = self._clock.monotonic() + grace_seconds
        try:
            if launch.job.state == PENDING:  # it may have begun since; what has is left to the next line
                await self._cancel(launch.job, "--state=PENDING")
            await self._cancel(launch.job, "--batch", "--signal=TERM")
        except BaseException:
            launch.kill_at = None
            raise

    async def forget(self, launch_id: str) -> None:
        """Drop an exited launch, and its log if it ended well."""
        launch = self._book.get(launch_id)
        if launch is None or not launch.has_exited:
            return
        self._book.forget(launch)
        if launch.is_clean:
            await asyncio.to_thread(self._log_path(launch_id).unlink, missing_ok=True)

    async def exits(self) -> AsyncIterator[Instance]:
        """Each running instance as it exits."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._end_overdue()
                if self._clock.monotonic() - self._looked_at >= self._settings.poll_seconds:
                    await self._refresh()
                pause = FIRST_PAUSE_SECONDS
            except ProviderError as fault:
                _log.warning("workers cannot be watched (%s); again in %.1f s", fault, pause)
                await self._clock.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            for launch in self._book.take_exits():
                yield self._instance(launch)
            await self._clock.sleep(min(SLICE_SECONDS, self._settings.poll_seconds))

    async def close(self) -> None:
        """Nothing is held open; the jobs go on."""

    # -- submitting

    async def _prepare(self, request: LaunchRequest) -> _Waiting:
        variables: Mapping[str, str] = {}
        if self._environment is not None:
            given = self._environment(request)
            variables = await given if inspect.isawaitable(given) else given
        log = str(self._log_path(request.launch_id))
        prepared = PreparedLaunch(request, self._command(request), log, variables)
        return _Waiting(prepared, resource_options(self._settings, request))

    def _batch_with(self, first: _Waiting) -> list[_Waiting]:
        """`first`, and what else waits that may share an array with it."""
        batch = [first]
        now_ns = self._clock.now_ns()
        for other in self._waiting.values():
            if other is first or other.is_done or other.options != first.options:
                continue
            ids = [each.prepared.request.launch_id for each in (*batch, other)]
            if fits_an_array(self._owner, now_ns, ids):
                batch.append(other)
        return batch

    async def _submit(self, batch: Sequence[_Waiting]) -> None:
        """Have jobs for all of them; each is done, in the book or with its error."""
        try:
            await self._submit_missing([waiting.prepared for waiting in batch])
        except ProviderError as error:
            for waiting in batch:
                waiting.error = error
        for waiting in batch:
            waiting.is_done = True

    async def _submit_missing(self, batch: Sequence[PreparedLaunch]) -> None:
        give_up_at = self._clock.monotonic() + PATIENCE_SECONDS
        while True:
            await self._refresh()  # an earlier process, or a try that was not answered, may have made it
            missing = [each for each in batch if self._book.get(each.request.launch_id) is None]
            if not missing:
                return
            self._refuse_at_limit()
            try:
                await self._submit_once(missing)
            except SlurmAway:
                if self._clock.monotonic() >= give_up_at:
                    raise
                await self._clock.sleep(FIRST_PAUSE_SECONDS)

    async def _submit_once(self, launches: Sequence[PreparedLaunch]) -> None:
        now_ns = self._clock.now_ns()
        options = job_options(self._settings, self._owner, launches, now_ns)
        if self._working_dir is not None:
            options.append(f"--chdir={self._working_dir.absolute()}")
        answer = await self._slurm.run_once(
            "sbatch",
            *options,
            script=job_script(self._settings, launches),
            variables=job_variables(self._settings, launches),
        )
        number = answer.strip().partition(";")[0]
        for index, launch in enumerate(launches):
            job_id = f"{number}_{index}" if len(launches) > 1 else number
            self._book.made(Job(job_id, launch.request.launch_id, now_ns))

    def _refuse_at_limit(self) -> None:
        for launch in self._book.launches():
            if not launch.has_exited and launch.job.is_at_limit:
                raise QuotaExceeded(
                    f"job {launch.job.job_id} ({launch.launch_id}) waits for a limit already: {launch.job.why}; "
                    "more would wait too. Have the limit raised, or lower pool.max_workers"
                )

    # -- watching

    async def _refresh(self) -> None:
        """Take in the whole queue."""
        number = self._book.begin_list()
        text = await self._slurm.run("squeue", *queue_arguments())
        self._looked_at = self._clock.monotonic()
        doubles = self._book.absorb(number, read_queue(text, self._owner))
        for job in doubles:
            _log.warning("job %s is a second one of %s; it is cancelled", job.job_id, job.launch_id)
            await self._cancel(job)
        for launch in self._book.vanished(number):
            await self._look_up(launch)
        for launch in self._book.waiting_longer(
            self._clock.now_ns() - round(self._settings.pending_patience_seconds * 1e9)
        ):
            launch.given_up = (
                f"was given up: for {self._settings.pending_patience_seconds:g} s it was not started "
                f"({launch.job.why or 'no reason given'}); see slurm.pending_patience_seconds"
            )
            await self._cancel(launch.job, "--state=PENDING")
        for launch in self._book.unheard():
            launch.last_words = await asyncio.to_thread(last_words, self._log_path(launch.launch_id))

    async def _look_up(self, launch: JobLaunch) -> None:
        """What became of a job that slurmctld no longer knows."""
        try:
            text = await self._slurm.run("sacct", *accounting_arguments(launch.job.job_id))
        except SlurmRefusal:
            text = ""  # the cluster keeps no accounting
        if (ended := read_accounting(text, launch.job)) is not None:
            launch.job = ended
        else:
            launch.lost = (
                "is no longer known to slurmctld, and the accounting (sacct) does not say how it ended"
            )

    async def _end_overdue(self) -> None:
        """End hard what had its grace."""
        now = self._clock.monotonic()
        for launch in self._book.overdue(now):
            if launch.is_killed:
                await self._cancel(launch.job)
                launch.kill_at = float("inf")
            else:
                await self._cancel(launch.job, "--batch", "--signal=KILL")
                launch.is_killed = True
                launch.kill_at = now + UNKILLABLE_SECONDS

    async def _cancel(self, job: Job, *options: str) -> None:
        try:
            await self._slurm.run("scancel", *options, job.job_id)
        except SlurmRefusal as refusal:
            _log.info("%s: %s", job.job_id, refusal)  # it has ended meanwhile: the next look tells

    def _instance(self, launch: JobLaunch) -> Instance:
        return launch.instance(self._clock.now_ns(), 2 * self._settings.time_limit_grace_seconds)

    def _log_path(self, launch_id: str) -> Path:
        return self._logs_dir / f"worker-{launch_id}.log"
