"""Kubernetes as a provider on a real control plane: how launches are made, found, taken away and lost."""

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dtf.adapters.kubernetes_api import KubernetesApi, Refusal
from dtf.adapters.kubernetes_objects import Owner
from dtf.adapters.kubernetes_provider import KubernetesProvider
from dtf.adapters.system_clock import SystemClock
from dtf.ports.capacity import Instance, InstanceState, LaunchRequest, ProviderError, QuotaExceeded
from dtf.settings.providers import KubernetesSettings
from tests.kubernetes_bench import OWNER, KubernetesBench
from tests.kubernetes_cluster import KubernetesCluster, Node
from tests.kubernetes_http import Json
from tests.node_agent import EVICT_ANNOTATION

pytestmark = pytest.mark.resource_manager

WAIT_SECONDS = 80.0
SLEEPER = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('up', flush=True); time.sleep(600)"
SLOW_TO_GO = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
GREEDY = "import time; held = bytearray(200_000_000); time.sleep(600)"
MERGE = "application/strategic-merge-patch+json"
MakeBench = Callable[..., Any]


@pytest.fixture
async def make(kubernetes: KubernetesCluster) -> AsyncIterator[MakeBench]:
    """Makes benches of the session's cluster: `await make(program, **settings)`."""
    async with AsyncExitStack() as stack:

        async def make_one(program: str = SLEEPER, **settings: Any) -> KubernetesBench:
            bench = KubernetesBench(kubernetes, program, KubernetesSettings(**settings))
            stack.push_async_callback(bench.stop)
            await bench.start()
            return bench

        yield make_one


@pytest.fixture(scope="module")
def small_node(kubernetes: KubernetesCluster) -> Iterator[Node]:
    """A node with room for one pod of a processor, which only pods that select it come to."""
    node = Node(kubernetes, "small", "--cpu", "1", "--label", "size=small")
    yield node
    node.stop()
    kubernetes.http.request("DELETE", "/api/v1/nodes/small")


def launch_of(launch_id: str, **needs: Any) -> LaunchRequest:
    """A launch as the resource manager asks for it."""
    return LaunchRequest(launch_id, "local", **needs)


async def exit_of(provider: KubernetesProvider) -> Instance:
    """The next exit."""
    async with asyncio.timeout(WAIT_SECONDS):
        return await anext(aiter(provider.exits()))


async def interruption_of(provider: KubernetesProvider, launch_id: str) -> str:
    """What is announced of a launch, once it is."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            for instance in await provider.list_instances():
                if instance.launch_id == launch_id and instance.interruption:
                    assert instance.state is InstanceState.RUNNING
                    return instance.interruption


@pytest.mark.parametrize("kind", ["pod", "job"])
async def test_an_eviction_is_announced_and_then_told_with_its_cause(make: MakeBench, kind: str) -> None:
    bench = await make(SLOW_TO_GO, kind=kind, termination_grace_seconds=600)
    await bench.provider.launch(launch_of("local-1"))
    await bench.until_up("local-1")
    pod = await bench.running_pod("local-1")
    bench.evict(pod)
    announced = await interruption_of(bench.provider, "local-1")
    assert "Kubernetes ends it by " in announced
    assert "was evicted through the eviction API" in announced
    bench.kill_process(pod)  # as its node does when that time has come
    exited = await exit_of(bench.provider)
    assert "was evicted through the eviction API" in exited.reason
    assert exited.reason.endswith("and was killed by signal 9")
    assert not exited.is_clean


async def test_a_worker_that_leaves_in_time_when_evicted_is_clean(make: MakeBench) -> None:
    bench = await make()
    await bench.provider.launch(launch_of("local-1"))
    await bench.until_up("local-1")
    bench.evict(await bench.running_pod("local-1"))
    exited = await exit_of(bench.provider)
    assert exited.is_clean
    assert exited.reason.endswith("and exited with code 0")


async def test_preemption_by_the_scheduler_is_named(make: MakeBench, small_node: Node) -> None:
    bench = await make(node_selector={"size": "small"})
    await bench.provider.launch(launch_of("local-1", cpus=0.9))
    await bench.until_up("local-1")
    http = bench.cluster.http
    classes = "/apis/scheduling.k8s.io/v1/priorityclasses"
    http.request("POST", classes, {"metadata": {"name": f"{bench.namespace}-high"}, "value": 1000})
    rival = {**bench.settings.node_selector}
    pod = {
        "metadata": {"name": "rival"},
        "spec": {
            "nodeSelector": rival,
            "priorityClassName": f"{bench.namespace}-high",
            "containers": [
                {
                    "name": "rival",
                    "image": "rival:1",
                    "command": [sys.executable, "-c", "pass"],
                    "resources": {"requests": {"cpu": "900m"}},
                }
            ],
        },
    }
    http.request("POST", f"/api/v1/namespaces/{bench.namespace}/pods", pod)
    exited = await exit_of(bench.provider)
    assert exited.reason.startswith("was preempted for a pod of higher priority")


async def test_a_taint_that_is_not_tolerated_ends_it(make: MakeBench, small_node: Node) -> None:
    bench = await make(node_selector={"size": "small"})
    await bench.provider.launch(launch_of("local-1", cpus=0.1))
    await bench.until_up("local-1")
    taints = [{"key": "spot-notice", "effect": "NoExecute"}]
    bench.cluster.http.request(
        "PATCH", "/api/v1/nodes/small", {"spec": {"taints": taints}}, content_type=MERGE
    )
    try:
        exited = await exit_of(bench.provider)
        assert exited.reason.startswith("was evicted by a taint of its node")
    finally:
        bench.cluster.http.request(
            "PATCH", "/api/v1/nodes/small", {"spec": {"taints": None}}, content_type=MERGE
        )


async def test_an_eviction_by_the_node_says_what_the_node_lacks(make: MakeBench) -> None:
    bench = await make()
    await bench.provider.launch(launch_of("local-1"))
    pod = await bench.running_pod("local-1")
    note = {"metadata": {"annotations": {EVICT_ANNOTATION: "now"}}}
    path = f"/api/v1/namespaces/{bench.namespace}/pods/{pod['metadata']['name']}"
    bench.cluster.http.request("PATCH", path, note, content_type=MERGE)
    exited = await exit_of(bench.provider)
    assert exited.reason.startswith(
        "was evicted by its node (The node was low on resource: memory), and was killed"
    )


async def test_too_much_memory_is_named_with_the_limit(make: MakeBench) -> None:
    bench = await make(GREEDY)
    await bench.provider.launch(launch_of("local-1", memory_bytes=64 * 2**20))
    exited = await exit_of(bench.provider)
    assert exited.reason == "was killed for using more memory than its limit of 64Mi (OOMKilled)"


@pytest.mark.parametrize("kind", ["pod", "job"])
async def test_an_image_that_cannot_be_pulled_ends_the_launch_and_says_so(make: MakeBench, kind: str) -> None:
    bench = await make(kind=kind, image="absent/worker:1", image_patience_seconds=0.5)
    await bench.provider.launch(launch_of("local-1"))
    exited = await exit_of(bench.provider)
    assert exited.reason.startswith("was given up: the image absent/worker:1 cannot be pulled: ")
    assert not exited.is_clean
    await bench.provider.forget("local-1")
    assert await bench.provider.list_instances() == []


async def test_a_pod_that_no_node_takes_ends_the_launch_and_says_why(make: MakeBench) -> None:
    bench = await make(scheduling_patience_seconds=0.5)
    await bench.provider.launch(launch_of("local-1", cpus=4000))
    exited = await exit_of(bench.provider)
    assert exited.reason.startswith("was given up: no node takes it: 0/")
    assert "Insufficient cpu" in exited.reason


@pytest.mark.parametrize("kind", ["pod", "job"])
async def test_a_quota_that_is_used_up_is_quota_exceeded(make: MakeBench, kind: str) -> None:
    bench = await make(kind=kind)
    quotas = f"/api/v1/namespaces/{bench.namespace}/resourcequotas"
    bench.cluster.http.request("POST", quotas, {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}})
    while "used" not in bench.cluster.http.request("GET", f"{quotas}/few")["status"]:
        pass
    await bench.provider.launch(launch_of("local-1"))
    await bench.running_pod("local-1")
    with pytest.raises(QuotaExceeded, match=r"exceeded quota: few, requested: pods=1, used: pods=1"):
        await bench.provider.launch(launch_of("local-2"))
    assert [instance.launch_id for instance in await bench.provider.list_instances()] == ["local-1"]


@pytest.mark.parametrize("kind", ["pod", "job"])
async def test_what_someone_deletes_is_announced_and_told(make: MakeBench, kind: str) -> None:
    bench = await make(SLOW_TO_GO, kind=kind)
    await bench.provider.launch(launch_of("local-1"))
    await bench.until_up("local-1")
    kind_path = "api/v1" if kind == "pod" else "apis/batch/v1"
    path = f"/{kind_path}/namespaces/{bench.namespace}/{kind}s/local-1"
    bench.cluster.http.request("DELETE", path, {"gracePeriodSeconds": 1, "propagationPolicy": "Background"})
    exited = await exit_of(bench.provider)
    assert exited.launch_id == "local-1"
    assert "was deleted by another" in exited.reason or "was killed by signal 9" in exited.reason
    assert not exited.is_clean


async def test_a_pod_is_what_the_pool_and_the_settings_ask_for(make: MakeBench, tmp_path: Path) -> None:
    template = tmp_path / "pod.yaml"
    template.write_text(
        "spec:\n  volumes: [{name: scratch, emptyDir: {}}]\n  containers:\n"
        "  - name: worker\n    volumeMounts: [{name: scratch, mountPath: /scratch}]\n"
    )
    bench = await make(
        image="registry.test/worker:7",
        image_pull_policy="IfNotPresent",
        tolerations={"dedicated": "tests:NoSchedule"},
        spot_tolerations={"spot": ":NoExecute"},
        environment={"COLOUR": "blue"},
        labels={"team": "green"},
        pod_template=str(template),
        termination_grace_seconds=45,
    )
    await bench.provider.launch(
        launch_of("local-1", cpus=1.5, memory_bytes=2**30, is_spot=True, labels={"disk": "fast"})
    )
    pod = await bench.running_pod("local-1")
    assert {key: value for key, value in pod["metadata"]["labels"].items() if "dtf" in key} == {
        "dtf-cluster": "tests",
        "dtf-namespace": "default",
        "dtf-pool": "local",
        "dtf-launch-id": "local-1",
    }
    assert pod["metadata"]["labels"]["team"] == "green"
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    assert container["resources"] == {
        "requests": {"cpu": "1500m", "memory": "1Gi"},
        "limits": {"memory": "1Gi"},
    }
    assert (container["image"], container["imagePullPolicy"]) == ("registry.test/worker:7", "IfNotPresent")
    assert container["volumeMounts"] == [{"name": "scratch", "mountPath": "/scratch"}]
    environment = {item["name"]: item.get("value") for item in container["env"]}
    assert environment == {"COLOUR": "blue", "DTF_WORKER_LAUNCH_ID": "local-1"}
    assert [item["key"] for item in spec["tolerations"] if not item["key"].startswith("node.")] == [
        "dedicated",
        "spot",
    ]
    assert spec["terminationGracePeriodSeconds"] == 45
    assert spec["automountServiceAccountToken"] is False


@pytest.mark.parametrize("kind", ["pod", "job"])
async def test_a_join_token_reaches_the_worker_by_a_secret_alone(make: MakeBench, kind: str) -> None:
    bench = await make(
        "import os; print('error: ' + os.environ['DTF_JOIN_TOKEN']); raise SystemExit(4)", kind=kind
    )

    async def issue(request: LaunchRequest) -> dict[str, str]:
        return {"DTF_JOIN_TOKEN": f"token-of-{request.launch_id}"}

    provider = KubernetesProvider(
        bench.command, settings=bench.settings, owner=OWNER, clock=SystemClock(), environment=issue
    )
    await provider.start()
    await provider.launch(launch_of("local-1"))
    exited = await exit_of(provider)
    assert exited.reason == "exited with code 4 (error: token-of-local-1)"
    assert "token-of-local-1" not in json.dumps([pod["spec"] for pod in bench.pods()])
    await provider.forget("local-1")
    secrets = f"/api/v1/namespaces/{bench.namespace}/secrets"
    async with asyncio.timeout(WAIT_SECONDS):
        while bench.cluster.http.request("GET", secrets)["items"]:  # the garbage collector goes after it
            await asyncio.to_thread(bench.pods)
    await provider.close()


async def test_a_launch_whose_secret_cannot_be_made_is_taken_back(make: MakeBench) -> None:
    bench = await make()

    class WithoutSecrets(KubernetesApi):
        async def create_secret(self, secret: Json) -> None:
            raise Refusal(403, "Forbidden", "secrets is forbidden")

    clock = SystemClock()
    provider = KubernetesProvider(
        bench.command,
        settings=bench.settings,
        owner=OWNER,
        clock=clock,
        environment=lambda _: {"DTF_JOIN_TOKEN": "a token"},
        api=WithoutSecrets(bench.settings, clock),
    )
    await provider.start()
    with pytest.raises(ProviderError, match=r"secrets is forbidden; deploy/kubernetes has the Role"):
        await provider.launch(launch_of("local-1"))
    assert [pod for pod in bench.pods() if "deletionTimestamp" not in pod["metadata"]] == []
    await provider.close()


async def test_what_is_not_ours_is_neither_listed_nor_taken_for_ours(make: MakeBench) -> None:
    bench = await make()
    other = bench.new_provider(Owner("tests", "default", "other"))
    await other.start()
    await other.launch(LaunchRequest("shared-1", "other"))
    assert await bench.provider.list_instances() == []
    with pytest.raises(
        ProviderError, match="has a pod shared-1 that is not ours; give the pool another name"
    ):
        await bench.provider.launch(launch_of("shared-1"))
    await bench.provider.terminate("shared-1", 1)
    assert [instance.state for instance in await other.list_instances()] == [InstanceState.RUNNING]
    await other.close()


async def test_identities_that_are_no_names_of_pods_get_one(make: MakeBench) -> None:
    bench = await make()
    strange = "My_Pool.With-a-very-long-name-that-goes-on-and-on-for-more-than-63-letters-1"
    launched = await bench.provider.launch(launch_of(strange))
    assert await bench.provider.launch(launch_of(strange)) == launched
    assert launched.launch_id == strange
    second = bench.new_provider()
    await second.start()
    assert await second.list_instances() == [launched]
    assert await second.launch(launch_of(strange)) == launched
    await second.close()


async def test_an_exit_after_a_version_too_old_to_watch_from_is_told(make: MakeBench) -> None:
    bench = await make()

    class StaleLists(KubernetesApi):
        stale_lists = 2

        async def list_pods(self, selector: str) -> tuple[list[Json], str]:
            pods, version = await super().list_pods(selector)
            self.stale_lists -= 1
            return pods, "1" if self.stale_lists >= 0 else version

    api = StaleLists(bench.settings, SystemClock())
    provider = KubernetesProvider(
        bench.command, settings=bench.settings, owner=OWNER, clock=SystemClock(), api=api
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(provider.close)
        await provider.start()
        launched = await provider.launch(launch_of("local-1"))
        await bench.running_pod("local-1")
        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(exit_of(provider))
            await bench.kill(launched)
            assert (await telling).reason == "was killed by signal 9"
    assert api.stale_lists <= 0, (
        "it listed again after a watch that was refused; the exit may be in that list"
    )


async def test_while_the_api_server_is_away_it_is_asked_again_and_nothing_is_lost(
    make: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench = await make()
    cluster = bench.cluster
    patient = bench.new_provider(patience_seconds=100)
    await patient.start()
    killed = await patient.launch(launch_of("local-1"))
    await bench.running_pod("local-1")
    hasty = bench.new_provider(patience_seconds=0.3)
    await hasty.start()
    caplog.set_level(logging.WARNING, "dtf.kubernetes")
    async with asyncio.TaskGroup() as tasks:
        telling = tasks.create_task(exit_of(patient))
        pod = await bench.running_pod("local-1")
        await asyncio.to_thread(cluster.stop_api_server)
        with pytest.raises(ProviderError, match="does not answer"):
            await hasty.launch(launch_of("local-2"))
        launching = tasks.create_task(patient.launch(launch_of("local-3")))
        bench.kill_process(pod)
        await asyncio.to_thread(cluster.start_api_server)
        assert (await launching).launch_id == "local-3"
        assert (await telling) == replace(killed, state=InstanceState.EXITED, reason="was killed by signal 9")
    said = caplog.text
    assert "does not answer" in said
    assert "answers again" in said


async def test_what_is_forgotten_while_the_api_server_is_away_is_removed_later(make: MakeBench) -> None:
    bench = await make()
    provider = bench.new_provider(patience_seconds=0.2)
    await provider.start()
    await bench.kill(await provider.launch(launch_of("local-1")))
    await exit_of(provider)
    await asyncio.to_thread(bench.cluster.stop_api_server)
    await provider.forget("local-1")
    await asyncio.to_thread(bench.cluster.start_api_server)
    assert await provider.list_instances() == []
    assert bench.pods() == []
    await provider.close()


async def test_without_credentials_it_says_where_it_looked(
    kubernetes: KubernetesCluster, tmp_path: Path
) -> None:
    settings = KubernetesSettings(kubeconfig=str(tmp_path / "absent"), image="worker:1")
    provider = KubernetesProvider(lambda _: ["true"], settings=settings, owner=OWNER, clock=SystemClock())
    with pytest.raises(ProviderError, match=r"no credentials for a Kubernetes cluster in .*absent"):
        await provider.start()


async def test_credentials_that_are_not_known_are_said_to_be_so(
    kubernetes: KubernetesCluster, tmp_path: Path
) -> None:
    kubeconfig = kubernetes.kubeconfig_of("not-a-token", tmp_path / "config")
    settings = KubernetesSettings(kubeconfig=str(kubeconfig), image="worker:1")
    provider = KubernetesProvider(lambda _: ["true"], settings=settings, owner=OWNER, clock=SystemClock())
    with pytest.raises(ProviderError, match=r"does not know these credentials .*; renew them"):
        await provider.start()
    await provider.close()


async def test_a_namespace_that_is_not_there_is_named(kubernetes: KubernetesCluster, make: MakeBench) -> None:
    bench = await make()
    provider = KubernetesProvider(
        bench.command,
        settings=replace(bench.settings, namespace="nowhere"),
        owner=OWNER,
        clock=SystemClock(),
    )
    await provider.start()
    with pytest.raises(ProviderError, match=r'namespaces "nowhere" not found; kubernetes.namespace must be'):
        await provider.launch(launch_of("local-1"))
    await provider.close()


async def test_the_service_account_of_a_pod_is_taken_first(
    make: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = await make()
    host, port = bench.cluster.url.removeprefix("https://").split(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    (tmp_path / "token").write_text(bench.cluster.admin_token)
    (tmp_path / "ca.crt").write_bytes(bench.cluster.authority_file.read_bytes())
    (tmp_path / "namespace").write_text(bench.namespace)
    settings = replace(bench.settings, kubeconfig="", namespace="")
    api = KubernetesApi(settings, SystemClock(), service_account=tmp_path)
    provider = KubernetesProvider(bench.command, settings=settings, owner=OWNER, clock=SystemClock(), api=api)
    await provider.start()
    launched = await provider.launch(launch_of("local-1"))
    assert launched.handle == f"pod {bench.namespace}/local-1"
    await provider.close()
