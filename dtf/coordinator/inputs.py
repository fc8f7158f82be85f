"""What a commit records of a command beyond the events it produced.

Enough, with those events, to derive the decision again: a command whose events carry all of its
arguments records none.
"""

import json
from collections.abc import Mapping

from dtf.core.run.commands import (
    Command,
    DrainWorker,
    ExpireWorkers,
    GrantLeases,
    ReconcileLeases,
    RegisterWorker,
    ReportResults,
    ReviewPlacement,
)


def arguments(command: Command) -> bytes:
    """Canonical JSON of the arguments that no event carries; empty: the events say it all."""
    values = _values(command)
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode() if values else b""


def _values(command: Command) -> Mapping[str, object]:
    match command:
        case GrantLeases(credits=credits, limit=limit):
            return {"credits": list(credits.items()), "limit": limit}
        case ExpireWorkers(silent=silent, reason=reason):
            return {"reason": reason, "silent": [list(item) for item in silent]}
        case ReviewPlacement(worker_expected=expected):
            return {"worker_expected": expected}
        case RegisterWorker(request=request):
            return {"request_id": request.request_id}
        case DrainWorker(only_if_idle=only_if_idle):
            return {"only_if_idle": only_if_idle}
        case ReconcileLeases(worker_id=worker, incarnation=incarnation, held_fences=held):
            return {"held_fences": list(held), "incarnation": incarnation, "worker_id": worker}
        case ReportResults(worker_id=worker, incarnation=incarnation):
            return {"incarnation": incarnation, "worker_id": worker}
        case _:
            return {}
