"""What callable tasks of the load do; imported by workers."""

import time
from pathlib import Path


def work(token: str, executions: str, seconds: float) -> str:
    """Note that it begins, take its time, note that it ends."""
    _note(executions, f"begin {token}\n")
    time.sleep(seconds)
    _note(executions, f"end {token}\n")
    return token


def _note(executions: str, line: str) -> None:
    with Path(executions).open("a") as file:
        file.write(line)
