"""The pods, jobs and names that a Kubernetes provider asks for."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtf.adapters.kubernetes_objects import (
    BadTemplate,
    Json,
    Owner,
    job_manifest,
    label_value,
    object_name,
    parse_tolerations,
    pod_manifest,
)
from dtf.ports.capacity import LaunchRequest
from dtf.settings.providers import KubernetesSettings

OWNER = Owner("ours", "default", "local")
IDENTITIES = st.text("abcXYZ019-_.", min_size=1, max_size=90)


def pod_with(
    settings: KubernetesSettings, template: Json | None = None, environment: Any = None, **needs: Any
) -> Json:
    """The pod of one launch."""
    request = LaunchRequest("local-1", "local", **needs)
    return pod_manifest(settings, OWNER, request, ["dtf", "worker"], environment or {}, template or {})


@given(IDENTITIES)
def test_every_identity_gives_a_name_that_the_api_takes(launch_id: str) -> None:
    name = object_name(launch_id)
    assert len(name) <= 63
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
    label = label_value(launch_id)
    assert len(label) <= 63
    assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", label)


@given(IDENTITIES, IDENTITIES)
def test_different_identities_have_different_names(one: str, other: str) -> None:
    assert (object_name(one) == object_name(other)) == (one == other)


def test_an_identity_that_is_a_name_keeps_it() -> None:
    assert object_name("local-17") == "local-17"


def test_the_pool_decides_then_the_template_then_the_settings() -> None:
    template = {"spec": {"containers": [{"name": "worker", "resources": {"requests": {"cpu": "3"}}}]}}
    settings = KubernetesSettings(image="worker:1", cpus=1, memory="2Gi")
    plain = pod_with(settings)["spec"]["containers"][0]["resources"]
    assert plain == {"requests": {"cpu": "1000m", "memory": "2Gi"}, "limits": {"memory": "2Gi"}}
    templated = pod_with(settings, template)["spec"]["containers"][0]["resources"]
    assert templated["requests"] == {"cpu": "3", "memory": "2Gi"}
    asked = pod_with(settings, template, cpus=0.25, memory_bytes=1000, gpus=2)
    assert asked["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "250m", "memory": "1000", "nvidia.com/gpu": "2"},
        "limits": {"memory": "1000", "nvidia.com/gpu": "2"},
    }


def test_a_template_keeps_what_dtf_has_no_say_in() -> None:
    template = {
        "metadata": {"labels": {"team": "green"}, "annotations": {"note": "kept"}},
        "spec": {
            "restartPolicy": "Always",
            "automountServiceAccountToken": True,
            "containers": [
                {"name": "proxy", "image": "proxy:1"},
                {"name": "worker", "image": "worker:2", "env": [{"name": "A", "value": "template"}]},
            ],
        },
    }
    pod = pod_with(KubernetesSettings(environment={"A": "settings"}), template)
    assert pod["metadata"]["labels"]["team"] == "green"
    assert pod["metadata"]["annotations"]["note"] == "kept"
    assert [container["name"] for container in pod["spec"]["containers"]] == ["proxy", "worker"]
    worker = pod["spec"]["containers"][1]
    assert worker["image"] == "worker:2"
    assert [item for item in worker["env"] if item["name"] == "A"] == [{"name": "A", "value": "settings"}]
    assert (pod["spec"]["restartPolicy"], pod["spec"]["automountServiceAccountToken"]) == ("Never", True)
    assert template["spec"]["restartPolicy"] == "Always"  # type: ignore[index]


def test_no_credentials_of_the_cluster_unless_an_account_is_named() -> None:
    settings = KubernetesSettings(image="worker:1")
    assert pod_with(settings)["spec"]["automountServiceAccountToken"] is False
    named = pod_with(KubernetesSettings(image="worker:1", service_account="tests"))["spec"]
    assert (named["serviceAccountName"], "automountServiceAccountToken" in named) == ("tests", False)


def test_a_join_token_is_a_reference_and_never_a_value() -> None:
    pod = pod_with(KubernetesSettings(image="worker:1"), environment={"DTF_JOIN_TOKEN": "s3cret", "B": "b"})
    assert "s3cret" not in str(pod)
    variables = {item["name"]: item for item in pod["spec"]["containers"][0]["env"]}
    assert variables["DTF_JOIN_TOKEN"]["valueFrom"]["secretKeyRef"] == {
        "name": "local-1-join",
        "key": "DTF_JOIN_TOKEN",
    }
    assert variables["B"]["value"] == "b"


def test_spot_capacity_has_its_selector_and_tolerations() -> None:
    settings = KubernetesSettings(
        image="worker:1",
        node_selector={"zone": "a"},
        spot_node_selector={"capacity": "spot"},
        spot_tolerations={"spot": ":NoSchedule"},
    )
    assert pod_with(settings)["spec"]["nodeSelector"] == {"zone": "a"}
    spot = pod_with(settings, is_spot=True)["spec"]
    assert spot["nodeSelector"] == {"zone": "a", "capacity": "spot"}
    assert spot["tolerations"] == [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}]


def test_tolerations_are_read_as_they_are_written() -> None:
    assert parse_tolerations({"a": "b:NoExecute", "c": ":NoSchedule", "d": ":"}) == [
        {"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute"},
        {"key": "c", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "d", "operator": "Exists"},
    ]
    with pytest.raises(BadTemplate, match='toleration a = "b" has no effect that is known'):
        parse_tolerations({"a": "b"})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (KubernetesSettings(), "no image is named for the workers; set kubernetes.image"),
        (
            KubernetesSettings(image="worker:1", secret_environment={"A": "nothing"}),
            'A = "nothing"; write "SECRET/KEY"',
        ),
    ],
)
def test_settings_that_make_no_pod_say_what_to_write(settings: KubernetesSettings, said: str) -> None:
    with pytest.raises(BadTemplate, match=re.escape(said)):
        pod_with(settings)


def test_a_job_is_not_tried_again_and_its_pod_bears_the_same_labels() -> None:
    pod = pod_with(KubernetesSettings(image="worker:1", labels={"kueue.x-k8s.io/queue-name": "tests"}))
    job = job_manifest(KubernetesSettings(job_ttl_seconds=60), pod)
    assert (job["spec"]["backoffLimit"], job["spec"]["ttlSecondsAfterFinished"]) == (0, 60)
    assert job["metadata"]["labels"] == pod["metadata"]["labels"]
    assert job["spec"]["template"]["metadata"]["labels"]["dtf-launch-id"] == "local-1"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "tests"
