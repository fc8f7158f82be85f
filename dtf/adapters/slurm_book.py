"""What a Slurm provider knows of its launches, from what it did and what the queue said.

An answer of squeue that was asked for before a job was made does not show it, so answers are numbered,
and only one that was asked for later can say that a job is gone.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from dtf.adapters.slurm_jobs import PENDING, Job
from dtf.ports.capacity import Instance, InstanceState


@dataclass(slots=True)
class JobLaunch:
    """A launch and its job."""

    job: Job
    confirmed_at: int
    """Number of the last list when it was made or seen."""
    kill_at: float | None = None
    """It was told to end, and is ended hard then (the clock's monotonic time)."""
    is_killed: bool = False
    given_up: str = ""
    lost: str = ""
    last_words: str | None = None
    is_told: bool = False

    @property
    def launch_id(self) -> str:
        """Its identity."""
        return self.job.launch_id

    @property
    def is_ended_by_us(self) -> bool:
        """It was told to end."""
        return self.kill_at is not None

    @property
    def has_exited(self) -> bool:
        """It has ended, or is taken for it."""
        return bool(self.lost) or self.job.has_ended

    @property
    def is_clean(self) -> bool:
        """It ended without an error."""
        return self.has_exited and (self.job.is_clean or self._is_withdrawn)

    def instance(self, now_ns: int, notice_seconds: float) -> Instance:
        """As the provider tells of it."""
        is_running = not self.has_exited
        return Instance(
            self.launch_id,
            InstanceState.RUNNING if is_running else InstanceState.EXITED,
            self.job.launched_at_ns,
            f"job {self.job.job_id}",
            "" if is_running else self._reason(),
            self.is_clean,
            "" if self.is_ended_by_us else self.job.interruption(now_ns, notice_seconds),
        )

    @property
    def _is_withdrawn(self) -> bool:
        """We took it from the queue before it ran."""
        return self.job.state == "CANCELLED" and self.is_ended_by_us and not self.job.nodes

    def _reason(self) -> str:
        if self.lost or self.given_up:
            return self.lost or self.given_up
        if self._is_withdrawn:
            return "was ended before it started"
        if self.job.state == "CANCELLED" and self.is_killed:
            return "was killed by signal 9: it did not end in the time it was given"
        return self.job.ending(self.last_words or "")


class JobBook:
    """The launches, by identity."""

    def __init__(self) -> None:
        self._launches: dict[str, JobLaunch] = {}
        self._forgotten: set[tuple[str, int]] = set()
        """Jobs, with when they were made, that were forgotten and that slurmctld still knows."""
        self._lists_begun = 0

    def get(self, launch_id: str) -> JobLaunch | None:
        """The launch, if it is known."""
        return self._launches.get(launch_id)

    def launches(self) -> list[JobLaunch]:
        """All that were not forgotten, by identity."""
        return [launch for _, launch in sorted(self._launches.items())]

    def made(self, job: Job) -> None:
        """A job was submitted."""
        self._launches[job.launch_id] = JobLaunch(job, self._lists_begun)

    def begin_list(self) -> int:
        """The number of a list that is asked for now."""
        self._lists_begun += 1
        return self._lists_begun

    def absorb(self, number: int, jobs: Iterable[Job]) -> list[Job]:
        """Take in a whole list; second jobs of a launch that have not ended are returned."""
        present: set[tuple[str, int]] = set()
        doubles: list[Job] = []
        for job in sorted(jobs, key=_age):
            present.add(_key(job))
            if _key(job) in self._forgotten:
                continue
            launch = self._launches.get(job.launch_id)
            if launch is None:
                self._launches[job.launch_id] = JobLaunch(job, number, is_told=job.has_ended)
            elif launch.job.job_id == job.job_id:
                launch.job = launch.job if launch.has_exited else job
                launch.confirmed_at = max(launch.confirmed_at, number)
            elif not job.has_ended:
                doubles.append(job)
        self._forgotten &= present
        return doubles

    def vanished(self, number: int) -> list[JobLaunch]:
        """Those that have not ended as far as is known, and were not in the list of this number."""
        return [
            each for each in self._launches.values() if not each.has_exited and each.confirmed_at < number
        ]

    def waiting_longer(self, since_ns: int) -> list[JobLaunch]:
        """Those that have waited in the queue since before an instant and were not given up yet."""
        return [
            launch
            for launch in self._launches.values()
            if launch.job.state == PENDING
            and not launch.has_exited
            and not launch.given_up
            and launch.job.launched_at_ns < since_ns
        ]

    def unheard(self) -> list[JobLaunch]:
        """Those that failed and whose last words were not read yet."""
        return [
            launch
            for launch in self._launches.values()
            if launch.job.state == "FAILED" and launch.last_words is None
        ]

    def overdue(self, now: float) -> list[JobLaunch]:
        """Those whose grace is over."""
        return [
            launch
            for launch in self._launches.values()
            if launch.kill_at is not None and launch.kill_at <= now and not launch.has_exited
        ]

    def take_exits(self) -> list[JobLaunch]:
        """Those that have exited and were not told yet."""
        exited = [each for each in self._launches.values() if each.has_exited and not each.is_told]
        for launch in exited:
            launch.is_told = True
        return exited

    def forget(self, launch: JobLaunch) -> None:
        """It is unknown from now on, also while slurmctld remembers it."""
        del self._launches[launch.launch_id]
        self._forgotten.add(_key(launch.job))


def _key(job: Job) -> tuple[str, int]:
    """Tells a job from a later one of its number: a slurmctld that lost its state counts from 1 again."""
    return job.job_id, job.launched_at_ns


def _age(job: Job) -> tuple[int, int]:
    number, _, index = job.job_id.partition("_")
    return int(number) if number.isdecimal() else 0, int(index) if index.isdecimal() else 0
