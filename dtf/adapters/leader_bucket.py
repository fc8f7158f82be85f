"""The leader's lease in a JetStream key-value bucket, in memory on the broker.

Liveness needs no disk: what a restarted broker has forgotten, the leader writes again within a
renewal. Records go by themselves ten seconds after their last renewal, but for the word that the log
lacks what a leader had acknowledged: that stays until it is mended, where the bucket can have messages
that last (nats-server 2.11). `nats kv get DTF_LEADER_default leader` shows who leads.
"""

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from dtf.adapters.nats_connection import BrokerRefusal, NatsConnection
from dtf.ports.event_log import LogError
from dtf.ports.leader_lease import LeaderPhase, LeaderRecord, LeaseTaken, LeaseUnavailable, LeaseView
from dtf.ports.subjects import leader_bucket, subject_token
from dtf.settings.model import NatsSettings

_API = "$JS.API"
_EXPECTED_SUBJECT_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
_TIME_TO_LIVE = "Nats-TTL"
_FOREVER = "never"
_NO_SUCH_STREAM = 10059
_NO_SUCH_MESSAGE = 10037
_NO_TIME_TO_LIVE = 10166
"""The bucket was made without lives of messages, by a version before or a server before 2.11."""
_CONFLICT_CODES = frozenset({10071, 10164})
KEPT_SECONDS = 10.0
_ANSWER_SECONDS = 1.0
"""A lease that is not renewed within this is as good as not renewed."""


class LeaderBucket:
    """The LeaderLease port on one bucket."""

    def __init__(self, nats: NatsSettings, namespace: str, *, kept_seconds: float = KEPT_SECONDS) -> None:
        """`kept_seconds`: after which a bucket made here forgets what was not renewed."""
        bucket = leader_bucket(namespace)
        self._kept_seconds = kept_seconds
        self._stream = f"KV_{bucket}"
        self._prefix = f"$KV.{bucket}."
        self._replicas = nats.replicas
        self._connection = NatsConnection(
            replace(nats, append_timeout_seconds=_ANSWER_SECONDS, connect_timeout_seconds=_ANSWER_SECONDS),
            name=f"dtf lease {namespace}",
        )

    async def read(self) -> LeaseView:
        """The record as it stands; makes the bucket if it is missing."""
        request = {"last_by_subj": f"{self._prefix}leader"}
        try:
            answer = await self._ask(f"{_API}.STREAM.MSG.GET.{self._stream}", request)
        except BrokerRefusal as error:
            if error.code == _NO_SUCH_STREAM:
                await self._make()
            elif error.code != _NO_SUCH_MESSAGE:
                raise LeaseUnavailable(str(error)) from error
            return LeaseView()
        message = answer["message"]
        return LeaseView(_parse(base64.b64decode(message.get("data", ""))), int(message["seq"]))

    async def write(self, record: LeaderRecord, replaces: int) -> int:
        """Replace the record; see the port."""
        headers = {_EXPECTED_SUBJECT_SEQUENCE: str(replaces)}
        lasting = {_TIME_TO_LIVE: _FOREVER} if record.phase is LeaderPhase.LOST else {}
        try:
            return await self._put(record, headers | lasting)
        except BrokerRefusal as error:
            if error.code in _CONFLICT_CODES:
                raise LeaseTaken(f"the lease is not at revision {replaces} any more") from error
            if error.code != _NO_TIME_TO_LIVE:
                raise LeaseUnavailable(str(error)) from error
        try:
            return await self._put(record, headers)
        except BrokerRefusal as error:
            raise LeaseUnavailable(str(error)) from error

    async def _put(self, record: LeaderRecord, headers: Mapping[str, str]) -> int:
        answer = await self._ask(f"{self._prefix}leader", asdict(record), headers)
        return int(answer["seq"])

    async def enlist(self, standby: str) -> None:
        """Say that a standby waits."""
        await self._told(f"{self._prefix}standby.{subject_token(standby)}", {"standby": standby})

    async def withdraw(self, standby: str) -> None:
        """Say that a standby waits no longer."""
        subject = f"{self._prefix}standby.{subject_token(standby)}"
        await self._told(f"{_API}.STREAM.PURGE.{self._stream}", {"filter": subject})

    async def standbys(self) -> frozenset[str]:
        """Who waits."""
        prefix = f"{self._prefix}standby."
        answer = await self._told(f"{_API}.STREAM.INFO.{self._stream}", {"subjects_filter": f"{prefix}>"})
        return frozenset(name.removeprefix(prefix) for name in answer["state"].get("subjects") or ())

    async def close(self) -> None:
        """Let go of the connection."""
        await self._connection.close()

    async def _told(self, subject: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return await self._ask(subject, payload)
        except BrokerRefusal as error:
            raise LeaseUnavailable(str(error)) from error

    async def _ask(
        self, subject: str, payload: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Raises BrokerRefusal, and LeaseUnavailable for every other fault."""
        try:
            async with asyncio.timeout(2 * _ANSWER_SECONDS):
                return await self._connection.ask(subject, json.dumps(payload).encode(), headers)
        except BrokerRefusal:
            raise
        except (LogError, TimeoutError) as error:
            raise LeaseUnavailable(str(error) or "the broker did not answer") from error

    async def _make(self) -> None:
        await self._told(
            f"{_API}.STREAM.CREATE.{self._stream}",
            {
                "name": self._stream,
                "subjects": [f"{self._prefix}>"],
                "storage": "memory",
                "max_msgs_per_subject": 1,
                "max_age": round(self._kept_seconds * 1e9),
                "allow_msg_ttl": True,
                "duplicate_window": 10**9,
                "discard": "new",
                "deny_delete": True,
                "allow_rollup_hdrs": True,
                "allow_direct": True,
                "num_replicas": self._replicas,
            },
        )


def _parse(data: bytes) -> LeaderRecord | None:
    """The record in a message; None for one that is no record of ours."""
    try:
        found = json.loads(data)
        return LeaderRecord(
            leader=str(found["leader"]),
            epoch=int(found["epoch"]),
            address=str(found["address"]),
            lease_seconds=float(found["lease_seconds"]),
            phase=LeaderPhase(found["phase"]),
            sequence=int(found.get("sequence", 0)),
            message_id=str(found.get("message_id", "")),
        )
    except (ValueError, KeyError, TypeError):
        return None
