"""The default: workers for the queue now, and for what the next start-up delay will bring.

**The queue.** A worker launched now works from L (the start-up delay) on. Until then, and for a
little longer, the aim A, the workers there and on their way start tasks as they come free. What
they will not have started by L + A needs workers of its own: short tasks one for each A of work,
a task longer than A one of its own. So nothing that waits now waits longer than L + A, what is over
sooner launches nobody, and no worker is launched for less work than the aim.

**The next start-up delay.** `forecast` says how many slots it needs; launching for it before it is
there is what makes most tasks wait for nothing at all. What is idle beyond it goes, but not while
it is little and something was launched lately: noise alone may want it back (`settled`).
"""

import math
from dataclasses import dataclass

from dtf.api.v1 import scaling_pb2
from dtf.core.scaling.forecast import LeadTime, lead_time
from dtf.core.scaling.measure import Measured
from dtf.core.scaling.policy import ScalingPolicy
from dtf.core.scaling.rates import NANOS
from dtf.core.scaling.recommendation import Recommendation

RECHECK_SECONDS = 1.0
FLOW_IDLE_RATIO = 1.0
"""While tasks keep coming an idle worker is kept for as long as a start-up takes: letting it go and launching
another costs as much, so that at worst twice the least is paid (the rent-or-buy bound; Karlin et al. 1988)."""
SETTLING_STARTUPS = 10.0
"""So long after a launch few are let go while tasks keep coming: a worker that goes and comes back within ten
start-up delays has saved less than it takes to believe in the pool."""
FEW_RATIO = 0.2
"""Of the pool: fewer than these are few. More cost more than the trust is worth."""
SLACK_RATIO = 1 / 6
"""Of the start-up delay: a wait so short for a worker that is there is no harm, so tasks shorter than it share one."""


@dataclass(frozen=True, slots=True)
class QueueNeed:
    """Slots for what waits."""

    waiting: float
    """Tasks."""
    started: float
    """Tasks that the workers there and on their way will have started."""
    slots: float
    """New slots for the rest."""


def recommend_target(measured: Measured, policy: ScalingPolicy) -> Recommendation:
    """Workers for the queue and the next start-up delay."""
    startup = measured.startup_seconds
    aim = policy.aim_seconds(startup)
    slack = min(aim, startup * SLACK_RATIO)
    queue = queue_need(measured, policy, aim)
    by_queue = measured.effective + math.ceil(queue.slots / policy.slots - 1e-9)
    if queue.waiting <= 0 and not queue.slots:
        by_queue = measured.busy_workers
    forecast = pool_lead_time(measured, startup, slack)
    needed = max(by_queue, math.ceil(forecast.needed / policy.slots - 1e-9))
    kept = max(needed, math.ceil(forecast.kept / policy.slots - 1e-9))
    workers = min(max(measured.effective, needed), kept)
    settled_at_ns = settled(measured, forecast, startup, workers)
    if settled_at_ns is not None:
        workers = measured.effective

    def explain() -> str:
        return _explain(measured, queue, forecast, workers > by_queue, aim)

    def say_forecast() -> scaling_pb2.Forecast:
        return scaling_pb2.Forecast(
            horizon_seconds=startup,
            needed_slots=forecast.needed,
            kept_slots=forecast.kept,
            method="lead time",
        )

    keeps_longer = forecast.kept > 0 and not policy.scale_in_idle_seconds

    def explain_hold() -> str:
        left = measured.backlog_seconds / measured.slots
        return (
            f"the work ends in {left:.1f} s, a new worker takes {startup:.1f} s to start and is wanted for "
            f"what would wait {aim:g} s longer than that"
        )

    suffices = queue.waiting > 0 and queue.slots <= 0 and measured.slots > 0
    wake_at_ns = forecast.wake_at_ns if settled_at_ns is None else settled_at_ns
    if forecast.kept > 0 and measured.idle:
        # silence lowers what is expected; nothing else would say so
        again_ns = measured.now_ns + int(max(RECHECK_SECONDS, aim / 2) * NANOS)
        wake_at_ns = again_ns if wake_at_ns is None else min(again_ns, wake_at_ns)
    return Recommendation(
        workers,
        explain,
        lambda: _parts(measured, queue, by_queue, forecast, policy),
        hold_kind="start-up" if suffices else "",
        explain_hold=explain_hold,
        idle_seconds=startup * FLOW_IDLE_RATIO if keeps_longer else None,
        forecast=say_forecast,
        wake_at_ns=wake_at_ns,
    )


def settled(measured: Measured, forecast: LeadTime, startup: float, workers: int) -> int | None:
    """When the pool may shrink to `workers`, if that is not yet."""
    going = measured.effective - workers
    if not forecast.is_flow or going <= 0 or going > max(1.0, measured.effective * FEW_RATIO):
        return None
    at_ns = measured.last_scale_out_ns + int(SETTLING_STARTUPS * startup * NANOS)
    return at_ns if measured.now_ns < at_ns else None


def queue_need(measured: Measured, policy: ScalingPolicy, aim: float) -> QueueNeed:
    """New slots so that all that waits has begun when the start-up delay and the aim have passed."""
    waiting, wanted, seconds = _waiting(measured, aim)
    if waiting <= 0:
        return QueueNeed(0.0, 0.0, 0.0)
    mean = max(seconds / waiting, 1e-6)
    startup = measured.startup_seconds
    horizon = startup + aim
    free = measured.slots - measured.busy_slots
    started = measured.busy_slots * horizon / mean + free * max(1.0, horizon / mean)
    for age in measured.awaited_ages:
        started += policy.slots * max(1.0, (horizon - max(0.0, startup - age)) / mean)
    left = max(0.0, 1.0 - started / waiting)
    return QueueNeed(waiting, started, wanted * left)


def pool_lead_time(measured: Measured, startup: float, slack: float) -> LeadTime:
    """The needs of all classes together."""
    needed = kept = 0.0
    wake_at_ns: int | None = None
    is_flow = False
    for part in measured.classes:
        traffic = part.traffic
        if not traffic.instants:
            continue
        mean = traffic.mean_seconds(
            measured.now_ns, part.assumed_seconds / part.queued if part.queued else 0.0
        )
        need = lead_time(traffic, measured.now_ns, startup, mean, slack)
        needed += need.needed * part.share
        kept += need.kept * part.share
        is_flow = is_flow or need.is_flow
        if need.wake_at_ns is not None and (wake_at_ns is None or need.wake_at_ns < wake_at_ns):
            wake_at_ns = need.wake_at_ns
    return LeadTime(needed, kept, wake_at_ns, is_flow)


def _waiting(measured: Measured, aim: float) -> tuple[float, float, float]:
    """Tasks that wait, the slots that would start them all within the aim, and the time they take.

    Leased tasks beyond the slots of the workers wait as well, at a worker.
    """
    leased = measured.leased
    excess = max(0.0, 1.0 - measured.busy_slots / leased) if leased else 0.0
    tasks = slots = seconds = 0.0
    for part in measured.classes:
        count = part.queued + part.leased * excess
        if count <= 0:
            continue
        work = part.queued_seconds + part.leased_seconds * excess
        tasks += count
        seconds += work
        slots += min(count, work / aim) if aim > 0 else count
    return tasks, slots, seconds


def _parts(
    measured: Measured, queue: QueueNeed, by_queue: int, forecast: LeadTime, policy: ScalingPolicy
) -> list[tuple[str, int, str]]:
    waiting = f"{queue.waiting:.0f} tasks wait, {min(queue.waiting, queue.started):.0f} of them begin in time"
    coming = f"within {measured.startup_seconds:.1f} s {forecast.needed:.1f} slots are needed"
    return [
        ("queue", by_queue, waiting),
        ("forecast", math.ceil(forecast.needed / policy.slots - 1e-9), coming),
    ]


def _explain(measured: Measured, queue: QueueNeed, forecast: LeadTime, is_ahead: bool, aim: float) -> str:
    if is_ahead:
        return (
            f"{forecast.needed:.0f} {count_slots(forecast.needed)} expected to be needed within "
            f"{measured.startup_seconds:.1f} s, a worker takes as long to start"
        )
    workers = "worker" if measured.effective == 1 else "workers"
    return (
        f"backlog {measured.backlog_seconds:.1f} s of work for {measured.effective} {workers}, "
        f"aim {aim:g} s each"
    )


def count_slots(count: float) -> str:
    """The noun and verb for so many."""
    return "slot is" if round(count) == 1 else "slots are"
