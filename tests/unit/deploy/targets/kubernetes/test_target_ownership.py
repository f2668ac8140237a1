"""The target on a cluster that it shares: with autoscalers, with people, and with API servers that do not know every kind."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from deploy.errors import ClusterRefused, FieldConflict
from deploy.records import Release
from tests.contracts.target import replicas, states
from tests.fakes.namespaces import NAME, FakeNamespace

HPA = "HorizontalPodAutoscaler"


@pytest.fixture
def namespace(namespace: FakeNamespace) -> FakeNamespace:
    """An environment of each strategy in which `a` serves."""
    namespace.apply(namespace.release("a"))
    return namespace


def scaled(namespace: FakeNamespace, count: int, manager: str, name: str = NAME) -> None:
    """Somebody else chooses the number of replicas."""
    namespace.scale(count, name, manager)
    namespace.cluster.step(20)


def serving(namespace: FakeNamespace) -> str:
    """The name of the Deployment that serves."""
    return NAME if namespace.summary()["led to"] == "main" else f"{NAME}-twin"


# --- how many


def test_the_number_that_a_person_chose_stays(namespace: FakeNamespace, b: Release) -> None:
    """From release to release, on whichever side they serve, and they count as serving as they should."""
    scaled(namespace, 5, "kubectl")
    assert namespace.deployer().serves(namespace.release("a"))
    for wanted in (b, namespace.release("c"), namespace.release("d")):
        namespace.apply(wanted)
        assert states(namespace.deployer()) == replicas(wanted, "serving", 5)
        assert namespace.deployer().serves(wanted)


def test_the_settings_choose_the_number_where_nobody_else_does(
    namespace: FakeNamespace, b: Release
) -> None:
    """Also if it was another one before."""
    namespace.apply(b, namespace.deployer(replicas=3))
    assert states(namespace.deployer()) == replicas(b, "serving", 3)
    namespace.apply(b, namespace.deployer(replicas=1))
    assert states(namespace.deployer()) == replicas(b, "serving", 1)
    assert namespace.deployer(replicas=1).serves(b)


def test_the_number_that_an_autoscaler_chose_stays(namespace: FakeNamespace, b: Release) -> None:
    """Within the bounds of the settings; it follows to the side that serves."""
    autoscale = {"at_most": 6}
    namespace.apply(b, namespace.deployer(autoscale=autoscale))
    scaled(namespace, 4, "kube-controller-manager", serving(namespace))
    for wanted in (namespace.release("c"), namespace.release("d"), namespace.release("e")):
        namespace.apply(wanted, namespace.deployer(autoscale=autoscale))
        assert states(namespace.deployer()) == replicas(wanted, "serving", 4)
        assert namespace.deployer(autoscale=autoscale).serves(wanted)
        assert namespace.get(HPA)["spec"]["scaleTargetRef"]["name"] == serving(namespace)


def test_a_number_that_is_chosen_in_mid_rollout_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An autoscaler goes on working while a release is rolled out; nobody takes its field away."""
    namespace = FakeNamespace(autoscale={"at_most": 6})
    namespace.apply(namespace.release("a"))
    target = namespace.deployer()
    b = namespace.release("b")
    apply = namespace.cluster.apply

    def raced(item: Any, **how: Any) -> Any:
        if item["kind"] == "Deployment":
            scaled(namespace, 4, "kube-controller-manager")
        return apply(item, **how)

    monkeypatch.setattr(namespace.cluster, "apply", raced)
    namespace.apply(b, target)
    assert states(namespace.deployer()) == replicas(b, "serving", 4)
    assert namespace.deployer().serves(b)


def test_an_autoscaler_that_went_over_to_the_other_side_has_no_say_on_the_first(b: Release) -> None:
    """Its last number there is nobody's wish any more."""
    namespace = FakeNamespace(strategy="blue-green", standby=True, autoscale={"at_most": 6})
    namespace.apply(namespace.release("a"))
    scaled(namespace, 3, "kube-controller-manager")
    namespace.apply(namespace.release("b"))
    scaled(namespace, 5, "kube-controller-manager", f"{NAME}-twin")
    namespace.apply(c := namespace.release("c"))
    assert namespace.summary()["led to"] == "main"
    assert len(namespace.pods("c")) == 5
    assert namespace.deployer().serves(c)


def test_a_standby_that_is_too_small_is_no_instant_way_back() -> None:
    """It gets the requests when there are as many replicas as are needed."""
    namespace = FakeNamespace(strategy="blue-green", standby=True)
    namespace.apply(a := namespace.release("a"))
    namespace.apply(namespace.release("b"))
    scaled(namespace, 5, "kubectl", f"{NAME}-twin")
    namespace.apply(a, trigger="rollback")
    assert len(namespace.pods("a")) == 5
    assert namespace.deployer().serves(a)


# --- fields of others


def test_a_field_that_somebody_took_over_is_reported_with_its_owner(
    namespace: FakeNamespace, b: Release
) -> None:
    """Nothing is taken from them, and what served before serves on, whole."""
    taken = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 99}}}}
    for name in (NAME, f"{NAME}-twin"):
        if namespace.get("Deployment", name):
            namespace.cluster.apply_as(
                {"kind": "Deployment", "metadata": {"name": name}, **taken}, "kubectl-edit"
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


def test_a_field_that_we_do_not_set_is_nobodys_business(
    namespace: FakeNamespace, b: Release
) -> None:
    """What others add stays there."""
    noted = {"metadata": {"name": NAME, "annotations": {"team": "vision"}}}
    namespace.cluster.apply_as({"kind": "Service", **noted}, "kubectl-annotate")
    namespace.apply(b)
    assert namespace.get("Service")["metadata"]["annotations"]["team"] == "vision"


def test_a_service_that_somebody_leads_elsewhere_is_told(
    namespace: FakeNamespace, b: Release
) -> None:
    """Before anything is changed."""
    led = {"metadata": {"name": NAME}, "spec": {"selector": {"app": "maintenance"}}}
    namespace.cluster.apply_as({"kind": "Service", **led}, "kubectl-edit")
    with pytest.raises(FieldConflict, match="kubectl-edit"):
        namespace.apply(b)
    assert len(namespace.deployer().history()) == 1


def test_names_that_another_environment_has_are_told_before_anything_is_changed() -> None:
    """The second side of this one would be the first of that."""
    namespace = FakeNamespace()
    b = namespace.release("b")
    namespace.writer(named=("classifier", "local-twin")).roll_out("main", b, 1)
    with pytest.raises(
        ClusterRefused, match="taken by environment local-twin of application classifier"
    ):
        namespace.apply(b)
    assert namespace.deployer().history() == ()
    assert namespace.get("Service") == {}


# --- what is there beside the replicas


def test_a_kind_that_is_not_served_is_left_out(
    namespace: FakeNamespace, b: Release, caplog: pytest.LogCaptureFixture
) -> None:
    """With one line for each, however often it would have been needed."""
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


def test_nothing_is_said_of_kinds_that_are_not_asked_for(
    namespace: FakeNamespace, b: Release, caplog: pytest.LogCaptureFixture
) -> None:
    """A cluster may lack what the settings do not need."""
    namespace.cluster.unserved |= {HPA, "Ingress"}
    with caplog.at_level(logging.INFO):
        namespace.apply(b)
    assert "left out" not in caplog.text


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("Ingress", {"host": "shop.example"}), (HPA, {"autoscale": {"at_most": 4}})],
)
def test_what_the_settings_no_longer_ask_for_goes(
    kind: str, settings: dict[str, Any], namespace: FakeNamespace, b: Release
) -> None:
    """With the next release; replicas are as many as the settings say again."""
    namespace.apply(b, namespace.deployer(lambda _: False, **settings))
    assert namespace.get(kind)
    namespace.apply(b)
    assert namespace.get(kind) == {}
    assert namespace.deployer().serves(b)


@pytest.mark.parametrize("kind", ["Ingress", HPA, "DaemonSet"])
def test_what_a_person_made_under_the_same_name_stays(
    kind: str, namespace: FakeNamespace, b: Release
) -> None:
    """As `kubectl autoscale` does it, for example."""
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


def test_what_kubectl_put_back_is_taken_back_by_the_next_release(
    namespace: FakeNamespace, b: Release, caplog: pytest.LogCaptureFixture
) -> None:
    """`kubectl rollout undo` makes another release run behind the history; that must not end all releases."""
    caplog.set_level(logging.INFO)
    name = serving(namespace)
    before = namespace.cluster.find("Deployment", name)
    assert before is not None
    namespace.apply(b)
    name = serving(namespace)
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
