"""What this machine has: processors, memory, graphics processors, and labels that say what it is.

Limits count, not hardware: the affinity mask and the control group's quota bound the processors,
the control group's limit bounds the memory. Graphics processors are asked of their vendors' own
tools, whose output formats the tests hold recordings of.
"""

import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from dtf.api.v1 import common_pb2

TOOL_TIMEOUT_SECONDS = 10.0
_CGROUP = Path("/sys/fs/cgroup")
_V1_UNLIMITED_BYTES = 2**60
"""Version 1 writes a number near 2^63 where there is no limit."""

Run = Callable[[Sequence[str]], str | None]
"""Runs a tool and returns its standard output; None if it is not there or failed."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A graphics processor."""

    vendor: str
    """nvidia, amd or apple."""
    model: str
    memory_bytes: int
    """0: not told, or shared with the processor."""


def run_tool(argv: Sequence[str]) -> str | None:
    """What a tool prints; None if it is not there, fails or hangs."""
    if shutil.which(argv[0]) is None:
        return None
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TOOL_TIMEOUT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout if done.returncode == 0 else None


def detect_resources(gpus: Sequence[Gpu]) -> common_pb2.Resources:
    """What attempts on this machine can use."""
    return common_pb2.Resources(cpus=processor_count(), memory_bytes=memory_limit_bytes(), gpus=len(gpus))


def processor_count(cgroup: Path = _CGROUP) -> float:
    """Processors this process may use: the affinity mask's, bounded by the control group's quota."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(cgroup)
    return float(available) if quota is None else round(min(float(available), quota), 2)


def _cpu_quota(cgroup: Path) -> float | None:
    """Processors the control group allows; None: no limit."""
    limits = []
    for directory in _cgroup_chain(cgroup):
        words = _text(directory / "cpu.max").split()
        if len(words) == 2 and words[0] != "max":
            limits.append(int(words[0]) / int(words[1]))
    quota = _text(cgroup / "cpu" / "cpu.cfs_quota_us")
    period = _text(cgroup / "cpu" / "cpu.cfs_period_us")
    if quota and period and int(quota) > 0:
        limits.append(int(quota) / int(period))
    return min(limits, default=None)


def memory_limit_bytes(cgroup: Path = _CGROUP) -> int:
    """Memory of the machine, bounded by the control group's limit."""
    limits = [int(psutil.virtual_memory().total)]
    for directory in _cgroup_chain(cgroup):
        text = _text(directory / "memory.max")
        if text and text != "max":
            limits.append(int(text))
    text = _text(cgroup / "memory" / "memory.limit_in_bytes")
    if text and int(text) < _V1_UNLIMITED_BYTES:
        limits.append(int(text))
    return min(limits)


def _cgroup_chain(cgroup: Path) -> list[Path]:
    """This process's control group (version 2) and those it is in."""
    own = re.search(r"^0::/(.*)$", _text(Path("/proc/self/cgroup")), re.MULTILINE)
    path = cgroup / own.group(1) if own is not None and cgroup == _CGROUP else cgroup
    chain = [path, *path.parents]
    return chain[: chain.index(cgroup) + 1] if cgroup in chain else [cgroup]


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def detect_gpus(run: Run = run_tool, environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """The graphics processors that attempts on this machine may use."""
    gpus = nvidia_gpus(
        run(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]) or ""
    )
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        gpus = gpus[: len([part for part in visible.split(",") if part.strip() not in ("", "-1")])]
    gpus += rocm_gpus(run(["rocm-smi", "--showproductname", "--showmeminfo", "vram", "--json"]) or "")
    if sys.platform == "darwin":
        gpus += apple_gpus(run(["system_profiler", "SPDisplaysDataType", "-json"]) or "")
    return gpus


def nvidia_gpus(output: str) -> list[Gpu]:
    """From `nvidia-smi --query-gpu=name,memory.total --format=csv,noheader,nounits` (MiB)."""
    gpus = []
    for line in output.splitlines():
        name, _, memory = (part.strip() for part in line.rpartition(","))
        # Where memory is shared with the processor it says [N/A] or [Not Supported].
        if name and (memory.isdigit() or memory.startswith("[")):
            gpus.append(Gpu("nvidia", name, int(memory) * 2**20 if memory.isdigit() else 0))
    return gpus


def rocm_gpus(output: str) -> list[Gpu]:
    """From `rocm-smi --showproductname --showmeminfo vram --json`; older ones name the card otherwise."""
    gpus = []
    for name, card in sorted(_json_object(output).items()):
        if not name.startswith("card") or not isinstance(card, dict):
            continue
        model = card.get("Card Series") or card.get("Card series") or card.get("Card Model") or "AMD"
        memory = str(card.get("VRAM Total Memory (B)", "0"))
        gpus.append(Gpu("amd", str(model), int(memory) if memory.isdigit() else 0))
    return gpus


def apple_gpus(output: str) -> list[Gpu]:
    """From `system_profiler SPDisplaysDataType -json`."""
    entries = _json_object(output).get("SPDisplaysDataType")
    if not isinstance(entries, list):
        return []
    return [
        Gpu("apple", str(entry.get("sppci_model", "Apple")), 0)
        for entry in entries
        if isinstance(entry, dict) and "apple" in str(entry.get("spdisplays_vendor", "")).lower()
    ]


def _json_object(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def detect_labels(gpus: Sequence[Gpu], own: Mapping[str, str]) -> dict[str, str]:
    """What the machine can be matched by; the user's labels prevail."""
    labels = {
        "os": platform.system().lower(),
        "arch": platform.machine().lower(),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "host": socket.gethostname(),
    }
    if gpus:
        labels["gpu"] = gpus[0].vendor
        labels["gpu_model"] = gpus[0].model
    return labels | dict(own)
