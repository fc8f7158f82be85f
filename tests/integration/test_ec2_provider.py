"""The EC2 provider on EC2's API as moto has it, over HTTP."""

import base64
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from dtf.adapters.cloud_bootstrap import OUTCOME
from dtf.adapters.ec2_cloud import Ec2Cloud, launch_arguments
from dtf.adapters.kubernetes_objects import Owner
from dtf.ports.capacity import Instance, InstanceState, LaunchRequest, ProviderError, QuotaExceeded
from dtf.settings.providers import Ec2Settings
from tests.cloud_bench import name_of
from tests.ec2_bench import SETTINGS, SHUTDOWN, Ec2Bench, account
from tests.ec2_server import Ec2Server

pytestmark = pytest.mark.resource_manager

REQUEST = LaunchRequest("local-1", "local", slots=2)
OTHER = Owner("elsewhere", "default", "local")


@pytest.fixture
async def bench(ec2: Ec2Server) -> AsyncIterator[Ec2Bench]:
    """A provider that has started."""
    bench = Ec2Bench(ec2)
    await bench.start()
    yield bench
    await bench.stop()


async def next_exit(bench: Ec2Bench) -> Instance:
    return await anext(aiter(bench.provider.exits()))


async def test_an_instance_is_ours_by_its_tags_boots_a_worker_and_needs_a_session_for_its_metadata(
    bench: Ec2Bench,
) -> None:
    await bench.provider.launch(REQUEST)
    (asked,) = bench.server.requests("RunInstances")
    tags = {
        asked[f"TagSpecification.1.Tag.{n}.Key"]: asked[f"TagSpecification.1.Tag.{n}.Value"]
        for n in range(1, 6)
    }
    assert tags == {
        "dtf-cluster": bench.owner.cluster,
        "dtf-namespace": "default",
        "dtf-pool": "local",
        "dtf-launch-id": "local-1",
        "Name": "local-1",
    }
    assert asked["TagSpecification.2.ResourceType"] == "volume"
    assert asked["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert asked["MetadataOptions.HttpTokens"] == "required"
    assert "InstanceMarketOptions.MarketType" not in asked
    script = base64.b64decode(asked["UserData"]).decode()
    assert "dtf worker --pool local --name local-1 --slots 2 >> " in script
    assert "export DTF_JOIN_TOKEN=dtfjoin1_1\n" in script


async def test_a_launch_template_has_what_the_settings_do_not_say(ec2: Ec2Server) -> None:
    settings = Ec2Settings(region=SETTINGS.region, launch_template="workers")
    groups = [
        account(ec2).create_security_group(GroupName=name, Description=name)["GroupId"] for name in "ab"
    ]
    bench = Ec2Bench(ec2, replace(settings, security_groups=", ".join(groups)))
    account(ec2).create_launch_template(
        LaunchTemplateName="workers",
        LaunchTemplateData={"ImageId": "ami-12345678", "InstanceType": "m7i.large"},
    )
    await bench.start()
    await bench.provider.launch(REQUEST)
    (asked,) = ec2.requests("RunInstances")
    assert asked["LaunchTemplate.LaunchTemplateName"] == "workers"
    assert asked["LaunchTemplate.Version"] == "$Default"
    assert [asked["SecurityGroupId.1"], asked["SecurityGroupId.2"]] == groups
    assert "InstanceType" not in asked
    assert "ImageId" not in asked
    await bench.stop()


@pytest.mark.parametrize(
    ("profile", "key"), [("worker", "Name"), ("arn:aws:iam::1:instance-profile/w", "Arn")]
)
def test_workers_have_a_role_only_where_one_is_named(profile: str, key: str) -> None:
    without = launch_arguments(SETTINGS, OTHER, REQUEST, "", "m7i.large", "")
    assert "IamInstanceProfile" not in without
    named = launch_arguments(replace(SETTINGS, instance_profile=profile), OTHER, REQUEST, "", "m7i.large", "")
    assert named["IamInstanceProfile"] == {key: profile}


async def test_spot_capacity_is_asked_for_up_to_a_price(ec2: Ec2Server) -> None:
    bench = Ec2Bench(ec2, replace(SETTINGS, spot_max_price="0.05"))
    await bench.start()
    await bench.provider.launch(replace(REQUEST, is_spot=True))
    (asked,) = ec2.requests("RunInstances")
    assert asked["InstanceMarketOptions.MarketType"] == "spot"
    assert asked["InstanceMarketOptions.SpotOptions.MaxPrice"] == "0.05"
    assert asked["TagSpecification.3.ResourceType"] == "spot-instances-request"
    await bench.stop()


async def test_a_launch_whose_answer_was_lost_is_found_though_its_token_is_another(bench: Ec2Bench) -> None:
    bench.server.lose_answers("RunInstances", 1)
    with pytest.raises(ProviderError, match="cannot launch local-1: EC2 says InternalError"):
        await bench.provider.launch(REQUEST)
    second = bench.new_provider()  # that has not looked since: it asks with another join token
    found = await second.launch(REQUEST)
    first, second_call = bench.server.requests("RunInstances")
    assert first["ClientToken"] == second_call["ClientToken"]
    assert first["UserData"] != second_call["UserData"]
    assert await bench.provider.list_instances() == [found]
    await second.close()


async def test_instances_of_other_pools_and_installations_are_not_ours(bench: Ec2Bench) -> None:
    for other in (replace(bench.owner, pool="other"), replace(bench.owner, namespace="other"), OTHER):
        provider = bench.new_provider(other)
        await provider.launch(REQUEST)
        await provider.close()
    ours = await bench.provider.launch(REQUEST)
    assert await bench.provider.list_instances() == [ours]


@pytest.mark.parametrize(
    "code",
    ["InsufficientInstanceCapacity", "VcpuLimitExceeded", "InstanceLimitExceeded", "SpotMaxPriceTooLow"],
)
async def test_no_room_is_a_quota_and_says_what_to_do(bench: Ec2Bench, code: str) -> None:
    bench.server.refuse("RunInstances", code)
    with pytest.raises(QuotaExceeded, match=rf"EC2 says {code}: said by a test; \w+"):
        await bench.provider.launch(REQUEST)
    assert await bench.provider.list_instances() == []


async def test_where_one_zone_has_no_capacity_another_is_asked(ec2: Ec2Server) -> None:
    subnets = [each["SubnetId"] for each in account(ec2).describe_subnets()["Subnets"]][:2]
    bench = Ec2Bench(ec2, replace(SETTINGS, subnet=",".join(subnets)))
    await bench.start()
    ec2.refuse("RunInstances", "InsufficientInstanceCapacity", subnet=subnets[0])
    await bench.provider.launch(REQUEST)
    assert [call["SubnetId"] for call in ec2.requests("RunInstances")] == subnets
    again = bench.new_provider()
    await again.launch(REQUEST)  # which finds it, though the first zone has room again
    assert len(ec2.requests("RunInstances")) == 2
    await again.close()
    await bench.stop()


async def test_a_call_that_is_throttled_is_made_again(bench: Ec2Bench) -> None:
    bench.server.refuse("RunInstances", "RequestLimitExceeded", status=503)
    assert (await bench.provider.launch(REQUEST)).state is InstanceState.RUNNING
    assert len(bench.server.requests("RunInstances")) == 2


async def test_credentials_without_the_right_are_told_where_the_rights_are(bench: Ec2Bench) -> None:
    bench.server.refuse("RunInstances", "UnauthorizedOperation", status=403)
    with pytest.raises(ProviderError, match=r"UnauthorizedOperation: said by a test; .* docs/ec2\.md"):
        await bench.provider.launch(REQUEST)


@pytest.mark.parametrize(
    ("code", "message", "told"),
    [
        ("Server.SpotInstanceTermination", "no capacity", "was taken away as spot capacity (no capacity)"),
        (
            "Server.InsufficientInstanceCapacity",
            "",
            "never started: EC2 has no capacity of its type left (Server.InsufficientInstanceCapacity)",
        ),
        (
            "Client.UserInitiatedShutdown",
            "by bob",
            "was ended by another than this resource manager (by bob)",
        ),
    ],
)
async def test_how_ec2_ended_an_instance_is_told(bench: Ec2Bench, code: str, message: str, told: str) -> None:
    await bench.end(await bench.provider.launch(REQUEST), code, message)
    exited = await next_exit(bench)
    assert (exited.reason, exited.is_clean) == (told, False)


async def test_how_a_worker_ended_is_read_from_the_console_once_it_is_there(bench: Ec2Bench) -> None:
    instance = await bench.provider.launch(REQUEST)
    await bench.end(instance, SHUTDOWN)
    assert [each.state for each in await bench.provider.list_instances()] == [InstanceState.RUNNING]
    bench.server.write_console(
        name_of(instance), f"boot\r\n{OUTCOME} local-1 3 error: no coordinator at 10.0.0.1:1\r\n"
    )
    exited = await next_exit(bench)
    assert exited.reason == "exited with code 3 (error: no coordinator at 10.0.0.1:1)"


async def test_a_worker_that_left_by_itself_ended_without_an_error(bench: Ec2Bench) -> None:
    instance = await bench.provider.launch(REQUEST)
    await bench.end(instance, SHUTDOWN, console=f"{OUTCOME} local-1 0 \n")
    exited = await next_exit(bench)
    assert (exited.reason, exited.is_clean) == ("exited with code 0", True)


async def test_a_console_that_says_nothing_is_not_waited_for_without_end(bench: Ec2Bench) -> None:
    impatient = bench.new_provider(console_seconds=0)
    await bench.end(await impatient.launch(REQUEST), SHUTDOWN)
    exited = await anext(aiter(impatient.exits()))
    assert "its console does not say how its worker ended" in exited.reason
    await impatient.close()


async def test_an_announced_interruption_is_told_while_it_runs(bench: Ec2Bench) -> None:
    instance = await bench.provider.launch(replace(REQUEST, is_spot=True))
    bench.server.announce(name_of(instance), "terminated at 02:48")
    (told,) = await bench.provider.list_instances()
    assert told.state is InstanceState.RUNNING
    assert told.interruption == "EC2 takes it away as spot capacity: terminated at 02:48"


async def test_what_we_end_ends_clean_and_stays_forgotten_by_the_next_provider(bench: Ec2Bench) -> None:
    await bench.provider.launch(REQUEST)
    await bench.provider.terminate("local-1", grace_seconds=1)
    exited = await next_exit(bench)
    assert (exited.reason, exited.is_clean) == ("was ended as asked", True)
    await bench.provider.forget("local-1")
    second = bench.new_provider()
    await second.start()
    assert await second.list_instances() == []
    await second.close()


async def test_another_provider_adopts_what_runs_and_hears_of_its_end(bench: Ec2Bench) -> None:
    running = await bench.provider.launch(REQUEST)
    second = bench.new_provider()
    await second.start()
    assert await second.list_instances() == [running]
    await bench.kill(running)
    exited = await anext(aiter(second.exits()))
    assert (exited.launch_id, exited.reason) == ("local-1", "was killed by signal 9")
    await second.close()


async def test_an_ec2_that_does_not_answer_for_a_while_ends_nothing(bench: Ec2Bench) -> None:
    instance = await bench.provider.launch(REQUEST)
    bench.server.refuse("DescribeInstances", "UnauthorizedOperation", times=2, status=403)
    with pytest.raises(ProviderError, match="cannot list the instances"):
        await bench.provider.list_instances()
    await bench.kill(instance)
    assert (await next_exit(bench)).reason == "was killed by signal 9"


async def test_a_script_that_ec2_does_not_take_is_refused_before_it_is_sent(ec2: Ec2Server) -> None:
    bench = Ec2Bench(ec2, replace(SETTINGS, setup="# " + "x" * 17_000))
    await bench.start()
    with pytest.raises(ProviderError, match=r"EC2 takes 16384; shorten ec2\.setup"):
        await bench.provider.launch(REQUEST)
    await bench.stop()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (replace(SETTINGS, image=""), "set ec2.image or ec2.launch_template"),
        (replace(SETTINGS, instance_type=""), "set ec2.instance_type"),
    ],
)
def test_settings_without_what_an_instance_needs_are_refused_at_the_start(
    ec2: Ec2Server, settings: Ec2Settings, told: str
) -> None:
    with pytest.raises(ProviderError, match=told):
        Ec2Cloud(replace(settings, endpoint_url=ec2.endpoint), OTHER).connect()


def test_no_region_and_no_credentials_are_faults_that_say_what_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    with pytest.raises(ProviderError, match=r"set ec2\.region"):
        Ec2Cloud(replace(SETTINGS, region=""), OTHER)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ProviderError, match="no credentials of AWS are found"):
        Ec2Cloud(SETTINGS, OTHER).connect()


def test_boto3_that_is_missing_is_told_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.exceptions", None)
    with pytest.raises(ProviderError, match=r"pip install 'dtf\[aws\]'"):
        Ec2Cloud(SETTINGS, OTHER)
