"""Detection from recorded outputs of vendors' tools and from control groups as the kernel writes them."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dtf.worker.detect import (
    Gpu,
    apple_gpus,
    detect_gpus,
    detect_labels,
    memory_limit_bytes,
    nvidia_gpus,
    processor_count,
    rocm_gpus,
    run_tool,
)

NVIDIA = "NVIDIA A100-SXM4-80GB, 81920\nNVIDIA A100-SXM4-80GB, 81920\n"
NVIDIA_UNKNOWN_MEMORY = "NVIDIA GB10, [N/A]\n"
ROCM_5 = json.dumps(
    {
        "card0": {
            "VRAM Total Memory (B)": "68702699520",
            "VRAM Total Used Memory (B)": "10960896",
            "Card series": "AMD INSTINCT MI250 (MCM) OAM AC MBA",
            "Card model": "0x0b0c",
            "Card vendor": "Advanced Micro Devices, Inc. [AMD/ATI]",
            "Card SKU": "D65209",
        },
        "card1": {
            "VRAM Total Memory (B)": "68702699520",
            "Card series": "AMD INSTINCT MI250 (MCM) OAM AC MBA",
        },
        "system": {"Driver version": "5.18.13"},
    }
)
ROCM_6 = json.dumps(
    {
        "card0": {
            "VRAM Total Memory (B)": "206141652992",
            "Card Series": "AMD Instinct MI300X OAM",
            "Card Model": "0x74a1",
            "GFX Version": "gfx942",
        }
    }
)
APPLE = json.dumps(
    {
        "SPDisplaysDataType": [
            {
                "_name": "Apple M2 Pro",
                "spdisplays_mtlgpufamilysupport": "spdisplays_metal3",
                "spdisplays_vendor": "sppci_vendor_Apple",
                "sppci_bus": "spdisplays_builtin",
                "sppci_cores": "19",
                "sppci_device_type": "spdisplays_gpu",
                "sppci_model": "Apple M2 Pro",
            }
        ]
    }
)


def test_nvidia() -> None:
    assert nvidia_gpus(NVIDIA) == [Gpu("nvidia", "NVIDIA A100-SXM4-80GB", 81920 * 2**20)] * 2
    assert nvidia_gpus(NVIDIA_UNKNOWN_MEMORY) == [Gpu("nvidia", "NVIDIA GB10", 0)]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (ROCM_5, [Gpu("amd", "AMD INSTINCT MI250 (MCM) OAM AC MBA", 68702699520)] * 2),
        (ROCM_6, [Gpu("amd", "AMD Instinct MI300X OAM", 206141652992)]),
    ],
)
def test_rocm_of_both_spellings(output: str, expected: list[Gpu]) -> None:
    assert rocm_gpus(output) == expected


def test_apple() -> None:
    assert apple_gpus(APPLE) == [Gpu("apple", "Apple M2 Pro", 0)]


@pytest.mark.parametrize("read", [nvidia_gpus, rocm_gpus, apple_gpus])
@pytest.mark.parametrize(
    "output", ["", "No devices were found\n", "{", "[]", '{"SPDisplaysDataType": 3, "card0": 4}']
)
def test_outputs_that_name_no_gpu(read, output: str) -> None:  # type: ignore[no-untyped-def]
    assert read(output) == []


@pytest.mark.parametrize(("visible", "count"), [(None, 2), ("0", 1), ("", 0), ("-1", 0), ("0,1", 2)])
def test_only_visible_nvidia_gpus_count(visible: str | None, count: int) -> None:
    def run(argv: Sequence[str]) -> str | None:
        return NVIDIA if argv[0] == "nvidia-smi" else None

    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert len(detect_gpus(run, environment)) == count


def test_a_tool_that_is_missing_fails_or_prints_rubbish_says_nothing() -> None:
    assert run_tool(["no-such-tool-of-any-vendor"]) is None
    assert run_tool(["false"]) is None
    assert run_tool([sys.executable, "-c", "print('out')"]) == "out\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "50000 100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "25000", "cpu/cpu.cfs_period_us": "100000"}, 0.25),
    ],
)
def test_the_control_groups_quota_bounds_the_processors(
    tmp_path: Path, files: dict[str, str], expected: float
) -> None:
    write(tmp_path, files)
    assert processor_count(tmp_path) == expected


@pytest.mark.parametrize("files", [{}, {"cpu.max": "max 100000\n"}, {"cpu/cpu.cfs_quota_us": "-1"}])
def test_without_a_quota_the_affinity_mask_counts(tmp_path: Path, files: dict[str, str]) -> None:
    write(tmp_path, files)
    assert processor_count(tmp_path) >= 1


@pytest.mark.parametrize("files", [{"memory.max": "1048576\n"}, {"memory/memory.limit_in_bytes": "1048576"}])
def test_the_control_groups_limit_bounds_the_memory(tmp_path: Path, files: dict[str, str]) -> None:
    write(tmp_path, files)
    assert memory_limit_bytes(tmp_path) == 1048576


@pytest.mark.parametrize(
    "files", [{"memory.max": "max"}, {"memory/memory.limit_in_bytes": "9223372036854771712"}]
)
def test_without_a_limit_the_machines_memory_counts(tmp_path: Path, files: dict[str, str]) -> None:
    write(tmp_path, files)
    assert memory_limit_bytes(tmp_path) > 2**28


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def test_users_labels_prevail_over_those_found() -> None:
    labels = detect_labels([Gpu("nvidia", "A100", 0)], {"os": "mine", "team": "x"})
    assert labels["os"] == "mine"
    assert labels["team"] == "x"
    assert labels["gpu"] == "nvidia"
    assert {"arch", "python", "host", "gpu_model"} <= labels.keys()
