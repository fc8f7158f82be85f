"""kill -9 before every step that a snapshot or an accepted loss takes on the disk: nothing is lost, nothing half is used."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from dtf.adapters.file_snapshots import FileSnapshots
from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.spool import FileSpool
from dtf.adapters.system_clock import SystemClock
from dtf.coordinator.recovery import Fold, restore
from dtf.coordinator.reign import begin_reign
from dtf.core.snapshot import open_snapshot
from dtf.settings.loader import without_settings
from dtf.settings.model import NatsSettings

pytestmark = [pytest.mark.coordinator, pytest.mark.timeout(600)]
COMMAND_SECONDS = 90.0
MOST_STEPS = 60
REIGNS = 4


@dataclass(slots=True)
class Site:
    """A project on the session's broker, with a namespace of its own."""

    directory: Path
    namespace: str
    nats: NatsSettings

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            **without_settings(os.environ),
            "DTF_NATS_URL": self.nats.url,
            "DTF_NATS_CREDENTIALS_FILE": self.nats.credentials_file,
            "DTF_COORDINATOR_NAMESPACE": self.namespace,
            "DTF_NATS_MAX_LOG_BYTES": str(self.nats.max_log_bytes),
            "DTF_NATS_APPEND_TIMEOUT_SECONDS": str(self.nats.append_timeout_seconds),
        }

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """`dtf ARGUMENTS`."""
        return self._run("dtf.cli.main", "--project", str(self.directory), *arguments)

    def run_killed_before(self, step: int, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """The same, killed before a step."""
        directory = str(self.directory)
        return self._run(
            "tests.integration.dying_program", str(step), directory, "--project", directory, *arguments
        )

    def _run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    @property
    def spool(self) -> FileSpool:
        return FileSpool(self.directory / ".dtf" / "spool" / self.namespace)

    async def reign(self, log: JetStreamLog) -> None:
        """A reign that does nothing but begin: one commit, spooled."""
        spool = self.spool
        await begin_reign(
            log,
            SystemClock(),
            leader="test",
            lease_seconds=1.0,
            nonce=secrets.token_bytes(8),
            code_version="test",
            spool=spool,
        )
        await spool.close()

    async def begins_from_a_snapshot(self, log: JetStreamLog) -> bool:
        """Whether a start would find one, and every file that is called a snapshot is whole."""
        store = FileSnapshots(self.directory / ".dtf" / "snapshots" / self.namespace)
        for name in await store.names():
            open_snapshot(await store.load(name))
        restored = await restore(log, [store], None, Fold())
        return restored.snapshot_sequence > 0


def make_site(directory: Path, namespace: str, nats: NatsSettings) -> Site:
    """A project."""
    directory.mkdir()
    (directory / "dtf.toml").touch()
    return Site(directory, namespace, nats)


async def test_a_snapshot_killed_before_any_step_leaves_the_older_ones_and_nothing_half(
    tmp_path: Path, nats_settings: NatsSettings, namespace: str
) -> None:
    site = make_site(tmp_path / "project", namespace, nats_settings)
    log = await JetStreamLog.open(nats_settings, namespace, SystemClock())
    await site.reign(log)
    assert site.run("log", "snapshot").returncode == 0
    for step in range(1, MOST_STEPS):
        await site.reign(log)
        killed = site.run_killed_before(step, "log", "snapshot")
        assert await site.begins_from_a_snapshot(log), killed.stderr
        if killed.returncode == 0:
            break
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert step > 3, "it was killed at several steps"
    assert site.run("log", "snapshot").returncode == 0
    left = [path.name for path in (site.directory / ".dtf" / "snapshots" / namespace).iterdir()]
    assert sorted(Path(name).suffix for name in left) == ["", ".snapshot", ".snapshot", ".snapshot"]
    await log.close()


async def test_a_loss_accepted_by_a_command_that_is_killed_before_any_step_is_accepted_or_not(
    tmp_path: Path, nats_settings: NatsSettings, namespace: str
) -> None:
    outcomes: set[str] = set()
    for step in count(1):
        site, lost = await with_lost_tail(tmp_path / f"{step}", f"{namespace}-{step}", nats_settings)
        killed = site.run_killed_before(step, "log", "repair", "--accept-loss", "2")
        finished = site.run("log", "repair")
        assert finished.returncode == 0, (step, killed.stderr, finished.stderr)
        outcomes.add(await outcome(site, lost))
        if killed.returncode == 0:
            break
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert step < MOST_STEPS
    assert outcomes == {"repaired", "accepted"}


async def with_lost_tail(directory: Path, namespace: str, nats: NatsSettings) -> tuple[Site, list[str]]:
    """A project whose log ends after two of four commits; the ids of all four."""
    whole = make_site(directory, f"{namespace}-whole", nats)
    log = await JetStreamLog.open(nats, whole.namespace, SystemClock())
    for _ in range(REIGNS):
        await whole.reign(log)
    stored = [message async for batch in log.read(0) for message in batch]
    await log.close()
    site = Site(directory, namespace, nats)
    (directory / ".dtf" / "spool" / whole.namespace).rename(directory / ".dtf" / "spool" / namespace)
    shortened = await JetStreamLog.open(nats, namespace, SystemClock())
    for message in stored[:2]:
        await shortened.append(
            message.payload,
            message_id=message.message_id,
            previous_message_id=None,
            expected_last_sequence=message.sequence - 1,
            headers={},
        )
    await shortened.close()
    return site, [message.message_id for message in stored]


async def outcome(site: Site, whole: list[str]) -> str:
    """Either all is back, or the log says what it goes on without and the spool of it is set aside."""
    log = await JetStreamLog.open(site.nats, site.namespace, SystemClock())
    ids = [message.message_id async for batch in log.read(0) for message in batch]
    await log.close()
    if ids == whole:
        return "repaired"
    assert ids[:2] == whole[:2] and len(ids) == 3
    aside = site.directory / ".dtf" / "set-aside" / site.namespace
    [kept] = aside.iterdir()
    found = {commit.message_id for commit in (await FileSpool(kept).read(0)).commits}
    assert found == set(whole)
    return "accepted"
