"""A disk of our own that can be frozen and filled: an ext4 in a file, mounted where only we see it.

The mount lives in the mount namespace of the harness (`python -m tests.chaos` enters one), so that it
is gone with the last process of it, however that ended.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

IMAGE_BYTES = 768 * 2**20
"""Sparse. Room for a long round, and to spare: nats-server is started again at 64 MiB free."""
COMMAND_SECONDS = 60.0
_TOOLS = ("mkfs.ext4", "mount", "fsfreeze", "unshare")
_INSIDE = "DTF_CHAOS_NAMESPACE"


def why_no_disk() -> str:
    """Why no disk of our own can be had here; "" if one can."""
    if sys.platform != "linux":
        return "needs Linux"
    if os.geteuid() != 0:
        return "needs root, to mount a disk of its own"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [tool for tool in _TOOLS if shutil.which(tool, path=path) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    if not Path("/dev/loop-control").exists():
        return "needs loop devices"
    return ""


def namespace_command(command: list[str]) -> list[str]:
    """`command` in a mount namespace of its own, where such disks may be mounted; itself, if there are none."""
    if why_no_disk():
        return command
    return ["env", f"{_INSIDE}=1", "unshare", "--mount", "--propagation", "private", "--", *command]


def in_namespace() -> bool:
    """Whether this process may mount."""
    return os.environ.get(_INSIDE) == "1"


class OwnDisk:
    """An ext4 of `IMAGE_BYTES`, mounted at `mount_point`."""

    def __init__(self, directory: Path) -> None:
        self._image = directory / "disk.img"
        self.mount_point = directory / "disk"

    def mount(self) -> None:
        """Make and mount it. Raises OSError or subprocess.SubprocessError where the machine will not."""
        self.mount_point.mkdir()
        with self._image.open("wb") as image:
            image.truncate(IMAGE_BYTES)
        _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", str(self._image))
        _run("mount", "-o", "loop", str(self._image), str(self.mount_point))

    def unmount(self) -> None:
        """Let it go, and its image with it."""
        _run("umount", "--lazy", str(self.mount_point))
        self._image.unlink()

    def freeze(self, seconds: float) -> "subprocess.Popen[bytes]":
        """Let no write through for `seconds`; the process ends when they are over.

        It thaws the disk by itself, even if the harness is killed meanwhile.
        """
        script = 'fsfreeze -f "$0" && sleep "$1"; fsfreeze -u "$0"'
        return subprocess.Popen(
            ["sh", "-c", script, str(self.mount_point), str(seconds)],
            start_new_session=True,
            env=_environment(),
        )

    def fill(self) -> None:
        """Take all the room there is."""
        ballast = self.mount_point / "ballast"
        with ballast.open("wb") as file:
            left = shutil.disk_usage(self.mount_point).free
            while left > 4096:
                try:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, left)
                except OSError:
                    left //= 2

    def make_room(self) -> None:
        """Give it back."""
        (self.mount_point / "ballast").unlink(missing_ok=True)


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=COMMAND_SECONDS, env=_environment(), capture_output=True)
