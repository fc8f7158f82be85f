"""Workers as instances of Google Compute Engine, by google-cloud-compute.

A launch is an instance named after it: a zone has one of a name, so that asking twice makes one, and each
request bears an id made from the launch. Labels narrow what is listed; whose an instance is, is what its
metadata say, which unlike labels hold any text. Where several zones may be used, each is asked in turn until
one has room; a launch is then looked for first, because names are of a zone.

An instance that ends is stopped, and stays until it is forgotten: how it ended is read from it.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from dtf.adapters.cloud_bootstrap import Boot
from dtf.adapters.cloud_launch import NoRoomThere, check_script, first_with_room
from dtf.adapters.cloud_machines import (
    Machine,
    launch_tags,
    launch_uuid,
    listed,
    machine_name,
    owner_tags,
    tags_match,
)
from dtf.adapters.cloud_provider import CloudProvider
from dtf.adapters.gcp_faults import (
    faults_named,
    operation_fault,
    repeated,
    unless_absent,
)
from dtf.adapters.kubernetes_objects import LAUNCH_LABEL, Owner
from dtf.adapters.worker_command import worker_command
from dtf.ports.capacity import LaunchRequest, ProviderError, WorkerEnvironment
from dtf.ports.clock import Clock
from dtf.settings.providers import GcpSettings

MOST_SCRIPT_BYTES = 256 * 1024
"""A value of the metadata holds no more."""
WAITS = 4
"""An operation is waited for so often, up to two minutes each time."""
WAIT_SECONDS = 150.0
_ENDED = frozenset({"TERMINATED", "STOPPED", "SUSPENDED"})
_ENDING = frozenset({"STOPPING", "PENDING_STOP", "SUSPENDING"})
_PREEMPTED = "compute.instances.preempted"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def gcp_provider(
    settings: GcpSettings, owner: Owner, *, clock: Clock, environment: WorkerEnvironment | None = None
) -> CloudProvider:
    """The provider of these settings. Raises ProviderError where google-cloud-compute is missing."""
    return CloudProvider(
        GcpCloud(settings, owner),
        worker_command([settings.program]),
        boot=Boot("gcp", settings.setup, settings.user, settings.environment),
        clock=clock,
        environment=environment,
        poll_seconds=settings.poll_seconds,
    )


class GcpCloud:
    """The Cloud of Google. Raises ProviderError where google-cloud-compute is missing."""

    def __init__(self, settings: GcpSettings, owner: Owner) -> None:
        self._settings = settings
        self._owner = owner
        self._zones = listed(settings.zone)
        self._failures: Counter[str] = Counter()
        """Of requests for an instance, by launch: an id is not used again for one that failed."""
        with faults_named("reach Google Cloud"):
            self._instances, self._operations = _clients(settings)

    def connect(self) -> None:
        """Have Google answer, and check what an instance needs."""
        for name in ("project", "zone"):
            if not getattr(self._settings, name):
                raise ProviderError(f"Google Cloud needs a {name}; set gcp.{name}")
        if not self._settings.instance_template:
            for name in ("machine_type", "image"):
                if not getattr(self._settings, name):
                    raise ProviderError(
                        f"Google Cloud needs a {name.replace('_', ' ')} or a template; set gcp.{name} or "
                        "gcp.instance_template"
                    )
        self.find()

    def launch(self, request: LaunchRequest, script: str) -> Machine:
        """Make an instance, in the first zone that has room."""
        check_script(
            script,
            request.launch_id,
            most_bytes=MOST_SCRIPT_BYTES,
            cloud="Google Cloud",
            setting="gcp.setup",
        )
        if len(self._zones) > 1:
            for machine in self.find():
                if machine.launch_id == request.launch_id:
                    return machine
        return first_with_room(lambda zone: self._make(request, script, zone), self._zones)

    def find(self) -> Sequence[Machine]:
        """All instances of the owner in the zones of the settings."""
        with faults_named("list the instances"):
            return [machine for zone in self._zones for machine in self._find(zone)]

    def end(self, machine: Machine) -> None:
        """Delete it, which shuts its system down first."""
        self._delete(machine, f"end {machine.name}")

    def remove(self, machine: Machine) -> None:
        """Delete what was stopped."""
        self._delete(machine, f"remove {machine.name}")

    def console(self, machine: Machine) -> str:
        """What it wrote to its first serial port."""
        zone, _, name = machine.name.partition("/")
        with faults_named(f"read the console of {machine.name}"):
            answer = self._instances.get_serial_port_output(
                project=self._settings.project, zone=zone, instance=name, **repeated()
            )
            return str(answer.contents)

    def close(self) -> None:
        """Close the connections."""
        self._instances.transport.close()
        self._operations.transport.close()

    def _make(self, request: LaunchRequest, script: str, zone: str) -> Machine:
        from google.api_core.exceptions import Conflict
        from google.cloud import compute_v1

        number = str(self._failures[request.launch_id])
        asked = compute_v1.InsertInstanceRequest(
            project=self._settings.project,
            zone=zone,
            request_id=launch_uuid(self._owner, request.launch_id, zone, number),
            instance_resource=instance_resource(self._settings, self._owner, request, script, zone),
        )
        if self._settings.instance_template:
            asked.source_instance_template = self._settings.instance_template
        what = f"launch {request.launch_id}"
        with faults_named(what):
            try:
                operation = self._instances.insert_unary(request=asked, **repeated())
                self._wait(what, operation, zone)
            except Conflict:
                pass  # it was asked for before, by whom did not hear the answer
            except (ProviderError, NoRoomThere):
                self._failures[request.launch_id] += 1
                raise
            name = machine_name(self._owner, request.launch_id)
            made = self._instances.get(project=self._settings.project, zone=zone, instance=name, **repeated())
        if not tags_match(_metadata(made), self._owner):
            raise ProviderError(f"cannot {what}: {zone} has an instance {name} that is not ours")
        return _machine(made, zone)

    def _find(self, zone: str) -> Iterator[Machine]:
        from google.cloud import compute_v1

        labels = {key: label_text(value) for key, value in owner_tags(self._owner).items()}
        asked = compute_v1.ListInstancesRequest(
            project=self._settings.project,
            zone=zone,
            filter=" ".join(f'(labels.{key} = "{value}")' for key, value in labels.items()),
        )
        found = [
            each
            for each in self._instances.list(request=asked, **repeated())
            if tags_match(_metadata(each), self._owner)
        ]
        ended_spot = [each for each in found if each.status in _ENDED and _is_spot(each)]
        preempted = self._preempted(zone) if ended_spot else frozenset()
        for each in found:
            yield _machine(each, zone, is_preempted=each.name in preempted)

    def _preempted(self, zone: str) -> frozenset[str]:
        """Names of the instances that were preempted."""
        from google.cloud import compute_v1

        asked = compute_v1.ListZoneOperationsRequest(
            project=self._settings.project, zone=zone, filter=f'operationType = "{_PREEMPTED}"'
        )
        operations = self._operations.list(request=asked, **repeated())
        return frozenset(each.target_link.rpartition("/")[2] for each in operations)

    def _delete(self, machine: Machine, what: str) -> None:
        zone, _, name = machine.name.partition("/")
        with faults_named(what), unless_absent():
            self._instances.delete_unary(
                project=self._settings.project, zone=zone, instance=name, **repeated()
            )

    def _wait(self, what: str, operation: Any, zone: str) -> None:
        """Return when it is done. Raises ProviderError, NoRoomThere."""
        from google.cloud import compute_v1

        for _ in range(WAITS):
            if operation.status == compute_v1.Operation.Status.DONE:
                break
            options = {**repeated(), "timeout": WAIT_SECONDS}
            operation = self._operations.wait(
                project=self._settings.project, zone=zone, operation=operation.name, **options
            )
        else:
            raise ProviderError(f"cannot {what}: Google Cloud is still at it after {WAITS} long waits")
        if operation.error.errors:
            raise operation_fault(what, operation.error.errors[0])


def instance_resource(
    settings: GcpSettings, owner: Owner, request: LaunchRequest, script: str, zone: str
) -> Any:
    """The instance that is asked for. Empty settings leave the template's."""
    from google.cloud import compute_v1 as compute

    tags = launch_tags(owner, request.launch_id)
    metadata = {**tags, "startup-script": script}
    instance = compute.Instance(
        name=machine_name(owner, request.launch_id),
        labels={**settings.labels, **{key: label_text(value) for key, value in tags.items()}},
        metadata=compute.Metadata(
            items=[compute.Items(key=key, value=value) for key, value in metadata.items()]
        ),
        # What started anew would run its script anew, with a join token that is spent.
        scheduling=compute.Scheduling(automatic_restart=False),
    )
    if request.is_spot:
        instance.scheduling.provisioning_model = "SPOT"
        instance.scheduling.instance_termination_action = "STOP"
        instance.scheduling.on_host_maintenance = "TERMINATE"
    if settings.machine_type:
        instance.machine_type = f"zones/{zone}/machineTypes/{settings.machine_type}"
    if settings.image:
        parameters = compute.AttachedDiskInitializeParams(
            source_image=settings.image, disk_size_gb=settings.disk_gigabytes or None
        )
        instance.disks = [compute.AttachedDisk(boot=True, auto_delete=True, initialize_params=parameters)]
    if settings.subnet or not settings.instance_template:
        instance.network_interfaces = [_interface(settings)]
    if settings.service_account:
        instance.service_accounts = [compute.ServiceAccount(email=settings.service_account, scopes=[_SCOPE])]
    if settings.network_tags:
        instance.tags = compute.Tags(items=listed(settings.network_tags))
    return instance


def label_text(text: str) -> str:
    """`text` as a value of a label: lower-case letters, digits, '_' and '-', at most 63."""
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:63]


def _interface(settings: GcpSettings) -> Any:
    from google.cloud import compute_v1 as compute

    interface = compute.NetworkInterface()
    if settings.subnet:
        interface.subnetwork = settings.subnet
    else:
        interface.network = "global/networks/default"
    if settings.has_external_address:
        interface.access_configs = [compute.AccessConfig(name="External NAT", type_="ONE_TO_ONE_NAT")]
    return interface


def _machine(instance: Any, zone: str, *, is_preempted: bool = False) -> Machine:
    has_exited = instance.status in _ENDED
    reason = ""
    if has_exited:
        reason = (
            "was preempted: Google Cloud took its spot capacity back"
            if is_preempted
            else "was stopped, and its console does not say how its worker ended"
        )
    return Machine(
        _metadata(instance).get(LAUNCH_LABEL, ""),
        f"{zone}/{instance.name}",
        round(datetime.fromisoformat(instance.creation_timestamp).timestamp() * 1e9),
        has_exited,
        reason,
        has_shut_down=has_exited and not is_preempted,
        is_ending=instance.status in _ENDING,
    )


def _metadata(instance: Any) -> dict[str, str]:
    return {item.key: item.value for item in instance.metadata.items}


def _is_spot(instance: Any) -> bool:
    return bool(instance.scheduling.provisioning_model == "SPOT")


def _clients(settings: GcpSettings) -> tuple[Any, Any]:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import compute_v1

    options: dict[str, Any] = {"transport": "rest"}
    if settings.endpoint_url:
        # Whoever is there is not Google: no credentials of Google are shown.
        options["client_options"] = {"api_endpoint": settings.endpoint_url}
        options["credentials"] = AnonymousCredentials()  # type: ignore[no-untyped-call]  # as the library has it
    return compute_v1.InstancesClient(**options), compute_v1.ZoneOperationsClient(**options)
