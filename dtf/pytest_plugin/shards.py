"""Cuts what was collected into tasks, each a shard that one worker runs in order."""

from collections.abc import Mapping, Sequence

import pytest

from dtf.api.v1 import common_pb2
from dtf.core.run.limits import MAX_NAME_LENGTH
from dtf.core.run.sharding import CaseEstimate, cut


def shard_tasks(
    items: Sequence[pytest.Item], distribution: str, workers: int, durations: Mapping[str, float]
) -> list[common_pb2.TaskSpec]:
    """One task a shard; its cases in the order of collection. Its payload is how many were collected."""
    cases = [
        CaseEstimate(
            name=item.nodeid,
            position=position,
            file=item.nodeid.partition("::")[0],
            group=group_of(item, distribution),
            expected_seconds=durations.get(item.nodeid),
        )
        for position, item in enumerate(items)
    ]
    return [
        common_pb2.TaskSpec(
            name=wire_name(shard_name([case.name for case in shard.cases])),
            cases=[wire_name(case.name) for case in shard.cases],
            positions=[case.position for case in shard.cases],
            expected_seconds=shard.expected_seconds,
            payload=str(len(items)),
        )
        for shard in cut(cases, workers)
    ]


def wire_name(name: str) -> str:
    """A node id as it is sent: what is no text is replaced, and what is too long is cut off.

    Workers find a case whose name was changed so by its position.
    """
    return name.encode("utf-8", "replace").decode()[:MAX_NAME_LENGTH]


def group_of(item: pytest.Item, distribution: str) -> str:
    """What must stay on one worker, by name; empty: the case may go anywhere."""
    names = sorted({group_name(mark) for mark in item.iter_markers("xdist_group")})
    if names:
        return "@" + "_".join(names)
    match distribution:
        case "loadfile":
            return item.nodeid.partition("::")[0]
        case "loadscope":
            return item.nodeid.partition("[")[0].rpartition("::")[0]
        case _:
            return ""


def group_name(mark: pytest.Mark) -> str:
    """The name an xdist_group mark gives."""
    return str(mark.args[0] if mark.args else mark.kwargs.get("name", "default"))


def shard_name(names: Sequence[str]) -> str:
    """What people see of a shard: its case, or its files and how many cases."""
    if len(names) == 1:
        return names[0]
    files = list(dict.fromkeys(name.partition("::")[0] for name in names))
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{files[0]}{more} ({len(names)} cases)"
