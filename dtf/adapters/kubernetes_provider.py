"""Workers as pods or jobs of a Kubernetes cluster.

A launch is a pod (or a job of one pod) named after it, so that the API server itself refuses to make
one twice; labels say whose it is, and what bears them is found again by whoever starts later. The pod
stays, ended, until it is forgotten: how it ended is read from it.

Exits are watched for from the version of a list; where the watch ends or its version is too old (410)
everything is listed again, so that nothing is missed for longer than that takes. While the API server
is away the launches stay as they are known.
"""

import asyncio
import contextlib
import inspect
import logging
import math
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from dtf.adapters.kubernetes_api import Expired, KubernetesApi, Refusal
from dtf.adapters.kubernetes_book import Found, Launch, LaunchBook
from dtf.adapters.kubernetes_fate import Hindrance
from dtf.adapters.kubernetes_objects import (
    BadTemplate,
    Json,
    Owner,
    job_manifest,
    launch_id_of,
    object_name,
    pod_manifest,
    secret_manifest,
    secret_values,
)
from dtf.ports.capacity import (
    Instance,
    LaunchRequest,
    ProviderError,
    WorkerCommand,
    WorkerEnvironment,
)
from dtf.ports.clock import Clock
from dtf.settings.providers import KubernetesSettings

TICK_SECONDS = 1.0
"""How often, while nothing changes, it is looked whether a launch is hopeless."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
"""Between attempts to watch while the API server is away."""
_CONFLICT = 409

_log = logging.getLogger("dtf.kubernetes")


class KubernetesProvider:
    """A CapacityProvider whose instances are pods, or jobs of one pod. Call `start` first."""

    def __init__(
        self,
        command: WorkerCommand,
        *,
        settings: KubernetesSettings,
        owner: Owner,
        clock: Clock,
        environment: WorkerEnvironment | None = None,
        api: KubernetesApi | None = None,
    ) -> None:
        self._command = command
        self._settings = settings
        self._owner = owner
        self._clock = clock
        self._environment = environment
        self._template: Mapping[str, Any] = {}
        self._api = api or KubernetesApi(settings, clock)
        self._workloads: _Workloads = (
            _Jobs(self._api, owner, settings) if settings.kind == "job" else _Pods(self._api, owner)
        )
        self._book = LaunchBook(
            {
                Hindrance.IMAGE: settings.image_patience_seconds,
                Hindrance.CONTAINER: settings.image_patience_seconds,
                Hindrance.NODE: settings.scheduling_patience_seconds,
            }
        )

    async def start(self) -> None:
        """Read the template and the credentials, and find the launches of an earlier provider."""
        with self._faults_named("start"):
            if self._settings.pod_template:
                self._template = await asyncio.to_thread(_read_template, self._settings.pod_template)
            await self._api.connect()
            await self._refresh()

    async def launch(self, request: LaunchRequest) -> Instance:
        """Make a pod or job unless its launch is known or there."""
        known = self._book.get(request.launch_id)
        if known is not None and known.found is not None:
            return known.instance()
        launch = self._book.expect(request.launch_id)
        try:
            with self._faults_named(f"launch {request.launch_id}"):
                await self._make(launch, request)
        except BaseException:
            self._book.drop(request.launch_id)  # what of it is there is found by the next list
            raise
        return launch.instance()

    async def list_instances(self) -> Sequence[Instance]:
        """Everything with our labels that was not forgotten, by launch id."""
        with self._faults_named("list the workers"):
            await self._refresh()
        return self._book.instances()

    async def terminate(self, launch_id: str, grace_seconds: float) -> None:
        """Have Kubernetes end it: SIGTERM now, SIGKILL after `grace_seconds`, a second at least."""
        launch = self._book.get(launch_id)
        if launch is None or launch.found is None or launch.has_exited or launch.is_ended_by_us:
            return
        with self._faults_named(f"end {launch_id}"):
            await self._end(launch, max(1, math.ceil(grace_seconds)))

    async def forget(self, launch_id: str) -> None:
        """Remove what is left of an exited launch; while that cannot be done, it is tried with each list."""
        launch = self._book.get(launch_id)
        if launch is None or launch.found is None or not launch.has_exited:
            return
        self._book.forget(launch)
        await self._remove(launch.found)

    async def exits(self) -> AsyncIterator[Instance]:
        """Each running instance as it exits."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                version = await self._refresh()
                for instance in self._book.take_exits():
                    yield instance
                changes = self._api.watch_pods(self._owner.selector(), version, TICK_SECONDS)
                async with contextlib.aclosing(changes):
                    async for batch in changes:
                        pause = FIRST_PAUSE_SECONDS
                        await self._absorb(batch)
                        for instance in self._book.take_exits():
                            yield instance
            except Expired:
                continue
            except (ProviderError, Refusal) as fault:
                _log.warning("workers cannot be watched (%s); again in %.1f s", fault, pause)
                await self._clock.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def close(self) -> None:
        """Close the connections; the workers go on."""
        await self._api.close()

    async def _make(self, launch: Launch, request: LaunchRequest) -> None:
        environment = await self._environment_of(request)
        command = self._command(request)
        pod = pod_manifest(self._settings, self._owner, request, command, environment, self._template)
        is_new = True
        try:
            found = Found(await self._workloads.create(pod))
        except Refusal as refusal:
            if refusal.status != _CONFLICT:
                raise
            found = await self._there_already(request)
            is_new = False
        await self._hand_over(secret_values(environment), request, found, is_new=is_new)
        self._book.made(launch, found, self._clock.monotonic())

    async def _hand_over(
        self, values: Mapping[str, str], request: LaunchRequest, found: Found, *, is_new: bool
    ) -> None:
        """Make the secret of a launch. One that was there already has it, or is given up for want of it."""
        if not values:
            return
        try:
            await self._api.create_secret(secret_manifest(self._owner, request, found.thing, values))
        except (ProviderError, Refusal):
            if is_new:
                await self._remove(found)
                raise
            _log.warning("%s was launched before, and its secret could not be looked to", request.launch_id)

    async def _environment_of(self, request: LaunchRequest) -> Mapping[str, str]:
        if self._environment is None:
            return {}
        given = self._environment(request)
        return await given if inspect.isawaitable(given) else given

    async def _there_already(self, request: LaunchRequest) -> Found:
        name = object_name(request.launch_id)
        found = await self._workloads.read(name)
        if found is None:
            raise ProviderError(f"{name} was there and is gone; launch it again")
        if not self._owner.owns(found.thing, request.launch_id):
            raise ProviderError(
                f"{self._api.namespace} has a {found.thing['kind'].lower()} {name} that is not ours; give the "
                "pool another name, or its workers another namespace (kubernetes.namespace)"
            )
        return found

    async def _refresh(self) -> str:
        """Take in everything there is; the version to watch from."""
        number = self._book.begin_list()
        everything, version = await self._workloads.find()
        for left_over in self._book.absorb_list(number, everything, self._clock.monotonic()):
            await self._remove(left_over)
        await self._give_up_hopeless()
        return version

    async def _absorb(self, batch: Sequence[Json]) -> None:
        for change in batch:
            if change["type"] in ("ADDED", "MODIFIED", "DELETED"):
                self._book.absorb_change(change["type"], change["object"], self._clock.monotonic())
        await self._give_up_hopeless()

    async def _give_up_hopeless(self) -> None:
        for launch in self._book.hopeless(self._clock.monotonic()):
            self._book.give_up(launch)
            assert launch.found is not None
            with contextlib.suppress(ProviderError, Refusal):  # it is removed when it is forgotten
                await self._workloads.end(launch.found, 1)

    async def _end(self, launch: Launch, grace_seconds: int) -> None:
        assert launch.found is not None
        launch.is_ended_by_us = True
        try:
            is_under_way = await self._workloads.end(launch.found, grace_seconds)
        except BaseException:
            launch.is_ended_by_us = False
            raise
        if not is_under_way:
            self._book.ended_unstarted(launch)

    async def _remove(self, found: Found) -> None:
        name = found.thing["metadata"]["name"]
        try:
            await self._workloads.remove(found)
        except (ProviderError, Refusal) as fault:
            _log.warning("%s has ended and could not be removed yet: %s", name, fault)

    @contextlib.contextmanager
    def _faults_named(self, what: str) -> Iterator[None]:
        """Raises ProviderError for what the API server refuses and for settings that make no pod."""
        try:
            yield
        except Refusal as refusal:
            raise ProviderError(f"cannot {what}: {refusal}{_advice(refusal)}") from refusal
        except BadTemplate as fault:
            raise ProviderError(f"cannot {what}: {fault}") from fault


class _Workloads(Protocol):
    """What differs between pods and jobs. Names are those of `object_name`."""

    async def create(self, pod: Json) -> Json:
        """Make it; Refusal with status 409 if there is one of its name."""
        ...

    async def read(self, name: str) -> Found | None:
        """The one of that name, whoever made it."""
        ...

    async def find(self) -> tuple[list[Found], str]:
        """All of the owner's, and the version to watch pods from."""
        ...

    async def end(self, found: Found, grace_seconds: int) -> bool:
        """Have it end; False if there was no pod to end, and it is gone."""
        ...

    async def remove(self, found: Found) -> None:
        """Remove what has ended."""
        ...


class _Pods:
    """A pod a launch."""

    def __init__(self, api: KubernetesApi, owner: Owner) -> None:
        self._api = api
        self._owner = owner

    async def create(self, pod: Json) -> Json:
        return await self._api.create_pod(pod)

    async def read(self, name: str) -> Found | None:
        pod = await self._api.read_pod(name)
        return None if pod is None else Found(pod)

    async def find(self) -> tuple[list[Found], str]:
        pods, version = await self._api.list_pods(self._owner.selector())
        return [Found(pod) for pod in pods if launch_id_of(pod)], version

    async def end(self, found: Found, grace_seconds: int) -> bool:
        metadata = found.thing["metadata"]
        await self._api.delete_pod(metadata["name"], metadata["uid"], grace_seconds)
        return True

    async def remove(self, found: Found) -> None:
        await self.end(found, 1)


class _Jobs:
    """A job of one pod a launch."""

    def __init__(self, api: KubernetesApi, owner: Owner, settings: KubernetesSettings) -> None:
        self._api = api
        self._owner = owner
        self._settings = settings

    async def create(self, pod: Json) -> Json:
        # The job controller would be told of a full quota, and we would not.
        await self._api.create_pod(pod, is_rehearsal=True)
        return await self._api.create_job(job_manifest(self._settings, pod))

    async def read(self, name: str) -> Found | None:
        job = await self._api.read_job(name)
        if job is None:
            return None
        return Found(job, tuple(await self._pods_of(name)))

    async def find(self) -> tuple[list[Found], str]:
        pods, version = await self._api.list_pods(self._owner.selector())
        by_launch: dict[str, list[Json]] = {}
        for pod in pods:
            by_launch.setdefault(launch_id_of(pod), []).append(pod)
        jobs = [job for job in await self._api.list_jobs(self._owner.selector()) if launch_id_of(job)]
        return [Found(job, tuple(by_launch.get(launch_id_of(job), ()))) for job in jobs], version

    async def end(self, found: Found, grace_seconds: int) -> bool:
        pods = await self._pods_of(found.thing["metadata"]["name"])
        for pod in pods:
            await self._api.delete_pod(pod["metadata"]["name"], pod["metadata"]["uid"], grace_seconds)
        if pods:
            return True
        await self.remove(found)
        return False

    async def _pods_of(self, job_name: str) -> list[Json]:
        pods, _ = await self._api.list_pods(f"batch.kubernetes.io/job-name={job_name}")
        return pods

    async def remove(self, found: Found) -> None:
        metadata = found.thing["metadata"]
        await self._api.delete_job(metadata["name"], metadata["uid"])


def _read_template(path: str) -> Mapping[str, Any]:
    """Raises BadTemplate."""
    import yaml

    try:
        template = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise BadTemplate(f"kubernetes.pod_template {path} cannot be read: {error}") from error
    if not isinstance(template, dict) or "spec" not in template:
        raise BadTemplate(f"kubernetes.pod_template {path} is no pod: it has no spec")
    return template


def _advice(refusal: Refusal) -> str:
    match refusal.status:
        case 403:
            return "; deploy/kubernetes has the Role that allows what dtf does"
        case 404:
            return "; kubernetes.namespace must be there already"
        case _:
            return ""
