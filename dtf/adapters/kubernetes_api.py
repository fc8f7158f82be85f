"""The API server of a cluster, through the official client's asyncio half (kubernetes.aio).

Every request has a time-out. One that got no answer, or one that says to come back (429, 5xx), is
made again with growing pauses until the patience is used up; each request here may be made twice
without harm. Answers are read as the JSON they are: a newer server's values must not fail a model.
"""

import asyncio
import functools
import json
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from dtf.adapters.kubernetes_objects import BadTemplate, Json
from dtf.ports.capacity import ProviderError, QuotaExceeded
from dtf.ports.clock import Clock
from dtf.settings.providers import KubernetesSettings

REQUEST_SECONDS = 10.0
PATIENCE_SECONDS = 20.0
"""How long a call goes on trying; the caller of the provider waits meanwhile."""
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
WATCH_SECONDS = 240
PAGE = 500
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_RETRIED = frozenset({429, 500, 502, 503, 504})

_log = logging.getLogger("dtf.kubernetes")


class Unreachable(ProviderError):
    """The API server does not answer, or not now."""


class Expired(Exception):
    """The version to watch from is too old (410): list again."""


class Refusal(Exception):
    """The API server's answer, where it is no success and not to be retried."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.message = message


class KubernetesApi:
    """One namespace of a cluster. Call `connect` first."""

    def __init__(
        self,
        settings: KubernetesSettings,
        clock: Clock,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        service_account: Path = SERVICE_ACCOUNT,
    ) -> None:
        self.namespace = settings.namespace
        self._settings = settings
        self._clock = clock
        self._patience_seconds = patience_seconds
        self._service_account = service_account
        self._is_away = False
        self._client: Any = None
        self._former: Any = None
        self._core: Any = None
        self._batch: Any = None

    async def connect(self) -> None:
        """Find the credentials. Raises ProviderError when there are none that can be used."""
        try:
            from kubernetes.aio import client
        except ImportError as error:
            raise ProviderError(
                f"the Kubernetes client is not there ({error}); run: pip install 'dtf[kubernetes]'"
            ) from error
        configuration, namespace = await self._credentials(client.Configuration())
        self.namespace = self._settings.namespace or namespace or "default"
        if self._former is not None:
            await self._former.close()
        self._former = self._client  # others may be in the middle of a call with it
        self._client = client.ApiClient(configuration)
        self._client.user_agent = "dtf-resource-manager"
        self._core = _Unread(client.CoreV1Api(self._client))
        self._batch = _Unread(client.BatchV1Api(self._client))

    async def close(self) -> None:
        """Close its connections."""
        for client in (self._client, self._former):
            if client is not None:
                await client.close()

    async def create_pod(self, pod: Json, *, is_rehearsal: bool = False) -> Json:
        """The pod as created; a rehearsal is checked, quotas included, and not kept."""
        options = {"dry_run": "All"} if is_rehearsal else {}
        return await self._request(lambda: self._core.create_namespaced_pod(self.namespace, pod, **options))

    async def create_job(self, job: Json) -> Json:
        """The job as created."""
        return await self._request(lambda: self._batch.create_namespaced_job(self.namespace, job))

    async def create_secret(self, secret: Json) -> None:
        """Keep a secret; one of that name that is there stays."""
        try:
            await self._request(lambda: self._core.create_namespaced_secret(self.namespace, secret))
        except Refusal as refusal:
            if refusal.status != 409:
                raise

    async def read_pod(self, name: str) -> Json | None:
        """The pod of that name."""
        return await self._unless_absent(lambda: self._core.read_namespaced_pod(name, self.namespace))

    async def read_job(self, name: str) -> Json | None:
        """The job of that name."""
        return await self._unless_absent(lambda: self._batch.read_namespaced_job(name, self.namespace))

    async def delete_pod(self, name: str, uid: str, grace_seconds: int) -> None:
        """Have a pod end; one that is gone, or another of its name, is left alone."""
        body = {"preconditions": {"uid": uid}, "gracePeriodSeconds": grace_seconds}
        await self._unless_absent(lambda: self._core.delete_namespaced_pod(name, self.namespace, body=body))

    async def delete_job(self, name: str, uid: str) -> None:
        """Drop a job and its pods; one that is gone, or another of its name, is left alone."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        await self._unless_absent(lambda: self._batch.delete_namespaced_job(name, self.namespace, body=body))

    async def list_pods(self, selector: str) -> tuple[list[Json], str]:
        """The pods that match, and the version to watch from."""
        return await self._list(
            lambda **options: self._core.list_namespaced_pod(
                self.namespace, label_selector=selector, **options
            )
        )

    async def list_jobs(self, selector: str) -> list[Json]:
        """The jobs that match."""
        found, _ = await self._list(
            lambda **options: self._batch.list_namespaced_job(
                self.namespace, label_selector=selector, **options
            )
        )
        return found

    async def watch_pods(
        self, selector: str, version: str, pause_seconds: float
    ) -> AsyncGenerator[list[Json], None]:
        """The changes after `version` as they come, and nothing each `pause_seconds` without any.

        Ends when the server ends the watch. Raises Expired and Unreachable.
        """
        response = await self._answered(
            lambda: self._core.list_namespaced_pod(
                self.namespace,
                label_selector=selector,
                watch=True,
                resource_version=version,
                allow_watch_bookmarks=True,
                timeout_seconds=WATCH_SECONDS,
                _request_timeout=WATCH_SECONDS + 2 * REQUEST_SECONDS,
            )
        )
        try:
            lines = LineReader(response.content)
            while (batch := await lines.next(pause_seconds)) is not None:
                yield [_change(line) for line in batch]
        except (OSError, TimeoutError) as error:
            raise Unreachable(f"the watch broke off: {_said(error)}") from error
        except Exception as error:
            raise _as_unreachable(error) or error from None
        finally:
            response.close()

    async def _credentials(self, configuration: Any) -> tuple[Any, str]:
        """The configuration filled in, and the namespace that goes with it."""
        from kubernetes.aio import config
        from kubernetes.aio.config.incluster_config import InClusterConfigLoader

        settings = self._settings
        token = self._service_account / "token"
        try:
            if not settings.kubeconfig and not settings.context and await asyncio.to_thread(token.exists):
                authority = self._service_account / "ca.crt"
                InClusterConfigLoader(str(token), str(authority)).load_and_set(configuration)
                home = self._service_account / "namespace"
                return configuration, (await asyncio.to_thread(home.read_text)).strip()
            path = settings.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
            async with asyncio.timeout(REQUEST_SECONDS * 3):  # a plug-in of the kubeconfig may ask elsewhere
                loader = await config.load_kube_config(
                    path,
                    settings.context or None,
                    client_configuration=configuration,
                    persist_config=False,
                )
            return configuration, str(loader.current_context["context"].get("namespace", ""))
        except Exception as error:
            where = settings.kubeconfig or "the service account, KUBECONFIG or ~/.kube/config"
            raise ProviderError(
                f"no credentials for a Kubernetes cluster in {where}: {_said(error)}; set kubernetes.kubeconfig"
            ) from error

    async def _list(self, ask: Callable[..., Awaitable[Any]]) -> tuple[list[Json], str]:
        found: list[Json] = []
        following: dict[str, str] = {}
        while True:
            options = {"limit": PAGE, **following}
            page = await self._request(lambda options=options: ask(**options))  # type: ignore[misc]
            kind = {"apiVersion": page["apiVersion"], "kind": page["kind"].removesuffix("List")}
            found += [{**kind, **item} for item in page["items"]]
            metadata = page["metadata"]
            if not metadata.get("continue"):
                return found, str(metadata["resourceVersion"])
            following = {"_continue": metadata["continue"]}

    async def _unless_absent(self, ask: Callable[[], Awaitable[Any]]) -> Json | None:
        try:
            return await self._request(ask)
        except Refusal as refusal:
            if refusal.status in (404, 409):
                return None
            raise

    async def _request(self, ask: Callable[[], Awaitable[Any]]) -> Json:
        """The answer. Raises Refusal, QuotaExceeded, Unreachable or BadTemplate."""
        response = await self._answered(ask)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                answer: Json = json.loads(await response.read())
                return answer
        except (OSError, TimeoutError, ValueError) as error:
            raise Unreachable(f"the API server broke off its answer: {_said(error)}") from error

    async def _answered(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """A response that is a success, its body unread."""
        give_up = self._clock.monotonic() + self._patience_seconds
        pause = FIRST_PAUSE_SECONDS
        has_new_credentials = False
        while True:
            try:
                return await self._ask_once(ask)
            except Unreachable as error:
                fault: ProviderError = error
            except Refusal as refusal:
                if refusal.status != 401:
                    raise
                fault = ProviderError(
                    f"the API server does not know these credentials ({refusal.message}); renew them"
                )
                if has_new_credentials:
                    raise fault from refusal
                has_new_credentials = True
                await self.connect()  # a token of a plug-in or a rotated file lasts an hour or so
                continue
            if self._clock.monotonic() + pause > give_up:
                raise fault
            self._tell_away(fault)
            await self._clock.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _ask_once(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                response = await ask()
                text = b"" if response.status < 300 else await response.read()
        except (OSError, TimeoutError) as error:
            raise Unreachable(f"the API server of {self._host} does not answer: {_said(error)}") from error
        except ValueError as error:
            raise BadTemplate(f"the client finds fault with what is asked for: {_said(error)}") from error
        except Exception as error:
            raise _as_unreachable(error) or error from None
        if response.status < 300:
            self._tell_back()
            return response
        refusal = _refusal(response.status, text)
        if refusal.status in _RETRIED:
            raise Unreachable(f"the API server of {self._host} says {refusal}")
        self._tell_back()
        if is_quota(refusal):
            raise QuotaExceeded(
                f"the quota of namespace {self.namespace} is used up: {refusal.message}; raise it, lower the pool's "
                "maximum, or wait for what uses it"
            )
        raise refusal

    @property
    def _host(self) -> str:
        return str(self._client.configuration.host)

    def _tell_away(self, fault: ProviderError) -> None:
        if not self._is_away:
            _log.warning("%s; trying again", fault)
        self._is_away = True

    def _tell_back(self) -> None:
        if self._is_away:
            _log.warning("the API server of %s answers again", self._host)
        self._is_away = False


class _Unread:
    """An API of the client whose calls give the response as it came: 37 and 36 of the client say so differently."""

    def __init__(self, api: Any) -> None:
        self._api = api

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        unread = getattr(self._api, f"{name}_without_preload_content", None)
        return unread or functools.partial(getattr(self._api, name), _preload_content=False)


class LineReader:
    """The lines of a response in batches. Waiting for one can be given up and taken up again."""

    def __init__(self, content: Any) -> None:
        self._content = content
        self._begun = b""

    async def next(self, pause_seconds: float) -> list[bytes] | None:
        """The next whole lines, none when none came in time, or None at the end."""
        try:
            async with asyncio.timeout(pause_seconds):
                chunk: bytes = await self._content.readany()
        except TimeoutError:
            return []
        if not chunk:
            return None
        *whole, self._begun = (self._begun + chunk).split(b"\n")
        return [line for line in whole if line]


def _change(line: bytes) -> Json:
    change: Json = json.loads(line)
    if change["type"] == "ERROR":
        status = change["object"]
        if status.get("code") == 410:
            raise Expired
        raise Unreachable(f"the watch ended: {status.get('message', status)}")
    return change


def is_quota(refusal: Refusal) -> bool:
    """Whether it says that a quota is used up."""
    return refusal.status == 403 and "exceeded quota" in refusal.message


def _refusal(status: int, text: bytes) -> Refusal:
    try:
        said: Mapping[str, Any] = json.loads(text)
        return Refusal(status, str(said.get("reason", "")), str(said.get("message", "")))
    except (ValueError, AttributeError):
        return Refusal(status, "", text.decode(errors="replace")[:500])


def _as_unreachable(error: Exception) -> Unreachable | None:
    """aiohttp's errors of a connection that are no OSError."""
    from aiohttp import ClientError

    return (
        Unreachable(f"the API server broke off: {_said(error)}") if isinstance(error, ClientError) else None
    )


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
