"""The live feed: what is decided as lines of JSON on core NATS, one an item, for whoever listens.

    dtf.<namespace>.live.<run or fleet>.<Type>        nats sub 'dtf.*.live.*.CaseFailed'

The types are those of dtf/core/run/unfold.py; "event" of a line holds the item, fields named as there.

It follows the log like any tap, in the process of the resource manager, so the coordinator never
waits for it and spends nothing on it. It is best effort and stored nowhere:

- A line is only made for a subject that somebody listens to. A probe, which is a line of that
  subject with a reply, comes back as "no responders" when nobody does; the subject is then left
  alone for half a second. A new listener may miss that long.
- No more than `MAX_LINES_PER_SECOND` are sent; the rest is skipped and counted. Once a second a line
  `dtf.<namespace>.live.fleet.LinesSkipped` says how many since the last such line and in all, and
  the process's log says it once a minute.
- A listener that does not read is the broker's affair, which disconnects it; nobody here waits for one.
"""

import asyncio
import json
import logging
from itertools import count
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from dtf.adapters.event_lines import format_time
from dtf.adapters.nats_connection import NatsConnection, describe
from dtf.core.events import parse_commit
from dtf.core.run.unfold import Line, Unfolder
from dtf.ports.clock import Clock
from dtf.ports.event_log import EventLog, LogError, LogUnavailable, StoredCommit
from dtf.ports.subjects import live_subject
from dtf.settings.model import NatsSettings

logger = logging.getLogger(__name__)

MAX_LINES_PER_SECOND = 2000
"""At about 50 µs a line a tenth of a core, and more than anybody reads."""
PROBE_SECONDS = 0.5
_MAX_SUBJECTS = 10_000
_REPORT_SECONDS = 1.0
_WARN_SECONDS = 60.0
_SETTLE_SECONDS = 5
_RETRY_SECONDS = 1


class LiveFeed:
    """Follows the log and publishes what is listened to. `run` does it until it is cancelled."""

    def __init__(
        self,
        log: EventLog,
        nats: NatsSettings,
        namespace: str,
        clock: Clock,
        *,
        max_lines_per_second: int = MAX_LINES_PER_SECOND,
    ) -> None:
        self._log = log
        self._connection = NatsConnection(nats, name=f"dtf live {namespace}")
        self._namespace = namespace
        self._clock = clock
        self._unfolder = Unfolder()
        self._interest = _Interest(clock)
        self._budget = _Budget(clock, max_lines_per_second)
        self._last_stamp: dict[str, Any] = {}
        """Of the commit that was taken last."""
        self.published_count = 0
        self.skipped_count = 0
        """Lines that somebody listened to and that were not sent."""

    async def run(self, after: int | None = None) -> None:
        """Publish what is decided from now on (or after a sequence), until cancelled.

        It never raises: the process it runs in has better things to do than to end with it.
        """
        async with asyncio.TaskGroup() as group:
            reporting = group.create_task(self._report_for_ever())
            try:
                async for batch in self._log.follow(await self._end() if after is None else after):
                    for message in batch:
                        await self._take(message)
            except LogError as error:
                logger.warning("the live feed ends: %s", error)
            finally:
                reporting.cancel()
                await self._connection.close()

    async def _end(self) -> int:
        """Where the log ends, once the broker says it."""
        while True:
            try:
                return (await self._log.head()).last_sequence
            except LogUnavailable as error:
                logger.debug("live feed: %s", error)
                await self._clock.sleep(_RETRY_SECONDS)

    async def _take(self, message: StoredCommit) -> None:
        try:
            await self._publish_commit(message)
        except (LogUnavailable, nats.errors.Error, OSError, TimeoutError) as error:
            logger.debug("live feed: %s", describe(error))
        except Exception:
            logger.exception("the live feed passes over commit %d", message.sequence)

    async def _publish_commit(self, message: StoredCommit) -> None:
        commit = parse_commit(message.payload, message.message_id)
        if commit is None:
            return
        client = await self._connection.client()
        await self._interest.listen(client)
        lines = [line for event in commit.events for line in self._unfolder.unfold(event, self._is_wanted)]
        stamp = {
            "sequence": message.sequence,
            "at": format_time(commit.now_unix_nanos),
            "now_unix_nanos": commit.now_unix_nanos,
        }
        self._last_stamp = stamp
        await self._publish_lines(client, lines, stamp)

    def _is_wanted(self, run_id: str, type_name: str) -> bool:
        subject = live_subject(self._namespace, run_id, type_name)
        return self._interest.is_watched(subject) or self._interest.must_probe(subject)

    async def _publish_lines(self, client: Client, lines: list[Line], stamp: dict[str, Any]) -> None:
        """Probe the subjects that are not known with their first line, then send the rest."""
        subjects = [live_subject(self._namespace, line.run_id, line.type_name) for line in lines]
        sent = set()
        for index, subject in enumerate(subjects):
            if self._interest.must_probe(subject):
                await self._send(client, subject, lines[index], stamp, self._interest.probe(subject))
                sent.add(index)
        if sent:
            await self._interest.settle()
        for index, subject in enumerate(subjects):
            if index not in sent and self._interest.is_watched(subject):
                await self._send(client, subject, lines[index], stamp, "")

    async def _send(
        self, client: Client, subject: str, line: Line, stamp: dict[str, Any], reply: str
    ) -> None:
        if not reply and not self._budget.take():
            self.skipped_count += 1
            return
        text = json.dumps(
            {**stamp, "run": line.run_id, "type": line.type_name, "event": line.body},
            separators=(",", ":"),
            ensure_ascii=False,
        )
        await client.publish(subject, text.encode(), reply=reply)
        self.published_count += 1

    async def _report_for_ever(self) -> None:
        """Once a second say how many lines were skipped, if any were."""
        told, warned_at = 0, -_WARN_SECONDS
        while True:
            await self._clock.sleep(_REPORT_SECONDS)
            skipped = self.skipped_count
            if skipped == told:
                continue
            now = self._clock.monotonic()
            if now - warned_at >= _WARN_SECONDS:
                warned_at = now
                said = {"skipped_total": skipped, "published_total": self.published_count}
                logger.warning("the live feed skips lines: more happens than it may send", extra=said)
            try:
                await self._report_skipped(skipped - told, skipped)
            except (LogUnavailable, nats.errors.Error, OSError, TimeoutError) as error:
                logger.debug("live feed: %s", describe(error))
            else:
                told = skipped

    async def _report_skipped(self, count: int, total: int) -> None:
        client = await self._connection.client()
        said = {"count": count, "total": total, "published": self.published_count}
        body = {**self._last_stamp, "run": "", "type": "LinesSkipped", "event": said}
        subject = live_subject(self._namespace, "", "LinesSkipped")
        await client.publish(subject, json.dumps(body, separators=(",", ":")).encode())


class _Interest:
    """Which subjects somebody listens to, as far as the last half second tells."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._client: Client | None = None
        self._inbox = ""
        self._tokens = count()
        self._probes: dict[str, str] = {}
        self._known: dict[str, tuple[bool, float]] = {}
        self._settled: dict[str, asyncio.Future[None]] = {}

    async def listen(self, client: Client) -> None:
        """Take "no responders" on `client`; what was known on another one is forgotten."""
        if self._client is client:
            return
        self._client, self._inbox = client, client.new_inbox()
        self._known.clear()
        await client.subscribe(f"{self._inbox}.*", cb=self._receive)

    def must_probe(self, subject: str) -> bool:
        """Whether nothing is known about a subject, or only what is half a second old."""
        known = self._known.get(subject)
        return known is None or known[1] <= self._clock.monotonic()

    def is_watched(self, subject: str) -> bool:
        """Whether somebody listened at the last probe."""
        return self._known.get(subject, (False, 0.0))[0]

    def probe(self, subject: str) -> str:
        """The reply subject of a probe of `subject`, which counts as watched until it is answered."""
        if len(self._known) >= _MAX_SUBJECTS:
            self._known.clear()
        self._known[subject] = (True, self._clock.monotonic() + PROBE_SECONDS)
        reply = f"{self._inbox}.{next(self._tokens)}"
        self._probes[reply] = subject
        return reply

    async def settle(self) -> None:
        """Return when every probe sent before has been answered, or will not be.

        The server answers a connection in order, so a message to ourselves comes after them.
        (nats-py's flush would not do: it sends its ping ahead of what is buffered.)
        """
        assert self._client is not None
        subject = f"{self._inbox}.{next(self._tokens)}"
        settled = self._settled[subject] = asyncio.get_running_loop().create_future()
        try:
            await self._client.publish(subject)
            async with asyncio.timeout(_SETTLE_SECONDS):
                await settled
        finally:
            del self._settled[subject]
            self._probes.clear()

    async def _receive(self, message: Msg) -> None:
        settled = self._settled.get(message.subject)
        if settled is not None:
            if not settled.done():
                settled.set_result(None)
            return
        probed = self._probes.get(message.subject)
        if probed is not None:
            self._known[probed] = (False, self._clock.monotonic() + PROBE_SECONDS)


class _Budget:
    """How many lines may still be sent in this second."""

    def __init__(self, clock: Clock, lines_per_second: int) -> None:
        self._clock = clock
        self._limit = lines_per_second
        self._second = clock.monotonic()
        self._left = lines_per_second

    def take(self) -> bool:
        """Use one line; False if there is none left."""
        now = self._clock.monotonic()
        if now - self._second >= 1:
            self._second, self._left = now, self._limit
        if self._left <= 0:
            return False
        self._left -= 1
        return True
