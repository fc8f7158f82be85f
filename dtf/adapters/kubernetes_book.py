"""The launches a Kubernetes provider knows, and what became of each.

    expected ──▶ running ──▶ exited ──▶ forgotten
                    └─ hindered for too long ──▶ given up: exited

What is known comes from lists, which are whole, and from changes to pods in between. An exit is
final: what is heard of the pod later changes nothing. A launch that a list lacks has exited, unless it
was made after the list was begun.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from dtf.adapters.kubernetes_fate import RUNNING, Fate, Hindrance, deleted_fate, job_fate, pod_fate
from dtf.adapters.kubernetes_objects import Json, launch_id_of
from dtf.ports.capacity import Instance, InstanceState


@dataclass(frozen=True, slots=True)
class Found:
    """A pod or job that is a launch, and the pods of it that exist."""

    thing: Json
    pods: tuple[Json, ...] = ()

    def fate(self, *, is_ended_by_us: bool) -> Fate:
        """Where the launch stands."""
        if self.thing["kind"] == "Job":
            return job_fate(self.thing, self.pods, is_ended_by_us=is_ended_by_us)
        return pod_fate(self.thing, is_ended_by_us=is_ended_by_us)


@dataclass(slots=True)
class Launch:
    """One launch."""

    launch_id: str
    found: Found | None = None
    """As last seen; None: it is being made."""
    fate: Fate = RUNNING
    is_ended_by_us: bool = False
    is_told: bool = False
    """`exits` has yielded its end."""
    confirmed_at: int = 0
    """Lists begun before this number may lack it."""
    hindered_since: float = 0.0
    pods: dict[str, Json] = field(default_factory=dict)
    """As last seen, by name."""

    @property
    def has_exited(self) -> bool:
        """Whether it is over."""
        return self.fate.state is InstanceState.EXITED

    def instance(self) -> Instance:
        """As the port tells it. Only for a launch that was found."""
        assert self.found is not None
        metadata = self.found.thing["metadata"]
        return Instance(
            self.launch_id,
            self.fate.state,
            _nanoseconds(metadata["creationTimestamp"]),
            f"{self.found.thing['kind'].lower()} {metadata['namespace']}/{metadata['name']}",
            self.fate.reason,
            self.fate.is_clean,
            self.fate.interruption,
        )


class LaunchBook:
    """Every launch of one owner by its identity."""

    def __init__(self, patience_seconds: Mapping[Hindrance, float]) -> None:
        self._patience_seconds = patience_seconds
        self._launches: dict[str, Launch] = {}
        self._forgotten: dict[str, str] = {}
        """Uid of each forgotten launch that may still be there, by identity."""
        self._lists_begun = 0

    def get(self, launch_id: str) -> Launch | None:
        """The launch, if it is known."""
        return self._launches.get(launch_id)

    def instances(self) -> list[Instance]:
        """All that were not forgotten, by identity."""
        known = [launch for launch in self._launches.values() if launch.found is not None]
        return [launch.instance() for launch in sorted(known, key=lambda launch: launch.launch_id)]

    def expect(self, launch_id: str) -> Launch:
        """It is about to be made."""
        launch = self._launches[launch_id] = Launch(launch_id, confirmed_at=self._lists_begun)
        return launch

    def drop(self, launch_id: str) -> None:
        """It was not made."""
        self._launches.pop(launch_id, None)

    def made(self, launch: Launch, found: Found, now: float) -> None:
        """It was made, or was there already."""
        launch.confirmed_at = self._lists_begun
        self._see(launch, found, now)

    def begin_list(self) -> int:
        """The number of a list that is asked for now."""
        self._lists_begun += 1
        return self._lists_begun

    def absorb_list(self, number: int, everything: Iterable[Found], now: float) -> list[Found]:
        """Take in a whole list; what of it was forgotten and is still there is returned."""
        left_over: list[Found] = []
        present: set[str] = set()
        for found in everything:
            launch_id = launch_id_of(found.thing)
            present.add(launch_id)
            if self._forgotten.get(launch_id) == found.thing["metadata"]["uid"]:
                left_over.append(found)
                continue
            launch = self._launches.get(launch_id)
            if launch is None:
                launch = self._launches[launch_id] = Launch(launch_id)
            self._see(launch, found, now)
        for launch in self._launches.values():
            if launch.launch_id not in present and launch.found is not None and launch.confirmed_at < number:
                self._is_gone(launch)
        for launch_id in [each for each in self._forgotten if each not in present]:
            del self._forgotten[launch_id]
        return left_over

    def absorb_change(self, kind: str, pod: Json, now: float) -> None:
        """Take in a change to a pod of a launch that is known; others come by lists."""
        launch = self._launches.get(launch_id_of(pod))
        if launch is None or launch.has_exited:
            return
        launch.pods[pod["metadata"]["name"]] = pod
        if kind == "DELETED":
            self._settle(launch, deleted_fate(pod, is_ended_by_us=launch.is_ended_by_us), now)
        elif launch.found is None or launch.found.thing["kind"] == "Pod":
            self._see(launch, Found(pod), now)
        else:
            self._see(launch, Found(launch.found.thing, tuple(launch.pods.values())), now)

    def take_exits(self) -> list[Instance]:
        """Those that have exited and were not told yet."""
        exited = [each for each in self._launches.values() if each.has_exited and not each.is_told]
        for launch in exited:
            launch.is_told = True
        return [launch.instance() for launch in exited if launch.found is not None]

    def hopeless(self, now: float) -> list[Launch]:
        """Those that were kept from starting for longer than there is patience."""
        return [
            launch
            for launch in self._launches.values()
            if not launch.has_exited
            and launch.fate.hindrance is not None
            and now - launch.hindered_since >= self._patience_seconds[launch.fate.hindrance]
        ]

    def give_up(self, launch: Launch) -> None:
        """It is over: it never started."""
        launch.fate = Fate(InstanceState.EXITED, f"was given up: {launch.fate.hindered_by}")

    def ended_unstarted(self, launch: Launch) -> None:
        """It was ended before there was anything to end."""
        launch.fate = Fate(InstanceState.EXITED, "was ended before it started", is_clean=True)

    def forget(self, launch: Launch) -> None:
        """It is unknown from now on, also while it is being removed."""
        del self._launches[launch.launch_id]
        assert launch.found is not None
        self._forgotten[launch.launch_id] = launch.found.thing["metadata"]["uid"]

    def _see(self, launch: Launch, found: Found, now: float) -> None:
        if launch.has_exited:
            return
        launch.found = found
        if found.thing["kind"] == "Pod":
            launch.pods = {found.thing["metadata"]["name"]: found.thing}
        else:
            launch.pods.update((pod["metadata"]["name"], pod) for pod in found.pods)
        self._settle(launch, found.fate(is_ended_by_us=launch.is_ended_by_us), now)

    def _settle(self, launch: Launch, fate: Fate, now: float) -> None:
        if fate.hindrance is not launch.fate.hindrance:
            launch.hindered_since = now
        launch.fate = fate

    def _is_gone(self, launch: Launch) -> None:
        if launch.has_exited:
            return
        pods = list(launch.pods.values())
        if pods:
            launch.fate = deleted_fate(pods[-1], is_ended_by_us=launch.is_ended_by_us)
        elif launch.is_ended_by_us:
            self.ended_unstarted(launch)
        else:
            launch.fate = Fate(InstanceState.EXITED, "was deleted by another than this resource manager")


def _nanoseconds(text: str) -> int:
    """An instant as the API writes it, "2026-11-23T01:39:29Z", as nanoseconds since 1970 UTC."""
    return round(datetime.fromisoformat(text).timestamp() * 1e9)
