"""What squeue and sacct say of the jobs that are workers. Pure.

Whose job it is, and which launches it holds, is in its comment, which goes where the job goes:

    dtf:CLUSTER:NAMESPACE:POOL:LAUNCHED_AT_NS:LAUNCH[,LAUNCH…]

The task I of a job array is the launch I of the comment (counted from 0); a job that is no array holds one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from dtf.adapters.kubernetes_objects import Owner

COLUMNS = ("JobArrayID", "State", "exit_code", "EndTime", "PreemptTime", "NodeList", "Reason", "Comment")
_SEPARATOR = "|"
_TAG = "dtf"
LONGEST_COMMENT = 1000
"""Characters; slurmctld takes 1024 (MAX_STRING_LEN)."""
PENDING = "PENDING"

_RUNNING = frozenset(
    {
        PENDING,
        "RUNNING",
        "SUSPENDED",
        "COMPLETING",
        "CONFIGURING",
        "RESIZING",
        "REQUEUED",
        "REQUEUE_FED",
        "REQUEUE_HOLD",
        "RESV_DEL_HOLD",
        "SIGNALING",
        "SPECIAL_EXIT",
        "STAGE_OUT",
        "STOPPED",
        "UPDATE_DB",
        "POWER_UP_NODE",
    }
)
"""States of a job that has not ended, or whose processes have not (squeue(1), JOB STATE CODES)."""
_CAUSES: Mapping[str, str] = {
    "PREEMPTED": "was preempted for a job that goes before it",
    "TIMEOUT": "was ended at its time limit",
    "DEADLINE": "was ended at its deadline",
    "OUT_OF_MEMORY": "was killed for using more memory than it asked for",
    "BOOT_FAIL": "was lost: its node did not boot",
    "REVOKED": "was revoked by its federation of clusters",
    "RECONFIG_FAIL": "was lost: its node could not be configured",
}
_LIMITS = (
    "QOS",
    "Assoc",
    "MaxJobs",
    "MaxCpu",
    "MaxGRES",
    "MaxMem",
    "MaxNode",
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "AccountNotAllowed",
    "InvalidQOS",
    "InvalidAccount",
)
"""How reasons begin that are limits of an association, a QOS or a partition (squeue(1), JOB REASON CODES)."""
_CANNOT_WRITE = 53
"""The signal that Slurm names where a batch step could not be set up on its node (slurmstepd)."""
_SIGNAL_BASE = 128


@dataclass(frozen=True, slots=True)
class Job:
    """One worker as Slurm tells of it."""

    job_id: str
    """"12", or "12_3" for a task of an array."""
    launch_id: str
    launched_at_ns: int
    state: str = PENDING
    why: str = ""
    """Slurm's reason: what it waits for, or what ended it."""
    wait_status: int = 0
    """As of wait(2)."""
    ends_at: int = 0
    """When its time limit ends it or it ended, seconds since 1970 UTC; 0: not known."""
    preempted_at: int = 0
    nodes: str = ""

    @property
    def has_ended(self) -> bool:
        """Nothing of it runs, and nothing will."""
        return self.state not in _RUNNING

    @property
    def is_at_limit(self) -> bool:
        """It waits for a limit, not for its turn: more jobs would wait too."""
        return self.state == PENDING and self.why.startswith(_LIMITS)

    @property
    def is_clean(self) -> bool:
        """It ended by itself, without an error."""
        return self.state == "COMPLETED"

    def ending(self, last_words: str = "") -> str:
        """How it ended, with the last it said."""
        match self.state:
            case "COMPLETED" | "FAILED":
                return _process_end(self, last_words)
            case "NODE_FAIL":
                return f"was lost with its node {self.nodes} (NODE_FAIL)"
            case "CANCELLED":
                return "was cancelled by another than this resource manager (CANCELLED)"
            case state:
                return f"{_CAUSES.get(state, 'was ended by Slurm')} ({state})"

    def interruption(self, now_ns: int, notice_seconds: float) -> str:
        """That it is about to be taken away: when and why."""
        if self.has_ended or self.state == PENDING:
            return ""
        if self.preempted_at:
            return f"Slurm preempts it since {_instant(self.preempted_at)}"
        if self.ends_at and self.ends_at - now_ns / 1e9 <= notice_seconds:
            return f"Slurm ends it at its time limit, {_instant(self.ends_at)}"
        return ""


def comment_of(owner: Owner, launched_at_ns: int, launch_ids: Iterable[str]) -> str:
    """The comment of a job that holds these launches."""
    return f"{_prefix(owner)}{launched_at_ns}:{','.join(launch_ids)}"


def read_queue(text: str, owner: Owner) -> Iterator[Job]:
    """The jobs of `owner` in what squeue wrote in COLUMNS."""
    prefix = _prefix(owner)
    for line in text.splitlines():
        cells = line.split(_SEPARATOR, len(COLUMNS) - 1)
        if len(cells) < len(COLUMNS) or not cells[-1].startswith(prefix):
            continue
        job_id, state, code, ends_at, preempted_at, nodes, why, comment = cells
        launched_at, _, launches = comment.rstrip(_SEPARATOR).removeprefix(prefix).partition(":")
        launch_id = _launch_of(job_id, launches.split(","))
        if launch_id is None or not launched_at.isdecimal():
            continue
        yield Job(
            job_id,
            launch_id,
            int(launched_at),
            _state(state),
            "" if why == "None" else why,
            _wait_status(code),
            _seconds(ends_at),
            _seconds(preempted_at),
            nodes,
        )


def queue_arguments() -> Sequence[str]:
    """Have squeue write every job of ours that it remembers, in COLUMNS, a task of an array a line."""
    columns = ",".join(f"{name}:{_SEPARATOR}" for name in COLUMNS)
    return ("--me", "--all", "--array", "--states=all", "--noheader", "-O", columns)


def accounting_arguments(job_id: str) -> Sequence[str]:
    """Have sacct write state, exit code and nodes of a job."""
    return ("-X", "-n", "-P", "-j", job_id, "-o", "State,ExitCode,NodeList")


def read_accounting(text: str, job: Job) -> Job | None:
    """`job` as sacct has it; None: it says nothing of its end."""
    for line in text.splitlines():
        state, _, rest = line.partition(_SEPARATOR)
        code, _, nodes = rest.partition(_SEPARATOR)
        ended = Job(
            job.job_id,
            job.launch_id,
            job.launched_at_ns,
            _state(state),
            wait_status=_wait_status(code),
            nodes=nodes,
        )
        if state and ended.has_ended:
            return ended
    return None


def _prefix(owner: Owner) -> str:
    parts = (_TAG, *(quote(part, safe="") for part in (owner.cluster, owner.namespace, owner.pool)))
    return ":".join(parts) + ":"


def _launch_of(job_id: str, launch_ids: Sequence[str]) -> str | None:
    index = job_id.partition("_")[2] or "0"
    if not index.isdecimal() or int(index) >= len(launch_ids):
        return None
    return launch_ids[int(index)] or None


def _state(text: str) -> str:
    """sacct writes "CANCELLED by 1000", and some versions "CANCELLED+"."""
    return text.split(" ")[0].rstrip("+")


def _wait_status(text: str) -> int:
    """Of what squeue writes, the status itself, or sacct, "CODE:SIGNAL"."""
    code, _, number = text.partition(":")
    if not number:
        return int(code) if code.isdecimal() else 0
    return (int(code) << 8) | int(number)


def _seconds(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _process_end(job: Job, last_words: str) -> str:
    code, number = job.wait_status >> 8, job.wait_status & 0x7F
    if number == _CANNOT_WRITE:
        return (
            f"could not be started on {job.nodes}: {job.why} (can its node write what it is told to write?)"
        )
    if number or code > _SIGNAL_BASE:
        return f"was killed by signal {number or code - _SIGNAL_BASE}"
    return f"exited with code {code}" + (f" ({last_words})" if code and last_words else "")


def _instant(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
