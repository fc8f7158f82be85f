"""A start: from the newest good snapshot, refused where history is missing, repaired from the spool."""

import asyncio
import gc
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dtf.adapters.file_snapshots import FileSnapshots
from dtf.adapters.memory_log import MemoryLog
from dtf.adapters.spool import FileSpool
from dtf.api.v1 import events_pb2
from dtf.coordinator.commits import PendingCommit, Step
from dtf.coordinator.recovery import Fold, HistoryLost, find_loss, restore
from dtf.coordinator.reign import Reign, begin_reign
from dtf.coordinator.repair import FILLER, PutBack, RepairRefused, accepted_loss, put_back
from dtf.coordinator.writer import Writer, WriterLimits
from dtf.core.run.commands import Command, CreateRun
from dtf.core.run.state_hash import SCHEMA_VERSION, state_hash
from dtf.core.snapshot import read_snapshot, take
from dtf.ports.event_log import LogUnavailable, StoredCommit
from dtf.ports.snapshot_store import SnapshotName
from tests.coordinators import create_request
from tests.fakes import FakeClock
from tests.unit.test_snapshot import of_schema

NO_TIME = 90.0


class Quiet:
    """A listener that does nothing."""

    def follow_up(self) -> Command | None:
        return None

    def decided(self, step: Step) -> None:
        pass

    def idle(self) -> None:
        pass

    def durable(self, commit: PendingCommit) -> None:
        pass


class CountingLog(MemoryLog):
    """Notes how many messages were read."""

    messages_read = 0

    async def read(self, after: int, until: int | None = None) -> AsyncIterator[Sequence[StoredCommit]]:
        async for batch in super().read(after, until):
            self.messages_read += len(batch)
            yield batch


@dataclass(slots=True)
class Site:
    """A log, and the state directory of whoever leads it."""

    directory: Path
    log: CountingLog = field(default_factory=CountingLog)
    _count: int = 0

    @property
    def snapshots(self) -> FileSnapshots:
        return FileSnapshots(self.directory / "snapshots")

    @property
    def spool(self) -> FileSpool:
        return FileSpool(self.directory / "spool")

    async def begin(self, *, spool: FileSpool | None = None) -> Reign:
        """A start, up to the election."""
        kept = spool or self.spool
        try:
            return await begin_reign(
                self.log,
                FakeClock(),
                leader="test",
                lease_seconds=10,
                nonce=secrets.token_bytes(8),
                code_version="test",
                snapshots=[self.snapshots],
                spool=kept,
            )
        finally:
            if spool is None:
                await kept.close()

    async def lead(self, runs: int) -> Reign:
        """A whole reign that creates so many runs, each in a commit."""
        spool = self.spool
        reign = await self.begin(spool=spool)
        writer = Writer(
            self.log,
            FakeClock(),
            reign.state,
            reign.chain,
            nonce=secrets.token_bytes(8),
            code_version="test",
            limits=WriterLimits(),
            listener=Quiet(),
            spool=spool,
        )
        async with asyncio.timeout(NO_TIME):
            for _ in range(runs):
                self._count += 1
                await writer.submit(CreateRun(f"r{self._count}", create_request(f"q{self._count}")))
        await spool.close()
        return reign

    async def folded(self) -> Fold:
        fold = Fold()
        await restore(self.log, [], None, fold)
        return fold

    async def take_snapshot(self) -> SnapshotName:
        fold = await self.folded()
        name = SnapshotName(fold.chain.sequence, fold.chain.last_hash.hex())
        await self.snapshots.save(name, take(fold.state, fold.chain, code_version="test"))
        return name

    def cut(self, last: int) -> list[StoredCommit]:
        """The broker comes back with less than it had; what it had."""
        whole = list(self.log.commits)
        self.log = CountingLog()
        for stored in whole[:last]:
            self.log.inject(stored.payload, stored.message_id, stored.headers)
        return whole

    async def repair(self) -> PutBack:
        fold = Fold()
        restored = await restore(self.log, [self.snapshots], self.spool, fold)
        loss = await find_loss(self.log, fold.chain, restored)
        assert loss is not None
        return await put_back(self.log, loss, fold.chain)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty log and an empty directory."""
    return Site(tmp_path)


class WatchfulLog(MemoryLog):
    """Notes whether the garbage collector is on while it is read, and may break off."""

    def __init__(self, commits: Sequence[StoredCommit], *, breaks_off: bool) -> None:
        super().__init__()
        for stored in commits:
            self.inject(stored.payload, stored.message_id, stored.headers)
        self.breaks_off = breaks_off
        self.collects: set[bool] = set()

    async def read(self, after: int, until: int | None = None) -> AsyncIterator[Sequence[StoredCommit]]:
        async for batch in super().read(after, until):
            self.collects.add(gc.isenabled())
            yield batch
        if self.breaks_off:
            raise LogUnavailable("the broker is gone")


@pytest.mark.parametrize("breaks_off", [False, True], ids=["to its end", "until the broker is gone"])
async def test_the_collector_rests_while_a_log_is_folded_and_goes_on_after(
    site: Site, breaks_off: bool
) -> None:
    await site.lead(3)
    watched = WatchfulLog(site.log.commits, breaks_off=breaks_off)
    assert gc.isenabled()
    with pytest.raises(LogUnavailable) if breaks_off else nullcontext():
        await restore(watched, [], None, Fold())
    assert watched.collects == {False}
    assert gc.isenabled()


async def test_a_start_reads_only_what_came_after_the_newest_snapshot(site: Site) -> None:
    await site.lead(20)
    await site.take_snapshot()
    await site.lead(3)
    expected = state_hash((await site.folded()).state)
    site.log.messages_read = 0
    fold = Fold()
    restored = await restore(site.log, [site.snapshots], None, fold)
    assert restored.snapshot_sequence == 21
    assert state_hash(fold.state) == expected
    assert site.log.messages_read == 4 + 1  # the tail, and the message the snapshot was taken at


async def test_a_damaged_snapshot_is_passed_over_and_named(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        await site.lead(2)
        await site.take_snapshot()
    expected = state_hash((await site.folded()).state)
    names = await site.snapshots.names()
    for damaged, begun_from in [(names[0], names[1]), (names[1], names[2]), (names[2], None)]:
        path = site.snapshots.path_of(damaged)
        path.write_bytes(path.read_bytes()[:-1])
        fold = Fold()
        restored = await restore(site.log, [site.snapshots], None, fold)
        assert restored.snapshot_sequence == (begun_from.sequence if begun_from else 0)
        assert state_hash(fold.state) == expected
        assert any(str(damaged.sequence) in str(record.__dict__) for record in caplog.records)


async def test_a_lost_tail_refuses_the_start_and_says_what_is_lost_and_what_to_do(site: Site) -> None:
    await site.lead(10)
    site.cut(6)
    with pytest.raises(HistoryLost) as refused:
        await site.begin()
    said = refused.value.what
    assert "lost messages 7 to 11 (5 commits" in said and "the log ends at 6" in said
    assert "5 runs (r10, r6, r7, r8, r9)" in said
    assert "`dtf log repair`" in refused.value.advice[0]
    assert "--accept-loss 6" in refused.value.advice[1]
    assert len(site.log.commits) == 6


async def test_a_repair_puts_back_what_was_there_byte_for_byte_and_the_start_goes_on(site: Site) -> None:
    await site.lead(10)
    whole = site.cut(6)
    assert await site.repair() == PutBack(7, 11, 5, 0)
    assert [(c.payload, c.message_id) for c in site.log.commits] == [(c.payload, c.message_id) for c in whole]
    reign = await site.begin()
    assert set(reign.state.runs) == {f"r{number}" for number in range(1, 11)}


async def test_a_repair_that_was_killed_after_any_append_goes_on_where_it_stopped(site: Site) -> None:
    await site.lead(6)
    whole = list(site.log.commits)
    for killed_at in range(2, 7):
        site.cut(2)
        for stored in whole[2:killed_at]:
            site.log.inject(stored.payload, stored.message_id, stored.headers)
        await site.repair()
        assert [c.message_id for c in site.log.commits] == [c.message_id for c in whole]


async def test_a_strangers_message_that_was_lost_too_is_stood_in_for(site: Site) -> None:
    await site.lead(2)
    site.log.inject(b"noise")
    await site.lead(2)
    whole = site.cut(2)
    assert await site.repair() == PutBack(3, 7, 4, 1)
    assert [c.message_id for c in site.log.commits] == [c.message_id for c in whole]
    assert site.log.commits[3].payload == FILLER
    assert (await site.begin()).chain.stranger_sequences == {4}


async def test_a_snapshot_alone_knows_that_the_log_lost_its_end(site: Site) -> None:
    await site.lead(5)
    await site.take_snapshot()
    for path in (site.directory / "spool").iterdir():
        path.unlink()
    site.cut(4)
    with pytest.raises(HistoryLost, match=r"(?s)lost messages 5 to 6 .* the snapshot at 6 in .*holds none"):
        await site.begin()


async def test_another_commit_in_the_place_of_one_that_was_acknowledged_is_no_repair(site: Site) -> None:
    await site.lead(5)
    whole = site.cut(3)
    other = Site(site.directory / "other", site.log)  # another machine, which knows nothing of the loss
    await other.lead(4)
    with pytest.raises(HistoryLost, match="another commit at 6, of epoch 2"):
        await site.begin()
    with pytest.raises(RepairRefused, match="another commit at 6"):
        await site.repair()
    assert len(whole) == 6


async def test_what_was_spooled_and_never_landed_is_sent_at_the_next_start(site: Site) -> None:
    await site.lead(4)
    whole = site.cut(3)
    for path in (site.directory / "spool").glob("*.mark"):
        path.unlink()
    await trimmed_marks(site)
    reign = await site.begin()
    assert [c.message_id for c in site.log.commits][: len(whole)] == [c.message_id for c in whole]
    assert "r4" in reign.state.runs


async def trimmed_marks(site: Site) -> None:
    """Write the spool anew without any acknowledgement, as if the broker had answered nothing."""
    contents = await site.spool.read(0)
    for path in (site.directory / "spool").iterdir():
        path.unlink()
    spool = site.spool
    spool.begin("ab")
    for commit in contents.commits:
        await spool.write(commit)
    await spool.close()


async def test_what_another_reign_wrote_over_is_not_sent_again(site: Site) -> None:
    await site.lead(4)
    await trimmed_marks(site)
    site.cut(3)
    other = Site(site.directory / "other", site.log)
    await other.lead(2)
    before = [c.message_id for c in site.log.commits]
    await site.begin()
    assert [c.message_id for c in site.log.commits][:-1] == before


async def test_an_accepted_loss_is_in_the_log_with_an_epoch_and_fences_above_those_that_are_lost(
    site: Site,
) -> None:
    await site.lead(3)
    for _ in range(3):
        await site.lead(1)
    site.cut(4)
    fold = Fold()
    restored = await restore(site.log, [site.snapshots], site.spool, fold)
    loss = await find_loss(site.log, fold.chain, restored)
    assert loss is not None
    what = accepted_loss(loss, fold.state, [], "someone@here")
    reign = await begin_reign(
        site.log,
        FakeClock(),
        leader="dtf log repair",
        lease_seconds=10,
        nonce=secrets.token_bytes(8),
        code_version="test",
        reign=Reign(fold.state, fold.chain),
        accepted_loss=what,
    )
    said: events_pb2.LeaderElected = reign.elected.events[0].leader_elected
    assert said.accepted_loss.after_sequence == 4 and said.accepted_loss.through_sequence == 10
    assert said.accepted_loss.through_hash.hex() == loss.through.message_id
    assert said.epoch == 5  # the lost ones went up to 4
    assert reign.state.next_fence >= said.accepted_loss.next_fence


async def test_a_snapshot_of_a_newer_schema_refuses_the_start(site: Site) -> None:
    await site.lead(3)
    name = await site.take_snapshot()
    data = await site.snapshots.load(name)
    await site.snapshots.save(name, of_schema(read_snapshot(data), SCHEMA_VERSION + 1))
    with pytest.raises(HistoryLost, match=r"cannot be used.*schema"):
        await site.begin()


async def test_a_spool_that_is_damaged_beside_a_whole_log_is_named_and_does_no_harm(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    await site.lead(5)
    path = next((site.directory / "spool").glob("*.spool"))
    data = bytearray(path.read_bytes())
    data[100] ^= 255
    path.write_bytes(data)
    reign = await site.begin()
    assert reign.chain.sequence == 7
    assert any(path.name in str(record.__dict__) for record in caplog.records)


async def test_a_standby_that_has_read_more_than_there_is_refuses_to_lead(site: Site) -> None:
    await site.lead(5)
    fold = await site.folded()
    site.cut(4)
    other = Site(site.directory / "standby", site.log)
    with pytest.raises(HistoryLost, match="has read it up to 6"):
        await begin_reign(
            other.log,
            FakeClock(),
            leader="standby",
            lease_seconds=10,
            nonce=secrets.token_bytes(8),
            code_version="test",
            reign=Reign(fold.state, fold.chain),
        )
