"""A resource manager that decides again what was decided: from the log, and from what each decision says it heard."""

from collections.abc import Iterable

from dtf.api.v1 import events_pb2, scaling_pb2
from dtf.core.scaling.allocation import recorded_allocation
from dtf.core.scaling.decide import decide_scaling
from dtf.core.scaling.policy import POLICY_VERSION, ScalingPolicy
from dtf.resource_manager.state_file import ManagerState


class ManagerAgain:
    """A resource manager without a world: the log comes from a file, time from the decisions."""

    def __init__(self, policy: ScalingPolicy, commits: Iterable[tuple[int, str, events_pb2.Commit]]) -> None:
        self.state = ManagerState.of(policy.pool)
        self._pool = self.state.pools[policy.pool]
        self._policy = policy
        self._commits = iter(commits)
        self._ahead = next(self._commits, None)

    def fold_until(self, sequence: int) -> None:
        """Fold the commits up to a sequence."""
        while self._ahead is not None and self._ahead[0] <= sequence:
            self.state.fold(*self._ahead)
            self._ahead = next(self._commits, None)

    def decide_like(self, recorded: scaling_pb2.ScalingDecision) -> scaling_pb2.ScalingDecision | None:
        """What is decided now, knowing what was known when `recorded` was decided."""
        for seen in recorded.observations:
            self.fold_until(seen.log_sequence)
            heard = scaling_pb2.Observation()
            heard.CopyFrom(seen)
            self.state.observe(self._policy.pool, heard)
        self.fold_until(recorded.log_sequence)
        ledger, projection, now_ns = self._pool.ledger, self.state.projection, recorded.now_unix_nanos
        ledger.sync(projection, now_ns)
        if recorded.policy_version != POLICY_VERSION:
            self._pool.take_observations()
            ledger.record(recorded)  # by other rules: what it asked for happened all the same
            return recorded
        plan = decide_scaling(
            projection, ledger, self._policy, now_ns, allocation=recorded_allocation(recorded)
        )
        if plan.decision is not None:
            ledger.record(plan.decision, plan.hold_kind)
            plan.decision.observations.extend(self._pool.take_observations())
        return plan.decision
