"""Clocks that jump: a library of our own in front of the processes, with an offset that changes.

The monotonic clock stays as it is: no machine's jumps. A C compiler builds the library (clock_shim.c).
"""

import shutil
import struct
import subprocess
from pathlib import Path

BUILD_SECONDS = 60.0
_OFFSET = struct.Struct("=q")
_SOURCE = Path(__file__).with_name("clock_shim.c")


def find_compiler() -> Path | None:
    """The C compiler; None: there is none."""
    found = shutil.which("cc")
    return Path(found) if found else None


def build_shim(compiler: Path, directory: Path) -> Path:
    """The library, made anew. Raises subprocess.SubprocessError."""
    library = directory / "clock_shim.so"
    command = [str(compiler), "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True, timeout=BUILD_SECONDS, capture_output=True)
    return library


class SkewedClock:
    """The wall clock of some processes: the machine's, and `offset_seconds` more."""

    def __init__(self, library: Path, file: Path) -> None:
        self._library = library
        self._file = file
        self.offset_seconds = 0
        file.write_bytes(_OFFSET.pack(0))

    def set(self, offset_seconds: int) -> None:
        """Let it jump there, now."""
        self.offset_seconds = offset_seconds
        with self._file.open("r+b") as file:
            file.write(_OFFSET.pack(offset_seconds))

    @property
    def environment(self) -> dict[str, str]:
        """What puts a process on this clock."""
        return {"LD_PRELOAD": str(self._library), "CHAOS_CLOCK": str(self._file)}
