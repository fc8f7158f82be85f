"""The process behind PreparationProcess: requests on standard input, answers on standard output.

Both are frames: their length in four bytes (big-endian), then the bytes (dtf/core/preparation.py). The
first frame it writes is empty and says that it has begun. It ends with its standard input, so it
outlives nobody.
"""

import gc
import os
import signal
import struct
import sys
from typing import BinaryIO

from dtf.core.preparation import PreparationError, Preparer

FRAME_LENGTH = struct.Struct(">I")


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until the requests end. Raises PreparationError, OSError."""
    preparer = Preparer()
    _write_frame(answers, b"")
    while True:
        header = requests.read(FRAME_LENGTH.size)
        if len(header) < FRAME_LENGTH.size:
            return
        (length,) = FRAME_LENGTH.unpack(header)
        request = requests.read(length)
        if len(request) < length:
            return
        answer = preparer.answer(request)
        if answer:
            _write_frame(answers, answer)


def _write_frame(stream: BinaryIO, data: bytes) -> None:
    stream.write(FRAME_LENGTH.pack(len(data)) + data)
    stream.flush()


def main() -> None:
    """Serve; whoever started this says what becomes of it, so a terminal's interrupt is not for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()  # nothing that is made here refers to itself
    try:
        serve(sys.stdin.buffer, sys.stdout.buffer)
    except PreparationError as error:
        sys.stderr.write(f"the second process of a replay ended: {error}\n")
    except OSError:
        pass  # nobody reads the answers any more
    os._exit(0)  # what nobody reads need not be flushed


if __name__ == "__main__":
    main()
