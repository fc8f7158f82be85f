"""Memory that a warm process writes and its worker reads: the status cell, then the result journal.

It outlives the process that wrote it, so what a process knew when it died is not lost.
"""

import mmap
import os
import sys
import tempfile

STATUS_BYTES = 64
JOURNAL_BYTES = 256 * 1024
SIZE_BYTES = STATUS_BYTES + JOURNAL_BYTES


def create() -> int:
    """A file descriptor of SIZE_BYTES of zeroes that no path leads to; the caller closes it."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("dtf-status", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, SIZE_BYTES)
    return descriptor


def map_for_writing(descriptor: int) -> mmap.mmap:
    """The runner's view."""
    return mmap.mmap(descriptor, SIZE_BYTES)


def map_for_reading(descriptor: int) -> mmap.mmap:
    """The worker's view."""
    return mmap.mmap(descriptor, SIZE_BYTES, access=mmap.ACCESS_READ)
