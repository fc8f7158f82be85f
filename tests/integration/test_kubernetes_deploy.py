"""deploy/kubernetes on a real API server: it is built, taken, admitted, and allows what dtf does and no more."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from dtf.adapters.certificates import OwnAuthority
from dtf.adapters.kubernetes_objects import Owner
from dtf.adapters.kubernetes_provider import KubernetesProvider
from dtf.adapters.nats_binary import find_nats_server
from dtf.adapters.system_clock import SystemClock
from dtf.ports.capacity import InstanceState, LaunchRequest
from dtf.settings.loader import load_settings, without_settings
from dtf.settings.model import Settings
from tests.kubernetes_bench import KubernetesBench
from tests.kubernetes_cluster import KubernetesCluster, kubernetes_programs
from tests.kubernetes_http import Json
from tests.ports import free_ports

pytestmark = pytest.mark.resource_manager

DEPLOY = Path(__file__).parents[2] / "deploy" / "kubernetes"
ACCOUNT = "system:serviceaccount:dtf:dtf-resource-manager"
APPLY = "application/apply-patch+yaml"
WAIT_SECONDS = 80.0
_PATHS = {
    "v1": "/api/v1",
    "apps/v1": "/apis/apps/v1",
    "rbac.authorization.k8s.io/v1": "/apis/rbac.authorization.k8s.io/v1",
    "networking.k8s.io/v1": "/apis/networking.k8s.io/v1",
}
_PLURALS = {"NetworkPolicy": "networkpolicies"}


def build(name: str) -> list[Json]:
    """What `kustomize build` makes of a directory of deploy/kubernetes."""
    programs = kubernetes_programs()
    assert programs is not None
    built = subprocess.run(
        [str(programs / "kustomize"), "build", str(DEPLOY / name)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return list(yaml.safe_load_all(built.stdout))


def apply(cluster: KubernetesCluster, thing: Json, *, is_rehearsal: bool) -> Json:
    """Server-side apply, as `kubectl apply --server-side` does."""
    metadata = thing["metadata"]
    where = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    plural = _PLURALS.get(thing["kind"], f"{thing['kind'].lower()}s")
    options = "fieldManager=dtf&fieldValidation=Strict" + ("&dryRun=All" if is_rehearsal else "")
    path = f"{_PATHS[thing['apiVersion']]}{where}/{plural}/{metadata['name']}?{options}"
    return cluster.http.request("PATCH", path, thing, content_type=APPLY)


def set_cordon(cluster: KubernetesCluster, is_cordoned: bool) -> None:
    """Whether the node takes new pods: the images of deploy/ are not there to be run."""
    cluster.http.request(
        "PATCH",
        "/api/v1/nodes/node-a",
        {"spec": {"unschedulable": is_cordoned}},
        content_type="application/strategic-merge-patch+json",
    )


@pytest.fixture(scope="module")
def deployed(kubernetes: KubernetesCluster) -> Iterator[KubernetesCluster]:
    """The standby overlay applied, each thing rehearsed first."""
    things = build("overlays/standby")
    set_cordon(kubernetes, True)
    for thing in things:
        if thing["kind"] == "Namespace":
            apply(kubernetes, thing, is_rehearsal=False)
    for thing in things:
        apply(kubernetes, thing, is_rehearsal=True)
    for thing in things:
        apply(kubernetes, thing, is_rehearsal=False)
    yield kubernetes
    for namespace in ("dtf", "dtf-workers"):
        kubernetes.http.request("DELETE", f"/api/v1/namespaces/{namespace}")
    set_cordon(kubernetes, False)


def can(cluster: KubernetesCluster, verb: str, resource: str, namespace: str, group: str = "") -> bool:
    """Whether the resource manager's account may, as the API server itself says when it is impersonated."""
    name, _, subresource = resource.partition("/")
    asked = {
        "verb": verb,
        "resource": name,
        "subresource": subresource,
        "namespace": namespace,
        "group": group,
    }
    review = cluster.http.request(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        {"spec": {"resourceAttributes": asked}},
        impersonate=ACCOUNT,
    )
    return bool(review["status"]["allowed"])


def settings_of(things: list[Json], directory: Path) -> Settings:
    """The settings that a directory deploys, as dtf reads them."""
    maps = {thing["metadata"]["name"]: thing["data"] for thing in things if thing["kind"] == "ConfigMap"}
    (directory / "dtf.toml").write_text(maps["dtf-settings"]["dtf.toml"])
    return load_settings(directory, environ=maps["dtf-addresses"]).settings


def test_applying_again_changes_nothing(deployed: KubernetesCluster) -> None:
    for thing in build("overlays/standby"):
        before = apply(deployed, thing, is_rehearsal=True)["metadata"].get("generation")
        after = apply(deployed, thing, is_rehearsal=False)["metadata"].get("generation")
        assert before == after


def test_each_part_has_its_pods_admitted(deployed: KubernetesCluster) -> None:
    wanted = {
        "dtf-coordinator-0",
        "dtf-coordinator-1",
        "dtf-nats-0",
        "dtf-resource-manager-0",
        "dtf-trend-analyzer-0",
    }
    found: set[str] = set()
    for change in deployed.http.watch("/api/v1/namespaces/dtf/pods", "0", round(WAIT_SECONDS)):
        found.add(change["object"]["metadata"]["name"])
        if found >= wanted:
            break
    assert found == wanted


def test_both_layouts_name_each_secret_they_need(kubernetes: KubernetesCluster) -> None:
    for name in ("base", "overlays/standby"):
        volumes = [
            volume
            for thing in build(name)
            if thing["kind"] == "StatefulSet"
            for volume in thing["spec"]["template"]["spec"]["volumes"]
        ]
        secrets = {volume["secret"]["secretName"] for volume in volumes if "secret" in volume}
        projected = [
            source for volume in volumes for source in volume.get("projected", {}).get("sources", [])
        ]
        secrets |= {source["secret"]["name"] for source in projected if "secret" in source}
        assert secrets == {"dtf-token", "dtf-nats", "dtf-tls"}
        assert not [thing for thing in build(name) if thing["kind"] == "Secret"]


def test_the_settings_are_ones_that_dtf_takes(kubernetes: KubernetesCluster, tmp_path: Path) -> None:
    for name, coordinators in (("base", 1), ("overlays/standby", 2)):
        things = build(name)
        settings = settings_of(things, tmp_path)
        assert settings.pool.provider == "kubernetes"
        assert settings.kubernetes.namespace == "dtf-workers"
        servers = settings.run.server.split(",")
        replicas = [
            t["spec"]["replicas"]
            for t in things
            if t["metadata"]["name"] == "dtf-coordinator" and "replicas" in t["spec"]
        ]
        assert [len(servers)] == replicas == [coordinators]
        assert settings.coordinator.advertise == settings.run.server


async def test_the_configuration_of_the_broker_is_one_it_takes(
    kubernetes: KubernetesCluster, tmp_path: Path
) -> None:
    maps = {t["metadata"]["name"]: t["data"] for t in build("base") if t["kind"] == "ConfigMap"}
    (tmp_path / "user.conf").write_text('users = [{user: "dtf", password: "secret"}]\n')
    configuration = tmp_path / "nats.conf"
    configuration.write_text(maps["dtf-nats"]["nats.conf"])
    server = await find_nats_server()
    checked = await asyncio.to_thread(
        subprocess.run,
        [str(server.path), "-t", "-c", str(configuration)],
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert "is valid" in checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("verb", "resource", "group"),
    [
        *((verb, "pods", "") for verb in ("create", "get", "list", "watch", "delete")),
        *((verb, "jobs", "batch") for verb in ("create", "get", "list", "delete")),
        ("create", "secrets", ""),
    ],
)
def test_the_resource_manager_may_do_this_among_the_workers_and_nowhere_else(
    deployed: KubernetesCluster, verb: str, resource: str, group: str
) -> None:
    assert can(deployed, verb, resource, "dtf-workers", group)
    assert not can(deployed, verb, resource, "dtf", group)
    assert not can(deployed, verb, resource, "kube-system", group)


@pytest.mark.parametrize(
    ("verb", "resource", "group"),
    [
        ("get", "secrets", ""),
        ("list", "secrets", ""),
        ("delete", "secrets", ""),
        ("create", "pods/exec", ""),
        ("create", "pods/eviction", ""),
        ("patch", "pods", ""),
        ("update", "pods", ""),
        ("deletecollection", "pods", ""),
        ("patch", "jobs", "batch"),
        ("create", "deployments", "apps"),
        ("create", "serviceaccounts", ""),
        ("create", "serviceaccounts/token", ""),
        ("create", "rolebindings", "rbac.authorization.k8s.io"),
        ("get", "configmaps", ""),
        ("list", "nodes", ""),
    ],
)
def test_the_resource_manager_may_not_do_that(
    deployed: KubernetesCluster, verb: str, resource: str, group: str
) -> None:
    assert not can(deployed, verb, resource, "dtf-workers", group)


@pytest.mark.parametrize("kind", ["pod", "job"])
async def test_with_its_account_alone_the_provider_does_all_it_does(
    deployed: KubernetesCluster, tmp_path: Path, kind: str
) -> None:
    """In the namespace and under the quota of deploy/, as the account that it runs as there."""
    token = deployed.http.request(
        "POST",
        "/api/v1/namespaces/dtf/serviceaccounts/dtf-resource-manager/token",
        {"spec": {"expirationSeconds": 600}},
    )["status"]["token"]
    kubeconfig = deployed.kubeconfig_of(token, tmp_path / "config")
    settings = settings_of(build("base"), tmp_path).kubernetes
    program = "import os, time; assert os.environ['DTF_JOIN_TOKEN'] == 'a token'; time.sleep(600)"
    bench = KubernetesBench(deployed, program, settings, namespace="dtf-workers")
    provider = KubernetesProvider(
        bench.command,
        settings=replace(bench.settings, kind=kind, kubeconfig=str(kubeconfig)),
        owner=Owner("deployed", "default", kind),
        clock=SystemClock(),
        environment=lambda _: {"DTF_JOIN_TOKEN": "a token"},
    )
    set_cordon(deployed, False)
    try:
        await provider.start()
        await provider.launch(LaunchRequest(f"{kind}-1", kind))
        bench.kill_process(await bench.running_pod(f"{kind}-1"))
        async with asyncio.timeout(WAIT_SECONDS):
            exited = await anext(aiter(provider.exits()))
        assert exited.reason == "was killed by signal 9"
        await provider.forget(f"{kind}-1")
        assert await provider.list_instances() == []
        await provider.launch(LaunchRequest(f"{kind}-2", kind))
        await bench.running_pod(f"{kind}-2")
        await provider.terminate(f"{kind}-2", 1)
        async with asyncio.timeout(WAIT_SECONDS):
            exited = await anext(aiter(provider.exits()))
        assert (exited.launch_id, exited.state) == (f"{kind}-2", InstanceState.EXITED)
    finally:
        set_cordon(deployed, True)
        await provider.close()


class Here:
    """The parts as they are deployed, on this machine: their commands, settings and files, with paths moved."""

    def __init__(self, directory: Path, things: list[Json]) -> None:
        self.directory = directory
        self.commands = {
            thing["metadata"]["name"]: thing["spec"]["template"]["spec"]["containers"][0].get("command", [])
            for thing in things
            if thing["kind"] == "StatefulSet"
        }
        self._maps = {t["metadata"]["name"]: t["data"] for t in things if t["kind"] == "ConfigMap"}
        self._environment = {**without_settings(os.environ), "HOME": "/nonexistent"}
        self.settings_dir = directory / "etc" / "dtf" / "settings"
        self.settings_dir.mkdir(parents=True)

    def moved(self, text: str) -> str:
        """A text of the manifests with its paths and addresses moved here."""
        for path in ("/etc/dtf", "/var/lib/dtf"):
            text = text.replace(path, f"{self.directory}{path}")
        return re.sub(r"0\.0\.0\.0:70\d\d", "127.0.0.1:0", text)

    def write_secrets(self) -> None:
        """What docs/kubernetes.md has people make."""
        etc = self.directory / "etc" / "dtf"
        authority = OwnAuthority(self.directory / "authority", SystemClock())
        issued = authority.server("coordinator", ["127.0.0.1"])
        secrets = {
            "token/token": b"a-token",
            "nats/credentials": b"dtf:a-password",
            "tls/tls.crt": issued.chain_pem,
            "tls/tls.key": issued.key_pem,
            "tls/ca.crt": authority.certificate_file.read_bytes(),
        }
        for name, content in secrets.items():
            (etc / name).parent.mkdir(exist_ok=True)
            (etc / name).write_bytes(content)

    async def start_broker(self, stack: AsyncExitStack) -> None:
        """nats-server with the configuration that is deployed."""
        client, monitoring = free_ports(2)
        text = self._maps["dtf-nats"]["nats.conf"].replace("0.0.0.0:4222", f"127.0.0.1:{client}")
        text = text.replace(":8222", f":{monitoring}").replace("/data", str(self.directory / "nats"))
        (self.directory / "user.conf").write_text('users = [{user: "dtf", password: "a-password"}]')
        (self.directory / "nats.conf").write_text(text)
        server = await find_nats_server()
        process = await asyncio.create_subprocess_exec(
            str(server.path), "-c", str(self.directory / "nats.conf"), stderr=asyncio.subprocess.PIPE
        )
        stack.push_async_callback(self._end, process)
        assert process.stderr is not None
        while b"Server is ready" not in await process.stderr.readline():
            pass
        settings = self.moved(self._maps["dtf-settings"]["dtf.toml"])
        settings = settings.replace("nats://dtf-nats:4222", f"nats://127.0.0.1:{client}")
        (self.settings_dir / "dtf.toml").write_text(settings)

    async def start(self, stack: AsyncExitStack, name: str, **environment: str) -> dict[str, Any]:
        """A part, and what it said last when it was ready."""
        program, *arguments = [self.moved(word) for word in self.commands[name]]
        assert program == "dtf"
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "dtf"),
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            env={**self._environment, **environment},
            cwd="/",
        )
        stack.push_async_callback(self._end, process)
        assert process.stdout is not None
        said: dict[str, Any] = {"role": "standby"}
        while said.get("role") == "standby":
            said = json.loads(await process.stdout.readline())
        return said

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        process.terminate()
        async with asyncio.timeout(WAIT_SECONDS):
            code = await process.wait()
        assert code in (0, 1)  # nats-server's own for SIGTERM is 1


async def test_each_part_starts_as_it_is_deployed(deployed: KubernetesCluster, tmp_path: Path) -> None:
    """The commands of the manifests, on the settings of the manifests; only that they are no containers."""
    here = Here(tmp_path, build("base"))
    here.write_secrets()
    token = deployed.http.request(
        "POST", "/api/v1/namespaces/dtf/serviceaccounts/dtf-resource-manager/token", {"spec": {}}
    )["status"]["token"]
    kubeconfig = deployed.kubeconfig_of(token, tmp_path / "kubeconfig")
    async with asyncio.timeout(WAIT_SECONDS), AsyncExitStack() as stack:
        await here.start_broker(stack)
        coordinator = await here.start(stack, "dtf-coordinator")
        assert (coordinator["ready"], coordinator["role"]) == (True, "leader")
        address = coordinator["address"]
        analyzer = await here.start(stack, "dtf-trend-analyzer", DTF_SERVER=address)
        assert analyzer["ready"]
        manager = await here.start(
            stack, "dtf-resource-manager", DTF_SERVER=address, KUBECONFIG=str(kubeconfig)
        )
        assert manager["ready"]
    assert [path.name for path in here.settings_dir.iterdir()] == ["dtf.toml"]
