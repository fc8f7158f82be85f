"""Takes snapshots for a coordinator: `dtf log snapshot` as a process of its own."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from dtf.cli.lifeline import inherited_descriptor
from dtf.cli.stack_parts import DTF_PROGRAM, describe_exit
from dtf.coordinator.snapshot_keeper import SnapshotFailed, TakenSnapshot
from dtf.settings.loader import dump_settings
from dtf.settings.model import Settings
from dtf.settings.project import make_private_dir, write_private


class SnapshotProcess:
    """Starts the process and waits for it; called, it takes one snapshot. Cancelled, it kills it."""

    def __init__(
        self, settings: Settings, project_dir: Path, directory: Path, program: Sequence[str] = DTF_PROGRAM
    ) -> None:
        """`directory` is where snapshots are kept; the settings lie beside them for the process to read."""
        self._settings = settings
        self._project_dir = project_dir
        self._directory = directory
        self._program = tuple(program)

    async def __call__(self) -> TakenSnapshot:
        """Take one. Raises SnapshotFailed."""
        try:
            process = await self._start()
        except OSError as error:
            raise SnapshotFailed(f"its process cannot be started: {error.strerror or error}") from error
        try:
            output, _ = await process.communicate()
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        if process.returncode:
            raise SnapshotFailed(
                f"its process ended with {describe_exit(process.returncode)}; it said why above"
            )
        said = json.loads(output)
        return TakenSnapshot(int(said["sequence"]), int(said["oldest_kept"]))

    async def _start(self) -> asyncio.subprocess.Process:
        settings_file = make_private_dir(self._directory) / "settings.json"
        write_private(settings_file, dump_settings(self._settings))
        lifeline = inherited_descriptor()
        return await asyncio.create_subprocess_exec(
            *self._program,
            *("--project", str(self._project_dir), "--settings", str(settings_file)),
            *("log", "snapshot", "--json"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=() if lifeline is None else (lifeline,),
        )
