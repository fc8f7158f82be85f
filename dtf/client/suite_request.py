"""What a run of commands or of calls of one function is made of: its template and its tasks."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dtf.api.v1 import common_pb2


def set_commands(
    template: common_pb2.TaskTemplate,
    commands: Sequence[Sequence[str]],
    *,
    working_dir: str,
    environment: Mapping[str, str],
) -> list[common_pb2.TaskSpec]:
    """Make a template one of commands; the task of each command."""
    template.command.CopyFrom(common_pb2.CommandSpec(working_dir=working_dir, environment=environment))
    return [common_pb2.TaskSpec(name=" ".join(argv), payload=json.dumps(list(argv))) for argv in commands]


def set_calls(
    template: common_pb2.TaskTemplate,
    function: str,
    arguments: Sequence[Sequence[Any] | Mapping[str, Any]],
    *,
    working_dir: str,
    environment: Mapping[str, str],
    import_path: Sequence[str],
) -> list[common_pb2.TaskSpec]:
    """Make a template one of calls of `function` ("module:name"); the task of each call."""
    template.callable.CopyFrom(
        common_pb2.CallableSpec(
            function=function, working_dir=working_dir, environment=environment, import_path=import_path
        )
    )
    return [
        common_pb2.TaskSpec(name=f"{function}[{index}]", payload=json.dumps(values))
        for index, values in enumerate(arguments)
    ]
