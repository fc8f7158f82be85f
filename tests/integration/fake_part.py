"""Stands in for `dtf COMMAND` in tests of the supervisor: gets ready, holds the lifeline, ends on SIGTERM.

FAKE_PART_FAULT="coordinator:fatal" makes that part refuse to start, ":mortal" makes it end at once
after it was ready. `cancel` writes the runs it was given to cancelled.txt in the project.
"""

import json
import os
import signal
import socket
import sys
from pathlib import Path

from dtf.cli.lifeline import watch_lifeline
from dtf.settings.loader import load_settings_file


def main() -> int:
    """Be the part that the last argument names."""
    arguments = sys.argv[1:]
    project, settings_file, name = Path(arguments[1]), Path(arguments[3]), arguments[4]
    if name == "cancel":
        with (project / "cancelled.txt").open("a") as file:
            file.writelines(f"{run}\n" for run in arguments[7:])
        return 0
    watch_lifeline()
    fault = os.environ.get("FAKE_PART_FAULT", "")
    if fault == f"{name}:fatal":
        sys.stderr.write("error: this part refuses to start\n  give it a reason to\n")
        return 6
    settings = load_settings_file(settings_file).settings
    listens = {"coordinator": settings.coordinator.listen, "trend-analyzer": settings.analyzer.listen}
    port = int(listens.get(name, ":0").rpartition(":")[2])
    listener = socket.create_server(("127.0.0.1", port))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.stdout.write(json.dumps({"ready": True, "address": f"127.0.0.1:{listener.getsockname()[1]}"}) + "\n")
    sys.stdout.flush()
    if fault == f"{name}:mortal":
        return 3
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
