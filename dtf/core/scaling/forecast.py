"""How many slots the next start-up delay will need, from what is known of the traffic now.

A worker that is launched now is there when the start-up delay L has passed, so L is the lead time of
an inventory, and what is held for it is the demand over the lead time at a service level (Arrow,
Harris and Marschak 1951). For tasks that come at rate r and take h the number at once in t from
now is, if nothing waits, that of an infinite-server queue in its transient: of the n there now each
is left with chance p = exp(-t/h), and those that came since are Poisson with mean r h (1 - p)
(Eick, Massey and Whitt 1993; exact for exponential times, close for others). With L far below h
this is what runs now plus what may come in L. Where h is not far above L, following the number at
once moves workers for a start-up each and saves less than that (`persistence`): there it is the
square-root staffing of a steady state. The level held is its quantile, but no more than what nearly
all arrivals have lately been within, and not beyond what the last worker is worth.

Batches and bursts recur rather than flow: `recurring` looks at how long the class has stayed below
each level of load before it came back, the last times, as the keep-alive and pre-warm windows of
serverless platforms do (Shahrad et al. 2020).
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from statistics import NormalDist

from dtf.core.scaling.rates import NANOS
from dtf.core.scaling.traffic import LEVELS, Traffic

MISSED_RATIO = 0.07
"""Where more tasks than this would find no slot free, workers are launched."""
SPARE_RATIO = 0.03
"""What fewer tasks than this would need is let go. Between the two the pool stays as it is, so that noise in
what is learned moves no worker; on the way fewer than the 5 % beyond a 95th percentile wait."""
WAIT_WORTH = 10.0
"""A worker is not kept idle for longer than this many start-up delays, whatever it is waiting for: Kubernetes
and Ray keep one 300 s, which is ten of 30 s."""
LATENESS = 1.05
"""What has not come back after the longest gap and a twentieth more is not waited for."""
FOLLOW_STARTUPS = 5.0
"""Tasks of so many start-up delays are followed in their number. For a load of m, whose number at once spreads
by sqrt(m), following saves up to the quantile's 1.6 sqrt(m) workers, and launches about m / 3 anew in each h: the
two meet at four to five start-up delays, for ten workers as for a hundred."""
LEVELS_TRUSTED = 100.0
"""Arrivals after which the levels they found say what is not needed."""
LAST_WORTH = 30.0
"""Worker-seconds that the last worker may cost for each second of waiting that it saves: it stands idle nearly
always, so a trickle of one task in three minutes is not given two of them."""
SURCHARGE = 0.25
"""Of a task's own time, what keeping an idle worker for it may cost, however short the wait it saves."""
LAST_KEPT_RATIO = 0.75
FLOW_KEPT_RATIO = 2 / 3
"""What has been launched is kept down to so much less than what it is launched at: an estimate that lies near
its threshold crosses it again and again."""
GAPS_NEEDED = 2
DUE_GAPS_NEEDED = 5
"""After so many the next gap lies between the shortest and the longest with a chance of two in three."""
DUE_WORTH = 3.0
"""What has gone is launched anew ahead of time if the time of its return is known to within so many
start-up delays: then it idles for about as long as one or two start-ups take."""


@dataclass(frozen=True, slots=True)
class LeadTime:
    """What a class needs within the next start-up delay, in slots."""

    needed: float = 0.0
    """To be there when a worker launched now is."""
    kept: float = 0.0
    """Worth keeping, as it will be needed before another could be launched in its place."""
    wake_at_ns: int | None = None
    """When time alone will have changed it."""
    is_flow: bool = False
    """Whether tasks come at a rate that workers are kept for."""


def lead_time(traffic: Traffic, now_ns: int, startup: float, task_seconds: float, slack: float) -> LeadTime:
    """The need of one class. `task_seconds` is its mean; `slack` a wait that is no harm."""
    share = min(1.0, task_seconds / slack) if slack > 0 else 1.0
    if share <= 0:
        return LeadTime()  # tasks that take no time need no slot
    flow, enough = flowing(traffic, now_ns, startup, task_seconds, share)
    due, kept, wake_at_ns = recurring(traffic, now_ns, startup, slack, share, flow / share)
    return LeadTime(max(flow, due), max(enough, due, kept), wake_at_ns, enough > 0)


def flowing(
    traffic: Traffic, now_ns: int, startup: float, task_seconds: float, share: float
) -> tuple[float, float]:
    """Quantiles of the slots in use over the lead time, were every task to start at once: needed, and enough.

    What lies between is neither launched nor let go, so that noise in what is learned moves no worker.
    """
    batch = traffic.batch_size()
    unit = max(1.0, batch * share)
    hold = batch * task_seconds / unit
    rate = traffic.rate_per_second(now_ns, startup)
    worth = rate * (startup * WAIT_WORTH + hold * SURCHARGE)
    if hold <= 0 or worth < FLOW_KEPT_RATIO:
        return 0.0, 0.0
    left = persistence(startup, hold)
    present = traffic.tasks * share
    coming = rate * unit * hold * (1.0 - left)
    mean = present * left + coming
    # of arrivals that are not Poisson an exponential holding time passes on half the excess (Whitt 2002)
    spread = (1.0 + traffic.dispersion() * unit / batch) / 2
    # of those that are followed the ones that end only make room
    variance = present * left * (1.0 - left) ** 2 + coming * spread
    base = mean - variance + unit  # what comes takes so much more than it finds taken
    spared = min(startup, hold / (mean + unit)) * LAST_WORTH + hold * SURCHARGE
    missed, spare = service_ratios(traffic, 1.0 / (rate * batch * spared))
    needed = base + poisson_quantile(variance, missed)
    enough = base + poisson_quantile(variance, spare)
    if left < 0.5 and traffic.arrivals_counted() > LEVELS_TRUSTED:
        needed = min(needed, share * traffic.level_for((missed + spare) / 2))
        enough = min(enough, share * traffic.level_for(spare))
    # to the nearest: the service level is controlled, and a pool of three pays a third more for rounding up
    return (max(1, round(needed)) if worth >= 1.0 else 0.0), max(1, round(enough))


def persistence(startup: float, hold: float) -> float:
    """How much of the number at once is still there when a start-up has passed, as far as it is worth following.

    exp(-L/h) for tasks of FOLLOW_STARTUPS and more; for shorter ones it falls off faster, to nothing at one.
    """
    return math.exp(-startup / hold * max(1.0, (FOLLOW_STARTUPS * startup / hold) ** 2))


def service_ratios(traffic: Traffic, least: float) -> tuple[float, float]:
    """Shares of tasks that may find no slot free, to launch by and to keep by, as the class has turned out.

    Fewer than `least` are not worth another worker; less of it counts where tasks have waited.
    """
    factor = math.exp(-traffic.strictness)
    least *= math.exp(-max(0.0, traffic.strictness) / 2)
    missed, spare = MISSED_RATIO * factor, SPARE_RATIO * factor
    return min(0.5, max(missed, least)), min(0.5, max(spare, LAST_KEPT_RATIO * least))


def recurring(
    traffic: Traffic, now_ns: int, startup: float, slack: float, share: float, above: float = 0.0
) -> tuple[float, float, int | None]:
    """Slots to launch for what is about to come back, slots worth keeping for it, and when that changes.

    Only levels of more than `above` tasks are looked at: the others are provided for.
    """
    due = kept = 0
    wake_at_ns: int | None = None
    most = traffic.level_for(MISSED_RATIO)
    levels = traffic.levels
    for index in range(max(traffic.reached, bisect_right(LEVELS, above)), len(levels)):
        level = levels[index]
        if LEVELS[index] > most or len(level.gaps) < GAPS_NEEDED or not level.below_since_ns:
            break
        age = (now_ns - level.below_since_ns) / NANOS
        latest = level.longest * LATENESS + slack
        opens = level.shortest - startup - slack
        window = latest - max(0.0, opens)
        if age > latest or window > WAIT_WORTH * startup:
            continue  # nothing is known of its return
        change_ns = level.below_since_ns + int((latest if age >= opens else opens) * NANOS)
        if change_ns > now_ns:
            wake_at_ns = change_ns if wake_at_ns is None else min(wake_at_ns, change_ns)
        if age < opens - startup:
            break  # the levels above are reached by way of this one, which is not expected yet
        kept = LEVELS[index]
        is_recurrence = level.shortest > startup and len(level.gaps) >= DUE_GAPS_NEEDED
        if is_recurrence and window <= DUE_WORTH * startup and opens <= age < latest - startup:
            due = LEVELS[index]
    return due * share, kept * share, wake_at_ns


def poisson_quantile(mean: float, missed_ratio: float) -> float:
    """The least n with P(X > n) at most `missed_ratio`."""
    if mean <= 0:
        return 0.0
    if mean > 200.0:
        return mean + NormalDist().inv_cdf(1.0 - missed_ratio) * math.sqrt(mean)
    term = math.exp(-mean)
    total, n = term, 0
    while total < 1.0 - missed_ratio:
        n += 1
        term *= mean / n
        total += term
    return float(n)
