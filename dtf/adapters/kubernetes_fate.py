"""What a pod or a job says of a worker: whether it runs, how it ended, what takes it away. Pure.

Who ended a pod is told by its DisruptionTarget condition, which the scheduler, the eviction API, the
taint controller, the pod garbage collector and the kubelet set before they do it; how its process
ended, by the container's state. A pod can have both.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto

from dtf.adapters.kubernetes_objects import CONTAINER, Json
from dtf.ports.capacity import InstanceState

_DISRUPTIONS: Mapping[str, str] = {
    "PreemptionByScheduler": "was preempted for a pod of higher priority",
    "EvictionByEvictionAPI": "was evicted through the eviction API, as when a node is drained",
    "DeletionByTaintManager": "was evicted by a taint of its node",
    "DeletionByPodGC": "was lost with its node",
    "TerminationByKubelet": "was evicted by its node",
}
"""By the reason of the condition DisruptionTarget."""
_IMAGE_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
_CONTAINER_REASONS = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "StartError",
        "PostStartHookError",
    }
)
_SIGNAL_BASE = 128


class Hindrance(Enum):
    """What keeps a pod from starting."""

    IMAGE = auto()
    CONTAINER = auto()
    NODE = auto()


@dataclass(frozen=True, slots=True)
class Fate:
    """Where a worker stands."""

    state: InstanceState
    reason: str = ""
    is_clean: bool = False
    interruption: str = ""
    """It is being taken away: when and why."""
    hindrance: Hindrance | None = None
    hindered_by: str = ""
    """What the hindrance says."""


RUNNING = Fate(InstanceState.RUNNING)


def pod_fate(pod: Json, *, is_ended_by_us: bool = False) -> Fate:
    """What a pod that exists says."""
    status = pod.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed"):
        return _ended(pod)
    if taken := _taken_away(pod, is_ended_by_us=is_ended_by_us):
        return replace(RUNNING, interruption=taken)
    return _waiting(status)


def deleted_fate(pod: Json, *, is_ended_by_us: bool) -> Fate:
    """What a pod that was there last, and is gone, says."""
    fate = pod_fate(pod, is_ended_by_us=is_ended_by_us)
    if fate.state is InstanceState.EXITED:
        return fate
    if is_ended_by_us:
        return Fate(InstanceState.EXITED, "was ended before it said how", is_clean=True)
    return Fate(InstanceState.EXITED, _disruption(pod) or "was deleted by another than this resource manager")


def job_fate(job: Json, pods: Iterable[Json], *, is_ended_by_us: bool = False) -> Fate:
    """What a job that exists says, with the pods of it that exist."""
    fates = [pod_fate(pod, is_ended_by_us=is_ended_by_us) for pod in pods]
    ended = [fate for fate in fates if fate.state is InstanceState.EXITED]
    if ended:
        return ended[0]
    conditions = _conditions(job)
    if "Complete" in conditions:
        return Fate(InstanceState.EXITED, "exited with code 0", is_clean=True)
    if "Failed" in conditions:
        if is_ended_by_us:
            return Fate(InstanceState.EXITED, "was ended before it said how", is_clean=True)
        failed = conditions["Failed"]
        return Fate(InstanceState.EXITED, f"failed as a job: {failed.get('reason')}: {failed.get('message')}")
    if job["metadata"].get("deletionTimestamp") and not is_ended_by_us:
        return replace(RUNNING, interruption="its job is being deleted by another than this resource manager")
    return fates[0] if fates else RUNNING


def _ended(pod: Json) -> Fate:
    code, how = _process_end(pod)
    disrupted = _disruption(pod) or _kubelet_reason(pod)
    if disrupted:
        reason = f"{disrupted}, and {how}" if how else disrupted
        return Fate(InstanceState.EXITED, reason, is_clean=code == 0)
    if not how:
        how = (
            "exited with code 0" if pod["status"]["phase"] == "Succeeded" else "failed, and nothing says how"
        )
        return Fate(InstanceState.EXITED, how, is_clean=pod["status"]["phase"] == "Succeeded")
    return Fate(InstanceState.EXITED, how, is_clean=code == 0)


def _process_end(pod: Json) -> tuple[int | None, str]:
    """The worker's exit code, and how its process ended; None and empty where that is not known."""
    container = _container_status(pod)
    ended = (container.get("state") or {}).get("terminated")
    if ended is None:
        return None, ""
    code = int(ended.get("exitCode", 0))
    why = ended.get("reason", "")
    if why == "OOMKilled":
        return code, f"was killed for using more memory than its limit{_memory_limit(pod)} (OOMKilled)"
    if why in _CONTAINER_REASONS or why == "ContainerCannotRun":
        return code, f"could not be started: {_one_line(ended.get('message', ''))}"
    if why == "ContainerStatusUnknown":
        return None, ""
    if code > _SIGNAL_BASE:
        return code, f"was killed by signal {code - _SIGNAL_BASE}"
    words = _last_words(ended.get("message") or "") if code else ""
    return code, f"exited with code {code}{words}"


def _last_words(message: str) -> str:
    """In parentheses: the last line beginning with `error:` of the end of its log, or its last line."""
    said = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in said if line.startswith("error: ")]
    return f" ({(errors or said)[-1]})" if said else ""


def _taken_away(pod: Json, *, is_ended_by_us: bool) -> str:
    if is_ended_by_us:
        return ""
    deleted_at = pod["metadata"].get("deletionTimestamp")
    why = _disruption(pod)
    if deleted_at:
        return f"Kubernetes ends it by {deleted_at}: it {why or 'was deleted by another than this resource manager'}"
    return f"Kubernetes is about to end it: it {why}" if why else ""


def _disruption(pod: Json) -> str:
    condition = _conditions(pod).get("DisruptionTarget")
    if condition is None:
        return ""
    said = _DISRUPTIONS.get(condition.get("reason", ""), f"was disrupted ({condition.get('reason')})")
    return said + _in_parentheses(condition.get("message", ""))


def _kubelet_reason(pod: Json) -> str:
    """What a node says of a pod it ended for reasons of its own."""
    status = pod["status"]
    match status.get("reason", ""):
        case "":
            return ""
        case "Evicted":
            return _DISRUPTIONS["TerminationByKubelet"] + _in_parentheses(status.get("message", ""))
        case "DeadlineExceeded":
            return "was ended at its active deadline" + _in_parentheses(status.get("message", ""))
        case other:
            return f"was ended by its node ({other})" + _in_parentheses(status.get("message", ""))


def _waiting(status: Json) -> Fate:
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), _one_line(waiting.get("message", ""))
        if reason in _IMAGE_REASONS:
            text = f"the image {container.get('image')} cannot be pulled: {reason}: {message}"
            return replace(RUNNING, hindrance=Hindrance.IMAGE, hindered_by=text)
        if reason in _CONTAINER_REASONS:
            text = f"its container cannot be made: {reason}: {message}"
            return replace(RUNNING, hindrance=Hindrance.CONTAINER, hindered_by=text)
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            text = f"no node takes it: {_one_line(condition.get('message', ''))}"
            return replace(RUNNING, hindrance=Hindrance.NODE, hindered_by=text)
    return RUNNING


def _container_status(pod: Json) -> Json:
    statuses: list[Json] = pod["status"].get("containerStatuses") or []
    named = [status for status in statuses if status.get("name") == CONTAINER]
    return (named or statuses or [{}])[0]


def _memory_limit(pod: Json) -> str:
    for container in pod["spec"]["containers"]:
        if container.get("name") == CONTAINER:
            limit = ((container.get("resources") or {}).get("limits") or {}).get("memory")
            return f" of {limit}" if limit else ""
    return ""


def _conditions(thing: Json) -> dict[str, Json]:
    """The conditions that hold, by type."""
    conditions = (thing.get("status") or {}).get("conditions") or []
    return {condition["type"]: condition for condition in conditions if condition.get("status") == "True"}


def _in_parentheses(message: str) -> str:
    said = _one_line(message)
    return f" ({said})" if said else ""


def _one_line(message: str) -> str:
    return re.sub(r"\s+", " ", message).strip().rstrip(".")
