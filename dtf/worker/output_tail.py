"""Drains a pipe and keeps the end of what came."""

import asyncio
import os

KEPT_BYTES = 8 * 1024
"""As much as a CaseDetail's output_tail holds."""


class OutputTail:
    """One pipe's reading end; it never fills up, whatever is written to the other."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._kept = bytearray()
        os.set_blocking(descriptor, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._read)
        self._is_open = True

    def _read(self) -> bool:
        """Read a piece; False: there is nothing now, or never again."""
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            self._close()
            return False
        self._kept += data
        del self._kept[:-KEPT_BYTES]
        return True

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)

    def close(self) -> None:
        """Take what is there and close the pipe."""
        while self._is_open and self._read():
            pass
        self._close()

    @property
    def text(self) -> str:
        """The end of what came."""
        return bytes(self._kept).decode(errors="replace")
