"""A Kubernetes provider over a real control plane, and what a test does behind its back."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace

from dtf.adapters.kubernetes_api import KubernetesApi
from dtf.adapters.kubernetes_objects import LAUNCH_ANNOTATION, Owner
from dtf.adapters.kubernetes_provider import KubernetesProvider
from dtf.adapters.system_clock import SystemClock
from dtf.ports.capacity import CapacityProvider, Instance, LaunchRequest
from dtf.settings.providers import KubernetesSettings
from tests.kubernetes_cluster import KubernetesCluster
from tests.kubernetes_http import Json
from tests.node_agent import log_name

RUNNING_SECONDS = 90
OWNER = Owner(cluster="tests", namespace="default", pool="local")


class KubernetesBench:
    """A namespace of its own, and a provider that launches `program` in it."""

    def __init__(
        self, cluster: KubernetesCluster, program: str, settings: KubernetesSettings, namespace: str = ""
    ) -> None:
        self.cluster = cluster
        self.namespace = namespace or cluster.new_namespace()
        self.settings = replace(
            settings,
            namespace=self.namespace,
            kubeconfig=settings.kubeconfig or str(cluster.kubeconfig),
            image=settings.image or "worker:1",
        )
        self.program = program
        self._providers: list[KubernetesProvider] = []
        self.kubernetes_provider = self.new_provider()
        self.provider: CapacityProvider = self.kubernetes_provider

    def new_provider(self, owner: Owner = OWNER, *, patience_seconds: float = 20.0) -> KubernetesProvider:
        """Another provider of the same settings."""
        clock = SystemClock()
        api = KubernetesApi(self.settings, clock, patience_seconds=patience_seconds)
        made = KubernetesProvider(self.command, settings=self.settings, owner=owner, clock=clock, api=api)
        self._providers.append(made)
        return made

    async def start(self) -> None:
        """Start the provider."""
        await self.kubernetes_provider.start()

    async def stop(self) -> None:
        """Leave nothing behind."""
        for provider in self._providers:
            await provider.close()
        await asyncio.to_thread(self.cluster.http.request, "DELETE", f"/api/v1/namespaces/{self.namespace}")

    def command(self, request: LaunchRequest) -> Sequence[str]:
        """The program."""
        return [sys.executable, "-I", "-S", "-c", self.program]

    async def until_up(self, launch_id: str) -> None:
        """Return when its process has said so."""
        pod = await self.running_pod(launch_id)
        log = self.cluster.logs / log_name(pod)
        while "up" not in log.read_text():
            await asyncio.to_thread(os.stat, log)

    async def kill(self, instance: Instance) -> None:
        """End an instance with signal 9."""
        self.kill_process(await self.running_pod(instance.launch_id))

    def kill_process(self, pod: Json) -> None:
        """End the process of a pod with signal 9; the API server need not be there."""
        os.kill(process_id(pod), signal.SIGKILL)

    def evict(self, pod: Json) -> None:
        """As `kubectl drain` does."""
        name = pod["metadata"]["name"]
        self.cluster.http.request(
            "POST",
            f"/api/v1/namespaces/{self.namespace}/pods/{name}/eviction",
            {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}},
        )

    async def running_pod(self, launch_id: str) -> Json:
        """The pod of a launch, once its process runs."""
        return await asyncio.to_thread(self._running_pod, launch_id)

    def pods(self, launch_id: str = "") -> list[Json]:
        """The pods there are, or those of one launch."""
        listed = self.cluster.http.request("GET", f"/api/v1/namespaces/{self.namespace}/pods")["items"]
        return [pod for pod in listed if not launch_id or _launch_id(pod) == launch_id]

    def _running_pod(self, launch_id: str) -> Json:
        for there in self.pods(launch_id):
            if there["status"].get("phase") == "Running":
                return there
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        for change in self.cluster.http.watch(path, "0", RUNNING_SECONDS):
            pod: Json = change["object"]
            if _launch_id(pod) == launch_id and pod["status"].get("phase") == "Running":
                return pod
        raise AssertionError(f"{launch_id} did not run: {[pod['status'] for pod in self.pods(launch_id)]}")


def process_id(pod: Json) -> int:
    """The process of a pod on our node."""
    return int(pod["status"]["containerStatuses"][0]["containerID"].removeprefix("process://"))


def _launch_id(pod: Json) -> str:
    return str(pod["metadata"].get("annotations", {}).get(LAUNCH_ANNOTATION, ""))
