"""What EC2 refuses, and why instances end, in words for people. Pure."""

from collections.abc import Mapping
from typing import Any

ROOM_CODES = {
    "InsufficientInstanceCapacity": "name more instance types or subnets of other zones (ec2.instance_type, ec2.subnet)",
    "InsufficientHostCapacity": "name more instance types or subnets of other zones (ec2.instance_type, ec2.subnet)",
    "InsufficientReservedInstanceCapacity": "name more instance types, or leave the reservation",
    "InsufficientFreeAddressesInSubnet": "name more subnets, or a larger one (ec2.subnet)",
    "InsufficientAddressCapacity": "wait, or use a subnet without public addresses",
    "InstanceLimitExceeded": "have the quota of the region raised (Service Quotas, EC2), or lower pool.max_workers",
    "VcpuLimitExceeded": "have the quota of the region raised (Service Quotas, EC2), or lower pool.max_workers",
    "MaxSpotInstanceCountExceeded": "have the quota of spot instances raised, or lower pool.max_workers",
    "SpotMaxPriceTooLow": "raise ec2.spot_max_price, or leave it empty: the on-demand price",
    "VolumeLimitExceeded": "have the quota of volumes raised, or lower pool.max_workers",
}
"""Refusals for want of room: what to do. Asking again at once is no use."""
ZONE_CODES = frozenset(
    {"InsufficientInstanceCapacity", "InsufficientHostCapacity", "InsufficientFreeAddressesInSubnet"}
)
"""Another type or subnet may have room."""
_ADVICE = {
    "UnauthorizedOperation": "give the credentials the actions that docs/ec2.md lists",
    "AuthFailure": "correct the credentials, and look at the machine's clock",
    "InvalidClientTokenId": "correct the credentials",
    "ExpiredToken": "renew the credentials",
    "InvalidAMIID.NotFound": "correct ec2.image: images are of one region",
    "InvalidSubnetID.NotFound": "correct ec2.subnet, or ec2.region",
    "InvalidParameterValue": "correct [ec2]",
    "RequestLimitExceeded": "others of this account call EC2 too often: raise ec2.poll_seconds",
}
_STATE_REASONS = {
    "Server.SpotInstanceTermination": "was taken away as spot capacity",
    "Server.SpotInstanceShutdown": "was taken away as spot capacity",
    "Server.InsufficientInstanceCapacity": "never started: EC2 has no capacity of its type left",
    "Server.InternalError": "failed at EC2",
    "Server.ScheduledStop": "was stopped by EC2 at an announced time",
    "Client.InternalError": "could not be booted",
    "Client.InvalidSnapshot.NotFound": "could not be booted",
    "Client.VolumeLimitExceeded": "never started: the quota of volumes is used up",
    "Client.UserInitiatedShutdown": "was ended by another than this resource manager",
    "Client.InstanceInitiatedShutdown": "shut itself down, and its console does not say how its worker ended",
    "Client.InstanceTerminated": "ended itself",
}
SELF_SHUTDOWN = "Client.InstanceInitiatedShutdown"


def advice_on(code: str) -> str:
    """What to do about a refusal; empty: nothing is known."""
    advice = ROOM_CODES.get(code) or _ADVICE.get(code, "")
    return f"; {advice}" if advice else ""


def end_reason(instance: Mapping[str, Any]) -> str:
    """How an instance that is stopped or terminated ended."""
    reason = instance.get("StateReason") or {}
    code, message = str(reason.get("Code", "")), str(reason.get("Message", ""))
    said = _STATE_REASONS.get(code, "was ended by EC2")
    # The message repeats the code: "Client.UserInitiatedShutdown: User initiated shutdown".
    detail = message or code or str(instance.get("StateTransitionReason", ""))
    return f"{said} ({detail})" if detail else said


def has_shut_itself_down(instance: Mapping[str, Any]) -> bool:
    """Whether its end came from within."""
    return str((instance.get("StateReason") or {}).get("Code", "")) == SELF_SHUTDOWN
