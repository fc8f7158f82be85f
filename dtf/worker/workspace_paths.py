"""A specification as it reads where the tree is somewhere else than at its submitter's."""

from typing import Any

import msgspec
from google.protobuf.json_format import MessageToDict

from dtf.api.v1 import common_pb2, worker_service_pb2
from dtf.runner.channel import Detail, Prepare
from dtf.runner.pytest_options import PytestOptions
from dtf.worker.leases import Key
from dtf.worker.workspaces import Place


def prepare_message(
    context: worker_service_pb2.RunContext, key: Key, worker_id: str, place: Place | None
) -> Prepare:
    """What a warm process must know of a run; `place`: where its tree is, None: under the submitter's paths."""
    template = context.templates[key[1]]
    executor = template.WhichOneof("spec") or ""
    spec = MessageToDict(getattr(template, executor), preserving_proto_field_name=True)
    if place is not None:
        spec = relocated_spec(spec, executor, place)
    return Prepare(context.run_id, context.suite, executor, worker_id, spec)


def placed_template(template: common_pb2.TaskTemplate, place: Place | None) -> common_pb2.TaskTemplate:
    """A template of commands as it reads on this machine."""
    if place is None:
        return template
    placed = common_pb2.TaskTemplate()
    placed.CopyFrom(template)
    placed.command.CopyFrom(relocated_command(template.command, place))
    return placed


def relocated_spec(spec: dict[str, Any], executor: str, place: Place) -> dict[str, Any]:
    """The specification of a warm process (channel.Prepare), with its paths those of this machine.

    What lies outside the tree at the submitter's is left out of the import path: it is not here.
    """
    there = place.relocation
    moved = dict(spec)
    for name in ("root_dir", "working_dir"):
        if moved.get(name):
            moved[name] = there.text(moved[name])
    moved["arguments"] = there.texts(map(str, moved.get("arguments") or ()))
    moved["import_path"] = there.inside(moved.get("import_path") or ())
    moved["environment"] = dict(place.environment) | there.mapping(moved.get("environment") or {})
    moved["site_dirs"] = list(place.site_dirs)
    if executor == "pytest":
        moved["options_json"] = _relocated_options(moved.get("options_json") or "{}", place)
    return moved


def _relocated_options(text: str, place: Place) -> str:
    """The controller's options without what only its own machine has."""
    options = msgspec.json.decode(text, type=PytestOptions)
    moved = msgspec.structs.replace(
        options, argv=place.relocation.texts(options.argv), host="", run_dir="", base_temp=""
    )
    return msgspec.json.encode(moved).decode()


def relocated_command(spec: common_pb2.CommandSpec, place: Place) -> common_pb2.CommandSpec:
    """A command with its paths those of this machine."""
    there = place.relocation
    moved = common_pb2.CommandSpec()
    moved.CopyFrom(spec)
    moved.argv[:] = there.texts(spec.argv)
    moved.working_dir = there.text(spec.working_dir) or there.local
    moved.junit_xml = there.text(spec.junit_xml)
    moved.benchmark_json = there.text(spec.benchmark_json)
    for name, value in (dict(place.environment) | there.mapping(spec.environment)).items():
        moved.environment[name] = value
    return moved


def bring_home(detail: Detail, place: Place) -> None:
    """Write paths in the tree, in what a case said, as its submitter has them."""
    there = place.relocation
    detail.reports_json = _back(detail.reports_json, place)
    detail.message = there.back(detail.message)
    detail.output = there.back(detail.output)


def _back(data: bytes, place: Place) -> bytes:
    if place.relocation.local.encode() not in data:
        return data
    return place.relocation.back(data.decode()).encode()
