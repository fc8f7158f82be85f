"""Samples of the worker's machine and of its own processes."""

import contextlib
import os
from pathlib import Path

import psutil

from dtf.api.v1 import worker_service_pb2
from dtf.worker.detect import memory_limit_bytes


class TelemetrySampler:
    """Takes samples; busy shares are over the time since the sample before."""

    def __init__(self, working_dir: Path | None = None) -> None:
        self._working_dir = str(working_dir or Path.cwd())
        self._own = psutil.Process()
        self._total_bytes = memory_limit_bytes()
        psutil.cpu_percent(interval=None)

    def sample(self, running: int, waiting: int) -> worker_service_pb2.Telemetry:
        """The state of things now."""
        memory = psutil.virtual_memory()
        disk_free = 0
        with contextlib.suppress(OSError):
            disk_free = psutil.disk_usage(self._working_dir).free
        return worker_service_pb2.Telemetry(
            cpu_ratio=min(1.0, psutil.cpu_percent(interval=None) / 100),
            memory_used_bytes=memory.total - memory.available,
            memory_total_bytes=self._total_bytes,
            disk_free_bytes=disk_free,
            load=os.getloadavg()[0],
            running=running,
            waiting=waiting,
            worker_memory_bytes=self._tree_memory(),
        )

    def _tree_memory(self) -> int:
        """Resident memory of the worker and its descendants."""
        total = 0
        for process in [self._own, *self._own.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        return total
