"""Which process of pytest-xdist runs which file, and when.

What takes long comes first, so that at the end only short files are left to even out. Files that mostly
wait for a cluster to do its part (Kubernetes, Slurm, sshd) go to one process beside those that keep the
processors busy, one after the other: they share one cluster of each kind and cost the others little.
"""

import os
from typing import Final

import pytest
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

MOST_BUSY: Final = 4
_PATIENT: Final = (
    "tests/integration/test_kubernetes_",
    "tests/contract/test_capacity_provider_contract.py",
    "tests/integration/test_slurm_",
    "tests/integration/test_ssh_provider.py",
)
_SLOWEST_FIRST: Final = ("tests/chaos/", "tests/e2e/", "tests/integration/", "tests/contract/")


def process_count() -> int:
    """One a processor, within reason, and one that waits."""
    return min(len(os.sched_getaffinity(0)), MOST_BUSY) + 1


def is_patient(file: str) -> bool:
    """Whether the tests of a file mostly wait."""
    return file.startswith(_PATIENT)


def rank(file: str) -> int:
    """Files of a lower one are begun first."""
    slow = [number for number, prefix in enumerate(_SLOWEST_FIRST) if file.startswith(prefix)]
    return slow[0] if slow else len(_SLOWEST_FIRST)


class PatientScheduling(LoadFileScheduling):
    """Files by rank; of three processes and more the one that came last takes those that wait, and nothing else."""

    _patient: WorkerController | None = None

    def schedule(self) -> None:
        """Hand out what there is to begin with, or go on."""
        if self.collection is None and len(self.nodes) > 2:
            self._patient = self.nodes[-1]
        super().schedule()

    def _assign_work_unit(self, node: WorkerController) -> None:
        file = self._next_file(node)
        if file is None:
            node.shutdown()
            return
        self.workqueue.move_to_end(file, last=False)
        super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        if node.shutting_down:
            return
        if self._next_file(node) is None:
            node.shutdown()
            return
        super()._reschedule(node)

    def _next_file(self, node: WorkerController) -> str | None:
        """What a process takes next: the others take what waits when nothing else is left."""
        if node is self._patient:
            return next((file for file in self.workqueue if is_patient(file)), None)
        return min(self.workqueue, key=lambda file: (is_patient(file), rank(file)), default=None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Of `--numprocesses logical`."""
    return process_count()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> PatientScheduling | None:
    """Ours, where files are handed out."""
    if config.getoption("dist") != "loadfile":
        return None
    return PatientScheduling(config, log)  # type: ignore[arg-type]  # its own producer of log lines
