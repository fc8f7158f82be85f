"""One trial of the log's fence: a writer with commits in flight, and others who write to its subject.

The writer keeps 16 commits in flight, as the coordinator does, and stops at the first that is
refused; what was in flight then may still land. At moments drawn from a seed strangers' messages
and the election of a new leader arrive by another connection. Two schemes are tried:

    chained   what dtf does: a commit names the id (hash) of the one before it; the first of a
              pipeline the last sequence as well
    naive     a commit names the sequence before it, and nothing else

A commit that landed is stale if the log's last commit was not the one it builds on, or a leader of
a later epoch had written: whoever replays the log would have to pass it over, while its writer was
told that it is durable.
"""

import asyncio
import hashlib
import random
from dataclasses import dataclass, field

import nats
from nats.aio.client import Client

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.nats_configuration import read_credentials
from dtf.adapters.nats_server import NatsServer
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import events_pb2
from dtf.core.events import parse_commit
from dtf.ports.event_log import AppendConflict, LogError
from dtf.ports.subjects import event_subject
from dtf.settings.model import NatsSettings

COMMITS = 64
IN_FLIGHT = 16
MOST_STRANGERS = 3
LATEST_SECONDS = 0.02
"""Others write within this long of the writer's start: about as long as it writes."""
TIMEOUT_SECONDS = 60.0
MAX_LOG_BYTES = 16 * 2**20


@dataclass(slots=True)
class Trial:
    """What happened, read from the log and from what the writers were told."""

    landed: int = 0
    """Commits of the first writer in the log."""
    refused: int = 0
    """Commits of the first writer that the broker refused."""
    strangers: int = 0
    is_deposed: bool = False
    """Whether a new leader's election landed."""
    stale: int = 0
    stale_acknowledged: int = 0
    """Stale ones whose writer was told that they are durable."""
    acknowledged: set[int] = field(default_factory=set)

    @property
    def was_hit(self) -> bool:
        """Whether anybody wrote while commits were in flight."""
        return self.refused > 0


class _Writer:
    """Appends a chain of commits, IN_FLIGHT at a time, until one is refused."""

    def __init__(self, log: JetStreamLog, trial: Trial, *, is_chained: bool) -> None:
        self._log = log
        self._trial = trial
        self._is_chained = is_chained
        self._hash = b""
        self._sent = 0
        self._in_flight = 0
        self._moved = asyncio.Event()
        self._has_failed = False

    async def run(self) -> None:
        while self._sent < COMMITS and not self._has_failed:
            if self._in_flight < IN_FLIGHT:
                self._send()
            else:
                self._moved.clear()
                await self._moved.wait()
        while self._in_flight:
            self._moved.clear()
            await self._moved.wait()

    def _send(self) -> None:
        payload, message_id = commit_of(self._hash, self._sent, epoch=1)
        expected = self._sent if not self._is_chained or not self._in_flight else None
        answer = self._log.append(
            payload,
            message_id=message_id,
            previous_message_id=self._hash.hex() if self._is_chained else None,
            expected_last_sequence=expected,
            headers={},
        )
        self._sent += 1
        self._in_flight += 1
        self._hash = bytes.fromhex(message_id)
        answer.add_done_callback(self._answered)

    def _answered(self, answer: "asyncio.Future[int]") -> None:
        self._in_flight -= 1
        self._moved.set()
        if answer.exception() is None:
            self._trial.acknowledged.add(answer.result())
        else:
            self._has_failed = True
            self._trial.refused += 1


def commit_of(previous: bytes, number: int, *, epoch: int) -> tuple[bytes, str]:
    """A commit that builds on `previous`, and its id."""
    event = events_pb2.Event(worker_left=events_pb2.WorkerLeft(worker_id=f"w-{epoch}-{number}"))
    if epoch > 1:
        event = events_pb2.Event(leader_elected=events_pb2.LeaderElected(epoch=epoch))
    payload = events_pb2.Commit(
        commit_id=epoch.to_bytes(8, "big") + number.to_bytes(8, "big"),
        epoch=epoch,
        prev_hash=previous,
        now_unix_nanos=number + 1,
        events=[event],
    ).SerializeToString()
    return payload, hashlib.sha256(payload).hexdigest()


async def try_fence(server: NatsServer, namespace: str, seed: int, *, is_chained: bool) -> Trial:
    """One trial in a namespace of its own."""
    numbers = random.Random(seed)
    settings = NatsSettings(
        url=server.url, credentials_file=str(server.credentials_file), max_log_bytes=MAX_LOG_BYTES
    )
    log = await JetStreamLog.open(settings, namespace, SystemClock())
    rival = await JetStreamLog.attach(settings, namespace, SystemClock())
    user, password = read_credentials(server.credentials_file)
    person = await nats.connect(server.url, user=user, password=password)
    trial = Trial()
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS), asyncio.TaskGroup() as group:
            for _ in range(numbers.randint(1, MOST_STRANGERS)):
                group.create_task(_disturb(person, namespace, numbers.uniform(0, LATEST_SECONDS)))
            if numbers.random() < 0.5:
                group.create_task(_depose(rival, numbers.uniform(0, LATEST_SECONDS)))
            group.create_task(_Writer(log, trial, is_chained=is_chained).run())
        await _read(log, trial)
    finally:
        await person.close()
        await rival.close()
        await log.close()
    return trial


async def _disturb(person: Client, namespace: str, after_seconds: float) -> None:
    """A message of somebody who knows nothing of dtf."""
    await asyncio.sleep(after_seconds)  # noqa: TID251  # the moment is what is tried
    await person.request(event_subject(namespace), b"hello?", timeout=TIMEOUT_SECONDS)


async def _depose(rival: JetStreamLog, after_seconds: float) -> None:
    """A new leader reads the log to its end and appends its election there, again until it is."""
    await asyncio.sleep(after_seconds)  # noqa: TID251
    while True:
        head = await rival.head()
        previous = b""
        async for batch in rival.read(0, head.last_sequence):
            for stored in batch:
                if parse_commit(stored.payload, stored.message_id) is not None:
                    previous = bytes.fromhex(stored.message_id)
        payload, message_id = commit_of(previous, head.last_sequence, epoch=2)
        try:
            await rival.append(
                payload,
                message_id=message_id,
                previous_message_id=None,
                expected_last_sequence=head.last_sequence,
                headers={},
            )
        except AppendConflict:
            continue
        except LogError as error:
            raise RuntimeError(f"the trial's broker does not work: {error}") from error
        return


async def _read(log: JetStreamLog, trial: Trial) -> None:
    """Judge what landed, by the log alone."""
    last_id, epoch = b"", 1
    async for batch in log.read(0):
        for stored in batch:
            commit = parse_commit(stored.payload, stored.message_id)
            if commit is None:
                trial.strangers += 1
                continue
            is_stale = commit.prev_hash != last_id or commit.epoch < epoch
            if commit.epoch == 1:
                trial.landed += 1
            else:
                trial.is_deposed = True
            if is_stale:
                trial.stale += 1
                trial.stale_acknowledged += stored.sequence in trial.acknowledged
            else:
                last_id, epoch = bytes.fromhex(stored.message_id), commit.epoch
