"""How late this machine wakes a process that sleeps: what every hop between processes waits for at least.

A process of its own asks to be woken every millisecond while something is measured. What it is late
beyond an idle machine's is time for which all processors ran something else.
"""

import signal
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

INTERVAL_SECONDS = 0.001
STOP_TIMEOUT_SECONDS = 10.0


class Wakeups:
    """The sleeper, for the time of a `with` block."""

    def __init__(self) -> None:
        self.late_seconds: list[float] = []
        """By how much each wake-up was late; filled at the end of the block."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-S", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        output, _ = self._process.communicate(timeout=STOP_TIMEOUT_SECONDS)
        self.late_seconds = [float(line) for line in output.splitlines()]


def main() -> None:
    """Sleep and note by how much each sleep was too long, until told to end."""
    late: list[float] = []

    def end(_number: int, _frame: object) -> None:
        print("\n".join(map(str, late)), flush=True)
        sys.exit()

    signal.signal(signal.SIGTERM, end)
    while True:
        before = time.perf_counter()
        time.sleep(INTERVAL_SECONDS)  # it is the sleep that is measured
        late.append(time.perf_counter() - before - INTERVAL_SECONDS)


if __name__ == "__main__":
    main()
