"""When a worker is next heard from: its heartbeats, as far apart as the coordinator says.

The coordinator stretches the interval as the fleet grows and tells attached workers
(dtf/coordinator/heartbeat_rule.py). Telemetry is stretched with it, and rides on a heartbeat where
one is near: a message costs the coordinator the same whatever it holds.
"""

from dataclasses import dataclass

USUAL_HEARTBEAT_SECONDS = 1.0
"""The interval that `worker.telemetry_seconds` is meant for; at twice this one, samples are half as many."""


@dataclass(frozen=True, slots=True)
class Beat:
    """What is to be said now."""

    is_due: bool
    with_telemetry: bool = False


class Pulse:
    """The heartbeats of one session. All times are monotonic seconds."""

    def __init__(self, now: float, heartbeat_seconds: float, telemetry_seconds: float) -> None:
        self._interval = heartbeat_seconds
        self._telemetry_seconds = telemetry_seconds
        self._beat_at = now
        self._sample_at = now

    @property
    def heartbeat_seconds(self) -> float:
        """The interval now."""
        return self._interval

    @property
    def next_at(self) -> float:
        """When something is due next."""
        return min(self._beat_at, self._sample_at)

    def told(self, now: float, heartbeat_seconds: float) -> None:
        """The coordinator named an interval; 0: it named none. A shorter one counts at once."""
        if heartbeat_seconds > 0:
            self._interval = heartbeat_seconds
            self._beat_at = min(self._beat_at, now + heartbeat_seconds)

    def due(self, now: float) -> Beat:
        """Whether a heartbeat is due, and whether it carries telemetry; it then counts as made."""
        if now < self.next_at:
            return Beat(False)
        self._beat_at = now + self._interval
        with_telemetry = now + self._interval / 2 >= self._sample_at
        if with_telemetry:
            self._sample_at = now + self._telemetry_seconds * self._stretch
        return Beat(True, with_telemetry)

    @property
    def _stretch(self) -> float:
        return max(1.0, self._interval / USUAL_HEARTBEAT_SECONDS)
