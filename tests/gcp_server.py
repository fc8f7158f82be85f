"""Compute Engine's API as far as the provider uses it, over HTTP.

What is asked is read into the types of Google's own library, which refuse what they do not know; what is
answered is written by them.
"""

import json
import re
import uuid

from google.cloud import compute_v1 as compute

from tests.http_api import Answer, Asked, HttpApi

ZONES = ("europe-west1-b", "europe-west1-c")
_PATH = re.compile(
    r"/compute/v1/projects/tests/zones/([a-z0-9-]+)/(instances|operations)(?:/([^/]+))?(?:/(\w+))?"
)
_FILTER = re.compile(r'\(labels\.([a-z0-9_-]+) = "([^"]*)"\)')
_LABEL = re.compile(r"[a-z0-9_-]{0,63}")
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_JSON = {"Content-Type": "application/json"}
KNOWN_PARAMETERS = {"requestId", "filter", "sourceInstanceTemplate", "$alt"}


class Refused(Exception):
    """An answer that is none."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class GcpServer(HttpApi):
    """A project with two zones."""

    def __init__(self) -> None:
        self.instances: dict[tuple[str, str], compute.Instance] = {}
        self.consoles: dict[str, str] = {}
        self.preempted: set[tuple[str, str]] = set()
        self.operations: dict[str, compute.Operation] = {}
        self.inserts: list[tuple[str, str, str, compute.Instance]] = []
        """Zone, request id, template and instance of each insert."""
        self.refusals: list[Refused] = []
        """Of the next calls."""
        self.failures: dict[str, str] = {}
        """By zone: the code with which the next insert's operation fails."""
        super().__init__(self._answer)

    def set_status(self, name: str, status: str, *, console: str = "", is_preempted: bool = False) -> None:
        """What becomes of an instance, "zone/name"."""
        zone, _, short = name.partition("/")
        with self.lock:
            self.instances[zone, short].status = status
            if console:
                self.consoles[short] = console
            if is_preempted:
                self.preempted.add((zone, short))

    def _answer(self, asked: Asked) -> Answer:
        try:
            return Answer(self._done(asked), headers=_JSON)
        except Refused as refused:
            errors = [{"reason": refused.reason, "domain": "global", "message": refused.reason}]
            error = {"code": refused.status, "message": "said by a test", "errors": errors}
            return Answer(json.dumps({"error": error}), refused.status, _JSON)

    def _done(self, asked: Asked) -> str:
        """The body of an answer. Raises Refused."""
        if self.refusals:
            raise self.refusals.pop(0)
        query = asked.query
        matched = _PATH.fullmatch(asked.path)
        if matched is None or query.keys() - KNOWN_PARAMETERS or matched[1] not in ZONES:
            raise Refused(400, f"unknown: {asked.method} {asked.target}")
        zone, kind, name, verb = matched.groups()
        match asked.method, kind, verb:
            case "POST", "instances", None:
                return self._insert(zone, query, asked.body)
            case "GET", "instances", None if name is None:
                wanted = dict(_FILTER.findall(query["filter"]))
                found = [
                    each
                    for (where, _), each in self.instances.items()
                    if where == zone and wanted.items() <= dict(each.labels).items()
                ]
                return str(compute.InstanceList.to_json(compute.InstanceList(items=found)))
            case "GET", "instances", None:
                return str(compute.Instance.to_json(self._instance(zone, name)))
            case "DELETE", "instances", None:
                self._instance(zone, name)
                del self.instances[zone, name]
                return self._operation(zone, name, "delete")
            case "GET", "instances", "serialPort":
                self._instance(zone, name)
                output = compute.SerialPortOutput(contents=self.consoles.get(name, ""))
                return str(compute.SerialPortOutput.to_json(output))
            case "GET", "operations", None:
                return self._preemptions(zone, query["filter"])
            case "POST", "operations", "wait":
                operation = self.operations[name]
                done = compute.Operation(
                    name=name, error=operation.error, status=compute.Operation.Status.DONE
                )
                return str(compute.Operation.to_json(done))
        raise Refused(400, f"unknown: {asked.method} {asked.target}")

    def _insert(self, zone: str, query: dict[str, str], body: str) -> str:
        instance = compute.Instance.from_json(body, ignore_unknown_fields=False)
        uuid.UUID(query["requestId"])
        template = query.get("sourceInstanceTemplate", "")
        self.inserts.append((zone, query["requestId"], template, instance))
        if not _NAME.fullmatch(instance.name) or not all(map(_LABEL.fullmatch, instance.labels.values())):
            raise Refused(400, "invalid")
        if not template and not (instance.disks and instance.network_interfaces and instance.machine_type):
            raise Refused(400, "required")
        if (zone, instance.name) in self.instances:
            raise Refused(409, "alreadyExists")
        if code := self.failures.pop(zone, ""):
            return self._operation(zone, instance.name, "insert", code)
        instance.status = "RUNNING"
        instance.creation_timestamp = "2026-11-22T19:00:00.123-08:00"
        self.instances[zone, instance.name] = instance
        return self._operation(zone, instance.name, "insert")

    def _instance(self, zone: str, name: str) -> compute.Instance:
        if (zone, name) not in self.instances:
            raise Refused(404, "notFound")
        return self.instances[zone, name]

    def _operation(self, zone: str, name: str, kind: str, code: str = "") -> str:
        operation = compute.Operation(
            name=f"operation-{len(self.operations)}",
            operation_type=kind,
            status=compute.Operation.Status.RUNNING,
            target_link=f"https://example/zones/{zone}/instances/{name}",
        )
        if code:
            operation.error = compute.Error(errors=[compute.Errors(code=code, message="said by a test")])
        self.operations[operation.name] = operation
        return str(compute.Operation.to_json(operation))

    def _preemptions(self, zone: str, wanted: str) -> str:
        assert wanted == 'operationType = "compute.instances.preempted"'
        links = [
            f"https://example/zones/{zone}/instances/{name}"
            for where, name in self.preempted
            if where == zone
        ]
        found = compute.OperationList(items=[compute.Operation(target_link=link) for link in links])
        return str(compute.OperationList.to_json(found))
