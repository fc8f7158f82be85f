"""The policy that ships against its peers on six families of demand: `make bench NAME=scaling`.

For every family it prints each policy's line, then the table of the claim: p95 of the queue wait no
worse than that of the best peer, at no more than 80 % of that peer's worker-seconds.
"""

import argparse
import sys
import time

from bench.traces.families import FAMILIES, make_family
from dtf.cli.scaling_policies import DEFAULT, make_policy
from dtf.core.simulation.scaling.outcome import Outcome, PoolShape
from dtf.core.simulation.scaling.policies import PEERS
from dtf.core.simulation.scaling.simulator import simulate
from dtf.core.simulation.scaling.trace import Trace


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=FAMILIES, help="one family only")
    arguments = parser.parse_args()
    rows = []
    for family in [arguments.part] if arguments.part else FAMILIES:
        trace = make_family(family)
        print(
            f"\n{family}: {len(trace):,} tasks, {sum(trace.durations):,.0f} s of work in {trace.submits[-1]:,.0f} s"
        )
        outcomes = {name: _run(trace, name) for name in (DEFAULT, *PEERS)}
        rows.append((family, outcomes))
    _print_claim(rows)


def _run(trace: Trace, name: str) -> Outcome:
    policy, shape = make_policy(name, PoolShape())
    began = time.perf_counter()
    outcome = simulate(trace, shape, policy)
    took = time.perf_counter() - began
    waits = outcome.waits
    print(
        f"  {name:8} makespan {outcome.makespan_seconds:9,.0f}  wait p50 {waits.p50:7.1f} p95 {waits.p95:7.1f} "
        f"p99 {waits.p99:7.1f}  worker-s {outcome.worker_seconds:11,.0f}  actions {outcome.actions:5} "
        f"flaps {outcome.flaps:5} busy kills {outcome.busy_kills:4}  ({outcome.decisions:,} decisions, {took:.1f} s)"
    )
    sys.stdout.flush()
    return outcome


def _print_claim(rows: list[tuple[str, dict[str, Outcome]]]) -> None:
    print(
        f"\n{'family':14} {'best peer':10} {'p95':>8} {'ours':>8} {'ratio':>6} {'worker-s':>12} {'ours':>12} {'ratio':>6}  claim"
    )
    for family, outcomes in rows:
        ours = outcomes[DEFAULT]
        best = min((outcomes[name] for name in PEERS), key=lambda o: (o.waits.p95, o.worker_seconds))
        wait = ours.waits.p95 / best.waits.p95 if best.waits.p95 else float(ours.waits.p95 > 0) + 1
        spent = ours.worker_seconds / best.worker_seconds
        print(
            f"{family:14} {best.policy:10} {best.waits.p95:8.1f} {ours.waits.p95:8.1f} {wait:6.2f} "
            f"{best.worker_seconds:12,.0f} {ours.worker_seconds:12,.0f} {spent:6.2f}  "
            f"{'holds' if ours.waits.p95 <= best.waits.p95 and spent <= 0.8 else 'does not hold'}"
        )


if __name__ == "__main__":
    main()
