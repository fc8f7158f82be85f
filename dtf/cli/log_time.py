"""Instants of a log as people name them: "812", "-10m", "2026-11-22T19:06:02Z"; and where they are in it."""

import re
from datetime import UTC, datetime

from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.log_source import FileSource, LogSource
from dtf.core.events import parse_commit
from dtf.ports.event_log import LogHead, StoredCommit

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_AGO = re.compile(r"-(\d+(?:\.\d+)?)(s|m|h|d)")
_SEQUENCE = re.compile(r"\d{1,18}")
_LARGEST_WINDOW = 512
_WITHIN_MICROSECOND = 999
"""Times are shown in microseconds: the commit of a time that was shown is at it, not after it."""


async def sequence_of(source: LogSource, text: str, now_ns: int) -> int:
    """The sequence that `text` names: itself, or the last one at or before an instant. Raises CommandError."""
    head = await source.head()
    if _SEQUENCE.fullmatch(text):
        return _in_range(source, head, int(text))
    instant = parse_instant(text, now_ns)
    found = await _last_at(source, head, instant)
    if found < head.first_sequence:
        raise CommandError(
            f"{source.name} begins after {text}", f"its first sequence is {head.first_sequence}"
        )
    return found


def parse_instant(text: str, now_ns: int) -> int:
    """Nanoseconds since 1970 of "-10m" (before `now_ns`) or of an RFC 3339 time. Raises CommandError."""
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now_ns - int(float(ago[1]) * _UNITS[ago[2]] * 1e9)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandError(
            f"{text!r} names no point of the log",
            "a sequence (812), a time ago (-10m, -2h) or an RFC 3339 time (2026-11-22T19:06:02Z) does",
            exit_code=ExitCode.USAGE,
        ) from error
    if instant.tzinfo is None:
        instant = instant.astimezone()
    whole = int(instant.replace(microsecond=0).astimezone(UTC).timestamp())
    return whole * 10**9 + instant.microsecond * 1000 + _WITHIN_MICROSECOND


def _in_range(source: LogSource, head: LogHead, sequence: int) -> int:
    if head.first_sequence - 1 <= sequence <= head.last_sequence and sequence:
        return sequence
    raise CommandError(
        f"{source.name} has no sequence {sequence}: it holds {head.first_sequence} to {head.last_sequence}",
        exit_code=ExitCode.USAGE,
    )


async def _last_at(source: LogSource, head: LogHead, instant: int) -> int:
    """The last sequence whose commit was made at or before the instant; times never fall, so halves are cut."""
    low, high = head.first_sequence - 1, head.last_sequence
    window = head.last_sequence if isinstance(source, FileSource) else _LARGEST_WINDOW
    while high - low > window:
        middle = (low + high) // 2
        found = await _first_commit(source, middle, high)
        if found is None or found[1] > instant:
            high = middle
        else:
            low = found[0]
    last = low
    async for batch in source.read(low, high + 1):
        for message in batch:
            at = _time_of(message)
            if at is not None and at > instant:
                return last
            last = message.sequence
    return last


async def _first_commit(source: LogSource, after: int, until: int) -> tuple[int, int] | None:
    async for batch in source.read(after, until):
        for message in batch:
            at = _time_of(message)
            if at is not None:
                return message.sequence, at
    return None


def _time_of(message: StoredCommit) -> int | None:
    commit = parse_commit(message.payload, message.message_id)
    return commit.now_unix_nanos if commit is not None else None
