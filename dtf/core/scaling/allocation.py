"""Which pool is to do what, where several can: by fit, price, start-up time and room.

The work of each requirement class goes first to slots that are there, the cheapest first, then to
workers to be launched where a second of work costs least, until the pool's maximum; what no pool has
room for stays with the best. Classes that few pools can run choose first. A launched worker costs
its price for the start-up as well, and what waits for it is worth WAIT_WORTH of the mean price a
second; on spot capacity a task is lost now and then and done again, the longer the likelier.

Every manager that is given the same log and the same policies divides alike, so that two of them
never ask for workers for the same tasks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dtf.api.v1 import scaling_pb2
from dtf.core.scaling.backlog import TemplateLoad
from dtf.core.scaling.demand import DemandProjection
from dtf.core.scaling.forecast import WAIT_WORTH
from dtf.core.scaling.ledger import PoolLedger
from dtf.core.scaling.policy import ScalingPolicy

SPOT_LOSSES_PER_HOUR = 0.05
"""How often spot capacity is taken away: clouds publish less than 5 to above 20 % a month; a bad hour is taken."""


@dataclass(slots=True)
class Allocation:
    """What one pool is to do."""

    shares: dict[str, float] = field(default_factory=dict)
    """Its part of each requirement class; a class that is not named is not its work."""
    room: int | None = None
    """Workers that the bound of all pools together leaves to it; None: there is no such bound."""
    reasons: dict[str, str] = field(default_factory=dict)
    """A sentence for each share."""

    def message(self) -> scaling_pb2.PoolAllocation:
        """It, as a decision carries it."""
        said = scaling_pb2.PoolAllocation(room=self.room)
        for requirement, share in self.shares.items():
            reason = self.reasons.get(requirement, "")
            said.shares.add(requirement=requirement, share=share, reason=reason)
        return said


def recorded_allocation(decision: scaling_pb2.ScalingDecision) -> Allocation | None:
    """What the pool was to do when this was decided, so that it can be decided again; None: all that it can."""
    if not decision.HasField("allocation"):
        return None
    said = decision.allocation
    return Allocation(
        {each.requirement: each.share for each in said.shares},
        said.room if said.HasField("room") else None,
        {each.requirement: each.reason for each in said.shares},
    )


@dataclass(slots=True)
class _Site:
    """A pool while work is being divided."""

    policy: ScalingPolicy
    startup: float
    effective: int
    """Workers that take work, and launches on their way."""
    occupied: int
    """Workers that take up capacity: also those that are draining, ending, in quarantine or lost and not ended."""
    there: float
    """Slots of its workers, not taken yet."""
    launchable: float
    """Slots it may still launch."""
    taken: float = 0.0


def allocate(
    projection: DemandProjection,
    ledgers: Mapping[str, PoolLedger],
    policies: Mapping[str, ScalingPolicy],
    now_ns: int,
    max_workers: int = 0,
) -> dict[str, Allocation]:
    """What each pool is to do; `max_workers`: of all pools together, 0: no bound."""
    sites = {name: _site(projection, ledgers.get(name), policy) for name, policy in policies.items()}
    found = {name: Allocation() for name in policies}
    classes = [(load, _fitting(projection, load, policies)) for load in _classes(projection).values()]
    for load, names in sorted(classes, key=lambda pair: (len(pair[1]), pair[0].requirement)):
        if names:
            _divide(projection, load, names, sites, found, now_ns)
    if max_workers:
        _bound(sites, found, max_workers)
    return found


def _classes(projection: DemandProjection) -> dict[str, TemplateLoad]:
    classes = dict(projection.classes)
    for run in projection.runs.values():
        for load in run.loads:
            classes.setdefault(load.requirement, load)
    return classes


def _site(projection: DemandProjection, ledger: PoolLedger | None, policy: ScalingPolicy) -> _Site:
    present = [worker for worker in projection.workers.values() if worker.pool == policy.pool]
    if ledger is None:
        staff = [worker for worker in present if worker.takes_work]
        startup, awaited, occupied = policy.startup_seconds, 0, len(present)
    else:
        staff = [worker for worker in present if ledger.employs(worker)]
        startup = ledger.startup_seconds if ledger.startups else policy.startup_seconds
        awaited = sum(1 for launch in ledger.launches.values() if launch.is_awaited)
        others = [worker for worker in present if worker.launch_id not in ledger.launches]
        occupied = len(ledger.launches) + len(others)
    effective = len(staff) + awaited
    there = float(sum(worker.slots for worker in staff) + awaited * policy.slots)
    launchable = max(0.0, float((policy.max_workers - effective) * policy.slots))
    return _Site(policy, startup, effective, occupied, there, launchable)


def _fitting(
    projection: DemandProjection, load: TemplateLoad, policies: Mapping[str, ScalingPolicy]
) -> list[str]:
    names = []
    for name, policy in policies.items():
        traits = projection.traits.get(name)
        if load.pool not in ("", name) or policy.pause_reason:
            continue
        if traits is None or traits.can_run(load, policy.labels):
            names.append(name)
    return names


def _divide(
    projection: DemandProjection,
    load: TemplateLoad,
    names: Sequence[str],
    sites: Mapping[str, _Site],
    found: Mapping[str, Allocation],
    now_ns: int,
) -> None:
    requirement = load.requirement
    traffic = projection.traffic.get(requirement)
    seconds = traffic.mean_seconds(now_ns, 0.0) if traffic is not None else 0.0
    tasks = float(traffic.tasks) if traffic is not None else 0.0
    prices = [sites[name].policy.price_per_hour for name in names]
    mean_price = sum(prices) / len(prices) or 1.0
    ranked = sorted(names, key=lambda name: (_cost(sites[name], seconds, mean_price), names.index(name)))
    demand = sum(
        min(tasks, tasks * seconds / sites[name].policy.aim_seconds(sites[name].startup)) for name in ranked
    )
    demand = max(demand / len(ranked), 1e-9)
    left = demand
    taken = dict.fromkeys(names, 0.0)
    for name in sorted(names, key=lambda name: (_price(sites[name], mean_price), names.index(name))):
        part = min(left, sites[name].there)
        sites[name].there -= part
        taken[name] += part
        left -= part
    for name in ranked:
        part = min(left, sites[name].launchable)
        sites[name].launchable -= part
        taken[name] += part
        left -= part
    taken[ranked[0]] += left
    for name in names:
        if taken[name] > 0:
            sites[name].taken += taken[name]
            found[name].shares[requirement] = taken[name] / demand
            found[name].reasons[requirement] = _say(
                requirement, taken[name] / demand, ranked, sites, seconds, mean_price
            )


def _price(site: _Site, mean_price: float) -> float:
    return (site.policy.price_per_hour or mean_price) / site.policy.slots


def _cost(site: _Site, seconds: float, mean_price: float) -> float:
    """What a second of such work costs on a worker that has to be launched, in the price's unit an hour."""
    useful = max(site.policy.aim_seconds(site.startup), seconds)
    cost = _price(site, mean_price) * (site.startup + useful) + mean_price * WAIT_WORTH * site.startup
    if site.policy.is_spot:
        cost *= 1.0 + SPOT_LOSSES_PER_HOUR * (seconds / 2 + site.startup) / 3600
    return cost / useful


def _say(
    requirement: str,
    share: float,
    ranked: Sequence[str],
    sites: Mapping[str, _Site],
    seconds: float,
    mean_price: float,
) -> str:
    costs = ", ".join(f"{name} {_cost(sites[name], seconds, mean_price):.3g}" for name in ranked)
    what = f"work that needs {requirement}" if requirement else "work that any worker can do"
    return f"{share:.0%} of {what}; cost of an hour of it: {costs}"


def _bound(sites: Mapping[str, _Site], found: Mapping[str, Allocation], max_workers: int) -> None:
    """Each keeps what it has; what is free goes by what each is short of.

    What is on its way out is no worker any more, yet it runs and costs: its place is free when it is gone.
    """
    short = {
        name: max(
            0,
            math.ceil(site.taken / site.policy.slots) - site.effective,
            site.policy.min_workers - site.effective,
        )
        for name, site in sites.items()
    }
    free = max(0, max_workers - sum(site.occupied for site in sites.values()))
    for name, part in _split(free, short).items():
        found[name].room = sites[name].effective + part


def _split(free: int, short: Mapping[str, int]) -> dict[str, int]:
    """`free` workers, all of them: by what each is short of, and what is left over evenly."""
    wanted = sum(short.values())
    if wanted <= free:
        spare = dict.fromkeys(short, 1.0)
        return {name: short[name] + part for name, part in _by_weight(free - wanted, spare).items()}
    return _by_weight(free, short)


def _by_weight(count: int, weights: Mapping[str, float]) -> dict[str, int]:
    """`count` things by largest remainder; of equals the first."""
    total = sum(weights.values())
    exact = {name: count * weight / total for name, weight in weights.items()}
    parts = {name: math.floor(share) for name, share in exact.items()}
    order = sorted(parts, key=lambda name: parts[name] - exact[name])
    for name in order[: count - sum(parts.values())]:
        parts[name] += 1
    return parts
