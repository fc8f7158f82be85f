"""The streams beside the log as points: workers' telemetry and scaling decisions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dtf.api.v1 import scaling_pb2, worker_service_pb2
from dtf.core.trend import measurements
from dtf.core.trend.names import pool_name
from dtf.core.trend.points import PointBuffer, Points

SLOT_KEPT_SECONDS = 60
"""A worker silent for this long gives its slot up: twelve samples at the default interval."""

_SECOND_NS = 1_000_000_000

ACTION_NAMES: Mapping[int, str] = {
    scaling_pb2.SCALING_ACTION_HOLD: "hold",
    scaling_pb2.SCALING_ACTION_SCALE_OUT: "scale_out",
    scaling_pb2.SCALING_ACTION_SCALE_IN: "scale_in",
    scaling_pb2.SCALING_ACTION_REPLACE: "replace",
    scaling_pb2.SCALING_ACTION_TERMINATE: "terminate",
}
"""How the store writes an action."""


@dataclass(slots=True)
class _Slots:
    """Small numbers for the live workers of one pool."""

    held: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Slot and last time heard, by worker."""

    def take(self, worker_id: str, heard_ns: int) -> int | None:
        """The worker's slot; None for a sample that is no newer than its last."""
        if worker_id in self.held and heard_ns <= self.held[worker_id][1]:
            return None
        oldest = heard_ns - SLOT_KEPT_SECONDS * _SECOND_NS
        self.held = {name: value for name, value in self.held.items() if value[1] >= oldest}
        if worker_id in self.held:
            slot = self.held[worker_id][0]
        else:
            taken = {slot for slot, _heard in self.held.values()}
            slot = next(number for number in range(len(taken) + 1) if number not in taken)
        self.held[worker_id] = (slot, heard_ns)
        return slot


class TelemetryFold:
    """Samples in, points out. The slot as a tag keeps series as few as workers ever lived at once."""

    def __init__(self) -> None:
        self.sequence = 0
        self._pools: dict[str, _Slots] = {}
        self._buffer = PointBuffer()

    def __len__(self) -> int:
        return len(self._buffer)

    def apply(self, sample: worker_service_pb2.TelemetrySample, sequence: int) -> None:
        """Fold one sample."""
        if sequence <= self.sequence:
            return
        self.sequence = sequence
        pool = pool_name(sample.pool)
        slot = self._pools.setdefault(pool, _Slots()).take(sample.worker_id, sample.heard_unix_nanos)
        if slot is None:
            return
        said = sample.telemetry
        self._buffer.of(measurements.WORKERS).add(
            sample.heard_unix_nanos,
            {
                "pool": pool,
                "slot": str(slot),
                "worker": sample.worker_id,
                "incarnation": sample.incarnation,
                "cpu_ratio": said.cpu_ratio,
                "memory_used_bytes": said.memory_used_bytes,
                "memory_total_bytes": said.memory_total_bytes,
                "disk_free_bytes": said.disk_free_bytes,
                "load": said.load,
                "running": said.running,
                "waiting": said.waiting,
                "worker_memory_bytes": said.worker_memory_bytes,
            },
        )

    def take(self) -> list[Points]:
        """The points of every sample folded since the last call."""
        return self._buffer.take()

    def state(self) -> dict[str, Any]:
        """What `restore` takes, as JSON values."""
        slots = {pool: {w: list(v) for w, v in slots.held.items()} for pool, slots in self._pools.items()}
        return {"sequence": self.sequence, "slots": slots}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.sequence = state["sequence"]
        self._pools = {
            pool: _Slots({worker: (slot, heard) for worker, (slot, heard) in held.items()})
            for pool, held in state["slots"].items()
        }


class ScalingFold:
    """Decisions in, points out, at times that rise strictly."""

    def __init__(self) -> None:
        self.sequence = 0
        self._next_time_ns = 0
        self._buffer = PointBuffer()

    def __len__(self) -> int:
        return len(self._buffer)

    def apply(self, decision: scaling_pb2.ScalingDecision, sequence: int) -> None:
        """Fold one decision."""
        if sequence <= self.sequence:
            return
        self.sequence = sequence
        if decision.rehearsal:
            return  # it was not carried out
        time_ns = max(self._next_time_ns, decision.now_unix_nanos)
        self._next_time_ns = time_ns + 1
        self._buffer.of(measurements.SCALING).add(
            time_ns,
            {
                "pool": pool_name(decision.pool),
                "decision": decision.decision_id,
                "action": ACTION_NAMES.get(decision.action, "unknown"),
                "desired": decision.desired,
                "requested": decision.requested,
                "observed": decision.observed,
                "recommended": decision.recommended,
                "reason": decision.reason,
                "queue_depth": decision.demand.queue_depth,
                "leased": decision.demand.leased_count,
                "backlog_seconds": decision.demand.backlog_seconds,
                "utilization_ratio": decision.demand.utilization_ratio,
                "arrival_rate": decision.demand.arrival_rate,
                "log_sequence": decision.log_sequence,
            },
        )

    def take(self) -> list[Points]:
        """The points of every decision folded since the last call."""
        return self._buffer.take()

    def state(self) -> dict[str, Any]:
        """What `restore` takes, as JSON values."""
        return {"sequence": self.sequence, "next_time_ns": self._next_time_ns}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.sequence = state["sequence"]
        self._next_time_ns = state["next_time_ns"]
