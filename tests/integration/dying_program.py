"""`dtf` that ends as by kill -9 before its N-th change in a directory: python -m … N DIRECTORY ARGUMENTS…"""

import os
import signal
import sys

from dtf.cli.main import main

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.truncate", "shutil.copyfile"}


def die_before(number: int, directory: str) -> None:
    """Audit events come before what they announce: files opened for writing, renamed, removed."""
    seen = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event == "open":
            flags = arguments[2]
            is_change = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
        else:
            is_change = event in _CHANGES
        if is_change and str(arguments[0]).startswith(directory):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


if __name__ == "__main__":
    die_before(int(sys.argv[1]), sys.argv[2])
    sys.argv = ["dtf", *sys.argv[3:]]
    main()
