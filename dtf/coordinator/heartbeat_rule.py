"""How often workers must be heard from, and how long silence is borne.

    interval(fleet)     max(heartbeat_seconds, fleet / heartbeats_per_second), in steps of a quarter
    attached session    lost after  max(lease_seconds, lease_heartbeats * interval told)
    detached session    lost after  max(lease_seconds, interval)

A heartbeat costs the coordinator some 150 µs of processor time however little it says, so the fleet
as a whole may say so many a second, and each worker the less often the more there are. A worker is
told the interval with the first message of a stream, and again, when it changed, in answer to one
of its own heartbeats: telling costs nothing extra, and nobody is told twice of one step.

A stretched interval does not make a dead machine go unnoticed for longer: gRPC's keepalive breaks
its stream within 30 s at any size, and a broken stream has only the time in which the whole fleet
could come back. What takes longer to see is a worker that hangs while its connection lives.
"""

import math
from dataclasses import dataclass

STEP = 1.25
"""Intervals grow by this: a fleet that grows by one worker changes nobody's."""


@dataclass(frozen=True, slots=True)
class HeartbeatRule:
    """The rule; its numbers are settings (CoordinatorSettings, where each has its reason)."""

    heartbeat_seconds: float
    lease_seconds: float
    heartbeats_per_second: float
    lease_heartbeats: float

    def interval(self, fleet: int) -> float:
        """Seconds between two heartbeats of one worker in a fleet of this size."""
        stretch = fleet / (self.heartbeats_per_second * self.heartbeat_seconds)
        if stretch <= 1.0:
            return self.heartbeat_seconds
        steps = math.ceil(math.log(stretch, STEP) - 1e-9)
        return self.heartbeat_seconds * STEP**steps

    def attached_lease(self, interval: float) -> float:
        """Silence after which a worker on a living stream is lost; `interval` is what it was told."""
        if interval <= self.heartbeat_seconds:
            return self.lease_seconds
        return max(self.lease_seconds, self.lease_heartbeats * interval)

    def detached_lease(self, interval: float) -> float:
        """Time a worker without a stream has to come back; `interval` is that of the fleet."""
        return max(self.lease_seconds, interval)

    def review_period(self, interval: float) -> float:
        """How often silence is looked for: a look costs a little for each session."""
        return min(interval, max(self.heartbeat_seconds, self.lease_seconds / 4))
