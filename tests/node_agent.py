"""A node for tests: runs the command of each pod bound to it as a local process, and says what became of it.

It does what a kubelet does as far as a pod's owner can see it: phases and container states, the end
of the log as termination message, SIGTERM and SIGKILL after the grace of a deletion, a memory limit
that kills (OOMKilled), images that cannot be pulled (those that begin with `absent/`), secrets in the
environment, and the eviction of a pod with the annotation `tests/evict` for lack of memory.

    python -m tests.node_agent --kubeconfig FILE --name NODE --logs DIRECTORY     ends with its standard input
"""

import argparse
import base64
import contextlib
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from dtf.adapters.system_clock import SystemClock
from tests.kubernetes_http import ApiFailure, Json, KubernetesHttp

POLL_SECONDS = 0.05
ABSENT_IMAGES = "absent/"
EVICT_ANNOTATION = "tests/evict"
MESSAGE_BYTES = 2048
_BYTES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


class Node:
    """The node and the pods on it."""

    def __init__(self, http: KubernetesHttp, name: str, directory: Path) -> None:
        self.http = http
        self.name = name
        self.directory = directory
        self._runs: dict[str, PodRun] = {}

    def register(self, capacity: dict[str, str], labels: dict[str, str]) -> None:
        """Tell the API server of the node, and that it is ready."""
        metadata = {"name": self.name, "labels": {"kubernetes.io/hostname": self.name, **labels}}
        with contextlib.suppress(ApiFailure):  # of an agent that was killed
            self.http.request("DELETE", f"/api/v1/nodes/{self.name}")
        self.http.request("POST", "/api/v1/nodes", {"metadata": metadata})
        status = {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        }
        self._patch(f"/api/v1/nodes/{self.name}/status", {"status": status})
        self._patch(f"/api/v1/nodes/{self.name}", {"spec": {"taints": None}})

    def follow(self) -> None:
        """Run what is bound to the node, for ever."""
        selector = f"spec.nodeName={self.name}"
        while True:
            try:
                listed = self.http.request("GET", f"/api/v1/pods?fieldSelector={selector}")
            except (ApiFailure, OSError):
                threading.Event().wait(0.2)
                continue
            for pod in listed["items"]:
                self._seen("MODIFIED", pod)
            version = listed["metadata"]["resourceVersion"]
            for change in self.http.watch("/api/v1/pods", version, fieldSelector=selector):
                if change["type"] == "ERROR":
                    break
                self._seen(change["type"], change["object"])

    def stop(self) -> None:
        """End every process."""
        for run in list(self._runs.values()):
            run.kill()

    def report(self, pod: Json, status: Json) -> None:
        """Write a pod's status, again where another's write came between; a pod that is gone needs none."""
        path = _path(pod)
        while True:
            try:
                self._patch(f"{path}/status", {"status": status})
                return
            except ApiFailure as failure:
                if failure.status in (404, 422):
                    return
            except OSError:
                pass
            threading.Event().wait(0.2)

    def remove(self, pod: Json) -> None:
        """The last step of a deletion."""
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
        with contextlib.suppress(ApiFailure, OSError):
            self.http.request("DELETE", _path(pod), body)

    def _patch(self, path: str, body: Json) -> None:
        self.http.request("PATCH", path, body, content_type="application/strategic-merge-patch+json")

    def _seen(self, change: str, pod: Json) -> None:
        uid = pod["metadata"]["uid"]
        run = self._runs.get(uid)
        if run is None:
            if change == "DELETED" or pod["status"].get("phase") in ("Succeeded", "Failed"):
                if pod["metadata"].get("deletionTimestamp"):
                    self.remove(pod)
                return
            run = self._runs[uid] = PodRun(self, pod)
            run.start()
        run.seen(change, pod)


class PodRun(threading.Thread):
    """One pod's life."""

    def __init__(self, node: Node, pod: Json) -> None:
        super().__init__(daemon=True)
        self._node = node
        self._pod = pod
        self._log = node.directory / log_name(pod)
        self._process: subprocess.Popen[bytes] | None = None
        self._change = threading.Event()
        self._grace: float | None = None
        self._is_gone = False
        self._why: Json = {}

    def seen(self, change: str, pod: Json) -> None:
        """What the API server says of it now."""
        self._pod = pod
        self._is_gone = self._is_gone or change == "DELETED"
        if pod["metadata"].get("deletionTimestamp"):
            self._grace = float(pod["metadata"].get("deletionGracePeriodSeconds", 30))
        self._change.set()

    def kill(self) -> None:
        """End its process at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def run(self) -> None:
        """From bound to gone."""
        if self._prepare():
            self._start_process()
            self._follow_process()
        while self._grace is None and not self._is_gone:
            self._change.wait()
            self._change.clear()
        self._node.remove(self._pod)

    def _prepare(self) -> bool:
        """Whether the pod's process may be started; says what holds it up."""
        container = self._pod["spec"]["containers"][0]
        while self._grace is None and not self._is_gone:
            if container["image"].startswith(ABSENT_IMAGES):
                self._report_waiting("ErrImagePull", f"pull access denied for {container['image']}")
                self._report_waiting(
                    "ImagePullBackOff", f'Back-off pulling image "{container["image"]}": not found'
                )
                self._change.wait()
            elif (missing := self._resolve_environment(container)) is not None:
                self._report_waiting("CreateContainerConfigError", missing)
                self._change.wait(0.1)
            else:
                return True
            self._change.clear()
        self._report("Failed", {"terminated": _terminated(137, "ContainerStatusUnknown", "")})
        return False

    def _resolve_environment(self, container: Json) -> str | None:
        """Fill in the environment; what lacks."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = {"PATH": path, "HOME": os.environ.get("HOME", "/")}
        for item in container.get("env", []):
            reference = item.get("valueFrom", {}).get("secretKeyRef")
            if reference is None:
                self._environment[item["name"]] = item.get("value", "")
                continue
            namespace = self._pod["metadata"]["namespace"]
            try:
                secret = self._node.http.request(
                    "GET", f"/api/v1/namespaces/{namespace}/secrets/{reference['name']}"
                )
            except (ApiFailure, OSError):
                return f'secret "{reference["name"]}" not found'
            self._environment[item["name"]] = _decoded(secret["data"][reference["key"]])
        return None

    def _start_process(self) -> None:
        container = self._pod["spec"]["containers"][0]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*container["command"], *container.get("args", [])],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=container.get("workingDir", self._node.directory),
                start_new_session=True,
            )
        self._report("Running", {"running": {"startedAt": _now()}})

    def _follow_process(self) -> None:
        assert self._process is not None
        limit = _memory_limit(self._pod["spec"]["containers"][0])
        is_asked = False
        reason = ""
        kill_timer: threading.Timer | None = None
        while (code := self._process.poll()) is None:
            self._change.wait(POLL_SECONDS)
            self._change.clear()
            if self._is_gone:
                self.kill()
            if self._grace is not None and not is_asked:
                is_asked = True
                self._process.terminate()
                kill_timer = threading.Timer(self._grace, self.kill)
                kill_timer.daemon = True
                kill_timer.start()
            if limit and _resident_bytes(self._process.pid) > limit:
                reason = "OOMKilled"
                self.kill()
            if EVICT_ANNOTATION in self._pod["metadata"].get("annotations", {}) and not self._why:
                self._why = {
                    "reason": "Evicted",
                    "message": "The node was low on resource: memory.",
                    "conditions": [
                        _disrupted("TerminationByKubelet", "The node was low on resource: memory.")
                    ],
                }
                self.kill()
        if kill_timer is not None:
            kill_timer.cancel()
        exit_code = code if code >= 0 else 128 - code
        message = "" if exit_code == 0 else self._last_words()
        state = _terminated(exit_code, reason or ("Error" if exit_code else "Completed"), message)
        self._report("Failed" if exit_code or self._why else "Succeeded", {"terminated": state})

    def _last_words(self) -> str:
        container = self._pod["spec"]["containers"][0]
        if container.get("terminationMessagePolicy") != "FallbackToLogsOnError":
            return ""
        return self._log.read_text(errors="replace")[-MESSAGE_BYTES:]

    def _report_waiting(self, reason: str, message: str) -> None:
        self._report("Pending", {"waiting": {"reason": reason, "message": message}})

    def _report(self, phase: str, state: Json) -> None:
        container = self._pod["spec"]["containers"][0]
        status: Json = {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": "running" in state,
            "restartCount": 0,
            "state": state,
        }
        if self._process is not None:
            status["containerID"] = f"process://{self._process.pid}"
        self._node.report(
            self._pod, {"phase": phase, "startTime": _now(), "containerStatuses": [status], **self._why}
        )


def log_name(pod: Json) -> str:
    """The file of what a pod's process writes, in the directory of logs."""
    return f"{pod['metadata']['namespace']}_{pod['metadata']['name']}_{pod['metadata']['uid']}.log"


def _terminated(code: int, reason: str, message: str) -> Json:
    return {"exitCode": code, "reason": reason, "message": message, "finishedAt": _now()}


def _disrupted(reason: str, message: str) -> Json:
    return {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}


def _path(pod: Json) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _now() -> str:
    now = datetime.fromtimestamp(SystemClock().now_ns() / 1e9, UTC)
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def _decoded(text: str) -> str:

    return base64.b64decode(text).decode()


def _memory_limit(container: Json) -> int:
    text: Any = container.get("resources", {}).get("limits", {}).get("memory", "")
    if not text:
        return 0
    return int(text[:-2]) * _BYTES[text[-2:]] if text[-2:] in _BYTES else int(text)


def _resident_bytes(process_id: int) -> int:
    try:
        process = psutil.Process(process_id)
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))
    except psutil.Error:
        return 0


def main() -> None:
    """Be a node until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--logs", type=Path, required=True)
    parser.add_argument("--cpu", default="64")
    parser.add_argument("--memory", default="64Gi")
    parser.add_argument("--gpus", default="0")
    parser.add_argument("--label", action="append", default=[])
    given = parser.parse_args()
    node = Node(KubernetesHttp.of_kubeconfig(given.kubeconfig), given.name, given.logs)
    capacity = {"cpu": given.cpu, "memory": given.memory, "pods": "110", "nvidia.com/gpu": given.gpus}
    node.register(capacity, dict(label.split("=", 1) for label in given.label))
    threading.Thread(target=node.follow, daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    node.stop()


if __name__ == "__main__":
    main()
