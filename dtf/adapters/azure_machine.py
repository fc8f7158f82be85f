"""What Azure is asked for when a worker is launched."""

import base64
from typing import Any

from dtf.adapters.cloud_machines import launch_tags, listed, machine_name
from dtf.adapters.kubernetes_objects import Owner
from dtf.ports.capacity import LaunchRequest
from dtf.settings.providers import AzureSettings

NETWORK_VERSION = "2022-11-01"
"""Of the network's API, by which the interface is made with the machine."""
_URN_PARTS = 4


def machine_asked_for(
    settings: AzureSettings, owner: Owner, request: LaunchRequest, script: str, size: str, zone: str
) -> Any:
    """The machine as azure.mgmt.compute.models.VirtualMachine."""
    from azure.mgmt.compute import models

    asked = models.VirtualMachine(
        location=settings.location,
        zones=[zone] if zone else None,
        tags={**settings.tags, **launch_tags(owner, request.launch_id)},
        hardware_profile=models.HardwareProfile(vm_size=size),
        storage_profile=_storage(settings),
        os_profile=_system(settings, machine_name(owner, request.launch_id), script),
        network_profile=_network(settings),
        # The console is kept where Azure lets it be read.
        diagnostics_profile=models.DiagnosticsProfile(boot_diagnostics=models.BootDiagnostics(enabled=True)),
    )
    if settings.identity:
        asked.identity = models.VirtualMachineIdentity(
            type="UserAssigned",
            user_assigned_identities={
                each: models.UserAssignedIdentitiesValue() for each in listed(settings.identity)
            },
        )
    if request.is_spot:
        asked.priority = "Spot"
        asked.eviction_policy = "Deallocate"
        asked.billing_profile = models.BillingProfile(max_price=settings.spot_max_price or -1.0)
    return asked


def image_reference(image: str) -> Any:
    """`image` as Publisher:Offer:SKU:Version, or as the id of one's own or of a shared gallery's."""
    from azure.mgmt.compute import models

    parts = image.split(":")
    if len(parts) == _URN_PARTS:
        publisher, offer, sku, version = parts
        return models.ImageReference(publisher=publisher, offer=offer, sku=sku, version=version)
    if image.lower().startswith("/communitygalleries/"):
        return models.ImageReference(community_gallery_image_id=image)
    if image.lower().startswith("/sharedgalleries/"):
        return models.ImageReference(shared_gallery_image_id=image)
    return models.ImageReference(id=image)


def _storage(settings: AzureSettings) -> Any:
    from azure.mgmt.compute import models

    disk = models.OSDisk(create_option="FromImage", delete_option="Delete")
    if settings.disk_gigabytes:
        disk.disk_size_gb = settings.disk_gigabytes
    if settings.disk_type:
        disk.managed_disk = models.ManagedDiskParameters(storage_account_type=settings.disk_type)
    return models.StorageProfile(image_reference=image_reference(settings.image), os_disk=disk)


def _system(settings: AzureSettings, name: str, script: str) -> Any:
    from azure.mgmt.compute import models

    key = models.SshPublicKey(
        path=f"/home/{settings.admin_user}/.ssh/authorized_keys",
        key_data=settings.ssh_public_key or _key_of_nobody(),
    )
    return models.OSProfile(
        computer_name=name,
        admin_username=settings.admin_user,
        custom_data=base64.b64encode(script.encode()).decode(),
        linux_configuration=models.LinuxConfiguration(
            disable_password_authentication=True, ssh=models.SshConfiguration(public_keys=[key])
        ),
    )


def _key_of_nobody() -> str:
    """A public key whose private half is thrown away: Azure wants one, and nobody is to log in."""
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = generate_private_key(public_exponent=65_537, key_size=2048).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _network(settings: AzureSettings) -> Any:
    from azure.mgmt.compute import models

    address = models.VirtualMachineNetworkInterfaceIPConfiguration(
        name="worker", subnet=models.SubResource(id=settings.subnet), primary=True
    )
    if settings.has_external_address:
        address.public_ip_address_configuration = models.VirtualMachinePublicIPAddressConfiguration(
            name="worker",
            delete_option="Delete",
            public_ip_allocation_method="Static",
            sku=models.PublicIPAddressSku(name="Standard"),
        )
    interface = models.VirtualMachineNetworkInterfaceConfiguration(
        name="worker", primary=True, delete_option="Delete", ip_configurations=[address]
    )
    if settings.security_group:
        interface.network_security_group = models.SubResource(id=settings.security_group)
    return models.NetworkProfile(
        network_api_version=NETWORK_VERSION, network_interface_configurations=[interface]
    )
