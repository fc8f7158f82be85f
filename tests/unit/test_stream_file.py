"""Stream files keep every message as it was and refuse what is damaged."""

from pathlib import Path

import pytest

from dtf.adapters.stream_file import StreamFile, StreamFileError, StreamFileHeader, writing
from dtf.ports.event_log import StoredCommit

HEADER = StreamFileHeader("events", "default", "0.1.0", 1_700_000_000_000_000_000)
MESSAGES = [
    StoredCommit(1, b"first", "a" * 64, {"Dtf-Types": "RunCreated"}),
    StoredCommit(2, b"\xff\x00" * 40_000, "", {}),
    StoredCommit(7, b"", "é", {"x": "ü"}),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "log.dtfstream"
    with writing(target, HEADER) as writer:
        for message in MESSAGES:
            writer.write(message)
    return target


def read(path: Path) -> list[StoredCommit]:
    with StreamFile(path) as file:
        assert file.header == HEADER
        return list(file)


def test_what_was_written_is_read(path: Path) -> None:
    assert read(path) == MESSAGES


def test_an_empty_stream_is_a_stream(tmp_path: Path) -> None:
    with writing(tmp_path / "empty", HEADER):
        pass
    assert read(tmp_path / "empty") == []


def test_a_file_that_was_not_finished_does_not_appear(tmp_path: Path) -> None:
    with pytest.raises(KeyError), writing(tmp_path / "half", HEADER) as writer:
        writer.write(MESSAGES[0])
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_every_way_of_cutting_it_off_is_seen(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    cut = tmp_path / "cut"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(StreamFileError):
            read(cut)


def test_a_changed_byte_is_seen(path: Path, tmp_path: Path) -> None:
    whole = bytearray(path.read_bytes())
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 0x10
        (tmp_path / "changed").write_bytes(changed)
        try:
            found = read(tmp_path / "changed")
        except (StreamFileError, AssertionError):
            continue
        assert found == MESSAGES, f"byte {position} changed what was read"


def test_another_version_is_named(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"DTF stream 1", b"DTF stream 3"))
    with pytest.raises(StreamFileError, match="another version"):
        read(path)


def test_something_else_is_no_stream(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(StreamFileError, match="is no stream file"):
        read(tmp_path / "text")
