"""What a worker that ended said last, from the file its output went to."""

import os
from pathlib import Path

_TAIL_BYTES = 4096
"""Read from the end of the file: room for a line that says why."""


def last_words(path: Path) -> str:
    """The last line beginning with `error: `, else the last line; "" where nothing can be read."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip()]
    errors = [line for line in said if line.startswith("error: ")]
    return (errors or said)[-1] if said else ""
