"""Numbers of decisions and launches, recovered from what was published when the state file is gone."""

from collections.abc import Mapping

from dtf.api.v1 import scaling_pb2
from dtf.core.scaling.ledger import PoolLedger
from dtf.ports.event_log import RecordStream


async def recover_numbers(ledgers: Mapping[str, PoolLedger], scaling: RecordStream) -> None:
    """Go on counting after the last decision and launch of each pool, so that no identity comes twice."""
    if not ledgers:
        return
    async for batch in scaling.read(0):
        for stored in batch:
            decision = scaling_pb2.ScalingDecision.FromString(stored.payload)
            if not decision.rehearsal and (ledger := ledgers.get(decision.pool)):
                _pass_over(ledger, decision)


def _pass_over(ledger: PoolLedger, decision: scaling_pb2.ScalingDecision) -> None:
    ledger.next_decision = max(ledger.next_decision, _number(decision.decision_id, "/") + 1)
    for launch_id in decision.launch_ids:
        ledger.next_launch = max(ledger.next_launch, _number(launch_id, "-") + 1)


def _number(identity: str, separator: str) -> int:
    text = identity.rpartition(separator)[2]
    return int(text) if text.isdecimal() else 0
