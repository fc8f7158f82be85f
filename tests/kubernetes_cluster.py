"""A real Kubernetes control plane for tests: what `make kubernetes` built, on free ports, in a directory of its own.

etcd, API server, scheduler and the controllers that pods, jobs, quotas and evictions need. Nodes are
node agents (tests/node_agent.py), which run the command of each pod bound to them as a local process.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.kubernetes_http import KubernetesHttp
from tests.ports import free_ports

_VERSION = re.compile(r"^\tk8s\.io/kubernetes v(\S+)", re.MULTILINE)
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kustomize")
CONTROLLERS = (
    "job-controller",
    "garbage-collector-controller",
    "resourcequota-controller",
    "namespace-controller",
    "taint-eviction-controller",
    "node-lifecycle-controller",  # whose index of pods by node the one above looks in
    "disruption-controller",
    "pod-garbage-collector-controller",
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "serviceaccount-controller",
)
READY_SECONDS = 120.0
STOP_SECONDS = 60.0
_namespaces = count(1)


def kubernetes_programs() -> Path | None:
    """The directory of the binaries, or None when they have not been built."""
    override = os.environ.get("DTF_KUBERNETES")
    if override:
        return Path(override)
    go_mod = Path(__file__).parent.parent / "tools" / "kubernetes" / "go.mod"
    version = _VERSION.search(go_mod.read_text(encoding="utf-8"))
    assert version is not None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = cache / "dtf" / "kubernetes" / version.group(1)
    return directory if all((directory / program).exists() for program in PROGRAMS) else None


class KubernetesCluster:
    """One control plane; `http` is its administrator's."""

    admin_token = "token-of-the-administrator"

    def __init__(self, programs: Path, directory: Path) -> None:
        self._programs = programs
        self._directory = directory
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports = dict(zip(("etcd", "etcd-peer", "api"), free_ports(3), strict=True))
        self.http = KubernetesHttp(self.url, self.authority_file, self.admin_token)

    @property
    def url(self) -> str:
        """Where the API server listens."""
        return f"https://127.0.0.1:{self._ports['api']}"

    @property
    def authority_file(self) -> Path:
        """The authority that signed the API server's certificate."""
        return self._directory / "api" / "apiserver.crt"

    @property
    def logs(self) -> Path:
        """Where the nodes write what the processes of pods say (`node_agent.log_name`)."""
        return self._directory / "logs"

    @property
    def kubeconfig(self) -> Path:
        """Of the administrator."""
        return self._directory / "kubeconfig.json"

    def start(self) -> None:
        """Start all and return when the API server answers as it should."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._write_secrets()
        self._start("etcd", self._etcd_arguments())
        self.start_api_server()
        client = [f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--secure-port=0"]
        key = self._directory / "service-account.key"
        self._start(
            "kube-controller-manager",
            [
                *client,
                f"--controllers={','.join(CONTROLLERS)}",
                f"--service-account-private-key-file={key}",
                "--concurrent-job-syncs=2",
                "--node-monitor-grace-period=24h",  # node agents send no heartbeats
            ],
        )
        self._start("kube-scheduler", client)

    def start_api_server(self) -> None:
        """Start the API server and return when it is ready."""
        self._start("kube-apiserver", self._api_arguments())
        deadline = time.monotonic() + READY_SECONDS
        while not self.http.is_ready():
            process = self._processes["kube-apiserver"]
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"kube-apiserver is not ready:\n{self._tail('kube-apiserver')}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)

    def stop_api_server(self) -> None:
        """End it as kill -9 does; etcd and what it holds stay."""
        self._end("kube-apiserver", signal.SIGKILL)

    def stop(self) -> None:
        """End all of it."""
        for program in reversed(PROGRAMS):
            self._end(program, signal.SIGKILL)

    def new_namespace(self) -> str:
        """A namespace that no other test uses."""
        name = f"test-{os.getpid()}-{next(_namespaces)}"
        self.http.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        return name

    def kubeconfig_of(self, token: str, path: Path, namespace: str = "default") -> Path:
        """A kubeconfig for whoever has `token`."""
        path.write_text(json.dumps(_kubeconfig(self.url, self.authority_file, token, namespace)))
        path.chmod(0o600)
        return path

    def _write_secrets(self) -> None:
        tokens = self._directory / "tokens.csv"
        tokens.write_text(f'{self.admin_token},admin,admin,"system:masters"\n')
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        (self._directory / "service-account.key").write_bytes(pem)
        self.kubeconfig_of(self.admin_token, self.kubeconfig)

    def _etcd_arguments(self) -> Sequence[str]:
        client, peer = (f"http://127.0.0.1:{self._ports[name]}" for name in ("etcd", "etcd-peer"))
        return [
            f"--data-dir={self._directory / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        ]

    def _api_arguments(self) -> Sequence[str]:
        key = self._directory / "service-account.key"
        return [
            f"--etcd-servers=http://127.0.0.1:{self._ports['etcd']}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._ports['api']}",
            f"--cert-dir={self._directory / 'api'}",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--endpoint-reconciler-type=none",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self._directory / 'tokens.csv'}",
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged=false",
        ]

    def _start(self, program: str, arguments: Sequence[str]) -> None:
        with (self._directory / f"{program}.log").open("ab") as log:
            self._processes[program] = subprocess.Popen(
                [str(self._programs / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
            )

    def _end(self, program: str, number: signal.Signals) -> None:
        process = self._processes.pop(program, None)
        if process is not None:
            process.send_signal(number)
            process.wait(STOP_SECONDS)

    def _tail(self, program: str) -> str:
        return (self._directory / f"{program}.log").read_text(errors="replace")[-4000:]


class Node:
    """A machine of the cluster: a node agent in a process of its own."""

    def __init__(self, cluster: KubernetesCluster, name: str, *options: str) -> None:
        self.name = name
        cluster.logs.mkdir(exist_ok=True)
        arguments = ["--kubeconfig", str(cluster.kubeconfig), "--name", name, "--logs", str(cluster.logs)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.node_agent", *arguments, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line == "ready\n", f"the node agent {name} said {line!r}"

    def stop(self) -> None:
        """End it and the processes of its pods."""
        self._process.communicate(timeout=STOP_SECONDS)  # the end of its input tells it


def _kubeconfig(url: str, authority: Path, token: str, namespace: str) -> Mapping[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": {"server": url, "certificate-authority": str(authority)}}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [
            {"name": "tests", "context": {"cluster": "tests", "user": "user", "namespace": namespace}}
        ],
        "current-context": "tests",
    }


@pytest.fixture(scope="session")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesCluster]:
    """One control plane for the session, with one node."""
    programs = kubernetes_programs()
    if programs is None:
        pytest.skip("left out: there is no Kubernetes control plane; `make kubernetes` builds one")
    cluster = started_cluster(programs, tmp_path_factory)
    try:
        node = Node(cluster, "node-a")
        yield cluster
        node.stop()
    finally:
        cluster.stop()


def started_cluster(
    programs: Path, directories: pytest.TempPathFactory, attempts: int = 3
) -> KubernetesCluster:
    """A control plane that is ready; another one where somebody took a port before it did."""
    while True:
        attempts -= 1
        cluster = KubernetesCluster(programs, directories.mktemp("kubernetes"))
        try:
            cluster.start()
        except BaseException as error:
            cluster.stop()
            if not isinstance(error, AssertionError) or attempts == 0:
                raise
        else:
            return cluster
