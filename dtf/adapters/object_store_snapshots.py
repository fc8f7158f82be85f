"""Snapshots in a JetStream object store, the bucket DTF_SNAPSHOTS_<namespace>: `nats object ls` shows them.

Written through nats-py. Read without it: its own way copies what it has with each chunk.
An object appears when its description is stored, after all of its chunks; chunks that a killed
process left without one are removed when an hour has passed.
"""

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from typing import Any

import nats.errors
from nats.js import api
from nats.js.errors import APIError, NotFoundError
from nats.js.errors import Error as JetStreamError
from nats.js.object_store import ObjectStore

from dtf.adapters.jetstream_stream import JetStreamStream
from dtf.adapters.nats_connection import NatsConnection, describe
from dtf.ports.clock import Clock
from dtf.ports.event_log import LogError
from dtf.ports.snapshot_store import KEPT_SNAPSHOTS, SnapshotName, SnapshotStoreError
from dtf.ports.subjects import snapshot_bucket
from dtf.settings.model import NatsSettings

_OBJECT = re.compile(r"(\d{20})-([0-9a-f]{64}|)")
_CALL_SECONDS = 30.0
_TRANSFER_SECONDS = 300.0
_LEFTOVER_SECONDS = 3600.0
"""No transfer takes as long: what is older and belongs to no object belongs to nobody."""


class ObjectStoreSnapshots:
    """The SnapshotStore port on a JetStream object store, which is made when something is saved."""

    def __init__(
        self, nats_settings: NatsSettings, namespace: str, clock: Clock, *, kept: int = KEPT_SNAPSHOTS
    ) -> None:
        self._replicas = nats_settings.replicas
        self._connection = NatsConnection(nats_settings, name=f"dtf snapshots {namespace}")
        self._bucket = snapshot_bucket(namespace)
        self._clock = clock
        self._kept = kept

    @property
    def description(self) -> str:
        """The bucket and its broker."""
        return f"object store {self._bucket}"

    async def names(self) -> Sequence[SnapshotName]:
        """The snapshots there are, the newest first."""
        async with self._guarded(_CALL_SECONDS):
            try:
                return await self._names(await self._store())
            except NotFoundError:
                return []

    async def save(self, name: SnapshotName, data: bytes) -> None:
        """Keep `data`, durably; then remove all but the newest."""
        async with self._guarded(_TRANSFER_SECONDS):
            store = await self._made()
            await store.put(_object_name(name), data)
            for old in (await self._names(store))[self._kept :]:
                await self._forget(store, _object_name(old))
            await self._remove_leftovers(store)

    async def load(self, name: SnapshotName) -> bytes:
        """The bytes that were saved."""
        async with self._guarded(_TRANSFER_SECONDS):
            info = await (await self._store()).get_info(_object_name(name))
            return b"".join(await self._chunks(str(info.nuid), int(info.chunks or 0)))

    async def remove(self, name: SnapshotName) -> None:
        """Forget one; no error if it is not there."""
        async with self._guarded(_CALL_SECONDS):
            try:
                await self._forget(await self._store(), _object_name(name))
            except NotFoundError:
                return

    async def close(self) -> None:
        """Let go of the connection."""
        await self._connection.close()

    async def _chunks(self, nuid: str, count: int) -> list[bytes]:
        chunks: list[bytes] = []
        stream = JetStreamStream(
            self._connection,
            f"OBJ_{self._bucket}",
            self._clock,
            filter_subject=f"$O.{self._bucket}.C.{nuid}",
        )
        if not count:
            return chunks
        async with aclosing(stream.follow(0, gaps=True)) as batches:
            async for batch in batches:
                chunks += [message.payload for message in batch]
                if len(chunks) >= count:
                    return chunks
        return chunks

    async def _store(self) -> ObjectStore:
        client = await self._connection.client()
        return await client.jetstream(timeout=_CALL_SECONDS).object_store(self._bucket)

    async def _made(self) -> ObjectStore:
        try:
            return await self._store()
        except NotFoundError:
            client = await self._connection.client()
            config = api.ObjectStoreConfig(
                bucket=self._bucket,
                description="snapshots of dtf's event log",
                storage=api.StorageType.FILE,
                replicas=self._replicas,
            )
            return await client.jetstream(timeout=_CALL_SECONDS).create_object_store(
                self._bucket, config=config
            )

    async def _names(self, store: ObjectStore) -> list[SnapshotName]:
        """From the descriptions, read as any stream is: nats-py's watcher waits for what may not come."""
        subjects = await self._subjects(f"$O.{self._bucket}.M.>")
        names = []
        for subject in subjects:
            encoded = subject.rpartition(".")[2]
            match = _OBJECT.fullmatch(base64.urlsafe_b64decode(encoded).decode(errors="replace"))
            if match is not None and await self._is_there(store, match[0]):
                names.append(SnapshotName(int(match[1]), match[2]))
        return sorted(names, reverse=True)

    async def _subjects(self, pattern: str) -> list[str]:
        answer = await self._connection.request(
            f"$JS.API.STREAM.INFO.OBJ_{self._bucket}", {"subjects_filter": pattern}
        )
        return list(answer["state"].get("subjects") or {})

    async def _is_there(self, store: ObjectStore, name: str) -> bool:
        try:
            await store.get_info(name)
        except NotFoundError:
            return False
        return True

    async def _forget(self, store: ObjectStore, name: str) -> None:
        """Remove an object with its description: nats-py leaves a mark of the deleted for ever."""
        info: Any = await store.get_info(name)
        encoded = base64.urlsafe_b64encode(name.encode()).decode()
        for subject in (f"$O.{self._bucket}.M.{encoded}", f"$O.{self._bucket}.C.{info.nuid}"):
            await self._purge(subject)

    async def _remove_leftovers(self, store: ObjectStore) -> None:
        infos = [await store.get_info(_object_name(name)) for name in await self._names(store)]
        known = {f"$O.{self._bucket}.C.{info.nuid}" for info in infos}
        for subject in set(await self._subjects(f"$O.{self._bucket}.C.>")) - known:
            if await self._age_seconds(subject) > _LEFTOVER_SECONDS:
                await self._purge(subject)

    async def _age_seconds(self, subject: str) -> float:
        answer = await self._connection.request(
            f"$JS.API.STREAM.MSG.GET.OBJ_{self._bucket}", {"last_by_subj": subject}
        )
        stored_at = datetime.fromisoformat(answer["message"]["time"]).timestamp()
        return self._clock.now_ns() / 1e9 - stored_at

    async def _purge(self, subject: str) -> None:
        await self._connection.request(f"$JS.API.STREAM.PURGE.OBJ_{self._bucket}", {"filter": subject})

    @asynccontextmanager
    async def _guarded(self, seconds: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds):
                yield
        except (nats.errors.Error, JetStreamError, APIError, LogError, OSError, ValueError) as error:
            raise SnapshotStoreError(
                f"{self.description}: {describe(error)}; `dtf doctor` checks the broker"
            ) from error


def _object_name(name: SnapshotName) -> str:
    return f"{name.sequence:020d}-{name.hash}"
