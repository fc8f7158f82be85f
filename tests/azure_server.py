"""Azure's API of virtual machines as far as the provider uses it, over HTTP.

What is asked is read into the types of Azure's own library, and refused where these do not know it; what is
answered is written by them.
"""

import base64
import enum
import json
import re
from typing import Any

from azure.mgmt.compute import models

from tests.http_api import Answer, Asked, HttpApi

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
GROUP = "workers"
_MACHINES = "/providers/Microsoft.Compute/virtualMachines"
_PATH = re.compile(
    rf"/subscriptions/{SUBSCRIPTION}(?:/resourceGroups/{GROUP})?{_MACHINES}(?:/([^/]+))?(?:/(\w+))?"
)
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9-]{0,62}[a-zA-Z0-9]")
_KEY = re.compile(r"ssh-(rsa|ed25519) [A-Za-z0-9+/=]+")
_PARAMETERS = {"api-version", "$expand", "statusOnly"}
_OPEN = {"VirtualMachineSizeTypes"}
"""Enumerations that name but some of the values."""
_JSON = {"Content-Type": "application/json"}
_MOST_CUSTOM_DATA_BYTES = 65_535


class Refused(Exception):
    """An answer that is none."""

    def __init__(self, status: int, code: str, message: str = "said by a test") -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message

    def body(self) -> str:
        """As Azure writes it."""
        return json.dumps({"error": {"code": self.code, "message": self.message}})


class AzureServer(HttpApi):
    """A resource group."""

    def __init__(self) -> None:
        self.machines: dict[str, models.VirtualMachine] = {}
        self.powers: dict[str, str] = {}
        self.consoles: dict[str, str] = {}
        self.creations: list[models.VirtualMachine] = []
        """Each machine asked for."""
        self.deletions: list[str] = []
        self.refusals: list[Refused] = []
        """Of the next calls."""
        self.failures: dict[str, str] = {}
        """By zone, or size: the code with which the making of the next machine fails."""
        self.lost_answers = 0
        """So many machines more are made, and whoever asked does not hear of it."""
        self.tells_subscription = True
        """Whether the credentials may list what there is in the whole subscription."""
        self.deletes_slowly = False
        self._failed: dict[str, str] = {}
        super().__init__(self._answer)

    def set_power(self, name: str, power: str, *, console: str = "") -> None:
        """What becomes of a machine, as "stopped"."""
        with self.lock:
            self.powers[name] = power
            if console:
                self.consoles[name] = console

    def fail(self, name: str, code: str) -> None:
        """A machine was not made after all, for this reason."""
        with self.lock:
            self._failed[name] = code
            self.machines[name]["properties"]["provisioningState"] = "Failed"

    def _answer(self, asked: Asked) -> Answer:
        if asked.headers.get("Authorization"):
            return Answer(Refused(400, "CredentialsWereShown").body(), 400, _JSON)
        try:
            if self.refusals:
                raise self.refusals.pop(0)
            kind, _, name = asked.path.strip("/").partition("/")
            match kind:
                case "consoles":
                    return Answer(self.consoles.get(name, ""))
                case "operations":
                    return self._operation(name)
            matched = _PATH.fullmatch(asked.path)
            if matched is None or asked.query.keys() - _PARAMETERS or "api-version" not in asked.query:
                raise Refused(400, f"unknown: {asked.method} {asked.target}")
            return self._machines(asked, *matched.groups())
        except Refused as refused:
            return Answer(refused.body(), refused.status, _JSON)

    def _machines(self, asked: Asked, name: str | None, verb: str | None) -> Answer:
        match asked.method, name, verb:
            case "GET", None, None:
                return self._list(asked)
            case "PUT", str(), None:
                return self._create(asked, name)
            case "GET", str(), None:
                machine = self._machine(name)
                machine.instance_view = self._view(name)
                return _say(machine)
            case "DELETE", str(), None:
                return self._delete(name)
            case "GET", str(), "instanceView":
                self._machine(name)
                return _say(self._view(name))
            case "POST", str(), "retrieveBootDiagnosticsData":
                self._machine(name)
                addresses = {"serialConsoleLogBlobUri": f"{self.url}/consoles/{name}?sig=signed"}
                return Answer(json.dumps(addresses), headers=_JSON)
        raise Refused(400, f"unknown: {asked.method} {asked.target}")

    def _list(self, asked: Asked) -> Answer:
        if "/resourceGroups/" in asked.path:
            found = list(self.machines.values())
        else:
            if not self.tells_subscription:
                raise Refused(403, "AuthorizationFailed")
            assert asked.query["statusOnly"] == "true"
            found = [
                models.VirtualMachine(
                    {"id": each["id"].upper(), "name": each.name, "location": each.location}
                )
                for each in self.machines.values()
            ]
            for each in found:
                each.instance_view = self._view(str(each.name))
        return Answer(json.dumps({"value": [each.as_dict() for each in found]}), headers=_JSON)

    def _create(self, asked: Asked, name: str) -> Answer:
        machine = models.VirtualMachine(json.loads(asked.body))
        check_known(machine)
        check_complete(machine, name)
        self.creations.append(machine)
        if asked.headers.get("If-None-Match") != "*":
            raise Refused(400, "AnotherMightBeReplaced")
        if name in self.machines:
            raise Refused(412, "PreconditionFailed")
        machine["id"] = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}{_MACHINES}/{name}"
        machine["name"] = name
        machine["properties"]["provisioningState"] = "Creating"
        machine["properties"]["timeCreated"] = "2026-11-22T19:00:00.1234567+00:00"
        self.machines[name] = machine
        for key in ((machine.zones or [""])[0], str(machine.hardware_profile.vm_size)):
            if code := self.failures.pop(key, ""):
                self._failed[name] = code
        if self.lost_answers:
            self.lost_answers -= 1
            raise Refused(503, "ServerIsBusy")
        return Answer(
            json.dumps(machine.as_dict()),
            201,
            {**_JSON, "Azure-AsyncOperation": f"{self.url}/operations/{name}"},
        )

    def _operation(self, name: str) -> Answer:
        """How far it is; who asked once sees it done."""
        if name not in self.machines:
            return Answer(json.dumps({"status": "Succeeded"}), headers=_JSON)
        if code := self._failed.get(name):
            self.machines[name]["properties"]["provisioningState"] = "Failed"
            error = {"code": code, "message": "said by a test"}
            return Answer(json.dumps({"status": "Failed", "error": error}), headers=_JSON)
        self.machines[name]["properties"]["provisioningState"] = "Succeeded"
        self.powers[name] = "running"
        return Answer(json.dumps({"status": "Succeeded"}), headers=_JSON)

    def _delete(self, name: str) -> Answer:
        self.deletions.append(name)
        if name not in self.machines:
            return Answer(status=204)
        if self.deletes_slowly:
            self.machines[name]["properties"]["provisioningState"] = "Deleting"
        else:
            del self.machines[name]
            self._failed.pop(name, None)
        return Answer(status=202, headers={"Azure-AsyncOperation": f"{self.url}/operations/{name}"})

    def _machine(self, name: str) -> models.VirtualMachine:
        if name not in self.machines:
            raise Refused(404, "ResourceNotFound")
        return self.machines[name]

    def _view(self, name: str) -> models.VirtualMachineInstanceView:
        code = self._failed.get(name)
        told = [("ProvisioningState/succeeded", "Info", "")]
        if code:
            told = [(f"ProvisioningState/failed/{code}", "Error", f"{code}: said by a test")]
        elif name in self.powers:
            told.append((f"PowerState/{self.powers[name]}", "Info", ""))
        statuses = [
            models.InstanceViewStatus(code=code, level=level, message=message or None)
            for code, level, message in told
        ]
        return models.VirtualMachineInstanceView(statuses=statuses)


def check_known(value: Any, where: str = "") -> None:
    """Raises Refused for what is none of the library's fields, or none of the values it names for one."""
    if isinstance(value, list):
        for each in value:
            check_known(each, where)
    if not hasattr(value, "_attr_to_rest_field"):
        return
    fields = {rest._rest_name: name for name, rest in value._attr_to_rest_field.items()}
    if unknown := value.keys() - fields.keys():
        raise Refused(400, f"unknown: {where}{unknown}")
    for rest_name in value:
        name = fields[rest_name]
        held = getattr(value, name)
        for choice in _enumerations(type(value), name):
            if choice.__name__ not in _OPEN and held not in list(choice):
                raise Refused(400, f"unknown: {where}{name}={held}")
        check_known(held, f"{where}{name}.")


def check_complete(machine: models.VirtualMachine, name: str) -> None:
    """Raises Refused for a machine that lacks what Azure asks for, in part by rules that no type has."""
    system, network = machine.os_profile, machine.network_profile
    keys = [each.key_data for each in system.linux_configuration.ssh.public_keys]
    custom_data = base64.b64decode(system.custom_data, validate=True)
    is_spot = machine.priority == models.VirtualMachinePriorityTypes.SPOT
    needed = {
        "name": _NAME.fullmatch(name) and system.computer_name == name,
        "location": machine.location,
        "vmSize": machine.hardware_profile.vm_size,
        "imageReference": machine.storage_profile.image_reference.keys(),
        "adminUsername": system.admin_username,
        "publicKeys": keys and all(map(_KEY.fullmatch, keys)),
        "networkApiVersion": network.network_api_version,
        "subnet": network.network_interface_configurations[0].ip_configurations[0].subnet.id,
        "evictionPolicy": is_spot == (machine.eviction_policy is not None),
        "customData": len(custom_data) <= _MOST_CUSTOM_DATA_BYTES,
    }
    if missing := [what for what, is_there in needed.items() if not is_there]:
        raise Refused(400, "InvalidParameter", f"wanting: {missing}")


def _enumerations(model: type, name: str) -> list[type[enum.Enum]]:
    """The enumerations that the type of a field names."""
    annotations = [
        each.__annotations__.get(name) for each in model.__mro__ if hasattr(each, "__annotations__")
    ]
    named = re.findall(r"_models\.(\w+)", str(next(filter(None, annotations), "")))
    found = [getattr(models, each) for each in named]
    return [each for each in found if isinstance(each, type) and issubclass(each, enum.Enum)]


def _say(model: Any) -> Answer:
    return Answer(json.dumps(model.as_dict()), headers=_JSON)
