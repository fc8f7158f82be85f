"""What pods and jobs say of their workers, from statuses as API servers and kubelets write them."""

from typing import Any

import pytest

from dtf.adapters.kubernetes_fate import Fate, Hindrance, deleted_fate, job_fate, pod_fate
from dtf.adapters.kubernetes_objects import Json
from dtf.ports.capacity import InstanceState

EXITED = InstanceState.EXITED


def pod_of(phase: str, *, state: Json | None = None, deleted_at: str = "", **status: Any) -> Json:
    """A pod with one container in `state`."""
    metadata: Json = {"name": "local-1"}
    if deleted_at:
        metadata["deletionTimestamp"] = deleted_at
    containers = [] if state is None else [{"name": "worker", "image": "worker:1", "state": state}]
    spec = {"containers": [{"name": "worker", "resources": {"limits": {"memory": "64Mi"}}}]}
    return {
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec,
        "status": {"phase": phase, "containerStatuses": containers, **status},
    }


def terminated(code: int, reason: str = "Error", message: str = "") -> Json:
    """The state of a container that has ended."""
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def disrupted(reason: str, message: str = "") -> list[Json]:
    """Conditions with a disruption."""
    return [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}]


@pytest.mark.parametrize(
    ("state", "reason", "is_clean"),
    [
        (terminated(0, "Completed"), "exited with code 0", True),
        (terminated(3), "exited with code 3", False),
        (terminated(3, message="one\nerror: no room\nmore\n"), "exited with code 3 (error: no room)", False),
        (terminated(3, message="one\ntwo\n\n"), "exited with code 3 (two)", False),
        (terminated(143), "was killed by signal 15", False),
        (
            terminated(137, "OOMKilled"),
            "was killed for using more memory than its limit of 64Mi (OOMKilled)",
            False,
        ),
        (
            terminated(128, "StartError", 'exec: "dtf": not found'),
            'could not be started: exec: "dtf": not found',
            False,
        ),
        (None, "failed, and nothing says how", False),
    ],
)
def test_how_a_process_ended_is_said(state: Json | None, reason: str, is_clean: bool) -> None:
    phase = "Succeeded" if is_clean else "Failed"
    assert pod_fate(pod_of(phase, state=state)) == Fate(EXITED, reason, is_clean)


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("PreemptionByScheduler", "was preempted for a pod of higher priority (why)"),
        ("EvictionByEvictionAPI", "was evicted through the eviction API, as when a node is drained (why)"),
        ("DeletionByTaintManager", "was evicted by a taint of its node (why)"),
        ("DeletionByPodGC", "was lost with its node (why)"),
        ("TerminationByKubelet", "was evicted by its node (why)"),
        ("SomethingNew", "was disrupted (SomethingNew) (why)"),
    ],
)
def test_who_ended_it_comes_before_how_its_process_ended(condition: str, said: str) -> None:
    pod = pod_of("Failed", state=terminated(137), conditions=disrupted(condition, "why."))
    assert pod_fate(pod).reason == f"{said}, and was killed by signal 9"


def test_a_disrupted_worker_that_left_in_good_order_is_clean() -> None:
    pod = pod_of("Succeeded", state=terminated(0), conditions=disrupted("PreemptionByScheduler"))
    fate = pod_fate(pod)
    assert (fate.is_clean, fate.reason.split(", and ")[-1]) == (True, "exited with code 0")


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("Evicted", "was evicted by its node (low on memory)"),
        ("DeadlineExceeded", "was ended at its active deadline (low on memory)"),
        ("NodeShutdown", "was ended by its node (NodeShutdown) (low on memory)"),
    ],
)
def test_what_an_older_node_says_is_understood(reason: str, said: str) -> None:
    assert pod_fate(pod_of("Failed", reason=reason, message="low on memory")).reason == said


def test_a_running_pod_that_is_deleted_is_announced_unless_we_did_it() -> None:
    pod = pod_of("Running", state={"running": {}}, deleted_at="2026-11-23T01:40:00Z")
    assert pod_fate(pod).interruption == (
        "Kubernetes ends it by 2026-11-23T01:40:00Z: it was deleted by another than this resource manager"
    )
    assert pod_fate(pod).state is InstanceState.RUNNING
    assert pod_fate(pod, is_ended_by_us=True) == Fate(InstanceState.RUNNING)


def test_a_disruption_is_announced_before_the_deletion() -> None:
    pod = pod_of("Running", conditions=disrupted("DeletionByTaintManager"))
    assert (
        pod_fate(pod).interruption == "Kubernetes is about to end it: it was evicted by a taint of its node"
    )


@pytest.mark.parametrize(
    ("reason", "hindrance"),
    [
        ("ErrImagePull", Hindrance.IMAGE),
        ("ImagePullBackOff", Hindrance.IMAGE),
        ("InvalidImageName", Hindrance.IMAGE),
        ("CreateContainerConfigError", Hindrance.CONTAINER),
        ("ContainerCreating", None),
    ],
)
def test_what_keeps_a_pod_from_starting_is_known(reason: str, hindrance: Hindrance | None) -> None:
    fate = pod_fate(pod_of("Pending", state={"waiting": {"reason": reason, "message": "it says\nwhy"}}))
    assert (fate.state, fate.hindrance) == (InstanceState.RUNNING, hindrance)
    assert ("it says why" in fate.hindered_by) == (hindrance is not None)


def test_a_pod_without_a_node_says_what_the_scheduler_says() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    fate = pod_fate(pod_of("Pending", conditions=[condition]))
    assert (fate.hindrance, fate.hindered_by) == (Hindrance.NODE, "no node takes it: 0/3 nodes")


def test_a_pod_that_is_gone_tells_what_was_seen_last() -> None:
    running = pod_of("Running", state={"running": {}})
    assert "deleted by another" in deleted_fate(running, is_ended_by_us=False).reason
    assert deleted_fate(running, is_ended_by_us=True).is_clean
    ended = pod_of("Failed", state=terminated(3))
    assert deleted_fate(ended, is_ended_by_us=True).reason == "exited with code 3"
    evicted = pod_of("Running", conditions=disrupted("DeletionByPodGC"))
    assert deleted_fate(evicted, is_ended_by_us=False).reason == "was lost with its node"


def job_of(*conditions: str) -> Json:
    """A job in these conditions."""
    made = [{"type": each, "status": "True", "reason": "Why", "message": "so"} for each in conditions]
    return {"kind": "Job", "metadata": {"name": "local-1"}, "status": {"conditions": made}}


def test_a_job_is_what_its_pod_says_and_else_what_its_conditions_say() -> None:
    assert job_fate(job_of(), []) == Fate(InstanceState.RUNNING)
    assert job_fate(job_of("Failed"), [pod_of("Failed", state=terminated(3))]).reason == "exited with code 3"
    assert job_fate(job_of("Complete"), []) == Fate(EXITED, "exited with code 0", True)
    assert job_fate(job_of("Failed"), []).reason == "failed as a job: Why: so"
    assert job_fate(job_of("Failed"), [], is_ended_by_us=True).is_clean
    waiting = pod_of("Pending", state={"waiting": {"reason": "ErrImagePull"}})
    assert job_fate(job_of(), [waiting]).hindrance is Hindrance.IMAGE
