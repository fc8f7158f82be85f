"""Which processes belong to a stack, and waiting for them to end."""

import os
from pathlib import Path

import psutil


def processes_of(directory: Path) -> list[psutil.Process]:
    """Every other process that names `directory` in its command line, working directory or environment."""
    needle = str(directory)
    return [
        process
        for process in psutil.process_iter()
        if process.pid != os.getpid() and needle in _traces(process)
    ]


def _traces(process: psutil.Process) -> str:
    found: list[str] = []
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return ""
        found += process.cmdline()
        found.append(process.cwd())
        found += process.environ().values()
    except (psutil.Error, OSError):
        pass  # gone meanwhile, or another user's
    return "\0".join(found)


def wait_until_gone(directory: Path, timeout_seconds: float = 90.0) -> list[str]:
    """Wait for every process of `directory` to end; the command lines of those that did not."""
    _, alive = psutil.wait_procs(processes_of(directory), timeout=timeout_seconds)
    return [" ".join(words) for process in alive if (words := command_line(process))]


def command_line(process: psutil.Process) -> list[str]:
    """Its words; none if it is gone by now, or nearly."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []
