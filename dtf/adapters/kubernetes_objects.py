"""The pods, jobs and secrets that a Kubernetes provider asks for, as the API takes them. Pure."""

import base64
import copy
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dtf.ports.capacity import LaunchRequest
from dtf.settings.providers import KubernetesSettings

Json = dict[str, Any]

CONTAINER = "worker"
LAUNCH_VARIABLE = "DTF_WORKER_LAUNCH_ID"
SECRET_VARIABLES = frozenset({"DTF_JOIN_TOKEN"})
"""Passed by a secret of the pod: whoever may read pods may not read these."""
LAUNCH_ANNOTATION = "dtf.dev/launch-id"
CLUSTER_LABEL = "dtf-cluster"
NAMESPACE_LABEL = "dtf-namespace"
POOL_LABEL = "dtf-pool"
LAUNCH_LABEL = "dtf-launch-id"

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_MOST = 63
"""Characters of a label's value (RFC 1123), and of the name of a job, which becomes one."""


class BadTemplate(ValueError):
    """A pod cannot be made from these settings; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose instances these are: what a provider labels, and what it finds again."""

    cluster: str
    """The installation of dtf."""
    namespace: str
    """dtf's namespace, not that of Kubernetes."""
    pool: str

    def labels(self) -> dict[str, str]:
        """On everything that is this owner's."""
        return {
            "app.kubernetes.io/name": "dtf",
            "app.kubernetes.io/component": "worker",
            "app.kubernetes.io/managed-by": "dtf-resource-manager",
            CLUSTER_LABEL: label_value(self.cluster),
            NAMESPACE_LABEL: label_value(self.namespace),
            POOL_LABEL: label_value(self.pool),
        }

    def selector(self) -> str:
        """Selects what is this owner's and nothing else."""
        labels = self.labels()
        return ",".join(f"{key}={labels[key]}" for key in (CLUSTER_LABEL, NAMESPACE_LABEL, POOL_LABEL))

    def owns(self, thing: Json, launch_id: str) -> bool:
        """Whether `thing` is this owner's launch of that identity."""
        labels = thing["metadata"].get("labels") or {}
        is_ours = all(
            labels.get(key) == value for key, value in self.labels().items() if key.startswith("dtf-")
        )
        return is_ours and launch_id_of(thing) == launch_id


def object_name(launch_id: str) -> str:
    """The name of the pod or job of a launch: its identity where that is a name, else one made from it."""
    if len(launch_id) <= _MOST and _NAME.fullmatch(launch_id):
        return launch_id
    slug = re.sub(r"[^a-z0-9]+", "-", launch_id.lower()).strip("-")
    return f"{slug[: _MOST - 9]}-{_digest(launch_id)}".lstrip("-")


def label_value(text: str) -> str:
    """`text` where it may be a label's value, else one made from it."""
    if not text or (len(text) <= _MOST and _LABEL.fullmatch(text)):
        return text
    slug = re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-_.")
    return f"{slug[: _MOST - 9]}-{_digest(text)}".lstrip("-")


def launch_id_of(thing: Json) -> str:
    """The launch that a pod or job says it is; empty: none."""
    annotations = thing["metadata"].get("annotations") or {}
    return str(annotations.get(LAUNCH_ANNOTATION, ""))


def pod_manifest(
    settings: KubernetesSettings,
    owner: Owner,
    request: LaunchRequest,
    command: Sequence[str],
    environment: Mapping[str, str],
    template: Mapping[str, Any],
) -> Json:
    """The pod of a launch: `template`, and over it what dtf decides. Raises BadTemplate."""
    pod: Json = copy.deepcopy({key: template[key] for key in ("metadata", "spec") if key in template})
    metadata = pod.setdefault("metadata", {})
    metadata["name"] = object_name(request.launch_id)
    metadata["labels"] = {
        **(metadata.get("labels") or {}),
        **settings.labels,
        **owner.labels(),
        LAUNCH_LABEL: label_value(request.launch_id),
    }
    metadata["annotations"] = {
        **(metadata.get("annotations") or {}),
        **settings.annotations,
        LAUNCH_ANNOTATION: request.launch_id,
    }
    spec = pod.setdefault("spec", {})
    _fill_spec(spec, settings, is_spot=request.is_spot)
    container = _container(spec)
    _fill_container(container, settings, request, command)
    variables = _variables(settings, metadata["name"], request, environment)
    named = {variable["name"] for variable in variables}
    container["env"] = [item for item in container.get("env") or [] if item["name"] not in named] + variables
    if not container.get("image"):
        raise BadTemplate(
            "no image is named for the workers; set kubernetes.image, or one in kubernetes.pod_template"
        )
    return pod


def job_manifest(settings: KubernetesSettings, pod: Json) -> Json:
    """A job of that one pod, which is not tried again: the resource manager decides what replaces it."""
    metadata = pod["metadata"]
    shared = {key: dict(metadata[key]) for key in ("labels", "annotations")}
    return {
        "metadata": {"name": metadata["name"], **shared},
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": settings.job_ttl_seconds,
            "template": {"metadata": copy.deepcopy(shared), "spec": pod["spec"]},
        },
    }


def secret_manifest(owner: Owner, request: LaunchRequest, thing: Json, values: Mapping[str, str]) -> Json:
    """What a launch must not show, gone with `thing`, its pod or job as created."""
    metadata = thing["metadata"]
    return {
        "metadata": {
            "name": secret_name(metadata["name"]),
            "labels": {**owner.labels(), LAUNCH_LABEL: label_value(request.launch_id)},
            "annotations": {LAUNCH_ANNOTATION: request.launch_id},
            "ownerReferences": [
                {
                    "apiVersion": thing["apiVersion"],
                    "kind": thing["kind"],
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                }
            ],
        },
        "immutable": True,
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
    }


def secret_name(name: str) -> str:
    """The secret of the pod or job of that name."""
    return f"{name}-join"


def secret_values(environment: Mapping[str, str]) -> dict[str, str]:
    """What of the environment goes by a secret."""
    return {key: value for key, value in environment.items() if key in SECRET_VARIABLES}


def parse_tolerations(given: Mapping[str, str]) -> list[Json]:
    """Settings' tolerations as the API takes them. Raises BadTemplate."""
    return [_toleration(key, text) for key, text in given.items()]


def _toleration(key: str, text: str) -> Json:
    value, _, effect = text.rpartition(":")
    if effect not in ("", "NoSchedule", "PreferNoSchedule", "NoExecute"):
        raise BadTemplate(
            f'the toleration {key} = "{text}" has no effect that is known; write "VALUE:NoSchedule", '
            '":NoExecute" for any value, or ":" for any of both'
        )
    made: Json = {"key": key, "operator": "Equal" if value else "Exists"}
    if value:
        made["value"] = value
    if effect:
        made["effect"] = effect
    return made


def _fill_spec(spec: Json, settings: KubernetesSettings, *, is_spot: bool) -> None:
    spec["restartPolicy"] = "Never"
    spec["terminationGracePeriodSeconds"] = round(settings.termination_grace_seconds)
    spec.setdefault("enableServiceLinks", False)
    selector = {**settings.node_selector, **(settings.spot_node_selector if is_spot else {})}
    if selector:
        spec["nodeSelector"] = {**(spec.get("nodeSelector") or {}), **selector}
    given = {**settings.tolerations, **(settings.spot_tolerations if is_spot else {})}
    if given:
        spec["tolerations"] = [*(spec.get("tolerations") or []), *parse_tolerations(given)]
    if settings.service_account:
        spec["serviceAccountName"] = settings.service_account
    elif "serviceAccountName" not in spec:
        # What a worker runs is its users' code: it gets no credentials of the cluster unasked.
        spec.setdefault("automountServiceAccountToken", False)
    if settings.priority_class:
        spec["priorityClassName"] = settings.priority_class
    if settings.image_pull_secret:
        spec["imagePullSecrets"] = [
            *(spec.get("imagePullSecrets") or []),
            {"name": settings.image_pull_secret},
        ]


def _container(spec: Json) -> Json:
    """The worker's container: the one of that name in the template, else a new one, first in line."""
    containers: list[Json] = spec.setdefault("containers", [])
    for container in containers:
        if container.get("name") == CONTAINER:
            return container
    made: Json = {"name": CONTAINER}
    containers.insert(0, made)
    return made


def _fill_container(
    container: Json, settings: KubernetesSettings, request: LaunchRequest, command: Sequence[str]
) -> None:
    container["command"] = list(command)
    container["terminationMessagePolicy"] = "FallbackToLogsOnError"
    if settings.image:
        container["image"] = settings.image
    if settings.image_pull_policy:
        container["imagePullPolicy"] = settings.image_pull_policy
    resources = container.setdefault("resources", {})
    usual, asked = _usual_resources(settings), _asked_resources(settings, request)
    for name in ("requests", "limits"):
        resources[name] = {**usual[name], **(resources.get(name) or {}), **asked[name]}


def _usual_resources(settings: KubernetesSettings) -> dict[str, Json]:
    """What holds where neither the template nor the pool names any."""
    cpus = {"cpu": _cpus(settings.cpus)} if settings.cpus else {}
    memory = {"memory": settings.memory} if settings.memory else {}
    return {"requests": {**cpus, **memory}, "limits": memory}


def _asked_resources(settings: KubernetesSettings, request: LaunchRequest) -> dict[str, Json]:
    """What the pool needs. Memory is asked for and the limit: what is above it can be taken at any time."""
    cpus = {"cpu": _cpus(request.cpus)} if request.cpus else {}
    limits: Json = {}
    if request.memory_bytes:
        limits["memory"] = _quantity(request.memory_bytes)
    if request.gpus:
        limits[settings.gpu_resource] = str(request.gpus)
    return {"requests": {**cpus, **limits}, "limits": limits}


def _cpus(number: float) -> str:
    return f"{round(number * 1000)}m"


def _quantity(number: int) -> str:
    """A number of bytes as people write it, where it is a whole one."""
    for unit, size in (("Gi", 2**30), ("Mi", 2**20)):
        if number % size == 0:
            return f"{number // size}{unit}"
    return str(number)


def _variables(
    settings: KubernetesSettings, name: str, request: LaunchRequest, environment: Mapping[str, str]
) -> list[Json]:
    plain = {**settings.environment, **environment, LAUNCH_VARIABLE: request.launch_id}
    secret = {key: (secret_name(name), key) for key in secret_values(environment)}
    for variable, reference in settings.secret_environment.items():
        holder, separator, key = reference.partition("/")
        if not separator or not holder or not key:
            raise BadTemplate(
                f'kubernetes.secret_environment has {variable} = "{reference}"; write "SECRET/KEY"'
            )
        secret.setdefault(variable, (holder, key))
    shown = [{"name": key, "value": plain[key]} for key in sorted(plain) if key not in secret]
    hidden = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": holder, "key": key}}}
        for variable, (holder, key) in sorted(secret.items())
    ]
    return shown + hidden


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
