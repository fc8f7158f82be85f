"""The Azure provider on an API that reads and writes the types of Azure's own library."""

import base64
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from dtf.adapters.cloud_bootstrap import OUTCOME
from dtf.ports.capacity import InstanceState, ProviderError, QuotaExceeded
from dtf.settings.providers import AzureSettings

pytest.importorskip(
    "azure.mgmt.compute", reason="Azure is tested with what requirements-clouds.lock installs"
)
from dtf.adapters.azure_machine import image_reference
from tests import cloud_cases
from tests.azure_bench import SETTINGS, AzureBench
from tests.azure_server import AzureServer, Refused
from tests.cloud_cases import REQUEST, next_exit

pytestmark = [
    pytest.mark.resource_manager,
    # Azure's library leaves the socket of a connection that the server closed to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@pytest.fixture
def server() -> Iterator[AzureServer]:
    """A resource group without machines."""
    server = AzureServer()
    yield server
    server.stop()


@pytest.fixture
async def bench(server: AzureServer) -> AsyncIterator[AzureBench]:
    """A provider that has started."""
    bench = AzureBench(server)
    await bench.start()
    yield bench
    await bench.stop()


def the_name(server: AzureServer) -> str:
    """Of the one machine there is."""
    (name,) = server.machines
    return name


async def test_a_machine_is_ours_by_its_tags_boots_a_worker_and_takes_with_it_what_was_made_for_it(
    bench: AzureBench,
) -> None:
    await bench.provider.launch(REQUEST)
    (asked,) = bench.server.creations
    assert asked.tags == {
        "dtf-cluster": "Tests.1",
        "dtf-namespace": "default",
        "dtf-pool": "local",
        "dtf-launch-id": "Local_1.a",
    }
    script = base64.b64decode(asked.os_profile.custom_data).decode()
    assert script.startswith("#!/bin/sh\n")
    assert "dtf worker --pool local --name Local_1.a --slots 2 >> " in script
    assert "export DTF_JOIN_TOKEN=dtfjoin1_1\n" in script
    assert "export DTF_WORKER_SPOT_NOTICES=azure\n" in script
    (interface,) = asked.network_profile.network_interface_configurations
    assert (asked.storage_profile.os_disk.delete_option, interface.delete_option) == ("Delete", "Delete")
    assert interface.ip_configurations[0].public_ip_address_configuration is None
    assert asked.diagnostics_profile.boot_diagnostics.enabled
    assert asked.os_profile.linux_configuration.disable_password_authentication
    assert (asked.identity, asked.zones, asked.priority) == (None, None, None)


async def test_what_the_settings_name_is_asked_for(server: AzureServer) -> None:
    identity = (
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/w"
    )
    settings = replace(
        SETTINGS,
        zone="2",
        disk_gigabytes=64,
        disk_type="StandardSSD_LRS",
        has_external_address=True,
        security_group="/subscriptions/s/nsg",
        identity=identity,
        ssh_public_key="ssh-ed25519 AAAA",
        tags={"cost-center": "7"},
    )
    bench = AzureBench(server, settings)
    await bench.start()
    await bench.provider.launch(REQUEST)
    (asked,) = server.creations
    disk = asked.storage_profile.os_disk
    (interface,) = asked.network_profile.network_interface_configurations
    public = interface.ip_configurations[0].public_ip_address_configuration
    (key,) = asked.os_profile.linux_configuration.ssh.public_keys
    assert (asked.zones, disk.disk_size_gb, disk.managed_disk.storage_account_type) == (
        ["2"],
        64,
        "StandardSSD_LRS",
    )
    assert (interface.network_security_group.id, public.delete_option) == ("/subscriptions/s/nsg", "Delete")
    assert list(asked.identity.user_assigned_identities) == [identity]
    assert (key.key_data, asked.tags["cost-center"]) == ("ssh-ed25519 AAAA", "7")
    await bench.stop()


@pytest.mark.parametrize(
    ("image", "asked"),
    [
        ("A:b:c:latest", {"publisher": "A", "offer": "b", "sku": "c", "version": "latest"}),
        ("/subscriptions/s/images/i", {"id": "/subscriptions/s/images/i"}),
        ("/CommunityGalleries/g/Images/i", {"communityGalleryImageId": "/CommunityGalleries/g/Images/i"}),
        ("/SharedGalleries/g/Images/i", {"sharedGalleryImageId": "/SharedGalleries/g/Images/i"}),
    ],
)
def test_an_image_is_named_in_each_of_azures_ways(image: str, asked: dict[str, str]) -> None:
    assert image_reference(image).as_dict() == asked


async def test_spot_capacity_is_deallocated_when_it_is_taken_so_that_it_can_say_so(bench: AzureBench) -> None:
    await bench.provider.launch(replace(REQUEST, is_spot=True))
    asked = bench.server.creations[0]
    assert (asked.priority, asked.eviction_policy) == ("Spot", "Deallocate")
    assert asked.billing_profile.max_price == -1
    bench.server.set_power(the_name(bench.server), "deallocated")
    exited = await next_exit(bench)
    assert exited.reason == "was evicted: Azure took its spot capacity back"
    assert not exited.is_clean


async def test_a_launch_that_another_process_made_is_found_by_its_name(bench: AzureBench) -> None:
    await cloud_cases.finds_what_another_process_made(bench)
    assert len(bench.server.creations) == 2
    assert len(bench.server.machines) == 1


async def test_a_launch_whose_answer_was_lost_is_made_once(bench: AzureBench) -> None:
    bench.server.lost_answers = 1
    assert (await bench.provider.launch(REQUEST)).state is InstanceState.RUNNING
    assert len(bench.server.machines) == 1


async def test_machines_of_other_pools_are_not_ours(bench: AzureBench) -> None:
    await cloud_cases.leaves_other_pools_alone(bench)
    assert len(bench.server.machines) == 3


async def test_a_machine_of_our_name_that_is_not_ours_is_refused(bench: AzureBench) -> None:
    await bench.provider.launch(REQUEST)
    bench.server.machines[the_name(bench.server)].tags = {}
    second = bench.new_provider()
    with pytest.raises(ProviderError, match=r"has a machine dtf-local-1-a-\S+ that is not ours"):
        await second.launch(REQUEST)
    await second.close()


@pytest.mark.parametrize("code", ["SkuNotAvailable", "AllocationFailed", "ZonalAllocationFailed"])
async def test_where_one_zone_has_no_room_another_is_asked_under_the_same_name(
    server: AzureServer, code: str
) -> None:
    bench = AzureBench(server, replace(SETTINGS, zone="1, 2"))
    await bench.start()
    if code == "SkuNotAvailable":
        server.refusals.append(Refused(409, code))
    else:
        server.failures["1"] = code
    instance = await bench.provider.launch(REQUEST)
    assert instance.state is InstanceState.RUNNING
    assert server.machines[the_name(server)].zones == ["2"]
    await bench.stop()


async def test_no_room_anywhere_is_a_quota_says_what_to_do_and_leaves_nothing(bench: AzureBench) -> None:
    bench.server.failures["Standard_D4s_v5"] = "AllocationFailed"
    with pytest.raises(
        QuotaExceeded, match=r"Azure says AllocationFailed: said by a test; name more sizes or zones"
    ):
        await bench.provider.launch(REQUEST)
    assert bench.server.machines == {}
    assert (await bench.provider.launch(REQUEST)).state is InstanceState.RUNNING


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("QuotaExceeded", "said by a test"),
        ("OperationNotAllowed", "Operation could not be completed as it results in exceeding approved Quota"),
    ],
)
async def test_a_quota_refused_at_once_is_a_quota(bench: AzureBench, code: str, message: str) -> None:
    bench.server.refusals.append(Refused(409, code, message))
    with pytest.raises(QuotaExceeded, match="have the quota of the region raised"):
        await bench.provider.launch(REQUEST)


async def test_a_refusal_that_is_no_quota_is_told_as_it_is(bench: AzureBench) -> None:
    bench.server.refusals.append(Refused(409, "OperationNotAllowed", "the disk is in use"))
    with pytest.raises(ProviderError, match="OperationNotAllowed: the disk is in use") as raised:
        await bench.provider.launch(REQUEST)
    assert not isinstance(raised.value, QuotaExceeded)


async def test_a_call_azure_has_no_time_for_is_made_again(bench: AzureBench) -> None:
    bench.server.refusals.append(Refused(429, "TooManyRequests"))
    assert (await bench.provider.launch(REQUEST)).state is InstanceState.RUNNING


async def test_a_right_that_is_missing_is_told(bench: AzureBench) -> None:
    bench.server.refusals.append(Refused(403, "AuthorizationFailed"))
    with pytest.raises(ProviderError, match=r"AuthorizationFailed.*docs/azure\.md"):
        await bench.provider.launch(REQUEST)


async def test_rights_on_the_resource_group_alone_are_enough(bench: AzureBench) -> None:
    bench.server.tells_subscription = False
    await bench.provider.launch(REQUEST)
    assert [each.state for each in await bench.provider.list_instances()] == [InstanceState.RUNNING]
    bench.server.set_power(the_name(bench.server), "deallocated")
    assert (await next_exit(bench)).reason == "was deallocated by another than this resource manager"


async def test_the_console_is_read_while_the_machine_shuts_down(bench: AzureBench) -> None:
    await bench.provider.launch(REQUEST)
    name = the_name(bench.server)
    bench.server.set_power(name, "stopping", console=f"{OUTCOME} Local_1.a 3 error: no coordinator\n")
    assert [each.state for each in await bench.provider.list_instances()] == [InstanceState.RUNNING]
    bench.server.set_power(name, "stopped", console="nothing any more")
    exited = await next_exit(bench)
    assert exited.reason == "exited with code 3 (error: no coordinator)"


async def test_a_machine_that_an_earlier_manager_could_not_make_is_found_and_told_of(
    bench: AzureBench,
) -> None:
    await bench.provider.launch(REQUEST)
    name = the_name(bench.server)
    bench.server.fail(name, "AllocationFailed")
    later = bench.new_provider()
    await later.start()
    (found,) = await later.list_instances()
    assert (found.state, found.reason) == (
        InstanceState.EXITED,
        "could not be made: AllocationFailed: said by a test",
    )
    await later.close()


async def test_what_we_end_is_gone_and_ended_clean(bench: AzureBench) -> None:
    await cloud_cases.ends_clean_what_it_ends(bench)
    assert bench.server.machines == {}


async def test_what_is_being_deleted_is_not_deleted_with_each_look(bench: AzureBench) -> None:
    bench.server.deletes_slowly = True
    await bench.kill(await bench.provider.launch(REQUEST))
    await next_exit(bench)
    await bench.provider.forget(REQUEST.launch_id)
    assert await bench.provider.list_instances() == await bench.provider.list_instances() == []
    assert bench.server.deletions == [the_name(bench.server)]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (replace(SETTINGS, resource_group=""), r"set azure\.resource_group"),
        (replace(SETTINGS, image=""), r"set azure\.image"),
        (replace(SETTINGS, subnet=""), r"set azure\.subnet"),
    ],
)
async def test_settings_without_what_a_machine_needs_are_refused_at_the_start(
    server: AzureServer, settings: AzureSettings, told: str
) -> None:
    bench = AzureBench(server, settings)
    with pytest.raises(ProviderError, match=told):
        await bench.start()
    await bench.stop()


def test_a_subscription_is_asked_for(server: AzureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_SUBSCRIPTION_ID", raising=False)
    with pytest.raises(ProviderError, match=r"set azure\.subscription or AZURE_SUBSCRIPTION_ID"):
        AzureBench(server, replace(SETTINGS, subscription=""))


async def test_a_script_that_azure_would_not_take_is_not_sent(server: AzureServer) -> None:
    bench = AzureBench(server, replace(SETTINGS, setup="# " + "x" * 66_000))
    await bench.start()
    with pytest.raises(ProviderError, match=r"Azure takes 65535; shorten azure\.setup"):
        await bench.provider.launch(REQUEST)
    await bench.stop()
