"""Workers as virtual machines of Azure, by azure-mgmt-compute.

A launch is a machine named after it, made only if its resource group has none of that name: asking twice
makes one. Tags say whose it is. Its disk and its network interface are made with it and go with it.

A machine whose worker ends is stopped, and costs what it cost, until it is removed: how it ended is read
from it first. Azure deallocates spot machines that it takes back, so that this too can be told.
"""

import contextlib
import os
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from dtf.adapters.azure_faults import fault_of, faults_named, unless_absent
from dtf.adapters.azure_machine import machine_asked_for
from dtf.adapters.cloud_bootstrap import Boot
from dtf.adapters.cloud_launch import check_script, first_with_room
from dtf.adapters.cloud_machines import CALL_SECONDS, Machine, choices, machine_name, tags_match
from dtf.adapters.cloud_provider import CloudProvider
from dtf.adapters.kubernetes_objects import LAUNCH_LABEL, Owner
from dtf.adapters.worker_command import worker_command
from dtf.ports.capacity import LaunchRequest, ProviderError, WorkerEnvironment
from dtf.ports.clock import Clock
from dtf.settings.providers import AzureSettings

MOST_CUSTOM_DATA_BYTES = 65_535
LAUNCH_SECONDS = 240.0
"""A machine that is still being made after so long has its room, and is told of as it is."""
POLL_SECONDS = 5
"""Between looks at a machine that is being made, where Azure names no pause itself."""
CONNECT_SECONDS = 10
ATTEMPTS = 6
MOST_CONSOLE_BYTES = 4 * 2**20
_ENDED = frozenset({"stopped", "deallocated"})
_ENDING = frozenset({"stopping", "deallocating"})


def azure_provider(
    settings: AzureSettings, owner: Owner, *, clock: Clock, environment: WorkerEnvironment | None = None
) -> CloudProvider:
    """The provider of these settings. Raises ProviderError where the libraries are missing."""
    return CloudProvider(
        AzureCloud(settings, owner),
        worker_command([settings.program]),
        boot=Boot("azure", settings.setup, settings.user, settings.environment),
        clock=clock,
        environment=environment,
        poll_seconds=settings.poll_seconds,
    )


class AzureCloud:
    """The Cloud of Azure. Raises ProviderError where its libraries are missing."""

    def __init__(
        self, settings: AzureSettings, owner: Owner, *, launch_poll_seconds: float = POLL_SECONDS
    ) -> None:
        self._settings = settings
        self._owner = owner
        self._group = settings.resource_group
        self._launch_poll_seconds = launch_poll_seconds
        with faults_named("reach Azure"):
            self._client = _client(settings)
        self._machines = self._client.virtual_machines

    def connect(self) -> None:
        """Have Azure answer, and check what a machine needs."""
        for name in ("resource_group", "location", "vm_size", "image", "subnet"):
            if not getattr(self._settings, name):
                raise ProviderError(f"Azure needs a {name.replace('_', ' ')}; set azure.{name}")
        self.find()

    def launch(self, request: LaunchRequest, script: str) -> Machine:
        """Make a machine, by the first size and zone that have room."""
        check_script(
            script,
            request.launch_id,
            most_bytes=MOST_CUSTOM_DATA_BYTES,
            cloud="Azure",
            setting="azure.setup",
        )
        places = choices(self._settings.vm_size, self._settings.zone)
        return first_with_room(lambda place: self._make(request, script, *place), places)

    def find(self) -> Sequence[Machine]:
        """All machines of the owner in the resource group."""
        with faults_named("list the machines"):
            found = [
                each for each in self._machines.list(self._group) if tags_match(each.tags or {}, self._owner)
            ]
            views = self._views() if found else {}
            return [_machine(each, views.get(each.id.lower()) or self._view(each.name)) for each in found]

    def end(self, machine: Machine) -> None:
        """Delete it, which shuts its system down first."""
        with faults_named(f"end {machine.name}"), unless_absent():
            self._machines.begin_delete(self._group, machine.name, polling=False)

    def remove(self, machine: Machine) -> None:
        """Delete what was stopped, once."""
        if not machine.is_ending:
            self.end(machine)

    def console(self, machine: Machine) -> str:
        """What it wrote to its serial console, which Azure keeps where a signed address leads."""
        with faults_named(f"read the console of {machine.name}"):
            told = self._machines.retrieve_boot_diagnostics_data(self._group, machine.name)
        address = str(told.serial_console_log_blob_uri or "")
        if not address:
            return ""
        if not address.startswith("https://") and not self._settings.endpoint_url:
            raise ProviderError(f"Azure keeps the console of {machine.name} where it is not safe to read")
        try:
            with urllib.request.urlopen(address, timeout=CALL_SECONDS) as answer:
                return bytes(answer.read(MOST_CONSOLE_BYTES)).decode(errors="replace")
        except OSError as error:
            raise ProviderError(f"cannot read the console of {machine.name}: {error}") from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _make(self, request: LaunchRequest, script: str, size: str, zone: str) -> Machine:
        from azure.core import MatchConditions
        from azure.core.exceptions import HttpResponseError

        name = machine_name(self._owner, request.launch_id)
        what = f"launch {request.launch_id}"
        asked = machine_asked_for(self._settings, self._owner, request, script, size, zone)
        with faults_named(what):
            try:
                poller = self._machines.begin_create_or_update(
                    self._group,
                    name,
                    asked,
                    match_condition=MatchConditions.IfMissing,
                    polling_interval=self._launch_poll_seconds,
                )
            except HttpResponseError as error:
                if error.status_code != 412:  # else it was asked for before, by whom did not hear the answer
                    raise
            else:
                self._until_made(what, name, poller)
            made = self._machines.get(self._group, name, expand="instanceView")
        if not tags_match(made.tags or {}, self._owner):
            raise ProviderError(f"cannot {what}: {self._group} has a machine {name} that is not ours")
        return _machine(made, made.instance_view)

    def _until_made(self, what: str, name: str, poller: Any) -> None:
        """Return when it is made, or seems to be. What could not be made is removed: its name is needed."""
        from azure.core.exceptions import AzureError, HttpResponseError

        try:
            poller.wait(LAUNCH_SECONDS)
        except HttpResponseError as error:
            with contextlib.suppress(AzureError):
                self._machines.begin_delete(
                    self._group, name, polling_interval=self._launch_poll_seconds
                ).wait(LAUNCH_SECONDS)
            raise fault_of(what, error) from error

    def _views(self) -> Mapping[str, Any]:
        """How all machines of the subscription are, by id; those that the credentials may see."""
        from azure.core.exceptions import HttpResponseError

        try:
            return {
                each.id.lower(): each.instance_view for each in self._machines.list_all(status_only="true")
            }
        except HttpResponseError as error:
            if error.status_code != 403:
                raise
            return {}

    def _view(self, name: str) -> Any:
        """How one machine is; None when it went this moment."""
        with unless_absent():
            return self._machines.instance_view(self._group, name)
        return None


def _machine(asked: Any, view: Any) -> Machine:
    statuses = view.statuses or [] if view is not None else []
    power = next((each.code for each in statuses if each.code.startswith("PowerState/")), "").partition("/")[
        2
    ]
    state = str(asked.provisioning_state or "")
    has_failed = state == "Failed" and power in ("", "unknown")
    has_exited = power in _ENDED or has_failed
    return Machine(
        (asked.tags or {}).get(LAUNCH_LABEL, ""),
        asked.name,
        round(asked.time_created.timestamp()) * 1_000_000_000,
        has_exited,
        _end_reason(asked, power, statuses) if has_exited else "",
        has_shut_down=power == "stopped",
        is_ending=state == "Deleting" or power in _ENDING,
    )


def _end_reason(asked: Any, power: str, statuses: Sequence[Any]) -> str:
    if power == "stopped":
        return "was stopped, and its console does not say how its worker ended"
    if power == "deallocated":
        if asked.priority == "Spot":
            return "was evicted: Azure took its spot capacity back"
        return "was deallocated by another than this resource manager"
    said = [each.message or each.display_status for each in statuses if each.level == "Error"]
    return f"could not be made: {'; '.join(map(str, said)) or 'Azure does not say why'}"


def _client(settings: AzureSettings) -> Any:
    from azure.core.pipeline.policies import RetryPolicy, SansIOHTTPPolicy
    from azure.identity import DefaultAzureCredential
    from azure.mgmt.compute import ComputeManagementClient

    subscription = settings.subscription or os.environ.get("AZURE_SUBSCRIPTION_ID", "")
    if not subscription:
        raise ProviderError("Azure needs a subscription; set azure.subscription or AZURE_SUBSCRIPTION_ID")
    options: dict[str, Any] = {
        "connection_timeout": CONNECT_SECONDS,
        "read_timeout": CALL_SECONDS,
        # Each call is safe to make again: it bears a name.
        "retry_policy": RetryPolicy(
            retry_total=ATTEMPTS, retry_status=ATTEMPTS, retry_backoff_max=20, timeout=CALL_SECONDS
        ),
    }
    if settings.endpoint_url:
        # Whoever is there is not Azure: no credentials of Azure are shown.
        options |= {"base_url": settings.endpoint_url, "authentication_policy": SansIOHTTPPolicy()}
    return ComputeManagementClient(DefaultAzureCredential(), subscription, **options)
