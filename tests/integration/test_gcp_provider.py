"""The Google Cloud provider on an API that reads and writes the types of Google's own library."""

import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from dtf.adapters.cloud_bootstrap import OUTCOME
from dtf.ports.capacity import InstanceState, ProviderError, QuotaExceeded
from dtf.settings.providers import GcpSettings

pytest.importorskip(
    "google.cloud.compute_v1", reason="Google Cloud is tested with what requirements-clouds.lock installs"
)
from tests import cloud_cases
from tests.cloud_bench import name_of
from tests.cloud_cases import REQUEST, next_exit
from tests.gcp_bench import SETTINGS, GcpBench
from tests.gcp_server import ZONES, GcpServer, Refused

pytestmark = pytest.mark.resource_manager


@pytest.fixture
def server() -> Iterator[GcpServer]:
    """A project without instances."""
    server = GcpServer()
    yield server
    server.stop()


@pytest.fixture
async def bench(server: GcpServer) -> AsyncIterator[GcpBench]:
    """A provider that has started."""
    bench = GcpBench(server)
    await bench.start()
    yield bench
    await bench.stop()


async def test_an_instance_is_ours_by_what_it_bears_and_boots_a_worker(bench: GcpBench) -> None:
    await bench.provider.launch(REQUEST)
    ((zone, request_id, template, asked),) = bench.server.inserts
    assert (zone, template) == (ZONES[0], "")
    assert uuid.UUID(request_id).version == 5
    assert dict(asked.labels) == {
        "dtf-cluster": "tests-1",
        "dtf-namespace": "default",
        "dtf-pool": "local",
        "dtf-launch-id": "local_1-a",
    }
    metadata = {item.key: item.value for item in asked.metadata.items}
    assert (metadata["dtf-cluster"], metadata["dtf-launch-id"]) == ("Tests.1", "Local_1.a")
    assert "dtf worker --pool local --name Local_1.a --slots 2 >> " in metadata["startup-script"]
    assert "export DTF_WORKER_SPOT_NOTICES=gcp\n" in metadata["startup-script"]
    assert asked.machine_type == f"zones/{ZONES[0]}/machineTypes/e2-standard-4"
    assert asked.scheduling.automatic_restart is False
    assert asked.scheduling.provisioning_model == ""
    assert not asked.network_interfaces[0].access_configs
    assert not asked.service_accounts


async def test_spot_capacity_is_stopped_when_it_is_taken_so_that_it_can_say_so(bench: GcpBench) -> None:
    await bench.provider.launch(replace(REQUEST, is_spot=True))
    scheduling = bench.server.inserts[0][3].scheduling
    assert (scheduling.provisioning_model, scheduling.instance_termination_action) == ("SPOT", "STOP")
    bench.server.set_status(bench_name(bench), "TERMINATED", is_preempted=True)
    exited = await next_exit(bench)
    assert exited.reason == "was preempted: Google Cloud took its spot capacity back"
    assert not exited.is_clean


async def test_a_template_has_what_the_settings_do_not_say(server: GcpServer) -> None:
    template = "projects/tests/global/instanceTemplates/worker"
    settings = GcpSettings(project="tests", zone=ZONES[0], instance_template=template)
    bench = GcpBench(server, settings)
    await bench.start()
    await bench.provider.launch(REQUEST)
    ((_, _, given, asked),) = server.inserts
    assert given == template
    assert not (asked.disks or asked.network_interfaces or asked.machine_type)
    await bench.stop()


async def test_a_launch_that_another_process_made_is_found_by_its_name(bench: GcpBench) -> None:
    await cloud_cases.finds_what_another_process_made(bench)
    assert bench.server.inserts[0][1] == bench.server.inserts[1][1]
    assert len(bench.server.instances) == 1


async def test_instances_of_other_pools_are_not_ours_even_where_their_labels_are_alike(
    bench: GcpBench,
) -> None:
    await cloud_cases.leaves_other_pools_alone(bench)
    assert len(bench.server.instances) == 3


async def test_where_one_zone_has_no_room_another_is_asked(server: GcpServer) -> None:
    bench = GcpBench(server, replace(SETTINGS, zone=", ".join(ZONES)))
    await bench.start()
    server.failures[ZONES[0]] = "ZONE_RESOURCE_POOL_EXHAUSTED"
    instance = await bench.provider.launch(REQUEST)
    assert name_of(instance).startswith(ZONES[1])
    again = bench.new_provider()
    assert await again.launch(REQUEST) == instance
    assert len(server.instances) == 1
    await again.close()
    await bench.stop()


@pytest.mark.parametrize("code", ["ZONE_RESOURCE_POOL_EXHAUSTED", "QUOTA_EXCEEDED"])
async def test_no_room_is_a_quota_says_what_to_do_and_is_asked_anew_under_another_id(
    bench: GcpBench, code: str
) -> None:
    bench.server.failures[ZONES[0]] = code
    with pytest.raises(QuotaExceeded, match=rf"Google Cloud says {code}: said by a test; \w+"):
        await bench.provider.launch(REQUEST)
    assert (await bench.provider.launch(REQUEST)).state is InstanceState.RUNNING
    first, second = bench.server.inserts
    assert first[1] != second[1]


async def test_a_quota_refused_at_once_is_a_quota(bench: GcpBench) -> None:
    bench.server.refusals.append(Refused(403, "quotaExceeded"))
    with pytest.raises(QuotaExceeded, match="have the quota of the region raised"):
        await bench.provider.launch(REQUEST)


@pytest.mark.parametrize(("status", "reason"), [(503, "backendError"), (403, "rateLimitExceeded")])
async def test_a_call_google_has_no_time_for_is_made_again(bench: GcpBench, status: int, reason: str) -> None:
    bench.server.refusals.append(Refused(status, reason))
    assert (await bench.provider.launch(REQUEST)).state is InstanceState.RUNNING


async def test_a_right_that_is_missing_is_told(bench: GcpBench) -> None:
    bench.server.refusals.append(Refused(403, "forbidden"))
    with pytest.raises(ProviderError, match=r"403 .*docs/gcp\.md"):
        await bench.provider.launch(REQUEST)


async def test_the_console_is_read_while_the_instance_shuts_down(bench: GcpBench) -> None:
    await bench.provider.launch(REQUEST)
    name = bench_name(bench)
    bench.server.set_status(name, "STOPPING", console=f"{OUTCOME} Local_1.a 3 error: no coordinator\n")
    assert [each.state for each in await bench.provider.list_instances()] == [InstanceState.RUNNING]
    bench.server.set_status(name, "TERMINATED", console="nothing any more")
    exited = await next_exit(bench)
    assert exited.reason == "exited with code 3 (error: no coordinator)"


async def test_what_we_end_is_gone_and_ended_clean(bench: GcpBench) -> None:
    await cloud_cases.ends_clean_what_it_ends(bench)
    assert bench.server.instances == {}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (replace(SETTINGS, project=""), r"set gcp\.project"),
        (replace(SETTINGS, zone=""), r"set gcp\.zone"),
        (replace(SETTINGS, image=""), r"set gcp\.image or gcp\.instance_template"),
    ],
)
async def test_settings_without_what_an_instance_needs_are_refused_at_the_start(
    server: GcpServer, settings: GcpSettings, told: str
) -> None:
    bench = GcpBench(server, settings)
    with pytest.raises(ProviderError, match=told):
        await bench.start()
    await bench.stop()


def bench_name(bench: GcpBench) -> str:
    """The one instance there is."""
    ((zone, name),) = bench.server.instances
    return f"{zone}/{name}"
