"""A standby that knows nothing of what the log lost learns it from the one that does."""

from pathlib import Path

import pytest

from dtf.adapters.memory_lease import MemoryLease
from dtf.adapters.memory_log import MemoryLog
from dtf.adapters.spool import FileSpool
from dtf.cli.log_repair_command import take_back_word
from dtf.client.client import Client
from dtf.coordinator.recovery import HistoryLost
from dtf.ports.leader_lease import LeaderPhase, LeaderRecord
from tests.coordinators import create_request, peer_of, running_coordinator

pytestmark = pytest.mark.coordinator


async def test_whoever_finds_its_spool_ahead_of_the_log_leaves_word_for_the_next(tmp_path: Path) -> None:
    log, lease, spool = MemoryLog(), MemoryLease(), tmp_path / "spool"
    async with running_coordinator(log, tmp_path, lease=lease, spool=FileSpool(spool)) as first:
        async with Client(peer_of(first)) as client:
            await client.create_run(create_request("a"))
            await client.create_run(create_request("b"))
        sequence = first.desk.writer.durable_sequence
    log.cut(1)
    lease.reconnect(forgotten=True)  # as a broker that was restarted, or ten seconds later
    with pytest.raises(HistoryLost, match=r"the spool .* knows it up to"):
        async with running_coordinator(log, tmp_path, lease=lease, spool=FileSpool(spool), is_standby=True):
            pass
    record = (await lease.read()).record
    assert record is not None
    assert (record.phase, record.sequence) == (LeaderPhase.LOST, sequence)
    with pytest.raises(HistoryLost, match=f"had acknowledged {sequence} in epoch"):
        async with running_coordinator(log, tmp_path, lease=lease, is_standby=True):
            pass
    with pytest.raises(HistoryLost, match=f"had acknowledged {sequence} in epoch"):
        async with running_coordinator(log, tmp_path, lease=lease):
            pass
    assert len(log.commits) == 1, "nobody wrote where something is missing"


async def test_an_accepted_loss_is_asked_for_by_nobody(tmp_path: Path) -> None:
    log, lease = MemoryLog(), MemoryLease()
    word = LeaderRecord("gone", 3, "127.0.0.1:7070", 1.5, LeaderPhase.LOST, 17, "a-commit")
    await lease.write(word, 0)
    with pytest.raises(HistoryLost, match="gone had acknowledged 17 in epoch 3"):
        async with running_coordinator(log, tmp_path, lease=lease):
            pass
    await take_back_word(lease)
    async with running_coordinator(log, tmp_path, lease=lease, is_standby=True) as coordinator:
        assert coordinator.desk.state.epoch == 1
