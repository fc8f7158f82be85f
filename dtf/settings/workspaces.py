"""Settings of code that travels to workers (docs/workspaces.md)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkspaceSettings:
    """Which files of a project travel, and where they are when they need not."""

    root: str = "."
    """Directory that is packed, from the project's: ".." where tests need what lies beside the project."""
    path: str = ""
    """Where the tree is on workers: with run.workspace = "image" in their image; with "shared" on the file system
    that they see, empty: under the path it has here."""
    include: str = ""
    """Paths or patterns, comma-separated, that travel although git ignores them: "src/app/_version.py, build/*.so"."""
    exclude: str = ""
    """Paths or patterns, comma-separated, that stay behind although git does not ignore them."""
    allow: str = ""
    """Paths or patterns, comma-separated, of files that look like secrets and are none."""
    max_file_bytes: int = 100 * 2**20
    """Largest file that travels; a larger one is refused, because it is rarely meant."""
    max_bytes: int = 512 * 2**20
    """Most bytes that travel, unpacked."""
    setup_timeout_seconds: float = 900.0
    """Longest time that run.setup may take."""
