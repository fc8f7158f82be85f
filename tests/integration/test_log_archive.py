"""`dtf log archive`: the stream gets shorter, the log does not."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import pytest

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.log_archive import ArchiveError, open_archive
from dtf.adapters.log_archiving import archive_lock
from dtf.adapters.system_clock import SystemClock
from dtf.cli.errors import CommandError
from dtf.cli.invocation import Invocation
from dtf.cli.log_archive_command import command
from dtf.cli.log_fold import Fold, earliest_fold, fold_to
from dtf.cli.log_source import LogSource, StreamSource, snapshot_stores, with_log_source
from dtf.core.run.state_hash import state_hash
from dtf.core.snapshot import take
from dtf.ports.event_log import LogHead, StoredCommit
from dtf.ports.snapshot_store import SnapshotName
from dtf.settings.model import NatsSettings
from tests.commits import CommitWriter, run_created, run_finished
from tests.integration import archive_child

COMMITS = 20


@pytest.fixture
def invocation(nats_settings: NatsSettings, namespace: str, tmp_path: Path) -> Invocation:
    return Invocation(
        tmp_path,
        flags={
            "nats.url": nats_settings.url,
            "nats.credentials_file": nats_settings.credentials_file,
            "nats.max_log_bytes": str(nats_settings.max_log_bytes),
            "coordinator.namespace": namespace,
        },
    )


@pytest.fixture
def on_log(nats_settings: NatsSettings, namespace: str) -> Callable[..., None]:
    """Does something with the live log."""

    def run(use: Callable[[JetStreamLog], Awaitable[None]]) -> None:
        async def work() -> None:
            log = await JetStreamLog.open(nats_settings, namespace, SystemClock())
            await use(log)
            await log.close()

        asyncio.run(work())

    return run


@pytest.fixture
def recorded(on_log: Callable[..., None]) -> None:
    """A log of ten runs that began and ended."""

    async def record(log: JetStreamLog) -> None:
        writer = CommitWriter(log)
        for number in range(COMMITS // 2):
            await writer.commit(run_created(f"run{number}"))
            await writer.commit(run_finished(f"run{number}"))

    on_log(record)


def snapshot(invocation: Invocation, at: int) -> None:
    """Keep a snapshot of the log at a sequence, as a coordinator would."""

    async def keep(source: LogSource) -> None:
        fold = await fold_to(source, Fold(), at)
        data = take(fold.state, fold.chain, code_version="test")
        stores = snapshot_stores(invocation, invocation.load().settings.nats, source.namespace)
        await stores[0].save(SnapshotName(at, fold.chain.last_hash.hex()), data)
        for kept in stores:
            await kept.close()

    with_log_source(invocation, None, None, keep)


def archive(invocation: Invocation, *words: str) -> None:
    command.main(list(words), obj=invocation, standalone_mode=False)


async def read_all(source: LogSource) -> list[StoredCommit]:
    return [message async for batch in source.read(0) for message in batch]


async def final_hash(source: LogSource) -> tuple[int, str]:
    head = await source.head()
    fold = await fold_to(source, await earliest_fold(source), head.last_sequence)
    return head.first_sequence, state_hash(fold.state)


async def live_head(source: LogSource) -> LogHead:
    assert isinstance(source, StreamSource)
    assert source.log is not None
    return await source.log.live.head()


@pytest.mark.usefixtures("recorded")
def test_archive_and_stream_together_are_the_log_that_was(invocation: Invocation) -> None:
    before = with_log_source(invocation, None, None, read_all)
    hash_before = with_log_source(invocation, None, None, final_hash)
    snapshot(invocation, 12)
    archive(invocation)
    assert with_log_source(invocation, None, None, live_head).first_sequence == 12
    assert with_log_source(invocation, None, None, read_all) == before
    assert with_log_source(invocation, None, None, final_hash) == hash_before == (1, hash_before[1])


@pytest.mark.usefixtures("recorded")
def test_it_goes_on_where_it_ended(invocation: Invocation, capsys: pytest.CaptureFixture[str]) -> None:
    before = with_log_source(invocation, None, None, read_all)
    for at in (6, 15):
        for path in (invocation.project_dir / ".dtf" / "snapshots").rglob("*.snapshot"):
            path.unlink()
        snapshot(invocation, at)
        archive(invocation, "--json")
        assert json.loads(capsys.readouterr().out)["stream_begins_at"] == at
    archive(invocation, "--json")
    assert json.loads(capsys.readouterr().out)["purged"] == 0
    assert with_log_source(invocation, None, None, read_all) == before


@pytest.mark.usefixtures("recorded")
def test_without_a_snapshot_nothing_is_purged(
    invocation: Invocation, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CommandError, match="no snapshot of this log is kept"):
        archive(invocation)
    archive(invocation, "--keep-stream", "--json")
    assert json.loads(capsys.readouterr().out) | {"directory": ""} == {
        "directory": "",
        "segments_added": 1,
        "messages_added": COMMITS,
        "archived_until": COMMITS,
        "stream_begins_at": 1,
        "purged": 0,
    }


@pytest.mark.usefixtures("recorded")
def test_a_snapshot_of_another_log_vouches_for_nothing(invocation: Invocation, namespace: str) -> None:
    snapshot(invocation, 12)
    (path,) = (invocation.project_dir / ".dtf" / "snapshots").rglob("*.snapshot")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CommandError, match="no snapshot of this log is kept"):
        archive(invocation)


@pytest.mark.usefixtures("recorded")
def test_an_archive_is_read_without_a_broker(invocation: Invocation, tmp_path: Path) -> None:
    before = with_log_source(invocation, None, None, read_all)
    target = tmp_path / "backup"
    archive(invocation, "--keep-stream", "--to", str(target))
    elsewhere = Invocation(tmp_path / "elsewhere")
    elsewhere.project_dir.mkdir()
    assert with_log_source(elsewhere, target, None, read_all) == before


@pytest.mark.usefixtures("recorded")
def test_a_changed_segment_is_named_and_nothing_purged(invocation: Invocation, namespace: str) -> None:
    archive(invocation, "--keep-stream")
    directory = invocation.project_dir / ".dtf" / "archive" / namespace
    (segment,) = directory.glob("*.dtfstream")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    snapshot(invocation, 12)
    with pytest.raises(CommandError, match="was changed: its SHA-256"):
        archive(invocation)
    assert with_log_source(invocation, None, None, live_head).first_sequence == 1


@pytest.mark.usefixtures("recorded")
def test_an_archive_of_another_log_is_refused_at_the_joint(
    invocation: Invocation, namespace: str, on_log: Callable[..., None]
) -> None:
    archive(invocation, "--keep-stream")
    directory = invocation.project_dir / ".dtf" / "archive" / namespace
    document = json.loads((directory / "manifest.json").read_text())
    document["segments"][-1]["last_message_id"] = "00" * 32
    (directory / "manifest.json").write_text(json.dumps(document))

    async def purge(log: JetStreamLog) -> None:
        await log.purge_below(15)

    on_log(purge)
    with pytest.raises(CommandError, match="does not continue the archive"):
        with_log_source(invocation, None, None, read_all)


@pytest.mark.usefixtures("recorded")
def test_one_archives_at_a_time(invocation: Invocation, namespace: str) -> None:
    directory = invocation.project_dir / ".dtf" / "archive" / namespace
    with archive_lock(directory), pytest.raises(CommandError, match="somebody archives"):
        archive(invocation, "--keep-stream")


@pytest.mark.usefixtures("recorded")
@pytest.mark.timeout(600)
def test_killed_before_any_rename_it_loses_nothing(
    invocation: Invocation, nats_settings: NatsSettings, namespace: str, tmp_path: Path
) -> None:
    """Four segments of at most three messages, each renamed once with its manifest once."""
    before = with_log_source(invocation, None, None, read_all)
    directory = tmp_path / ".dtf" / "archive" / namespace
    said = {
        "url": nats_settings.url,
        "credentials": nats_settings.credentials_file,
        "namespace": namespace,
        "directory": str(directory),
        "until": "12",
    }
    words = [sys.executable, "-m", archive_child.__name__, json.dumps(said)]
    for number in range(1, 8):
        died = subprocess.run([*words, "1" if number % 2 else "2"], check=False, timeout=60)
        assert died.returncode == -signal.SIGKILL
        assert with_log_source(invocation, None, None, read_all) == before
    assert subprocess.run([*words, "0"], check=False, timeout=60).returncode == 0
    assert with_log_source(invocation, None, None, read_all) == before
    assert with_log_source(invocation, None, None, live_head).first_sequence == 12
    assert [s.last_sequence for s in open_archive(directory, namespace).segments] == [3, 6, 9, 11]


def test_a_manifest_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"version": 2}')
    with pytest.raises(ArchiveError, match="is of version 2"):
        open_archive(tmp_path, "x")
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(ArchiveError, match="cannot be read"):
        open_archive(tmp_path, "x")


def test_the_command_shows_an_example() -> None:
    assert "Example:" in click.Context(command).get_help()
