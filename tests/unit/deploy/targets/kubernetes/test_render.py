"""The rendered objects: settings are filled in, and other values of the templates stay."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deploy.clients.kubernetes.protocol import Object
from deploy.errors import SettingsInvalid
from deploy.records import Attempt
from deploy.settings.app import App
from deploy.targets.kubernetes.render import (
    CHANGE_CAUSE,
    COMPONENT_LABEL,
    IMAGE_LABEL,
    RELEASE_ANNOTATION,
    TRACK_LABEL,
    TRACKS,
    VERSION_LABEL,
    Rendering,
    Track,
)
from deploy.targets.kubernetes.yaml_text import to_yaml
from tests.fakes.releases import attempt, release
from tests.fakes.renderings import (
    ALL_SETTINGS,
    APP,
    all_objects,
    app_container,
    edit_templates,
    pod_spec,
    rendering,
)

A = release("a")
B = release("b")


def deployment(rendered: Rendering, track: Track = "main", replicas: int | None = 2) -> Object:
    """Return a Deployment of release A."""
    return rendered.deployment(A, track, replicas, None, 600)


def is_selected(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """Return whether a selector selects an object with those labels."""
    return selector.items() <= labels.items()


# --- names


def test_objects_are_named_for_application_and_environment() -> None:
    """The two tracks and the pre-pull have different names."""
    rendered = rendering()
    assert (rendered.name, rendered.deployment_name("main"), rendered.deployment_name("twin")) == (
        "classifier-staging",
        "classifier-staging",
        "classifier-staging-twin",
    )
    assert (
        rendered.prepull(A)["metadata"]["name"]
        == rendered.prepull_name
        == "classifier-staging-warm-up"
    )
    assert deployment(rendered, "twin")["metadata"]["name"] == "classifier-staging-twin"


@pytest.mark.parametrize(
    ("app", "environment", "name"),
    [
        ("my_app", "eu.west", "my-app-eu-west"),
        ("3d", "staging", "app-3d-staging"),
        ("a" * 41, "b" * 8, f"{'a' * 41}-{'b' * 8}"),
    ],
)
def test_names_become_dns_labels(app: str, environment: str, name: str) -> None:
    """The name of a Service has letters, digits and hyphens, and starts with a letter."""
    assert rendering(name=environment, app=App(name=app)).name == name


def test_names_that_are_too_long_together_are_refused() -> None:
    """The error comes before anything is created, and says what to do."""
    with pytest.raises(SettingsInvalid, match="51 characters, at most 50") as caught:
        rendering(name="b" * 9, app=App(name="a" * 41))
    assert caught.value.next == "choose a shorter name for the environment"


def test_every_object_is_in_the_namespace_and_can_be_found() -> None:
    """Its labels name the application, the environment and the manager."""
    rendered = rendering(**ALL_SETTINGS)
    for item in all_objects(rendered, A):
        assert item["metadata"]["namespace"] == "models"
        assert item["metadata"]["labels"].items() >= {
            ("app.kubernetes.io/name", "classifier"),
            ("app.kubernetes.io/instance", "staging"),
            ("app.kubernetes.io/managed-by", "twinship"),
        }


# --- replicas


def test_the_image_digest_is_recorded_on_the_pods() -> None:
    """It is whole in an annotation, and shortened in a label."""
    item = deployment(rendering())
    template = item["spec"]["template"]["metadata"]
    assert app_container(item)["image"] == A.reference
    assert template["annotations"][IMAGE_LABEL] == A.image.digest
    assert template["labels"][IMAGE_LABEL] == A.image.digest.removeprefix("sha256:")[:32]


def test_a_track_selects_its_own_pods_of_any_release() -> None:
    """A selector is immutable, and the Deployments must not adopt each other's pods."""
    rendered = rendering()
    main = deployment(rendered)
    twin = deployment(rendered, "twin")
    later = rendered.deployment(B, "main", 2, None, 600)
    own = main["spec"]["selector"]["matchLabels"]
    assert own == later["spec"]["selector"]["matchLabels"]
    assert is_selected(own, later["spec"]["template"]["metadata"]["labels"])
    assert not is_selected(own, twin["spec"]["template"]["metadata"]["labels"])
    assert main["metadata"]["labels"][TRACK_LABEL] == "main"
    assert is_selected(rendered.labels, twin["spec"]["template"]["metadata"]["labels"])


def test_spreading_counts_the_pods_of_the_same_track() -> None:
    """Standby replicas must not push serving ones onto one node."""
    for track in TRACKS:
        item = deployment(rendering(), track)
        spread = pod_spec(item)["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"]
        assert spread == item["spec"]["selector"]["matchLabels"]


def test_the_number_of_replicas_may_be_left_to_an_autoscaler() -> None:
    """A field that is not sent stays with its owner."""
    assert deployment(rendering(), replicas=3)["spec"]["replicas"] == 3
    assert deployment(rendering(), replicas=0)["spec"]["replicas"] == 0
    assert "replicas" not in deployment(rendering(), replicas=None)["spec"]


def test_the_attempt_is_recorded_on_the_deployment() -> None:
    """It is complete, and one line of it is for `kubectl rollout history`."""
    first = attempt(7, A)
    found = rendering().deployment(A, "main", 2, first, 600)["metadata"]["annotations"]
    assert Attempt.from_json(found[RELEASE_ANNOTATION]) == first
    assert "\n" not in found[RELEASE_ANNOTATION]
    assert found[CHANGE_CAUSE] == f"release 7: commit {A.image.app.commit} with digits@1, by ada"


def test_the_change_cause_names_a_rollback_and_the_ci_run() -> None:
    """A reader of the history can find the run."""
    back = attempt(8, A, "rollback").model_copy(update={"run": "https://ci.example/runs/5"})
    cause = rendering().deployment(A, "main", 2, back, 600)["metadata"]["annotations"][CHANGE_CAUSE]
    assert cause.startswith("rollback 8: ")
    assert cause.endswith(", by ada, https://ci.example/runs/5")


def test_applying_a_release_again_starts_no_pods() -> None:
    """Attempt, number and deadline do not change the pod template; another release does."""
    rendered = rendering()
    first = rendered.deployment(A, "main", 2, attempt(1, A), 600)["spec"]["template"]
    assert (
        rendered.deployment(A, "main", 5, attempt(2, A, "rollback"), 30)["spec"]["template"]
        == first
    )
    assert rendered.deployment(A, "main", None, None, 600)["spec"]["template"] == first
    assert rendered.deployment(B, "main", 2, attempt(1, A), 600)["spec"]["template"] != first


def test_the_same_input_gives_the_same_objects() -> None:
    """One rendering has no effect on another."""
    rendered = rendering(**ALL_SETTINGS)
    before = deepcopy(rendered.object_templates)
    first = all_objects(rendered, A, attempt(1, A))
    assert {item["kind"] for item in first} == set(rendered.object_templates)
    for item in first:
        item["metadata"].clear()
        item.get("spec", {}).clear()
    assert rendered.object_templates == before
    assert all_objects(rendered, B) == all_objects(rendering(**ALL_SETTINGS), B)


def test_settings_are_set_in_the_container() -> None:
    """They are its port, its ready path and its resources."""
    item = deployment(rendering(resources={"cpu": "1500m", "memory": "2Gi", "cpu_limit": "4"}))
    found = app_container(item)
    assert found["ports"] == [{"name": "http", "containerPort": 9000, "protocol": "TCP"}]
    assert (
        found["startupProbe"]["httpGet"]
        == found["readinessProbe"]["httpGet"]
        == {"path": "/ready", "port": "http"}
    )
    assert found["resources"] == {
        "requests": {"cpu": "1500m", "memory": "2Gi"},
        "limits": {"cpu": "4", "memory": "2Gi"},
    }


def test_the_storage_of_a_replica_is_that_of_the_settings() -> None:
    """It is requested and limited; by default it is not, because some nodes report none."""
    resources = app_container(deployment(rendering(resources={"ephemeral_storage": "3Gi"})))[
        "resources"
    ]
    assert resources["requests"]["ephemeral-storage"] == "3Gi"
    assert resources["limits"]["ephemeral-storage"] == "3Gi"


def test_a_replica_may_have_no_limit_of_cpu() -> None:
    """It can use what is free on its node; the request stays."""
    resources = app_container(deployment(rendering(resources={"cpu_limit": ""})))["resources"]
    assert resources["requests"]["cpu"] == "250m"
    assert resources["limits"].keys() == {"memory"}


def test_replicas_have_the_priority_class_of_the_settings() -> None:
    """Without one it is the cluster's default; the pre-pull must not displace other pods."""
    rendered = rendering(priority_class="serving")
    assert pod_spec(deployment(rendered))["priorityClassName"] == "serving"
    assert "priorityClassName" not in pod_spec(rendered.prepull(A))
    assert "priorityClassName" not in pod_spec(deployment(rendering()))


def test_replicas_are_spread_over_the_topology_keys_of_the_settings(tmp_path: Path) -> None:
    """A key that the template has already is not repeated."""
    zone = "topology.kubernetes.io/zone"
    item = deployment(rendering(topology_keys=[zone, "kubernetes.io/hostname", zone]))
    spreads = pod_spec(item)["topologySpreadConstraints"]
    assert [spread["topologyKey"] for spread in spreads] == ["kubernetes.io/hostname", zone]
    for spread in spreads:
        assert spread["labelSelector"]["matchLabels"] == item["spec"]["selector"]["matchLabels"]
        assert spread["matchLabelKeys"] == ["pod-template-hash"]
        assert (spread["maxSkew"], spread["whenUnsatisfiable"]) == (1, "ScheduleAnyway")
    folder = edit_templates(
        tmp_path, "deployment.yaml", spec__template__spec__topologySpreadConstraints=None
    )
    assert "topologySpreadConstraints" not in pod_spec(deployment(rendering(folder)))


@pytest.mark.parametrize(("of_settings", "of_template", "used"), [(0, 0, 0), (0, 7, 7), (9, 7, 9)])
def test_a_replica_is_available_after_some_time_of_being_ready(
    tmp_path: Path, of_settings: int, of_template: int, used: int
) -> None:
    """It is the time in the settings, or else that of the template."""
    folder = edit_templates(tmp_path, "deployment.yaml", spec__minReadySeconds=of_template)
    rendered = rendering(folder, min_ready_seconds=of_settings)
    assert rendered.min_ready_seconds == used
    assert deployment(rendered)["spec"].get("minReadySeconds", 0) == used


def test_replicas_have_the_labels_of_version_and_component() -> None:
    """Common tools show them; no selector has them, because they change."""
    rendered = rendering()
    item = deployment(rendered)
    for metadata in (item["metadata"], item["spec"]["template"]["metadata"]):
        assert metadata["labels"][VERSION_LABEL] == str(A.image.app.commit)
        assert metadata["labels"][COMPONENT_LABEL] == "server"
    selector = item["spec"]["selector"]["matchLabels"]
    assert not {VERSION_LABEL, COMPONENT_LABEL} & selector.keys()
    pods = rendered.prepull(A)["spec"]["template"]["metadata"]
    assert pods["labels"][COMPONENT_LABEL] == "pre-pull"


def test_the_liveness_probe_only_opens_a_connection() -> None:
    """A busy replica must not be restarted."""
    assert app_container(deployment(rendering()))["livenessProbe"].keys() >= {"tcpSocket"}
    assert "httpGet" not in app_container(deployment(rendering()))["livenessProbe"]


@pytest.mark.parametrize(
    ("ready_within_seconds", "period", "threshold"),
    [(60.0, 1, 125), (0.4, 1, 6), (61.5, 5, 30), (90.0, 0, 23)],
)
def test_the_startup_probe_fails_later_than_the_rollout(
    tmp_path: Path, ready_within_seconds: float, period: int, threshold: int
) -> None:
    """It allows twice `ready_within` and more, so that the rollout fails first, with a reason."""
    folder = edit_templates(
        tmp_path,
        "deployment.yaml",
        spec__template__spec__containers__0__startupProbe__periodSeconds=period,
    )
    assert (
        app_container(deployment(rendering(folder, ready_within=ready_within_seconds)))[
            "startupProbe"
        ]["failureThreshold"]
        == threshold
    )


@pytest.mark.parametrize(
    ("pre_stop", "delay"),
    [
        ({"exec": {"command": ["sleep", "5"]}}, 5),
        ({"exec": {"command": ["sleep", "12"]}}, 12),
        ({"sleep": {"seconds": 7}}, 7),
        ({"exec": {"command": ["/bin/leave", "now"]}}, 0),
        ({"exec": {"command": ["sleep", "a while"]}}, 0),
        ({"exec": {"command": ["sleep"]}}, 0),
        ({}, 0),
    ],
)
def test_requests_in_flight_get_their_time_after_the_pre_stop_delay(
    tmp_path: Path, pre_stop: Object, delay: int
) -> None:
    """The grace period is `drain_within` in whole seconds plus the delay."""
    folder = edit_templates(
        tmp_path,
        "deployment.yaml",
        spec__template__spec__containers__0__lifecycle__preStop=pre_stop,
    )
    assert (
        pod_spec(deployment(rendering(folder, drain_within=20.5)))["terminationGracePeriodSeconds"]
        == 21 + delay
    )


def test_the_deadline_is_set() -> None:
    """After it the cluster reports the rollout as failed."""
    assert rendering().deployment(A, "main", 2, None, 123)["spec"]["progressDeadlineSeconds"] == 123


def test_a_pull_secret_is_named_if_there_is_one() -> None:
    """The replicas and the pre-pull use the same image."""
    with_secret = rendering(pull_secret="login")
    without = rendering()
    for rendered in (deployment(with_secret), with_secret.prepull(A)):
        assert pod_spec(rendered)["imagePullSecrets"] == [{"name": "login"}]
    for rendered in (deployment(without), without.prepull(A)):
        assert "imagePullSecrets" not in pod_spec(rendered)


# --- the other objects


def test_the_service_selects_the_stable_track_or_both() -> None:
    """Its annotation names the stable track."""
    rendered = rendering()
    pods = {
        track: deployment(rendered, track)["spec"]["template"]["metadata"]["labels"]
        for track in TRACKS
    }
    for track in TRACKS:
        one = rendered.service(track, both=False)
        both = rendered.service(track, both=True)
        assert [found for found in TRACKS if is_selected(one["spec"]["selector"], pods[found])] == [
            track
        ]
        assert all(is_selected(both["spec"]["selector"], pods[found]) for found in TRACKS)
        assert (
            one["metadata"]["annotations"][TRACK_LABEL]
            == both["metadata"]["annotations"][TRACK_LABEL]
            == track
        )


def test_the_service_finds_the_container_by_the_name_of_its_port() -> None:
    """The Service has port 80 for any port of the application."""
    rendered = rendering()
    port = rendered.service("main", both=False)["spec"]["ports"][0]
    assert (rendered.port, port["port"], port["targetPort"]) == (80, 80, "http")
    assert [one["name"] for one in app_container(deployment(rendered))["ports"]] == ["http"]


def test_the_service_has_the_type_and_dns_label_of_the_settings() -> None:
    """AKS reads the label from an annotation; without a label there is none."""
    plain = rendering().service("main", both=False)
    balanced = rendering(service="LoadBalancer", dns_label="cat").service("main", both=False)
    assert plain["spec"]["type"] == "ClusterIP"
    assert list(plain["metadata"]["annotations"]) == [TRACK_LABEL]
    assert balanced["spec"]["type"] == "LoadBalancer"
    assert (
        balanced["metadata"]["annotations"]["service.beta.kubernetes.io/azure-dns-label-name"]
        == "cat"
    )


def test_an_ingress_is_rendered_for_a_host() -> None:
    """It has a class and a certificate only if the settings name them."""
    found = rendering(host="a.example").ingress()
    assert found is not None
    assert found["spec"].keys() == {"rules"}
    assert found["spec"]["rules"][0]["host"] == "a.example"
    assert found["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"] == {
        "name": "classifier-staging",
        "port": {"name": "http"},
    }
    whole = rendering(host="a.example", ingress_class="nginx", tls_secret="cert").ingress()
    assert whole is not None
    assert whole["spec"]["ingressClassName"] == "nginx"
    assert whole["spec"]["tls"] == [{"hosts": ["a.example"], "secretName": "cert"}]
    assert rendering().ingress() is None


@pytest.mark.parametrize("track", TRACKS)
def test_an_autoscaler_is_rendered_from_its_table(track: Track) -> None:
    """It scales the stable track between `replicas` and `at_most`."""
    rendered = rendering(replicas=3, autoscale={"at_most": 9, "cpu": 60})
    found = rendered.autoscaler(track)
    assert found is not None
    assert (found["spec"]["minReplicas"], found["spec"]["maxReplicas"]) == (3, 9)
    assert (
        found["spec"]["scaleTargetRef"]["name"] == deployment(rendered, track)["metadata"]["name"]
    )
    assert found["spec"]["metrics"][0]["resource"]["target"] == {
        "type": "Utilization",
        "averageUtilization": 60,
    }
    assert rendering().autoscaler(track) is None


def test_one_replica_may_be_evicted_at_a_time() -> None:
    """Both tracks count together, and the pods of the pre-pull do not count."""
    rendered = rendering()
    spec = rendered.disruption_budget()["spec"]
    assert spec["maxUnavailable"] == 1
    # A replica that is not ready must not block the drain of a node.
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert all(
        is_selected(
            spec["selector"]["matchLabels"],
            deployment(rendered, track)["spec"]["template"]["metadata"]["labels"],
        )
        for track in TRACKS
    )


def test_replicas_have_no_permissions() -> None:
    """They have an account of their own, and no token."""
    rendered = rendering()
    pod = pod_spec(deployment(rendered))
    assert (
        pod["serviceAccountName"]
        == rendered.service_account()["metadata"]["name"]
        == "classifier-staging"
    )
    assert rendered.service_account()["automountServiceAccountToken"] is False
    assert pod["automountServiceAccountToken"] is False


def test_the_prepull_uses_the_image_and_gets_no_requests() -> None:
    """Its pods only sleep, and no selector of replicas selects them."""
    rendered = rendering()
    item = rendered.prepull(A)
    labels = item["spec"]["template"]["metadata"]["labels"]
    assert app_container(item)["image"] == A.reference
    assert app_container(item)["command"] == ["sleep", "infinity"]
    assert is_selected(item["spec"]["selector"]["matchLabels"], labels)
    assert not is_selected(rendered.labels, labels)
    assert not is_selected(
        item["spec"]["selector"]["matchLabels"],
        rendering(name="other").prepull(A)["spec"]["template"]["metadata"]["labels"],
    )


def test_the_prepull_runs_where_replicas_may_run(tmp_path: Path) -> None:
    """It copies node affinity and tolerations, but no pod anti-affinity."""
    nodes: dict[str, Any] = {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": []}]
        }
    }
    taints = [{"key": "gpu", "operator": "Exists"}]
    folder = edit_templates(
        tmp_path,
        "deployment.yaml",
        spec__template__spec__nodeSelector={"pool": "gpu"},
        spec__template__spec__tolerations=taints,
        spec__template__spec__affinity={"nodeAffinity": nodes, "podAntiAffinity": {}},
        spec__template__spec__imagePullSecrets=[{"name": "mine"}],
    )
    pod = pod_spec(rendering(folder).prepull(A))
    assert (pod["nodeSelector"], pod["tolerations"], pod["affinity"]) == (
        {"pool": "gpu"},
        taints,
        {"nodeAffinity": nodes},
    )
    assert pod["imagePullSecrets"] == [{"name": "mine"}]
    assert "affinity" not in pod_spec(rendering().prepull(A))


# --- a user's own templates


def test_additions_to_a_template_stay(tmp_path: Path) -> None:
    """They may be containers, variables, labels, limits and strategies."""
    folder = edit_templates(
        tmp_path,
        "deployment.yaml",
        metadata__annotations={"team": "vision"},
        spec__strategy={"type": "Recreate"},
        spec__template__metadata__labels={"team": "vision"},
        spec__template__spec__priorityClassName="high",
        spec__template__spec__containers__0__env=[{"name": "APP_THREADS", "value": "4"}],
        spec__template__spec__containers__0__resources={"limits": {"nvidia.com/gpu": "1"}},
        spec__template__spec__containers__0__ports=[{"name": "metrics", "containerPort": 9100}],
    )
    item = rendering(folder).deployment(A, "main", 2, attempt(1, A), 600)
    found = app_container(item)
    assert item["metadata"]["annotations"].keys() == {"team", RELEASE_ANNOTATION, CHANGE_CAUSE}
    assert item["spec"]["strategy"] == {"type": "Recreate"}
    assert item["spec"]["template"]["metadata"]["labels"].items() >= {
        ("team", "vision"),
        (TRACK_LABEL, "main"),
    }
    assert pod_spec(item)["priorityClassName"] == "high"
    assert found["env"] == [{"name": "APP_THREADS", "value": "4"}]
    assert found["resources"]["limits"] == {"nvidia.com/gpu": "1", "cpu": "2", "memory": "512Mi"}
    assert found["ports"] == [
        {"name": "metrics", "containerPort": 9100},
        {"name": "http", "protocol": "TCP", "containerPort": 9000},
    ]


def test_the_container_of_the_application_is_the_one_named_app(tmp_path: Path) -> None:
    """The other containers do not change."""
    other = {
        "name": "proxy",
        "image": "registry.example/proxy:1",
        "readinessProbe": {"httpGet": {"path": "/up", "port": 1}},
    }
    ours = app_container(deployment(rendering()))
    folder = edit_templates(
        tmp_path, "deployment.yaml", spec__template__spec__containers=[other, ours]
    )
    assert pod_spec(deployment(rendering(folder)))["containers"] == [other, ours]


def test_the_only_container_may_have_any_name(tmp_path: Path) -> None:
    """It is the one of the application."""
    folder = edit_templates(
        tmp_path, "deployment.yaml", spec__template__spec__containers__0__name="server"
    )
    found = pod_spec(deployment(rendering(folder)))["containers"]
    assert [(one["name"], one["image"]) for one in found] == [("server", A.reference)]


def test_removed_parts_of_a_template_stay_out(tmp_path: Path) -> None:
    """Probes, spreading and delay are optional; a minimal Deployment is rendered too."""
    bare = [{"name": "app", "image": "x"}]
    folder = edit_templates(
        tmp_path,
        "deployment.yaml",
        spec={"template": {"spec": {"containers": bare}}},
        metadata=None,
    )
    edit_templates(tmp_path, "service.yaml", spec={"ports": [{"port": 80}]}, metadata={})
    edit_templates(tmp_path, "disruption.yaml", spec=None)
    edit_templates(tmp_path, "autoscaler.yaml", spec={"metrics": None})
    rendered = rendering(folder, autoscale={"at_most": 3})
    item = deployment(rendered)
    assert app_container(item).keys() == {"name", "image", "ports", "resources"}
    assert pod_spec(item).keys() == {
        "containers",
        "serviceAccountName",
        "terminationGracePeriodSeconds",
    }
    assert is_selected(rendered.labels, item["spec"]["selector"]["matchLabels"])
    assert rendered.service("main", both=False)["metadata"]["name"] == "classifier-staging"
    assert rendered.disruption_budget()["spec"] == {"selector": {"matchLabels": rendered.labels}}
    scaler = rendered.autoscaler("main")
    assert scaler is not None
    assert "metrics" not in scaler["spec"]


def test_another_account_of_a_template_stays(tmp_path: Path) -> None:
    """It may be a cloud identity."""
    folder = edit_templates(
        tmp_path, "deployment.yaml", spec__template__spec__serviceAccountName="cloud-identity"
    )
    assert pod_spec(deployment(rendering(folder)))["serviceAccountName"] == "cloud-identity"
    edit_templates(tmp_path, "account.yaml", metadata__name="cloud-identity")
    assert pod_spec(deployment(rendering(folder)))["serviceAccountName"] == "classifier-staging"


def test_pull_secrets_of_a_template_stay(tmp_path: Path) -> None:
    """Another container may need another login; no secret is named twice."""
    folder = edit_templates(
        tmp_path, "deployment.yaml", spec__template__spec__imagePullSecrets=[{"name": "mine"}]
    )
    assert pod_spec(deployment(rendering(folder)))["imagePullSecrets"] == [{"name": "mine"}]
    assert pod_spec(deployment(rendering(folder, pull_secret="mine")))["imagePullSecrets"] == [
        {"name": "mine"}
    ]
    assert pod_spec(deployment(rendering(folder, pull_secret="login")))["imagePullSecrets"] == [
        {"name": "mine"},
        {"name": "login"},
    ]


def test_other_backends_of_an_ingress_stay(tmp_path: Path) -> None:
    """Only references to the Service of the folder follow its name."""
    backends: list[dict[str, Any]] = [
        {"service": {"name": "app", "port": {"number": 80}}},
        {"service": {"name": "shop"}},
        {"resource": {}},
    ]
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend} for backend in backends]
    rules = [
        {"host": "x", "http": {"paths": paths}},
        {"host": "www.example", "http": {"paths": paths}},
        {"host": "bare.example"},
    ]
    folder = edit_templates(
        tmp_path, "ingress.yaml", spec={"rules": rules, "defaultBackend": backends[0]}
    )
    found = rendering(folder, host="a.example").ingress()
    assert found is not None
    spec = found["spec"]
    assert [rule["host"] for rule in spec["rules"]] == ["a.example", "www.example", "bare.example"]
    for rule in spec["rules"][:2]:
        named = [path["backend"].get("service", {}).get("name") for path in rule["http"]["paths"]]
        assert named == ["classifier-staging", "shop", None]
    assert spec["defaultBackend"]["service"]["name"] == "classifier-staging"


def test_other_metrics_of_an_autoscaler_stay(tmp_path: Path) -> None:
    """The settings set only the one of CPU."""
    cpu = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "1"}},
    }
    memory = {
        "type": "Resource",
        "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 90}},
    }
    queue = {"type": "External", "external": {"metric": {"name": "queue"}}}
    folder = edit_templates(tmp_path, "autoscaler.yaml", spec__metrics=[queue, memory, cpu])
    found = rendering(folder, autoscale={"at_most": 3, "cpu": 50}).autoscaler("main")
    assert found is not None
    kept = found["spec"]["metrics"]
    assert kept[:2] == [queue, memory]
    assert kept[2]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 50}


def test_the_service_may_have_other_ports(tmp_path: Path) -> None:
    """The port named `http` is that of the application, else the first."""
    folder = edit_templates(
        tmp_path,
        "service.yaml",
        spec__ports=[{"name": "metrics", "port": 9100}, {"name": "http", "port": 8000}],
    )
    assert rendering(folder).port == 8000
    edit_templates(
        tmp_path,
        "service.yaml",
        spec__ports=[{"name": "web", "port": 81}, {"name": "metrics", "port": 9100}],
    )
    assert rendering(folder).port == 81


def test_a_services_own_selector_can_select_both_tracks(tmp_path: Path) -> None:
    """Its template may name any track."""
    folder = edit_templates(
        tmp_path, "service.yaml", spec__selector={"team": "vision", TRACK_LABEL: "twin"}
    )
    rendered = rendering(folder)
    assert rendered.service("main", both=False)["spec"]["selector"] == {
        "team": "vision",
        **rendered.labels,
        TRACK_LABEL: "main",
    }
    assert rendered.service("main", both=True)["spec"]["selector"] == {
        "team": "vision",
        **rendered.labels,
    }


def test_yaml_anchors_share_no_value(tmp_path: Path) -> None:
    """A label that is set on the pods must not appear in a selector with the same anchor."""
    folder = edit_templates(tmp_path)
    text = (folder / "deployment.yaml").read_text(encoding="utf-8")
    lines = (
        "app.kubernetes.io/name: app",
        "app.kubernetes.io/instance: example",
        "twinship.dev/side: main\n",
    )
    labels = "\n      ".join(lines)
    anchored = text.replace(
        f"matchLabels:\n      {labels}", f"matchLabels: &labels\n      {labels}", 1
    )
    indented = labels.replace("\n      ", "\n        ")
    anchored = anchored.replace(f"labels:\n        {indented}", "labels: *labels\n", 1)
    assert anchored.count("labels") > text.count("&labels") + 1
    assert "labels: *labels" in anchored
    (folder / "deployment.yaml").write_text(anchored, encoding="utf-8")
    assert deployment(rendering(folder)) == deployment(rendering())


# --- as YAML


def test_the_yaml_has_the_rendered_objects() -> None:
    """Each object is a document, with the keys in the template's order and without references."""
    rendered = rendering(**ALL_SETTINGS)
    objects = all_objects(rendered, A, attempt(1, A))
    text = to_yaml(objects)
    assert list(yaml.safe_load_all(text)) == objects
    assert text.count("\n---\n") + 1 == len(objects)
    assert "&id" not in text
    assert [list(item) for item in yaml.safe_load_all(text)] == [list(item) for item in objects]
    assert text.startswith("---\napiVersion: v1\nkind: ServiceAccount\n")


def test_a_repeated_value_is_written_twice() -> None:
    """Not every reader of the YAML supports references."""
    shared = {"team": "vision"}
    assert (
        to_yaml([{"one": shared, "two": shared}])
        == "---\none:\n  team: vision\ntwo:\n  team: vision\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "1e3",
        "0o14",
        "12e45678",
        "y",
        "N",
        "0x1f",
        "+1",
        ".5",
        "1_000",
        "12:30",
        "2026-01-01",
        "yes",
        "null",
        "~",
        "",
    ],
)
def test_ambiguous_text_is_quoted(text: str) -> None:
    """Kubectl reads a label of digits and an `e` as a number, which is no label."""
    assert to_yaml([{"key": text}]).splitlines()[1] in (f'key: "{text}"', f"key: '{text}'")


@given(st.text())
def test_any_text_survives_yaml(text: str) -> None:
    """Names and messages may have any characters."""
    assert yaml.safe_load(to_yaml([{"key": text}])) == {"key": text}


def test_the_tests_application_differs_from_the_placeholders() -> None:
    """So a setting that is not filled in is detected."""
    assert (APP.port, APP.ready) not in ((8080, "/ready"), (9000, "/readyz"))
