"""The cell of shared memory between a warm process and its worker."""

import os
import struct
import threading

from dtf.runner import shared_memory
from dtf.runner.status import StatusReader, StatusWriter


def cell() -> tuple[StatusWriter, StatusReader]:
    descriptor = shared_memory.create()
    try:
        return StatusWriter(descriptor), StatusReader(descriptor)
    finally:
        os.close(descriptor)


def test_the_running_case_is_seen_from_its_beginning_to_its_end() -> None:
    writer, reader = cell()
    assert reader.read() is None
    writer.begin(7, 3, 2.5)
    running = reader.read()
    assert running is not None
    assert (running.fence, running.case, running.timeout_seconds) == (7, 3, 2.5)
    writer.end()
    assert reader.read() is None


def test_a_record_in_the_middle_of_a_change_is_not_believed() -> None:
    writer, reader = cell()
    writer.begin(7, 3, 2.5)
    struct.pack_into("<Q", writer.memory, 32, 3)
    assert reader.read() is None
    writer.begin(8, 0, 1.0)
    assert reader.read() is not None


def test_a_reader_never_sees_a_torn_record() -> None:
    writer, reader = cell()
    is_over = threading.Event()

    def write() -> None:
        for number in range(1, 20_000):
            writer.begin(number, number, float(number))
        is_over.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not is_over.is_set():
        running = reader.read()
        if running is not None:
            assert running.fence == running.case == running.timeout_seconds
    thread.join()
