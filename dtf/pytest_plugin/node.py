"""A worker as plug-ins know it from pytest-xdist: what they put in, what they get back.

pytest-cov and pytest-randomly hook into pytest_configure_node(node) and pytest_testnodedown(node,
error); these objects have what they touch.
"""

import platform
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest


class Gateway:
    """pytest-xdist's connection to a worker."""

    def __init__(self, name: str) -> None:
        self.id = name
        self.spec = SimpleNamespace(id=name, popen=True, chdir=None, python=None)

    def _rinfo(self) -> SimpleNamespace:
        """The interpreter, which is that of the controller (workers refuse another)."""
        return SimpleNamespace(
            platform=sys.platform,
            version_info=tuple(sys.version_info),
            executable=sys.executable,
            cwd=".",
            pid=0,
        )


@dataclass
class WorkerNode:
    """pytest-xdist's WorkerController."""

    config: pytest.Config
    name: str
    workerinput: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gateway = Gateway(self.name)
        self.nodemanager = SimpleNamespace(roots=[], config=self.config, specs=[])
        self.workerinfo = {
            "id": self.name,
            "version": sys.version,
            "version_info": tuple(sys.version_info),
            "sysplatform": sys.platform,
            "platform": platform.platform(),
            "executable": sys.executable,
        }


def gather_worker_input(config: pytest.Config) -> dict[str, Any]:
    """What plug-ins want every worker to have."""
    node = WorkerNode(config, "gw0")
    call_if_hooked(config, "pytest_configure_node", node=node)
    seed = getattr(config.option, "randomly_seed", None)
    if isinstance(seed, int):
        # pytest-randomly puts it in only where pytest-xdist is installed, and its worker side always takes it.
        node.workerinput.setdefault("randomly_seed", seed)
    return node.workerinput


def report_node_down(config: pytest.Config, name: str, output: dict[str, Any] | None) -> None:
    """Tell plug-ins that a worker's process ended; `output` is what it left, None if it died."""
    node = WorkerNode(config, name)
    if output is not None:
        node.workeroutput = output  # type: ignore[attr-defined]  # absent on nodes that died
    call_if_hooked(config, "pytest_testnodedown", node=node, error=None if output is not None else "died")


def call_if_hooked(config: pytest.Config, hook: str, **arguments: Any) -> None:
    """Call a hook of pytest-xdist's, which exists only if a plug-in implements it."""
    caller = getattr(config.hook, hook, None)
    if caller is not None:
        caller(**arguments)
