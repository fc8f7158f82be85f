"""What a commit records of a command beyond the events it produced.

Enough, with those events, to derive the decision again: a command whose events carry all of its
arguments records none.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict

from dtf.api.v1 import run_service_pb2
from dtf.core.run.commands import (
    Command,
    ExpireWorkers,
    ForgetWorkers,
    GrantLeases,
    RegisterWorker,
    ReportResults,
    RetireRuns,
    ReviewPlacement,
    SubmitTasks,
)
from dtf.core.run.limits import MAX_EVENT_BYTES


def arguments(command: Command) -> bytes:
    """Canonical JSON of the arguments that no event carries; empty: the events say it all."""
    values = _values(command)
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode() if values else b""


def _values(command: Command) -> Mapping[str, object]:
    match command:
        case GrantLeases(credits=credits, limit=limit):
            return {"credits": list(credits.items()), "limit": limit}
        case ReportResults() if command.released_fences:
            # Those of a run being cancelled end; their events do not tell them from reported ends.
            ended = {end.fence for end in command.ends}
            return {"released_fences": [fence for fence in command.released_fences if fence not in ended]}
        case SubmitTasks(request=request):
            return _unsaid_cases(request)
        case ExpireWorkers(silent=silent, reason=reason):
            return {"reason": reason, "silent": [list(item) for item in silent]}
        case RegisterWorker(proved_incarnation=proved) if proved:
            return {"proved_incarnation": proved}
        case ReviewPlacement(worker_expected=expected):
            return {"worker_expected": expected}
        case RetireRuns() | ForgetWorkers():
            return asdict(command)
        case _:
            return {}


def _unsaid_cases(request: run_service_pb2.SubmitTasksRequest) -> Mapping[str, object]:
    """Tasks whose size no event tells, where sizes matter: where a message is cut into several events.

    Each is its index in the message and the positions of its cases: positions are dropped unless
    all tasks have them, and a case named as its task is as good as none.
    """
    if request.ByteSize() <= MAX_EVENT_BYTES or all(spec.positions for spec in request.tasks):
        return {}
    cases = [
        [index, *spec.positions]
        for index, spec in enumerate(request.tasks)
        if spec.positions or spec.cases == [spec.name]
    ]
    return {"cases": cases} if cases else {}
