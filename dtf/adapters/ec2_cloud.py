"""Workers as instances of Amazon EC2, by boto3.

A launch is an instance of a client token made from it, so that EC2 itself makes it once; tags say whose it
is. Where several instance types or subnets may be used, each is asked for in turn until one has room; a
launch is then looked for first, because each is a request of its own to EC2.

Calls that EC2 throttles, and those that fail on the way, are repeated by boto3 with growing pauses.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from dtf.adapters.cloud_bootstrap import Boot
from dtf.adapters.cloud_launch import NoRoomThere, check_script, first_with_room
from dtf.adapters.cloud_machines import (
    CALL_SECONDS,
    Machine,
    choices,
    launch_tags,
    launch_uuid,
    listed,
    owner_tags,
)
from dtf.adapters.cloud_provider import CloudProvider
from dtf.adapters.ec2_faults import ROOM_CODES, ZONE_CODES, advice_on, end_reason, has_shut_itself_down
from dtf.adapters.kubernetes_objects import LAUNCH_LABEL, Owner
from dtf.adapters.worker_command import worker_command
from dtf.ports.capacity import LaunchRequest, ProviderError, QuotaExceeded, WorkerEnvironment
from dtf.ports.clock import Clock
from dtf.settings.providers import Ec2Settings

Json = dict[str, Any]

FORGOTTEN_TAG = "dtf-forgotten"
MOST_USER_DATA_BYTES = 16_384
CONNECT_SECONDS = 10.0
ATTEMPTS = 8
"""Of a call: boto3 waits up to 20 s between two of them."""
_DONE = frozenset({"stopped", "terminated"})


def ec2_provider(
    settings: Ec2Settings, owner: Owner, *, clock: Clock, environment: WorkerEnvironment | None = None
) -> CloudProvider:
    """The provider of these settings. Raises ProviderError where boto3 is missing."""
    return CloudProvider(
        Ec2Cloud(settings, owner),
        worker_command([settings.program]),
        boot=Boot("aws", settings.setup, settings.user, settings.environment),
        clock=clock,
        environment=environment,
        poll_seconds=settings.poll_seconds,
    )


class Ec2Cloud:
    """The Cloud of EC2. Raises ProviderError where boto3 is missing."""

    def __init__(self, settings: Ec2Settings, owner: Owner) -> None:
        self._settings = settings
        self._owner = owner
        with _faults_named("reach EC2"):
            self._client = _client(settings)

    def connect(self) -> None:
        """Have EC2 answer, and check what an instance needs."""
        if not self._settings.launch_template and not self._settings.image:
            raise ProviderError(
                "EC2 needs an image or a launch template; set ec2.image or ec2.launch_template"
            )
        if not self._settings.launch_template and not self._settings.instance_type:
            raise ProviderError("EC2 needs a type of instance; set ec2.instance_type, as m7i.large")
        self.find()

    def launch(self, request: LaunchRequest, script: str) -> Machine:
        """Make an instance, by the first type and subnet that have room."""
        check_script(
            script, request.launch_id, most_bytes=MOST_USER_DATA_BYTES, cloud="EC2", setting="ec2.setup"
        )
        options = list(choices(self._settings.instance_type, self._settings.subnet))
        if len(options) > 1 and (there := self._launched(request.launch_id)):
            return there
        return first_with_room(lambda place: self._make(request, script, *place), options)

    def find(self) -> Sequence[Machine]:
        """All instances with the owner's tags, but those that were removed."""
        with _faults_named("list the instances"):
            found = self._described(
                [_tag_filter(key, value) for key, value in owner_tags(self._owner).items()]
            )
            spot = [each["InstanceId"] for each in found if each.get("InstanceLifecycle") == "spot"]
            notices = self._notices() if spot else {}
        return [
            _machine(each, notices.get(each["InstanceId"], ""))
            for each in found
            if FORGOTTEN_TAG not in _tags(each)
        ]

    def end(self, machine: Machine) -> None:
        """Terminate it."""
        with _faults_named(f"end {machine.name}"), _unless_gone():
            self._client.terminate_instances(InstanceIds=[machine.name])

    def remove(self, machine: Machine) -> None:
        """Mark it, and terminate what was stopped only; EC2 drops a terminated instance within hours."""
        with _faults_named(f"remove {machine.name}"), _unless_gone():
            self._client.create_tags(Resources=[machine.name], Tags=[{"Key": FORGOTTEN_TAG, "Value": "true"}])
            self._client.terminate_instances(InstanceIds=[machine.name])

    def console(self, machine: Machine) -> str:
        """What it wrote to its console."""
        with _faults_named(f"read the console of {machine.name}"):
            return str(self._client.get_console_output(InstanceId=machine.name).get("Output", ""))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _make(self, request: LaunchRequest, script: str, instance_type: str, subnet: str) -> Machine:
        from botocore.exceptions import ClientError

        asked = launch_arguments(self._settings, self._owner, request, script, instance_type, subnet)
        with _faults_named(f"launch {request.launch_id}"):
            try:
                return _machine(self._client.run_instances(**asked)["Instances"][0])
            except ClientError as error:
                code = _code(error)
                # Asked for before, with another join token in its script, by whom did not hear the answer.
                if code == "IdempotentParameterMismatch" and (there := self._launched(request.launch_id)):
                    return there
                if code in ZONE_CODES:
                    raise NoRoomThere(_told(f"launch {request.launch_id}", error)) from error
                raise

    def _launched(self, launch_id: str) -> Machine | None:
        with _faults_named(f"look for {launch_id}"):
            tags = launch_tags(self._owner, launch_id)
            found = self._described([_tag_filter(key, value) for key, value in tags.items()])
        return _machine(found[0]) if found else None

    def _described(self, filters: Iterable[Json]) -> list[Json]:
        pages = self._client.get_paginator("describe_instances").paginate(Filters=list(filters))
        return [each for page in pages for group in page["Reservations"] for each in group["Instances"]]

    def _notices(self) -> dict[str, str]:
        """What EC2 has announced to take away, by instance."""
        asked = [{"Name": "status-code", "Values": ["marked-for-termination", "marked-for-stop"]}]
        pages = self._client.get_paginator("describe_spot_instance_requests").paginate(Filters=asked)
        marked = [each for page in pages for each in page["SpotInstanceRequests"]]
        return {
            each["InstanceId"]: f"EC2 takes it away as spot capacity: {each['Status'].get('Message', '')}"
            for each in marked
            if each.get("InstanceId")
        }


def launch_arguments(
    settings: Ec2Settings, owner: Owner, request: LaunchRequest, script: str, instance_type: str, subnet: str
) -> Json:
    """What RunInstances is asked for. Empty settings leave the launch template's."""
    tags = {**settings.tags, **launch_tags(owner, request.launch_id), "Name": request.launch_id}
    kinds = ["instance", "volume", *(["spot-instances-request"] if request.is_spot else [])]
    arguments: Json = {
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": launch_uuid(owner, request.launch_id, instance_type, subnet),
        "UserData": script,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {
            "HttpTokens": "required",
            "HttpEndpoint": "enabled",
            "HttpPutResponseHopLimit": 1,
        },
        "TagSpecifications": [
            {"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
            for kind in kinds
        ],
    }
    if settings.launch_template:
        name = "LaunchTemplateId" if settings.launch_template.startswith("lt-") else "LaunchTemplateName"
        arguments["LaunchTemplate"] = {
            name: settings.launch_template,
            "Version": settings.launch_template_version,
        }
    given = {
        "ImageId": settings.image,
        "InstanceType": instance_type,
        "SubnetId": subnet,
        "SecurityGroupIds": listed(settings.security_groups),
        "KeyName": settings.key_name,
        "IamInstanceProfile": _profile(settings.instance_profile),
        "InstanceMarketOptions": _spot(settings) if request.is_spot else {},
    }
    return {**arguments, **{key: value for key, value in given.items() if value}}


def _client(settings: Ec2Settings) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise ProviderError("EC2 needs boto3: pip install 'dtf[aws]'") from error
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=CALL_SECONDS,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
    )
    session = boto3.Session(profile_name=settings.profile or None, region_name=settings.region or None)
    return session.client("ec2", endpoint_url=settings.endpoint_url or None, config=config)


def _machine(instance: Json, interruption: str = "") -> Machine:
    launched: datetime = instance["LaunchTime"]
    has_exited = instance["State"]["Name"] in _DONE
    return Machine(
        _tags(instance).get(LAUNCH_LABEL, ""),
        instance["InstanceId"],
        round(launched.timestamp()) * 1_000_000_000,
        has_exited,
        end_reason(instance) if has_exited else "",
        has_shut_down=has_exited and has_shut_itself_down(instance),
        interruption=interruption,
    )


def _tags(instance: Json) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in instance.get("Tags") or []}


def _tag_filter(key: str, value: str) -> Json:
    return {"Name": f"tag:{key}", "Values": [value]}


def _profile(name: str) -> Json:
    if not name:
        return {}
    return {"Arn": name} if name.startswith("arn:") else {"Name": name}


def _spot(settings: Ec2Settings) -> Json:
    price = {"MaxPrice": settings.spot_max_price} if settings.spot_max_price else {}
    options = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate", **price}
    return {"MarketType": "spot", "SpotOptions": options}


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _told(what: str, error: Any) -> str:
    code = _code(error)
    message = error.response.get("Error", {}).get("Message", "")
    return f"cannot {what}: EC2 says {code}: {message}{advice_on(code)}"


@contextlib.contextmanager
def _unless_gone() -> Iterator[None]:
    """An instance that EC2 no longer knows is gone."""
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if _code(error) != "InvalidInstanceID.NotFound":
            raise


@contextlib.contextmanager
def _faults_named(what: str) -> Iterator[None]:
    """Raises ProviderError for what EC2 refuses, QuotaExceeded for want of room."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError
    except ImportError as error:
        raise ProviderError("EC2 needs boto3: pip install 'dtf[aws]'") from error
    try:
        yield
    except ClientError as error:
        kind = QuotaExceeded if _code(error) in ROOM_CODES else ProviderError
        raise kind(_told(what, error)) from error
    except NoCredentialsError as error:
        raise ProviderError(
            f"cannot {what}: no credentials of AWS are found; set AWS_PROFILE or ec2.profile, or give this "
            "machine a role"
        ) from error
    except NoRegionError as error:
        raise ProviderError(f"cannot {what}: no region is named; set ec2.region") from error
    except BotoCoreError as error:
        raise ProviderError(f"cannot {what}: {error}") from error
