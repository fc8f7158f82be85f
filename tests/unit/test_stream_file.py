"""Stream files keep every message as it was and refuse what is damaged."""

import json
import struct
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

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


# -- hostile files: refused with one error, at no more cost than their honest reading


def framed(data: bytes, magic: bytes = b"DTF stream 1\n") -> bytes:
    return magic + zstandard.ZstdCompressor().compress(data)


def header_bytes() -> bytes:
    encoded = json.dumps(asdict(HEADER)).encode()
    return struct.pack(">I", len(encoded)) + encoded


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"DTF stream 1\n", id="nothing after the magic"),
        pytest.param(b"DTF stream 1\n" + b"\x00" * 100, id="no frame"),
        pytest.param(framed(b""), id="empty frame"),
        pytest.param(framed(struct.pack(">I", 2**32 - 1)), id="header longer than anything"),
        pytest.param(framed(struct.pack(">I", 2) + b"[]"), id="header that is a list"),
        pytest.param(framed(struct.pack(">I", 60_000) + b"[" * 60_000), id="header nested too deep"),
        pytest.param(framed(struct.pack(">I", 2) + b"{}"), id="header of nothing"),
        pytest.param(
            framed(header_bytes() + struct.pack(">QHII", 1, 0, 2, 2**32 - 1) + b"{}"), id="payload of 4 GiB"
        ),
        pytest.param(
            framed(header_bytes() + struct.pack(">QHII", 1, 0, 2**32 - 1, 0)), id="headers of 4 GiB"
        ),
        pytest.param(
            framed(header_bytes() + struct.pack(">QHII", 1, 0, 60_000, 0) + b"[" * 60_000),
            id="headers nested too deep",
        ),
        pytest.param(
            framed(header_bytes() + struct.pack(">QHII", 1, 0, 7, 0) + b'{"a":1}'), id="a header no text"
        ),
        pytest.param(framed(header_bytes() + struct.pack(">QHII", 1, 1, 2, 0) + b"\xff{}"), id="id no text"),
        pytest.param(
            framed(header_bytes() + struct.pack(">I", 2**32 - 1), b"DTF stream 2\n"),
            id="4 billion attachments",
        ),
        pytest.param(
            framed(header_bytes() + struct.pack(">III", 1, 1, 2**32 - 1) + b"x", b"DTF stream 2\n"),
            id="attachment of 4 GiB",
        ),
    ],
)
def test_a_hostile_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "hostile").write_bytes(content)
    with pytest.raises(StreamFileError):
        read(tmp_path / "hostile")


def test_a_bomb_is_refused_before_it_is_read_through(tmp_path: Path) -> None:
    """Half a gigabyte of one message after the other, in some tens of kilobytes."""
    bomb = tmp_path / "bomb"
    with bomb.open("wb") as file:
        file.write(b"DTF stream 1\n")
        with zstandard.ZstdCompressor(level=1).stream_writer(file, closefd=False) as frame:
            frame.write(header_bytes())
            zeros = bytes(16 * 2**20)
            for sequence in range(1, 33):
                frame.write(struct.pack(">QHII", sequence, 0, 2, len(zeros)) + b"{}" + zeros)
    assert bomb.stat().st_size < 2**17
    found = 0
    with pytest.raises(StreamFileError, match="unfolds to more than"), StreamFile(bomb) as stream:
        for _ in stream:
            found += 1
    assert 0 < found < 32


def test_how_far_a_damaged_file_can_be_read_is_said(path: Path) -> None:
    with zstandard.ZstdDecompressor().stream_reader(path.read_bytes()[13:]) as reader:
        whole = reader.read()
    cut = whole[: whole.index(b"\xff\x00" * 100)]
    path.write_bytes(framed(cut))
    with pytest.raises(StreamFileError, match="it could be read up to sequence 1; get the file again"):
        read(path)


@given(st.binary(max_size=400), st.sampled_from([b"DTF stream 1\n", b"DTF stream 2\n"]))
def test_noise_in_a_frame_is_refused(noise: bytes, magic: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "noise"
        target.write_bytes(framed(header_bytes() + noise, magic))
        with pytest.raises(StreamFileError):
            read(target)


def test_attachments_come_back_whole(tmp_path: Path) -> None:
    attachments = {"capsule.json": b"{}", "snapshot": bytes(3 * 2**20), "ü": b""}
    with writing(tmp_path / "x", HEADER, attachments) as writer:
        writer.write(MESSAGES[0])
    with StreamFile(tmp_path / "x") as stream:
        assert stream.attachments == attachments
        assert list(stream) == MESSAGES[:1]
