"""The decisions of the resource manager, read from the broker of the project or from an exported file."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from google.protobuf.message import DecodeError

from dtf.adapters.records import JetStreamRecords
from dtf.adapters.stream_file import StreamFile, StreamFileError
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import scaling_pb2
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.project_broker import project_broker
from dtf.ports.event_log import LogError
from dtf.ports.subjects import RecordKind

Decisions = list[scaling_pb2.ScalingDecision]


def read_decisions(invocation: Invocation, source: Path | None, pool: str = "") -> Decisions:
    """Every decision there is, of one pool if it is named, in the order of the stream. Raises CommandError."""
    decisions = _of_file(source) if source is not None else asyncio.run(_of_broker(invocation))
    if pool and not any(decision.pool == pool for decision in decisions):
        known = sorted({decision.pool for decision in decisions})
        raise CommandError(
            f"nothing was decided about a pool {pool!r}",
            f"there are decisions about {', '.join(known) or 'none'}",
            exit_code=ExitCode.EMPTY,
        )
    return [decision for decision in decisions if pool in ("", decision.pool)]


def _of_file(path: Path) -> Decisions:
    try:
        with StreamFile(path) as stream:
            if stream.header.kind != RecordKind.SCALING.value:
                raise CommandError(
                    f"{path} holds a stream of {stream.header.kind}, not of scaling decisions",
                    "`dtf scaling export FILE` writes those",
                    exit_code=ExitCode.USAGE,
                )
            return _parsed(message.payload for message in stream)
    except (StreamFileError, OSError) as error:
        raise CommandError(f"{path} cannot be read: {error}", exit_code=ExitCode.USAGE) from error


async def _of_broker(invocation: Invocation) -> Decisions:
    namespace = invocation.load().settings.coordinator.namespace
    try:
        async with project_broker(invocation) as broker:
            records = await JetStreamRecords.open(broker, RecordKind.SCALING, namespace, SystemClock())
            try:
                return _parsed([message.payload async for batch in records.read(0) for message in batch])
            finally:
                await records.close()
    except LogError as error:
        raise CommandError(str(error), exit_code=ExitCode.UNAVAILABLE) from error


def _parsed(payloads: Iterable[bytes]) -> Decisions:
    """The decisions that were carried out; what a stranger wrote on the stream is passed over."""
    decisions = []
    for payload in payloads:
        with suppress(DecodeError):
            decision = scaling_pb2.ScalingDecision.FromString(payload)
            if not decision.rehearsal:
                decisions.append(decision)
    return decisions
