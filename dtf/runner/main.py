"""`python -m dtf.runner.main`: a warm process. It waits with its imports done until a run needs it.

pytest and both sessions are imported at once, because that takes longer than most cases. The
process serves one run (one template of it) and ends: user code, once imported, stays imported. It
takes its descriptors from DTF_RUNNER_FDS ("channel,status") and keeps them from what it starts.
"""

import faulthandler
import gc
import os
import socket
import sys

from dtf.runner import callable_session, pytest_session
from dtf.runner.channel import ChannelClosed, Finish, Prepare, PrepareFailed, Ready, RunnerChannel
from dtf.runner.status import StatusWriter

DESCRIPTORS_VARIABLE = "DTF_RUNNER_FDS"


def main() -> int:
    """Serve one run; return the exit code."""
    channel, status = take_descriptors()
    # SIGABRT, which the worker sends to an overdue process, prints every thread's stack.
    faulthandler.enable(all_threads=True)
    gc.collect()
    gc.freeze()
    channel.send(Ready(os.getpid()))
    try:
        match channel.receive():
            case Prepare() as prepare:
                serve(channel, status, prepare)
            case Finish():
                pass
            case other:
                raise ValueError(f"the first message was {other!r}; expected Prepare")
    except ChannelClosed:
        return 0
    return 0


def take_descriptors() -> tuple[RunnerChannel, StatusWriter]:
    """The channel and the status cell, out of the environment and not inherited further."""
    names = os.environ.pop(DESCRIPTORS_VARIABLE, "")
    try:
        channel_fd, status_fd = (int(part) for part in names.split(","))
    except ValueError:
        raise SystemExit(
            f"error: {DESCRIPTORS_VARIABLE} is {names!r}; expected two descriptors\n"
            "  this program is started by `dtf worker`, not by hand"
        ) from None
    os.set_inheritable(channel_fd, False)
    status = StatusWriter(status_fd)
    os.close(status_fd)
    return RunnerChannel(socket.socket(fileno=channel_fd)), status


def serve(channel: RunnerChannel, status: StatusWriter, prepare: Prepare) -> None:
    """Serve the run with the session of its executor."""
    if prepare.executor == "pytest":
        pytest_session.serve(channel, status, prepare)
    elif prepare.executor == "callable":
        callable_session.serve(channel, status, prepare)
    else:
        channel.send(PrepareFailed(f"no executor {prepare.executor!r}; there are pytest and callable", ""))


if __name__ == "__main__":
    sys.exit(main())
