"""What every snapshot store does, the directory's and the broker's alike."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from dtf.adapters.file_snapshots import FileSnapshots
from dtf.adapters.object_store_snapshots import ObjectStoreSnapshots
from dtf.adapters.system_clock import SystemClock
from dtf.ports.snapshot_store import SnapshotName, SnapshotStore, SnapshotStoreError
from dtf.settings.model import NatsSettings


@pytest_asyncio.fixture(params=["file", "object store"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, nats_settings: NatsSettings, namespace: str
) -> AsyncIterator[SnapshotStore]:
    """An empty store of each kind."""
    made: SnapshotStore = (
        FileSnapshots(tmp_path / "snapshots")
        if request.param == "file"
        else ObjectStoreSnapshots(nats_settings, namespace, SystemClock())
    )
    yield made
    await made.close()


def name(sequence: int) -> SnapshotName:
    """A snapshot's name; the hash is of no meaning to a store."""
    return SnapshotName(sequence, f"{sequence:064x}")


async def test_an_empty_store_has_no_names_and_loads_nothing(store: SnapshotStore) -> None:
    assert list(await store.names()) == []
    await store.remove(name(1))
    with pytest.raises(SnapshotStoreError):
        await store.load(name(1))


async def test_what_was_saved_is_loaded_byte_for_byte(store: SnapshotStore) -> None:
    contents = {name(7): b"", name(8): b"small", name(9): bytes(range(256)) * 2000}
    for saved, data in contents.items():
        await store.save(saved, data)
    assert {saved: await store.load(saved) for saved in await store.names()} == contents


async def test_the_newest_three_are_kept_the_newest_first(store: SnapshotStore) -> None:
    for sequence in (5, 30, 100, 20, 4):
        await store.save(name(sequence), b"%d" % sequence)
    assert list(await store.names()) == [name(100), name(30), name(20)]
    with pytest.raises(SnapshotStoreError):
        await store.load(name(5))


async def test_a_snapshot_saved_again_is_there_once(store: SnapshotStore) -> None:
    await store.save(name(1), b"first")
    await store.save(name(1), b"again")
    assert list(await store.names()) == [name(1)]
    assert await store.load(name(1)) == b"again"


async def test_what_is_removed_is_gone_and_the_rest_stays(store: SnapshotStore) -> None:
    await store.save(name(1), b"one")
    await store.save(name(2), b"two")
    await store.remove(name(1))
    assert list(await store.names()) == [name(2)]
    assert await store.load(name(2)) == b"two"
