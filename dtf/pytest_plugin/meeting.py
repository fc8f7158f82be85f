"""The controller's end of a run's directory (dtf/runner/pytest_options.py says what is in it)."""

import json
import os
import secrets
import select
import shutil
from pathlib import Path
from typing import Any

from dtf.runner.pytest_options import ALIVE_PIPE, ENVIRONMENT_FILE, outputs_left, seats_taken
from dtf.settings.project import make_private_dir, state_dir

PRIVATE_PREFIXES = ("DTF_LIFELINE", "DTF_RUNNER")
"""Variables that never reach user code."""


class RunDirectory:
    """Made before the run, removed after it."""

    def __init__(self, project_dir: Path) -> None:
        parent = make_private_dir(make_private_dir(state_dir(project_dir)) / "pytest")
        self.path = parent / secrets.token_hex(6)
        self.path.mkdir(mode=0o700)
        write_private(self.path / ENVIRONMENT_FILE, json.dumps(public_environment()))
        os.mkfifo(self.path / ALIVE_PIPE, 0o600)
        self._alive = os.open(self.path / ALIVE_PIPE, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def wait_for_processes(self, timeout_seconds: float) -> bool:
        """Wait until no pytest process of the run lives on this machine; False if the time was not enough."""
        if not seats_taken(self.path):
            return True  # a pipe that nobody ever opened to write has no end to wait for
        ready, _, _ = select.select([self._alive], [], [], timeout_seconds)
        return bool(ready)

    def outputs(self) -> list[tuple[str, dict[str, Any] | None]]:
        """What each process left, by seat; None for a seat whose process died."""
        left = outputs_left(self.path)
        died = seats_taken(self.path) - {seat for seat, _ in left}
        return [*left, *((seat, None) for seat in sorted(died))]

    def remove(self) -> None:
        """Remove all of it."""
        os.close(self._alive)
        shutil.rmtree(self.path, ignore_errors=True)


def public_environment() -> dict[str, str]:
    """This process's environment, less what is dtf's own business."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PRIVATE_PREFIXES)}


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", errors="surrogateescape") as file:
        file.write(text)
