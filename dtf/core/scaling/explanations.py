"""Decisions in words: why nothing changes, and what else could have been done."""

from collections.abc import Callable, Sequence

from dtf.api.v1 import scaling_pb2
from dtf.core.scaling.policy import ScalingPolicy
from dtf.core.scaling.recommendation import Recommendation
from dtf.core.scaling.rules import Effect

STEADY = "steady"


def why_hold(
    effects: Sequence[Effect], effective: int, recommendation: Recommendation
) -> tuple[str, Callable[[], str]]:
    """The rule that had the last word, and its reason; a pool at rest at its minimum is steady."""
    for rule, before, after, reason in reversed(effects):
        if before != after:
            if rule == "minimum" and recommendation.hold_kind:
                break
            return (STEADY if rule == "minimum" else rule), reason.__str__
    if recommendation.hold_kind:
        return recommendation.hold_kind, recommendation.explain_hold
    return STEADY, lambda: f"{effective} {count_workers(effective)} are what the work needs"


def alternatives(
    decision: scaling_pb2.ScalingDecision, policy: ScalingPolicy, effective: int
) -> list[scaling_pb2.Alternative]:
    """One worker fewer, and as it is."""
    startup = decision.demand.startup_seconds
    backlog = decision.demand.backlog_seconds / policy.slots

    def ends_after(workers: int) -> float:
        # what is there works from now on, what is launched from `startup` on, until the backlog is done
        return (backlog + max(0, workers - effective) * startup) / workers

    if not decision.desired:
        return []
    chosen = ends_after(decision.desired)
    choices = []
    for workers in sorted({decision.desired - 1, effective} - {0, decision.desired}, reverse=True):
        ends = ends_after(workers)
        saved = decision.desired * chosen - workers * ends
        each = decision.demand.backlog_seconds / workers
        cost = f", {saved / 3600 * policy.price_per_hour:.2f} of cost" if policy.price_per_hour else ""
        choices.append(
            scaling_pb2.Alternative(
                workers=workers,
                backlog_seconds=each,
                saved_worker_seconds=saved,
                description=f"{workers} {count_workers(workers)}: {each:.1f} s each, "
                f"{'saves' if saved >= 0 else 'costs'} {abs(saved):.1f} worker-seconds{cost}, "
                f"ends {abs(ends - chosen):.1f} s {'later' if ends >= chosen else 'earlier'}",
            )
        )
    return choices


def count_workers(count: int) -> str:
    """The noun for so many."""
    return "worker" if count == 1 else "workers"
