"""A machine of a cloud, as far as the script that boots a worker sees one."""

import os
import subprocess
from pathlib import Path


class Machine:
    """Where a script runs, with a shutdown of our own in its path."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.console = directory / "console"
        self.out = directory / "out"
        self.pipe = directory / "pipe"
        os.mkfifo(self.pipe)
        programs = directory / "bin"
        programs.mkdir()
        self.install("shutdown", f'#!/bin/sh\necho "$@" > {directory}/shutdown\n')
        self.variables = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(directory),
            "WORKER_DIRECTORY": str(directory / "run"),
            "WORKER_CONSOLE": str(self.console),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1",  # not those of the machine that tests
            "OUT": str(self.out),
            "PIPE": str(self.pipe),
        }

    def boot(self, script: str) -> "subprocess.Popen[bytes]":
        """Run the script of a launch."""
        path = self.directory / "user-data"
        path.write_text(script)
        return subprocess.Popen(["/bin/sh", str(path)], env=self.variables)

    def install(self, name: str, text: str) -> None:
        """A program that the machine has."""
        path = self.directory / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
