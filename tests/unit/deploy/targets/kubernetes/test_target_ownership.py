"""The target on a shared cluster: with autoscalers, other clients and kinds that are not served."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import pytest

from deploy.errors import ClusterRefused, FieldConflict, GoldenMiss
from deploy.records import Release
from deploy.rollout.target import ReplicaState
from tests.contracts.target import replicas, states
from tests.fakes.deployers import Killed
from tests.fakes.namespaces import NAME, FakeNamespace, before_write

HPA = "HorizontalPodAutoscaler"


@pytest.fixture
def namespace(namespace: FakeNamespace) -> FakeNamespace:
    """Return an environment of each strategy in which `a` serves."""
    namespace.apply(namespace.release("a"))
    return namespace


def scale(namespace: FakeNamespace, count: int, manager: str, name: str = NAME) -> None:
    """Let another manager set the number of replicas."""
    namespace.scale(count, name, manager)
    namespace.cluster.step(20)


def serving_deployment(namespace: FakeNamespace) -> str:
    """Return the name of the Deployment that serves."""
    return NAME if namespace.summary()["track"] == "main" else f"{NAME}-twin"


# --- number of replicas


def test_the_number_that_a_person_set_stays(namespace: FakeNamespace, b: Release) -> None:
    """It stays for later releases on either track, and they count as serving."""
    scale(namespace, 5, "kubectl")
    assert namespace.deployer().serves(namespace.release("a"))
    for wanted in (b, namespace.release("c"), namespace.release("d")):
        namespace.apply(wanted)
        assert states(namespace.deployer()) == replicas(wanted, ReplicaState.SERVING, 5)
        assert namespace.deployer().serves(wanted)


def test_the_settings_decide_the_number_if_no_other_manager_does(
    namespace: FakeNamespace, b: Release
) -> None:
    """A change of the settings changes it."""
    namespace.apply(b, namespace.deployer(replicas=3))
    assert states(namespace.deployer()) == replicas(b, ReplicaState.SERVING, 3)
    namespace.apply(b, namespace.deployer(replicas=1))
    assert states(namespace.deployer()) == replicas(b, ReplicaState.SERVING, 1)
    assert namespace.deployer(replicas=1).serves(b)


def test_the_number_that_an_autoscaler_set_stays(namespace: FakeNamespace, b: Release) -> None:
    """It is limited by the settings, and the autoscaler follows the serving track."""
    autoscale = {"at_most": 6}
    namespace.apply(b, namespace.deployer(autoscale=autoscale))
    scale(namespace, 4, "kube-controller-manager", serving_deployment(namespace))
    for wanted in (namespace.release("c"), namespace.release("d"), namespace.release("e")):
        namespace.apply(wanted, namespace.deployer(autoscale=autoscale))
        assert states(namespace.deployer()) == replicas(wanted, ReplicaState.SERVING, 4)
        assert namespace.deployer(autoscale=autoscale).serves(wanted)
        assert namespace.get(HPA)["spec"]["scaleTargetRef"]["name"] == serving_deployment(namespace)


def autoscale_to(namespace: FakeNamespace, wanted: Release, count: int) -> None:
    """Roll a release out with an autoscaler, which then sets the number of replicas."""
    namespace.apply(wanted, namespace.deployer(autoscale={"at_most": 6}))
    scale(namespace, count, "kube-controller-manager", serving_deployment(namespace))


@pytest.mark.parametrize("code", ["b", "c"], ids=["the same release", "another release"])
def test_without_its_autoscaler_the_settings_decide_the_number_again(
    namespace: FakeNamespace, b: Release, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The autoscaler's last number would stay for good; while it exists it counts."""
    autoscale_to(namespace, b, 5)
    caplog.set_level(logging.INFO)
    namespace.apply(wanted := namespace.release(code))
    assert states(namespace.deployer()) == replicas(wanted, ReplicaState.SERVING, 2)
    assert namespace.deployer().serves(wanted)
    assert not namespace.get(HPA)
    assert "replicas: 2 as in the settings, without the autoscaler" in caplog.text
    assert "which was set on the cluster" not in caplog.text
    namespace.apply(d := namespace.release("d"), namespace.deployer(replicas=3))
    assert states(namespace.deployer()) == replicas(d, ReplicaState.SERVING, 3)


def test_a_failed_release_without_its_autoscaler_keeps_its_number(
    namespace: FakeNamespace, b: Release
) -> None:
    """The autoscaler stays too."""
    autoscale_to(namespace, b, 5)
    namespace.player.problem = lambda: "expected 3, got 8"
    with pytest.raises(GoldenMiss):
        namespace.apply(namespace.release("c"))
    assert states(namespace.deployer()) == replicas(b, ReplicaState.SERVING, 5)
    assert namespace.get(HPA)


@pytest.mark.parametrize("writes", range(16))
def test_a_killed_deployer_leaves_no_number_of_a_removed_autoscaler(writes: int) -> None:
    """It is killed before any of its writes; the next release completes what it began."""
    namespace = FakeNamespace()
    autoscale_to(namespace, b := namespace.release("b"), 5)
    with suppress(Killed):
        namespace.apply(b, namespace.deployer(before_write(writes)))
    namespace.apply(c := namespace.release("c"))
    assert states(namespace.deployer()) == replicas(c, ReplicaState.SERVING, 2)
    assert namespace.deployer().serves(c)


def test_a_number_that_is_set_during_a_rollout_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An autoscaler works during a rollout, and its field is not taken from it."""
    namespace = FakeNamespace(autoscale={"at_most": 6})
    namespace.apply(namespace.release("a"))
    target = namespace.deployer()
    b = namespace.release("b")
    apply = namespace.cluster.apply

    def scale_then_apply(item: Any, **how: Any) -> Any:
        if item["kind"] == "Deployment":
            scale(namespace, 4, "kube-controller-manager")
        return apply(item, **how)

    monkeypatch.setattr(namespace.cluster, "apply", scale_then_apply)
    namespace.apply(b, target)
    assert states(namespace.deployer()) == replicas(b, ReplicaState.SERVING, 4)
    assert namespace.deployer().serves(b)


def test_the_number_of_an_autoscaler_does_not_count_on_its_old_track(b: Release) -> None:
    """It scales the other track now."""
    namespace = FakeNamespace(strategy="blue-green", standby=True, autoscale={"at_most": 6})
    namespace.apply(namespace.release("a"))
    scale(namespace, 3, "kube-controller-manager")
    namespace.apply(namespace.release("b"))
    scale(namespace, 5, "kube-controller-manager", f"{NAME}-twin")
    namespace.apply(c := namespace.release("c"))
    assert namespace.summary()["track"] == "main"
    assert len(namespace.pods("c")) == 5
    assert namespace.deployer().serves(c)


def test_a_standby_that_is_too_small_is_scaled_before_the_switch() -> None:
    """It gets the requests when it has enough replicas."""
    namespace = FakeNamespace(strategy="blue-green", standby=True)
    namespace.apply(a := namespace.release("a"))
    namespace.apply(namespace.release("b"))
    scale(namespace, 5, "kubectl", f"{NAME}-twin")
    namespace.apply(a, trigger="rollback")
    assert len(namespace.pods("a")) == 5
    assert namespace.deployer().serves(a)


# --- fields of other managers


def test_a_field_of_another_manager_is_reported_with_its_owner(
    namespace: FakeNamespace, b: Release
) -> None:
    """It is not taken from its owner, and the previous release serves on."""
    changed_field = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 99}}}}
    for name in (NAME, f"{NAME}-twin"):
        if namespace.get("Deployment", name):
            namespace.cluster.apply_as(
                {"kind": "Deployment", "metadata": {"name": name}, **changed_field}, "kubectl-edit"
            )
    namespace.cluster.step(40)
    namespace.settings["strategy"] = "rolling"
    with pytest.raises(FieldConflict) as caught:
        namespace.apply(b)
    assert caught.value.owners == {
        "spec.template.spec.terminationGracePeriodSeconds": "kubectl-edit"
    }
    assert namespace.answers() == {"a"}
    assert (
        namespace.get("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        == 99
    )
    assert namespace.deployer().history()[-1].outcome == "undone"


def test_additions_of_other_managers_stay(namespace: FakeNamespace, b: Release) -> None:
    """They set fields that a release does not set."""
    annotated = {"metadata": {"name": NAME, "annotations": {"team": "vision"}}}
    namespace.cluster.apply_as({"kind": "Service", **annotated}, "kubectl-annotate")
    namespace.apply(b)
    assert namespace.get("Service")["metadata"]["annotations"]["team"] == "vision"


def test_a_selector_of_another_manager_is_reported_first(
    namespace: FakeNamespace, b: Release
) -> None:
    """Nothing is changed before."""
    changed_selector = {"metadata": {"name": NAME}, "spec": {"selector": {"app": "maintenance"}}}
    namespace.cluster.apply_as({"kind": "Service", **changed_selector}, "kubectl-edit")
    with pytest.raises(FieldConflict, match="kubectl-edit"):
        namespace.apply(b)
    assert len(namespace.deployer().history()) == 1


def test_names_of_another_environment_are_reported_first() -> None:
    """The second track of one would be the first track of the other."""
    namespace = FakeNamespace()
    b = namespace.release("b")
    namespace.writer(named=("classifier", "local-twin")).roll_out("main", b, 1)
    with pytest.raises(
        ClusterRefused, match="taken by environment local-twin of application classifier"
    ):
        namespace.apply(b)
    assert namespace.deployer().history() == ()
    assert namespace.get("Service") == {}


# --- supporting objects


def test_a_kind_that_is_not_served_is_left_out(
    namespace: FakeNamespace, b: Release, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for each kind is logged."""
    namespace.cluster.unserved |= {HPA, "PodDisruptionBudget", "Ingress"}
    with caplog.at_level(logging.INFO):
        namespace.apply(b, namespace.deployer(autoscale={"at_most": 4}, host="shop.example"))
    said = [record.message for record in caplog.records if "left out" in record.message]
    assert sorted(line.split()[2] for line in said) == [
        "HorizontalPodAutoscaler,",
        "Ingress,",
        "PodDisruptionBudget,",
    ]
    assert namespace.deployer(autoscale={"at_most": 4}, host="shop.example").serves(b)


def test_a_kind_that_is_not_needed_is_not_logged(
    namespace: FakeNamespace, b: Release, caplog: pytest.LogCaptureFixture
) -> None:
    """The settings do not need it."""
    namespace.cluster.unserved |= {HPA, "Ingress"}
    with caplog.at_level(logging.INFO):
        namespace.apply(b)
    assert "left out" not in caplog.text


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("Ingress", {"host": "shop.example"}), (HPA, {"autoscale": {"at_most": 4}})],
)
def test_objects_that_the_settings_no_longer_need_are_removed(
    kind: str, settings: dict[str, Any], namespace: FakeNamespace, b: Release
) -> None:
    """The next release removes them, and the settings decide the number again."""
    namespace.apply(b, namespace.deployer(lambda _: False, **settings))
    assert namespace.get(kind)
    namespace.apply(b)
    assert namespace.get(kind) == {}
    assert namespace.deployer().serves(b)


@pytest.mark.parametrize("kind", ["Ingress", HPA, "DaemonSet"])
def test_an_object_of_a_person_with_the_same_name_stays(
    kind: str, namespace: FakeNamespace, b: Release
) -> None:
    """`kubectl autoscale` creates such an object."""
    name = f"{NAME}-warm-up" if kind == "DaemonSet" else NAME
    labels = {"app": "x"}
    spec: dict[str, Any] = {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": []}},
    }
    namespace.cluster.apply_as({"kind": "Service", "metadata": {"name": NAME}}, "kubectl")
    namespace.cluster.create(
        {"kind": kind, "metadata": {"name": name}, "spec": spec if kind == "DaemonSet" else {}}
    )
    namespace.apply(b)
    assert namespace.get(kind, name)


def test_the_next_release_overrides_kubectl_rollout_undo(
    namespace: FakeNamespace, b: Release, caplog: pytest.LogCaptureFixture
) -> None:
    """That command makes another release run without an entry in the history."""
    caplog.set_level(logging.INFO)
    name = serving_deployment(namespace)
    before = namespace.cluster.find("Deployment", name)
    assert before is not None
    namespace.apply(b)
    name = serving_deployment(namespace)
    container = {
        "name": "app",
        "image": before["spec"]["template"]["spec"]["containers"][0]["image"],
    }
    notes = {"twinship.dev/image": "sha256:other", "kubernetes.io/change-cause": "undone by hand"}
    template = {
        "metadata": {"annotations": {"twinship.dev/image": notes["twinship.dev/image"]}},
        "spec": {"containers": [container]},
    }
    namespace.cluster.apply_as(
        {
            "kind": "Deployment",
            "metadata": {"name": name, "annotations": notes},
            "spec": {"template": template},
        },
        "kubectl-rollout",
    )
    namespace.cluster.step(20)
    assert not namespace.deployer().serves(b)
    for wanted in (b, namespace.release("c")):
        namespace.apply(wanted)
        assert namespace.deployer().serves(wanted)
    assert "taken back from kubectl-rollout" in caplog.text
