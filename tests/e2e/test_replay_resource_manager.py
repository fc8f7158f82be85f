"""Streams recorded from a real pool, fed with virtual time to a fresh resource manager: it decides the same.

What the provider told is in the decisions; where it said nothing of a drained worker, its end is taken from the log,
unless the next recorded decision is to end it.
"""

import sys
from collections.abc import Iterator

import pytest

from dtf.adapters.stream_file import StreamFile
from dtf.api.v1 import events_pb2, scaling_pb2
from dtf.core.chain import ChainReader
from dtf.core.scaling import snapshot
from dtf.core.scaling.decide import STEADY, decide_scaling
from dtf.core.scaling.demand import DemandProjection
from dtf.core.scaling.ledger import PoolLedger
from dtf.core.scaling.policy import POLICY_VERSION, ScalingPolicy
from tests.streams.record import LOG_FILE, SCALING_FILE

pytestmark = pytest.mark.resource_manager

POLICY = ScalingPolicy(
    "local",
    min_workers=1,
    max_workers=3,
    slots=1,
    backlog_aim_seconds=0.5,
    scale_in_idle_seconds=0.3,
    scale_out_cooldown_seconds=0.1,
    scale_in_cooldown_seconds=0.1,
)
"""As in tests.integration.pool_rig.QUICK."""
TERMINATE = scaling_pb2.SCALING_ACTION_TERMINATE


class Replay:
    """A resource manager without a world: the log comes from a file, and time from the decisions."""

    def __init__(self) -> None:
        self.projection = DemandProjection()
        self.ledger = PoolLedger("local")
        self._commits = _read_commits()
        self._ahead: tuple[int, str, events_pb2.Commit] | None = next(self._commits, None)

    def fold_until(self, sequence: int) -> None:
        """Fold the commits up to a sequence."""
        while self._ahead is not None and self._ahead[0] <= sequence:
            self.projection.apply(*self._ahead)
            self._ahead = next(self._commits, None)

    def decide_like(self, recorded: scaling_pb2.ScalingDecision) -> scaling_pb2.ScalingDecision | None:
        """What is decided now with what was known when `recorded` was decided."""
        for seen in recorded.observations:
            self.fold_until(seen.log_sequence)
            self.ledger.observe(seen)
        self.fold_until(recorded.log_sequence)
        self.ledger.sync(self.projection, recorded.now_unix_nanos)
        if recorded.policy_version != POLICY_VERSION:
            self.ledger.record(recorded)  # by other rules: what it asked for happened all the same
            return recorded
        if recorded.action != TERMINATE:
            self._take_drained_for_exited(recorded.now_unix_nanos)
        plan = decide_scaling(self.projection, self.ledger, POLICY, recorded.now_unix_nanos)
        if plan.decision is not None:
            self.ledger.record(plan.decision, plan.hold_kind)
            plan.decision.observations.extend(recorded.observations)
        return plan.decision

    def _take_drained_for_exited(self, now_ns: int) -> None:
        for launch_id in list(self.ledger.launches):
            if launch_id in self.projection.gone:
                self.ledger.exited(launch_id, "exited with code 0", now_ns, is_clean=True)


def _read_commits() -> Iterator[tuple[int, str, events_pb2.Commit]]:
    chain = ChainReader()
    with StreamFile(LOG_FILE) as stream:
        for stored in stream:
            commit = chain.accept(stored.sequence, stored.payload, stored.message_id)
            assert commit is not None
            yield stored.sequence, stored.message_id, commit


def read_decisions() -> list[scaling_pb2.ScalingDecision]:
    """The recorded decisions but for the farewell, which no log explains."""
    with StreamFile(SCALING_FILE) as stream:
        decisions = [scaling_pb2.ScalingDecision.FromString(stored.payload) for stored in stream]
    return [decision for decision in decisions if "told to stop" not in decision.reason]


def test_every_recorded_decision_is_made_again_to_the_last_field() -> None:
    replay = Replay()
    recorded = read_decisions()
    for decision in recorded:
        assert replay.decide_like(decision) == decision
    actions = {decision.action for decision in recorded}
    assert {scaling_pb2.SCALING_ACTION_SCALE_OUT, scaling_pb2.SCALING_ACTION_SCALE_IN} <= actions


def test_a_manager_restarted_after_any_decision_decides_the_rest_the_same() -> None:
    recorded = read_decisions()
    for cut in range(len(recorded)):
        replay = Replay()
        for position, decision in enumerate(recorded):
            if position == cut:
                projection = snapshot.decode(snapshot.encode(replay.projection), DemandProjection)
                ledger = snapshot.decode(snapshot.encode(replay.ledger), PoolLedger)
                assert projection is not None and ledger is not None
                replay.projection, replay.ledger = projection, ledger
            assert replay.decide_like(decision) == decision


def test_the_recorded_pool_grew_to_its_bound_and_came_back() -> None:
    replay = Replay()
    sizes = []
    for decision in read_decisions():
        replay.decide_like(decision)
        sizes.append(decision.desired)
    assert max(sizes) == POLICY.max_workers
    assert replay.ledger.hold_kind in ("", STEADY, "idle", "start-up", "tasks", "maximum")
    replay.fold_until(sys.maxsize)
    assert sum(worker.takes_work for worker in replay.projection.workers.values()) <= 1
