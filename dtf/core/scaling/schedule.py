"""Scheduled: bounds by time of day and day of the week, in a time zone.

    [pool.schedule]
    "mon-fri 08:00-18:00" = "5..50"
    "sat,sun" = "0..4"
    "22:00-06:00" = "0"

An entry is days (names, ranges, commas; none: every day), a span of time (none: the whole day; one
that ends before it begins reaches into the next day), and bounds: "least..most", or a number of
workers. The first entry that applies counts, the pool's own bounds where none does. Bounds hold for
every strategy, so that a schedule goes together with each; the strategy "scheduled" asks for their
lower one alone. The least is looked up one start-up delay ahead, so that the workers are there on
time.
"""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dtf.core.scaling.policy import ScalingPolicy
from dtf.core.scaling.rates import NANOS

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_ENTRY = re.compile(
    r"(?P<days>[a-z]{3}(?:[-,][a-z]{3})*)?\s*(?:(?P<from>\d\d:\d\d)-(?P<to>\d\d:\d\d))?", re.IGNORECASE
)
_BOUNDS = re.compile(r"(\d+)(?:\.\.(\d+))?")
_DAY_MINUTES = 24 * 60


class BadSchedule(ValueError):
    """A schedule that cannot be read; the message says which entry and what was expected."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Bounds and when they hold."""

    text: str
    days: frozenset[int]
    """0 is Monday; the day on which the span begins."""
    begins: int
    ends: int
    """Minutes after midnight; `ends` is beyond `begins`, past 1440 on the next day."""
    least: int
    most: int | None

    def applies(self, weekday: int, minute: int) -> bool:
        """Whether it holds at this minute of this day."""
        if weekday in self.days and self.begins <= minute < self.ends:
            return True
        return (weekday - 1) % 7 in self.days and self.begins <= minute + _DAY_MINUTES < self.ends


@lru_cache(maxsize=64)
def parse_schedule(written: tuple[tuple[str, str], ...]) -> tuple[Entry, ...]:
    """The entries of a pool's schedule. Raises BadSchedule."""
    return tuple(_parse_entry(when, bounds) for when, bounds in written)


@lru_cache(maxsize=16)
def parse_zone(name: str) -> tzinfo:
    """The time zone of this name. Raises BadSchedule."""
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise BadSchedule(f'"{name}" is no time zone; write one as "Europe/Berlin"') from None


def scheduled_policy(policy: ScalingPolicy, now_ns: int, startup: float) -> ScalingPolicy:
    """The policy with the bounds that its schedule gives it now."""
    if not policy.schedule:
        return policy
    entries, zone = parse_schedule(tuple(policy.schedule.items())), parse_zone(policy.timezone)
    now = _entry_at(entries, zone, now_ns)
    soon = _entry_at(entries, zone, now_ns + int(startup * NANOS))
    least = soon.least if soon is not None else policy.min_workers
    most = policy.max_workers if now is None or now.most is None else now.most
    if now is not None:
        # what is due soon may begin early, what ends soon stays until then
        least = max(least, now.least)
    entry = soon or now
    reason = f'by the schedule "{entry.text}"' if entry is not None else ""
    return replace(policy, min_workers=least, max_workers=max(most, least), bounds_reason=reason)


def next_boundary_ns(policy: ScalingPolicy, now_ns: int, startup: float) -> int | None:
    """When the schedule may next change the bounds, seen from now or a start-up delay ahead; None: never."""
    if not policy.schedule:
        return None
    entries, zone = parse_schedule(tuple(policy.schedule.items())), parse_zone(policy.timezone)
    minutes = {minute % _DAY_MINUTES for entry in entries for minute in (entry.begins, entry.ends)} | {0}
    boundaries = []
    for ahead in (0.0, startup):
        local = _local(zone, now_ns + int(ahead * NANOS))
        for minute in minutes:
            at = local.replace(hour=minute // 60, minute=minute % 60, second=0, microsecond=0)
            if at <= local:
                at += timedelta(days=1)
            # by the clocks of the world: the wall's jump an hour twice a year
            boundaries.append(int((at.timestamp() - local.timestamp()) * NANOS) + now_ns)
    return min(boundaries, default=None)


def _entry_at(entries: tuple[Entry, ...], zone: tzinfo, at_ns: int) -> Entry | None:
    local = _local(zone, at_ns)
    weekday, minute = local.weekday(), local.hour * 60 + local.minute
    return next((entry for entry in entries if entry.applies(weekday, minute)), None)


def _local(zone: tzinfo, at_ns: int) -> datetime:
    return datetime.fromtimestamp(at_ns / NANOS, zone)


def _parse_entry(when: str, bounds: str) -> Entry:
    found, given = _ENTRY.fullmatch(when.strip()), _BOUNDS.fullmatch(bounds.strip())
    if found is None or given is None or not when.strip():
        raise BadSchedule(
            f'"{when}" = "{bounds}" cannot be read; write "mon-fri 08:00-18:00" = "5..50" (least..most workers)'
        )
    begins, ends = _minute(found["from"] or "00:00", when), _minute(found["to"] or "24:00", when)
    least, most = int(given[1]), int(given[2]) if given[2] is not None else int(given[1])
    if most < least:
        raise BadSchedule(f'"{when}" = "{bounds}": the least comes first')
    days = _days(found["days"] or "mon-sun", when)
    return Entry(when.strip(), days, begins, ends if ends > begins else ends + _DAY_MINUTES, least, most)


def _minute(text: str, when: str) -> int:
    hours, minutes = int(text[:2]), int(text[3:])
    if minutes > 59 or hours * 60 + minutes > _DAY_MINUTES:
        raise BadSchedule(f'"{when}": {text} is no time of day')
    return hours * 60 + minutes


def _days(text: str, when: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.lower().split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise BadSchedule(f'"{when}": {part} is no day; write {", ".join(DAYS)}')
        begin, end = DAYS.index(first), DAYS.index(last or first)
        days.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return frozenset(days)
