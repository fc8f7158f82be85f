"""What every BlobStore does."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dtf.adapters.file_blobs import FileBlobStore
from dtf.ports.blob_store import BlobCorrupt, BlobMissing, BlobStore


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return FileBlobStore(tmp_path / "blobs")


async def joined(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def chunked(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def files_under(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


async def test_a_blob_is_found_by_its_digest(store: BlobStore) -> None:
    digest = await store.put(b"content")
    assert digest == hashlib.sha256(b"content").hexdigest()
    assert await joined(store.get(digest)) == b"content"
    assert await joined(store.get(digest, offset=3)) == b"tent"
    assert await store.put(b"content") == digest


async def test_pieces_are_at_most_256_kib(store: BlobStore) -> None:
    data = bytes(range(256)) * 3000
    pieces = [piece async for piece in store.get(await store.put(data))]
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) == 256 * 1024


async def test_a_stream_is_stored_under_the_digest_it_announced(store: BlobStore) -> None:
    digest = hashlib.sha256(b"onetwo").hexdigest()
    assert await store.put_stream(digest, chunked(b"one", b"two")) == 6
    assert await joined(store.get(digest)) == b"onetwo"


async def test_a_stream_that_is_not_what_it_announced_leaves_nothing(
    store: BlobStore, tmp_path: Path
) -> None:
    digest = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(BlobCorrupt, match="send them again"):
        await store.put_stream(digest, chunked(b"one", b"two"))
    with pytest.raises(BlobMissing):
        await joined(store.get(digest))
    assert files_under(tmp_path) == []


@pytest.mark.parametrize("digest", ["", "ab", "../../etc/passwd", "A" * 64, "../" * 20 + "ab00"])
async def test_what_is_no_digest_is_no_blob(store: BlobStore, digest: str) -> None:
    with pytest.raises(BlobMissing):
        await joined(store.get(digest))
    with pytest.raises(BlobMissing):
        await store.put_stream(digest, chunked(b""))


async def test_output_grows_and_writing_twice_is_writing_once(store: BlobStore) -> None:
    assert await store.append_output("run1", 3, 1, 0, b"hello ") == 6
    assert await store.append_output("run1", 3, 1, 6, b"world") == 11
    assert await store.append_output("run1", 3, 1, 6, b"world") == 11
    assert await store.append_output("run1", 3, 1, 0, b"hello world!") == 12
    assert await store.append_output("run1", 3, 1, 2, b"ll") == 12
    assert await joined(store.read_output("run1", 3, 1)) == b"hello world!"
    assert await joined(store.read_output("run1", 3, 1, offset=6)) == b"world!"


async def test_output_with_a_hole_is_refused(store: BlobStore) -> None:
    await store.append_output("run1", 0, 1, 0, b"ab")
    with pytest.raises(ValueError, match="is 2 bytes long"):
        await store.append_output("run1", 0, 1, 5, b"later")
    assert await joined(store.read_output("run1", 0, 1)) == b"ab"


async def test_outputs_of_a_run_are_listed_in_order(store: BlobStore) -> None:
    for task, attempt in [(10, 1), (2, 2), (2, 1)]:
        await store.append_output("run1", task, attempt, 0, b"x")
    await store.append_output("run2", 5, 1, 0, b"x")
    assert await store.list_outputs("run1") == [(2, 1), (2, 2), (10, 1)]
    assert await store.list_outputs("run3") == []
    assert await joined(store.read_output("run3", 0, 1)) == b""


@pytest.mark.parametrize("run_id", ["", "..", "../x", "a/b", "a\0b", ".hidden", "x" * 200])
async def test_what_is_no_run_reaches_no_file(store: BlobStore, run_id: str) -> None:
    with pytest.raises(ValueError, match="not the identifier of a run"):
        await store.append_output(run_id, 0, 1, 0, b"x")
    with pytest.raises(ValueError, match="not the identifier of a run"):
        await store.list_outputs(run_id)


async def test_content_outlives_the_store_that_wrote_it(tmp_path: Path) -> None:
    first = FileBlobStore(tmp_path)
    digest = await first.put(b"kept")
    await first.append_output("run1", 0, 1, 0, b"said")
    second = FileBlobStore(tmp_path)
    assert await joined(second.get(digest)) == b"kept"
    assert await joined(second.read_output("run1", 0, 1)) == b"said"


async def test_what_is_stored_is_listed_with_its_size_and_its_last_use(store: BlobStore) -> None:
    digest = await store.put(b"content")
    await store.append_output("run-1", 0, 1, 0, b"one")
    await store.append_output("run-1", 1, 1, 0, b"three")
    first = {each.digest or each.run_id: each for each in await store.list_stored()}
    assert {name: each.size_bytes for name, each in first.items()} == {digest: 7, "run-1": 8}
    assert await joined(store.get(digest, offset=7)) == b""
    await store.append_output("run-1", 1, 1, 5, b"!")
    again = {each.digest or each.run_id: each for each in await store.list_stored()}
    assert all(again[name].used_at_ns > first[name].used_at_ns for name in first)


async def test_what_was_used_since_it_was_listed_is_not_removed(store: BlobStore) -> None:
    digests = [await store.put(data) for data in (b"read", b"stored", b"idle")]
    await store.append_output("grows", 0, 1, 0, b"one")
    await store.append_output("idles", 0, 1, 0, b"one")
    listed = await store.list_stored()
    await joined(store.get(digests[0]))
    await store.put(b"stored")
    await store.append_output("grows", 0, 1, 3, b"two")
    removed = {each.digest or each.run_id for each in listed if await store.remove(each)}
    assert removed == {digests[2], "idles"}
    assert {each.digest or each.run_id for each in await store.list_stored()} == {*digests[:2], "grows"}
    with pytest.raises(BlobMissing):
        await joined(store.get(digests[2]))
    assert await store.list_outputs("idles") == []
