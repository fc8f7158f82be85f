"""The lifeline: how every process of a stack learns that its supervisor is gone, however it went.

The supervisor holds one end of a socket pair and every process it starts inherits the other, by the
descriptor that DTF_LIFELINE_FD names. When the supervisor ends, even by kill -9, the kernel closes
its end and each holder reads end-of-file; when the supervisor stops the stack it shuts its end for
writing, and reads end-of-file itself once no holder is left. User code never gets the descriptor.
"""

import contextlib
import os
import socket
import threading
from asyncio import get_running_loop, timeout
from collections.abc import Callable

VARIABLE = "DTF_LIFELINE_FD"
EXIT_CODE = 70
"""Of a process that ended because its supervisor did; nobody is left to read it."""


def inherited_descriptor() -> int | None:
    """The lifeline this process was started with, or None."""
    text = os.environ.get(VARIABLE, "")
    return int(text) if text.isdigit() else None


def watch_lifeline(on_end: Callable[[], None] | None = None) -> None:
    """Call `on_end` from a thread (by default: leave at once) when the supervisor is gone.

    Does nothing in a process without a lifeline. The process's children get the descriptor only
    where they are started with `pass_fds`.
    """
    descriptor = inherited_descriptor()
    if descriptor is None:
        return
    os.set_inheritable(descriptor, False)
    thread = threading.Thread(
        target=_wait_for_end, args=(descriptor, on_end or _leave), name="dtf-lifeline", daemon=True
    )
    thread.start()


def _wait_for_end(descriptor: int, on_end: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):
        while os.read(descriptor, 1):
            pass
    on_end()


def _leave() -> None:
    os._exit(EXIT_CODE)


class Lifeline:
    """The supervisor's end."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)

    @property
    def descriptor(self) -> int:
        """What children are given with `pass_fds`."""
        return self._theirs.fileno()

    async def end(self, timeout_seconds: float) -> bool:
        """Tell every holder to go; True once none is left, False if some are after `timeout_seconds`."""
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_WR)
        self._theirs.close()
        try:
            async with timeout(timeout_seconds):
                while await get_running_loop().sock_recv(self._ours, 1):
                    pass
        except TimeoutError:
            return False
        finally:
            self._ours.close()
        return True
