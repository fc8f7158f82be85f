"""The spool on a disk: what was forced is read again, what was cut short is nothing, what is wrong is named."""

import asyncio
import hashlib
import os
import threading
from pathlib import Path

import pytest

from dtf.adapters.spool import FileSpool, lock_spool, read_directory
from dtf.ports.spool import SpooledCommit, SpoolError, SpoolMark

NO_TIME = 90.0
"""Far above what anything takes on a disk that others use too."""


def commit(sequence: int, size: int = 50) -> SpooledCommit:
    """A commit of this sequence."""
    payload = b"%d" % sequence * size
    return SpooledCommit(sequence, payload, hashlib.sha256(payload).hexdigest(), {"Dtf-Types": "RunCreated"})


def segments_in(directory: Path, writer: str = "*") -> list[Path]:
    """The files of records."""
    return sorted(directory.glob(f"*-{writer}.spool"))


async def written(directory: Path, writer: str, sequences: range, *, acknowledged: int = 0) -> None:
    """Spool these as one reign."""
    spool = FileSpool(directory, segment_bytes=1000)
    spool.begin(writer)
    for sequence in sequences:
        await spool.write(commit(sequence))
    if acknowledged:
        spool.acknowledge(acknowledged, commit(acknowledged).message_id)
    await spool.close()


async def test_commits_and_marks_of_every_reign_are_read_again(tmp_path: Path) -> None:
    await written(tmp_path, "aa", range(1, 30), acknowledged=28)
    await written(tmp_path, "bb", range(29, 40), acknowledged=39)
    contents = await FileSpool(tmp_path).read(0)
    assert [found.sequence for found in contents.commits] == sorted([*range(1, 30), *range(29, 40)])
    assert contents.commits[0] == commit(1)
    assert set(contents.marks) == {
        SpoolMark(28, commit(28).message_id, "aa"),
        SpoolMark(39, commit(39).message_id, "bb"),
    }
    assert not contents.damage
    assert [found.sequence for found in (await FileSpool(tmp_path).read(37)).commits] == [38, 39]


async def test_a_spool_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    contents = await FileSpool(tmp_path / "none").read(0)
    assert not contents.commits and not contents.marks and not contents.damage


async def test_commits_added_while_others_are_forced_go_together_and_in_order(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path)
    spool.begin("aa")
    done: list[int] = []

    async def note(sequence: int, forced: "asyncio.Future[None]") -> None:
        await forced
        done.append(sequence)

    async with asyncio.timeout(NO_TIME), asyncio.TaskGroup() as group:
        for sequence in range(1, 101):
            group.create_task(note(sequence, spool.write(commit(sequence))))
    assert done == list(range(1, 101))
    await spool.close()
    assert [found.sequence for found in read_directory(tmp_path, 0).commits] == done


async def test_a_last_record_cut_short_anywhere_is_no_damage_and_the_rest_is_read(tmp_path: Path) -> None:
    await written(tmp_path, "aa", range(1, 4))
    path = segments_in(tmp_path)[0]
    whole = path.read_bytes()
    length = len(whole) // 3
    for cut in range(2 * length, len(whole)):
        path.write_bytes(whole[:cut])
        contents = read_directory(tmp_path, 0)
        assert [found.sequence for found in contents.commits] == [1, 2]
        assert not contents.damage


async def test_a_changed_byte_is_named_and_nothing_after_it_is_believed(tmp_path: Path) -> None:
    await written(tmp_path, "aa", range(1, 4))
    path = segments_in(tmp_path)[0]
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 3 + 70] ^= 1
    path.write_bytes(whole)
    contents = read_directory(tmp_path, 0)
    assert [found.sequence for found in contents.commits] == [1]
    assert len(contents.damage) == 1 and path.name in contents.damage[0]


async def test_a_lost_mark_is_nearly_made_up_for_by_the_records(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path)
    spool.begin("aa")
    await spool.write(commit(1))
    spool.acknowledge(1, commit(1).message_id)
    await spool.write(commit(2))
    spool.acknowledge(2, commit(2).message_id)
    await spool.close()
    (tmp_path / "aa.mark").write_bytes(b"")  # as a crash of the machine may leave it
    assert read_directory(tmp_path, 0).marks == (SpoolMark(1, commit(1).message_id, "aa"),)


async def test_a_full_disk_fails_what_waits_and_takes_it_again_when_there_is_room(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path)
    spool.begin("aa")
    full = tmp_path / f"{1:020d}-aa.spool"
    full.symlink_to("/dev/full")
    first, second = spool.write(commit(1)), spool.write(commit(2))
    for future in (first, second):
        with pytest.raises(SpoolError, match="No space left on device"):
            await future
    full.unlink()
    await asyncio.gather(spool.write(commit(1)), spool.write(commit(2)))
    await spool.close()
    assert [found.sequence for found in read_directory(tmp_path, 0).commits] == [1, 2]


async def test_trimming_removes_what_snapshots_hold_and_nothing_that_is_needed(tmp_path: Path) -> None:
    await written(tmp_path, "aa", range(1, 41), acknowledged=40)
    spool = FileSpool(tmp_path, segment_bytes=1000)
    spool.begin("bb")
    for sequence in range(41, 81):
        await spool.write(commit(sequence))
    await spool.trim(60)
    kept = [found.sequence for found in read_directory(tmp_path, 60).commits]
    assert kept == list(range(61, 81))
    assert not segments_in(tmp_path, "aa") and not (tmp_path / "aa.mark").exists()
    await spool.trim(1000)
    await spool.write(commit(81))
    await spool.close()
    assert read_directory(tmp_path, 80).commits[-1] == commit(81)


async def test_nobody_repairs_beside_a_writer_nor_writes_beside_a_repair(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path)
    spool.begin("aa")
    with pytest.raises(SpoolError, match="stop it first"):
        lock_spool(tmp_path, exclusive=True)
    other = FileSpool(tmp_path)  # a standby that takes over on the same machine
    other.begin("bb")
    await other.close()
    await spool.close()
    lock = lock_spool(tmp_path, exclusive=True)
    with pytest.raises(SpoolError, match="repair"):
        FileSpool(tmp_path).begin("cc")
    os.close(lock)


async def test_a_disk_that_does_not_answer_is_warned_of_by_name_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers, forced = threading.Event(), os.fdatasync
    devices = set()

    def hang(descriptor: int) -> None:
        device = os.fstat(descriptor).st_dev
        devices.add(f"{os.major(device)}:{os.minor(device)}")
        answers.wait(NO_TIME)
        forced(descriptor)

    monkeypatch.setattr("dtf.adapters.spool.SLOW_SECONDS", 0.01)
    monkeypatch.setattr(os, "fdatasync", hang)
    spool = FileSpool(tmp_path)
    spool.begin("aa")
    written = spool.write(commit(1))
    try:
        async with asyncio.timeout(NO_TIME):
            while len(caplog.records) < 2:
                await asyncio.wait([written], timeout=0.01)
        assert not written.done(), "it is not given up"
    finally:
        answers.set()
    await written
    await spool.close()
    assert {vars(record)["directory"] for record in caplog.records} == {str(tmp_path)}
    assert {vars(record)["device"] for record in caplog.records} == devices
