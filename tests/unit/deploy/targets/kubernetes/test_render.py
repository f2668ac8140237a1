"""The objects of a Kubernetes environment: what settings name is set, what a user wrote stays, and pods change only when they must."""

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
from deploy.settings.reading import App
from deploy.targets.kubernetes.render import (
    CHANGE_CAUSE,
    IMAGE_LABEL,
    RELEASE_ANNOTATION,
    TRACK_LABEL,
    TRACKS,
    Rendering,
    Track,
    as_yaml,
)
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


def deployment(made: Rendering, side: Track = "main", replicas: int | None = 2) -> Object:
    """A Deployment of release A."""
    return made.deployment(A, side, replicas, None, 600)


def selected(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """Whether an object of those labels is selected."""
    return selector.items() <= labels.items()


# --- names


def test_objects_are_named_for_application_and_environment() -> None:
    """The two sides and the warm-up are told apart."""
    made = rendering()
    assert (made.name, made.deployment_name("main"), made.deployment_name("twin")) == (
        "classifier-staging",
        "classifier-staging",
        "classifier-staging-twin",
    )
    assert made.prepull(A)["metadata"]["name"] == made.prepull_name == "classifier-staging-warm-up"
    assert deployment(made, "twin")["metadata"]["name"] == "classifier-staging-twin"


@pytest.mark.parametrize(
    ("app", "environment", "name"),
    [
        ("my_app", "eu.west", "my-app-eu-west"),
        ("3d", "staging", "app-3d-staging"),
        ("a" * 41, "b" * 8, f"{'a' * 41}-{'b' * 8}"),
    ],
)
def test_names_become_dns_labels(app: str, environment: str, name: str) -> None:
    """A Service's name has to be one: letters, digits and hyphens, with a letter first."""
    assert rendering(name=environment, app=App(name=app)).name == name


def test_names_that_are_too_long_together_are_refused() -> None:
    """Before anything is made on the cluster, and with what to do."""
    with pytest.raises(SettingsInvalid, match="51 characters, at most 50") as caught:
        rendering(name="b" * 9, app=App(name="a" * 41))
    assert caught.value.next == "choose a shorter name for the environment"


def test_every_object_is_in_the_namespace_and_can_be_found() -> None:
    """By the application, the environment and who made it."""
    made = rendering(**ALL_SETTINGS)
    for item in all_objects(made, A):
        assert item["metadata"]["namespace"] == "models"
        assert item["metadata"]["labels"].items() >= {
            ("app.kubernetes.io/name", "classifier"),
            ("app.kubernetes.io/instance", "staging"),
            ("app.kubernetes.io/managed-by", "twinship"),
        }


# --- replicas


def test_the_image_is_named_by_digest_and_told_on_the_pods() -> None:
    """Whole in an annotation, shortened to fit in a label."""
    item = deployment(rendering())
    template = item["spec"]["template"]["metadata"]
    assert app_container(item)["image"] == A.reference
    assert template["annotations"][IMAGE_LABEL] == A.image.digest
    assert template["labels"][IMAGE_LABEL] == A.image.digest.removeprefix("sha256:")[:32]


def test_a_side_selects_its_own_pods_of_any_release() -> None:
    """A selector cannot be changed later, and two Deployments must not take each other's pods."""
    made = rendering()
    main = deployment(made)
    twin = deployment(made, "twin")
    later = made.deployment(B, "main", 2, None, 600)
    own = main["spec"]["selector"]["matchLabels"]
    assert own == later["spec"]["selector"]["matchLabels"]
    assert selected(own, later["spec"]["template"]["metadata"]["labels"])
    assert not selected(own, twin["spec"]["template"]["metadata"]["labels"])
    assert main["metadata"]["labels"][TRACK_LABEL] == "main"
    assert selected(made.labels, twin["spec"]["template"]["metadata"]["labels"])


def test_spreading_counts_the_pods_of_the_same_side() -> None:
    """Replicas that stand by must not push those that serve onto one node."""
    for side in TRACKS:
        item = deployment(rendering(), side)
        spread = pod_spec(item)["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"]
        assert spread == item["spec"]["selector"]["matchLabels"]


def test_an_autoscaler_is_left_the_number_of_replicas() -> None:
    """A field that is not sent stays whoever's it is."""
    assert deployment(rendering(), replicas=3)["spec"]["replicas"] == 3
    assert deployment(rendering(), replicas=0)["spec"]["replicas"] == 0
    assert "replicas" not in deployment(rendering(), replicas=None)["spec"]


def test_the_attempt_is_kept_on_the_deployment() -> None:
    """Complete, to be read back from any machine, and as a line for `kubectl rollout history`."""
    first = attempt(7, A)
    found = rendering().deployment(A, "main", 2, first, 600)["metadata"]["annotations"]
    assert Attempt.from_json(found[RELEASE_ANNOTATION]) == first
    assert "\n" not in found[RELEASE_ANNOTATION]
    assert found[CHANGE_CAUSE] == f"release 7: commit {A.image.app.commit} with digits@1, by ada"


def test_the_cause_tells_a_rollback_and_the_run_of_ci() -> None:
    """Whoever reads the history can find what was going on."""
    back = attempt(8, A, "rollback").model_copy(update={"run": "https://ci.example/runs/5"})
    cause = rendering().deployment(A, "main", 2, back, 600)["metadata"]["annotations"][CHANGE_CAUSE]
    assert cause.startswith("rollback 8: ")
    assert cause.endswith(", by ada, https://ci.example/runs/5")


def test_applying_a_release_again_starts_no_pods() -> None:
    """Who asked, when, how many replicas and by when changes nothing in what pods are made of; another release does."""
    made = rendering()
    first = made.deployment(A, "main", 2, attempt(1, A), 600)["spec"]["template"]
    assert made.deployment(A, "main", 5, attempt(2, A, "rollback"), 30)["spec"]["template"] == first
    assert made.deployment(A, "main", None, None, 600)["spec"]["template"] == first
    assert made.deployment(B, "main", 2, attempt(1, A), 600)["spec"]["template"] != first


def test_the_same_input_gives_the_same_objects() -> None:
    """And one rendering leaves nothing behind that another would show."""
    made = rendering(**ALL_SETTINGS)
    before = deepcopy(made.object_templates)
    first = all_objects(made, A, attempt(1, A))
    assert {item["kind"] for item in first} == set(made.object_templates)
    for item in first:
        item["metadata"].clear()
        item.get("spec", {}).clear()
    assert made.object_templates == before
    assert all_objects(made, B) == all_objects(rendering(**ALL_SETTINGS), B)


def test_settings_are_set_in_the_container() -> None:
    """Its port, its ready path and what it is given."""
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


def test_liveness_asks_only_for_a_connection() -> None:
    """A replica that is busy, or waits for something else, is not started anew for it."""
    assert app_container(deployment(rendering()))["livenessProbe"].keys() >= {"tcpSocket"}
    assert "httpGet" not in app_container(deployment(rendering()))["livenessProbe"]


@pytest.mark.parametrize(
    ("within", "every", "tries"), [(60.0, 1, 125), (0.4, 1, 6), (61.5, 5, 30), (90.0, 0, 23)]
)
def test_a_replica_may_take_its_time_to_start(
    tmp_path: Path, within: float, every: int, tries: int
) -> None:
    """Twice `ready_within` and some more, so that it is the rollout that gives up, and says why."""
    folder = edit_templates(
        tmp_path,
        "deployment.yaml",
        spec__template__spec__containers__0__startupProbe__periodSeconds=every,
    )
    assert (
        app_container(deployment(rendering(folder, ready_within=within)))["startupProbe"][
            "failureThreshold"
        ]
        == tries
    )


@pytest.mark.parametrize(
    ("hook", "pause"),
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
def test_requests_under_way_have_their_time_after_the_pause(
    tmp_path: Path, hook: Object, pause: int
) -> None:
    """`drain_within` seconds, whole ones, on top of the pause before the replica is told to stop."""
    folder = edit_templates(
        tmp_path, "deployment.yaml", spec__template__spec__containers__0__lifecycle__preStop=hook
    )
    assert (
        pod_spec(deployment(rendering(folder, drain_within=20.5)))["terminationGracePeriodSeconds"]
        == 21 + pause
    )


def test_the_deadline_is_set() -> None:
    """The cluster itself calls a rollout failed that is not done by then."""
    assert rendering().deployment(A, "main", 2, None, 123)["spec"]["progressDeadlineSeconds"] == 123


def test_a_pull_secret_is_named_where_there_is_one() -> None:
    """For the replicas and for the warm-up, which pull the same image."""
    with_secret = rendering(pull_secret="login")
    without = rendering()
    for made in (deployment(with_secret), with_secret.prepull(A)):
        assert pod_spec(made)["imagePullSecrets"] == [{"name": "login"}]
    for made in (deployment(without), without.prepull(A)):
        assert "imagePullSecrets" not in pod_spec(made)


# --- the other objects


def test_the_service_leads_to_the_stable_side_or_to_both() -> None:
    """Its annotation says which is stable, also while a canary has its share."""
    made = rendering()
    pods = {
        side: deployment(made, side)["spec"]["template"]["metadata"]["labels"] for side in TRACKS
    }
    for side in TRACKS:
        one = made.service(side, both=False)
        both = made.service(side, both=True)
        assert [found for found in TRACKS if selected(one["spec"]["selector"], pods[found])] == [
            side
        ]
        assert all(selected(both["spec"]["selector"], pods[found]) for found in TRACKS)
        assert (
            one["metadata"]["annotations"][TRACK_LABEL]
            == both["metadata"]["annotations"][TRACK_LABEL]
            == side
        )


def test_the_service_finds_the_container_by_the_name_of_its_port() -> None:
    """Port 80 whatever the application listens on."""
    made = rendering()
    port = made.service("main", both=False)["spec"]["ports"][0]
    assert (made.port, port["port"], port["targetPort"]) == (80, 80, "http")
    assert [one["name"] for one in app_container(deployment(made))["ports"]] == ["http"]


def test_the_service_is_of_the_type_and_dns_label_of_the_settings() -> None:
    """A label is an annotation that AKS reads; without one there is none."""
    plain = rendering().service("main", both=False)
    balanced = rendering(service="LoadBalancer", dns_label="cat").service("main", both=False)
    assert plain["spec"]["type"] == "ClusterIP"
    assert list(plain["metadata"]["annotations"]) == [TRACK_LABEL]
    assert balanced["spec"]["type"] == "LoadBalancer"
    assert (
        balanced["metadata"]["annotations"]["service.beta.kubernetes.io/azure-dns-label-name"]
        == "cat"
    )


def test_an_ingress_is_made_for_a_host() -> None:
    """It leads to the service; class and certificate are named only where the settings name them."""
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


@pytest.mark.parametrize("side", TRACKS)
def test_an_autoscaler_is_made_of_its_table(side: Track) -> None:
    """It scales the side that is stable, between `replicas` and `at_most`."""
    made = rendering(replicas=3, autoscale={"at_most": 9, "cpu": 60})
    found = made.autoscaler(side)
    assert found is not None
    assert (found["spec"]["minReplicas"], found["spec"]["maxReplicas"]) == (3, 9)
    assert found["spec"]["scaleTargetRef"]["name"] == deployment(made, side)["metadata"]["name"]
    assert found["spec"]["metrics"][0]["resource"]["target"] == {
        "type": "Utilization",
        "averageUtilization": 60,
    }
    assert rendering().autoscaler(side) is None


def test_a_drained_node_takes_one_replica_at_a_time() -> None:
    """Counted over both sides, and never with the pods of the warm-up."""
    made = rendering()
    spec = made.disruption_budget()["spec"]
    assert spec["maxUnavailable"] == 1
    assert all(
        selected(
            spec["selector"]["matchLabels"],
            deployment(made, side)["spec"]["template"]["metadata"]["labels"],
        )
        for side in TRACKS
    )


def test_replicas_are_nobody_to_the_api_server() -> None:
    """They have an account of their own, and no token of it."""
    made = rendering()
    pod = pod_spec(deployment(made))
    assert (
        pod["serviceAccountName"]
        == made.service_account()["metadata"]["name"]
        == "classifier-staging"
    )
    assert made.service_account()["automountServiceAccountToken"] is False
    assert pod["automountServiceAccountToken"] is False


def test_the_warm_up_pulls_the_image_and_gets_no_requests() -> None:
    """Its pods run nothing of the application, and nothing that selects replicas selects them."""
    made = rendering()
    item = made.prepull(A)
    labels = item["spec"]["template"]["metadata"]["labels"]
    assert app_container(item)["image"] == A.reference
    assert app_container(item)["command"] == ["sleep", "infinity"]
    assert selected(item["spec"]["selector"]["matchLabels"], labels)
    assert not selected(made.labels, labels)
    assert not selected(
        item["spec"]["selector"]["matchLabels"],
        rendering(name="other").prepull(A)["spec"]["template"]["metadata"]["labels"],
    )


def test_the_warm_up_runs_where_replicas_may_run(tmp_path: Path) -> None:
    """The same nodes and taints; but pods that replicas keep away from keep nothing away from it."""
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


# --- a user's own manifests


def test_what_a_user_adds_is_kept(tmp_path: Path) -> None:
    """Other containers, variables, labels, limits and strategies are nobody's business but theirs."""
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
    """Wherever it stands; the others are not touched."""
    beside = {
        "name": "proxy",
        "image": "registry.example/proxy:1",
        "readinessProbe": {"httpGet": {"path": "/up", "port": 1}},
    }
    ours = app_container(deployment(rendering()))
    folder = edit_templates(
        tmp_path, "deployment.yaml", spec__template__spec__containers=[beside, ours]
    )
    assert pod_spec(deployment(rendering(folder)))["containers"] == [beside, ours]


def test_the_only_container_may_have_any_name(tmp_path: Path) -> None:
    """With one there is no doubt which it is."""
    folder = edit_templates(
        tmp_path, "deployment.yaml", spec__template__spec__containers__0__name="server"
    )
    found = pod_spec(deployment(rendering(folder)))["containers"]
    assert [(one["name"], one["image"]) for one in found] == [("server", A.reference)]


def test_what_a_user_takes_out_stays_out(tmp_path: Path) -> None:
    """Probes, spreading and the pause are proposals; a bare Deployment is rendered as well."""
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
    made = rendering(folder, autoscale={"at_most": 3})
    item = deployment(made)
    assert app_container(item).keys() == {"name", "image", "ports", "resources"}
    assert pod_spec(item).keys() == {
        "containers",
        "serviceAccountName",
        "terminationGracePeriodSeconds",
    }
    assert selected(made.labels, item["spec"]["selector"]["matchLabels"])
    assert made.service("main", both=False)["metadata"]["name"] == "classifier-staging"
    assert made.disruption_budget()["spec"] == {"selector": {"matchLabels": made.labels}}
    scaler = made.autoscaler("main")
    assert scaler is not None
    assert "metrics" not in scaler["spec"]


def test_an_account_of_ones_own_is_kept(tmp_path: Path) -> None:
    """One that the folder does not make has a reason, such as a cloud identity."""
    folder = edit_templates(
        tmp_path, "deployment.yaml", spec__template__spec__serviceAccountName="cloud-identity"
    )
    assert pod_spec(deployment(rendering(folder)))["serviceAccountName"] == "cloud-identity"
    edit_templates(tmp_path, "account.yaml", metadata__name="cloud-identity")
    assert pod_spec(deployment(rendering(folder)))["serviceAccountName"] == "classifier-staging"


def test_pull_secrets_of_ones_own_stay_beside_that_of_the_settings(tmp_path: Path) -> None:
    """Another container may need another login; none is named twice."""
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


def test_other_backends_of_an_ingress_are_kept(tmp_path: Path) -> None:
    """Only what leads to the folder's own service follows its name."""
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


def test_other_metrics_of_an_autoscaler_are_kept(tmp_path: Path) -> None:
    """The settings speak of CPU alone."""
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
    """The one named http is the front door, else the first."""
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


def test_a_service_of_ones_own_can_still_lead_to_both_sides(tmp_path: Path) -> None:
    """Whatever side its manifest names."""
    folder = edit_templates(
        tmp_path, "service.yaml", spec__selector={"team": "vision", TRACK_LABEL: "twin"}
    )
    made = rendering(folder)
    assert made.service("main", both=False)["spec"]["selector"] == {
        "team": "vision",
        **made.labels,
        TRACK_LABEL: "main",
    }
    assert made.service("main", both=True)["spec"]["selector"] == {"team": "vision", **made.labels}


def test_anchors_of_yaml_share_nothing_once_they_are_read(tmp_path: Path) -> None:
    """Labels that are written once for selector and pods must not carry a release's own labels into the selector."""
    folder = edit_templates(tmp_path)
    text = (folder / "deployment.yaml").read_text(encoding="utf-8")
    labels = "app.kubernetes.io/name: app\n      app.kubernetes.io/instance: example\n      twinship.dev/side: main\n"
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


def test_yaml_is_what_was_rendered() -> None:
    """One document an object, keys in the order of the manifest, nothing by reference."""
    made = rendering(**ALL_SETTINGS)
    objects = all_objects(made, A, attempt(1, A))
    text = as_yaml(objects)
    assert list(yaml.safe_load_all(text)) == objects
    assert text.count("\n---\n") + 1 == len(objects)
    assert "&id" not in text
    assert [list(item) for item in yaml.safe_load_all(text)] == [list(item) for item in objects]
    assert text.startswith("---\napiVersion: v1\nkind: ServiceAccount\n")


def test_what_occurs_twice_is_written_twice() -> None:
    """Not every reader of manifests knows references."""
    shared = {"team": "vision"}
    assert (
        as_yaml([{"one": shared, "two": shared}])
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
def test_text_that_some_reader_takes_for_something_else_is_quoted(text: str) -> None:
    """A label of digits and an `e` is a number to kubectl, and no label."""
    assert as_yaml([{"key": text}]).splitlines()[1] in (f'key: "{text}"', f"key: '{text}'")


@given(st.text())
def test_any_text_survives_yaml(text: str) -> None:
    """Who released and with which words is up to others."""
    assert yaml.safe_load(as_yaml([{"key": text}])) == {"key": text}


def test_the_application_is_as_the_settings_say() -> None:
    """The tests' own application differs from every placeholder, so that a setting which is not set is seen."""
    assert (APP.port, APP.ready) not in ((8080, "/ready"), (9000, "/readyz"))
