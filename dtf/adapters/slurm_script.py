"""The batch jobs that hold workers, as sbatch takes them. Pure.

A worker takes the place of the job's shell, so that signals to the shell are its own and its exit code
is the job's. What it is told in secret comes by variables, never by the script or a command line, both
of which Slurm shows: sbatch hands them over in its own environment, and the script takes the names off
that the tasks of an array need to tell theirs apart.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dtf.adapters.kubernetes_objects import LAUNCH_VARIABLE, Owner
from dtf.adapters.slurm_jobs import LONGEST_COMMENT, comment_of
from dtf.ports.capacity import LaunchRequest
from dtf.settings.providers import SlurmSettings

MOST_TASKS = 256
"""Of an array; slurmctld takes 1001 unless told otherwise (MaxArraySize)."""
_MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class PreparedLaunch:
    """A launch and what it runs."""

    request: LaunchRequest
    command: Sequence[str]
    log: str
    """Where it writes, if its node can."""
    variables: Mapping[str, str] = field(default_factory=dict)


def resource_options(settings: SlurmSettings, request: LaunchRequest) -> list[str]:
    """What sbatch is asked for; launches that ask for the same may share an array."""
    partition = settings.spot_partition if request.is_spot and settings.spot_partition else settings.partition
    memory = f"{math.ceil(request.memory_bytes / _MEBIBYTE)}M" if request.memory_bytes else settings.memory
    cpus = max(1, math.ceil(request.cpus or settings.cpus or request.slots))
    wanted = {
        "partition": partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "time": settings.time_limit,
        "mem": memory,
        "gres": f"{settings.gpu_gres}:{request.gpus}" if request.gpus else "",
    }
    options = [f"--{name}={value}" for name, value in wanted.items() if value]
    options += ["--nodes=1", "--ntasks=1", f"--cpus-per-task={cpus}"]
    options += [f"--{name}={value}" if value else f"--{name}" for name, value in settings.options.items()]
    return options


def job_options(
    settings: SlurmSettings, owner: Owner, launches: Sequence[PreparedLaunch], launched_at_ns: int
) -> list[str]:
    """All of sbatch's options for one job, or one array, of these launches."""
    requests = [launch.request for launch in launches]
    options = resource_options(settings, requests[0])
    if len(launches) > 1:
        options.append(f"--array=0-{len(launches) - 1}")
    name = requests[0].launch_id if len(launches) == 1 else f"{owner.pool}-workers"
    comment = comment_of(owner, launched_at_ns, (request.launch_id for request in requests))
    return [
        *options,
        "--parsable",
        "--no-requeue",
        f"--job-name={name}",
        f"--comment={comment}",
        f"--signal=B:TERM@{settings.time_limit_grace_seconds}",
        f"--export={_export(settings, launches)}",
        "--output=/dev/null",
    ]


def job_variables(settings: SlurmSettings, launches: Sequence[PreparedLaunch]) -> dict[str, str]:
    """What sbatch hands over beside its own environment."""
    variables = dict(settings.environment)
    for index, launch in enumerate(launches):
        variables.update((_carried(index, name), value) for name, value in launch.variables.items())
    return variables


def job_script(settings: SlurmSettings, launches: Sequence[PreparedLaunch]) -> str:
    """What the node runs."""
    lines = [f"#!{settings.shell}", "unset SLURM_TIME_FORMAT"]
    lines.append('case "${SLURM_ARRAY_TASK_ID:-0}" in')
    for index, launch in enumerate(launches):
        lines.append(f"{index})")
        lines.append(f"log={shlex.quote(launch.log)}")
        lines.append(f"export {LAUNCH_VARIABLE}={shlex.quote(launch.request.launch_id)}")
        lines += [f'export {name}="${_carried(index, name)}"' for name in sorted(launch.variables)]
        lines.append(f"set -- {shlex.join(launch.command)}")
        lines.append(";;")
    lines.append("esac")
    carried = [_carried(index, name) for index, launch in enumerate(launches) for name in launch.variables]
    if carried:
        lines.append(f"unset {' '.join(carried)}")
    lines.append('if (umask 077 && : >> "$log") 2> /dev/null; then exec >> "$log" 2>&1; fi')
    if settings.setup:
        lines.append("prepare() {")  # in a function it cannot change the command line
        lines += [settings.setup, "}", "prepare"]
    lines.append('exec "$@"')
    return "\n".join(lines) + "\n"


def fits_an_array(owner: Owner, launched_at_ns: int, launch_ids: Sequence[str]) -> bool:
    """Whether one array can hold these launches."""
    return (
        len(launch_ids) <= MOST_TASKS
        and len(comment_of(owner, launched_at_ns, launch_ids)) <= LONGEST_COMMENT
    )


def _carried(index: int, name: str) -> str:
    return f"DTF_LAUNCH_{index}_{name}"


def _export(settings: SlurmSettings, launches: Sequence[PreparedLaunch]) -> str:
    names = list(job_variables(settings, launches))
    if settings.export.upper() in ("", "NONE", "NIL"):
        return ",".join(names) or "NIL"
    return ",".join([settings.export, *names])
