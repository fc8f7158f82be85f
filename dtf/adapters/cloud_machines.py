"""What the clouds have in common: machines that bear our labels, each a launch.

A `Cloud` is the part that differs. Its calls block, because the clients of the clouds do; they are made
in threads.
"""

import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dtf.adapters.kubernetes_objects import CLUSTER_LABEL, LAUNCH_LABEL, NAMESPACE_LABEL, POOL_LABEL, Owner
from dtf.ports.capacity import LaunchRequest

CALL_SECONDS = 60.0
"""The longest that one answer of a cloud is waited for."""
_LAUNCHES = uuid.UUID("0d6b7a4e-6d3c-5f0e-9c55-b8a4c1f5f8a1")
"""Namespace (RFC 9562, version 5) of what launches are called to the clouds."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of a cloud that is a launch."""

    launch_id: str
    name: str
    """What the cloud calls it."""
    launched_at_ns: int
    has_exited: bool = False
    reason: str = ""
    """How it ended, as far as the cloud knows."""
    has_shut_down: bool = False
    """It ended from within: its console may say how its worker did."""
    is_ending: bool = False
    """It shuts down, and its console may be lost when it has: it is read now."""
    interruption: str = ""
    """The cloud has announced that it will take it away."""


class Cloud(Protocol):
    """Every call may raise ProviderError; all but `connect` may come from several threads at once."""

    def connect(self) -> None:
        """Check what can be checked before the first launch."""
        ...

    def launch(self, request: LaunchRequest, script: str) -> Machine:
        """Make a machine that runs `script` as it boots; the one there is of this launch, if there is one."""
        ...

    def find(self) -> Sequence[Machine]:
        """All of the owner's that were not removed."""
        ...

    def end(self, machine: Machine) -> None:
        """Have it end; nothing if it is gone."""
        ...

    def remove(self, machine: Machine) -> None:
        """Remove what has ended: `find` does not find it again."""
        ...

    def console(self, machine: Machine) -> str:
        """What it wrote to its console; empty if that is not known yet."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


def owner_tags(owner: Owner) -> dict[str, str]:
    """By which an owner's machines are found again."""
    return {CLUSTER_LABEL: owner.cluster, NAMESPACE_LABEL: owner.namespace, POOL_LABEL: owner.pool}


def launch_tags(owner: Owner, launch_id: str) -> dict[str, str]:
    """On everything that is made for a launch."""
    return {**owner_tags(owner), LAUNCH_LABEL: launch_id}


def launch_uuid(owner: Owner, launch_id: str, *what: str) -> str:
    """The same for the same launch of the same owner, and for `what` is asked, for ever."""
    return str(
        uuid.uuid5(_LAUNCHES, "\n".join((owner.cluster, owner.namespace, owner.pool, launch_id, *what)))
    )


def machine_name(owner: Owner, launch_id: str) -> str:
    """A name for clouds where names are unique: lower-case letters, digits and '-', at most 63 (RFC 1035)."""
    digest = hashlib.sha256(launch_uuid(owner, launch_id).encode()).hexdigest()[:10]
    slug = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in launch_id.lower())
    return f"dtf-{slug[:48].strip('-')}-{digest}"


def listed(text: str) -> list[str]:
    """The parts of a setting that takes several, with commas between."""
    return [part.strip() for part in text.split(",") if part.strip()]


def tags_match(tags: Mapping[str, str], owner: Owner) -> bool:
    """Whether they are those of an owner's machine."""
    return all(tags.get(key) == value for key, value in owner_tags(owner).items())


def choices(*settings: str) -> Iterator[tuple[str, ...]]:
    """Every combination of one part each, the last setting varied first; '' where a setting has none."""
    first, *rest = settings
    for part in listed(first) or [""]:
        if not rest:
            yield (part,)
        else:
            for others in choices(*rest):
                yield (part, *others)
