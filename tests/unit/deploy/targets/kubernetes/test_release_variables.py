"""The variables of releases on a cluster: their Secrets, and what the history keeps of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deploy.clients.kubernetes.protocol import Object
from deploy.errors import ClusterForbidden, ClusterRefused, RolloutFailed, SettingsInvalid
from deploy.records import Release
from deploy.rollout.history import Choice
from deploy.targets.kubernetes import history as histories
from deploy.targets.kubernetes.pod_variables import PodVariables, fill_variables
from deploy.targets.kubernetes.render import VARIABLES_ANNOTATION
from deploy.targets.kubernetes.state import TrafficSplit
from deploy.variables import NO_VARIABLES, Variables
from tests.contracts.target import trust
from tests.contracts.variables import NEW, OLD, fail, given, roll_out
from tests.fakes.kubernetes.api_server import PodScript
from tests.fakes.namespaces import NAME, FakeNamespace
from tests.fakes.releases import attempt


def sources(namespace: FakeNamespace) -> list[str]:
    """Return the names of the Secrets."""
    return [item["metadata"]["name"] for item in namespace.cluster.objects.find_all("Secret")]


def container(**keys: Any) -> Object:
    """Return a container after it got variables, with those keys of its template."""
    item: Object = {"name": "app", **keys}
    fill_variables(
        item, PodVariables(values={"MODE": "a$(B)$"}, secrets=("KEY",), source="shop-env-1")
    )
    return item


# --- objects


def test_values_are_in_the_container_and_secrets_are_named() -> None:
    """The cluster would replace $(NAME), and reads $$ as one $."""
    assert container()["env"] == [
        {"name": "MODE", "value": "a$$(B)$$"},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "shop-env-1", "key": "KEY"}}},
    ]


def test_variables_of_the_template_stay_unless_the_settings_have_them() -> None:
    """The settings come before the templates, as everywhere."""
    found = container(env=[{"name": "LANG", "value": "C"}, {"name": "MODE", "value": "z"}])["env"]
    assert [entry["name"] for entry in found] == ["LANG", "MODE", "KEY"]
    assert found[1]["value"] == "a$$(B)$$"


def test_a_container_without_variables_is_as_in_the_template() -> None:
    """An update of the suite replaces no replica."""
    item: Object = {"name": "app"}
    fill_variables(item, PodVariables())
    assert item == {"name": "app"}


def test_a_secret_is_an_object_that_never_changes(namespace: FakeNamespace, a: Release) -> None:
    """It has the labels of all objects, and the number of its attempt."""
    roll_out(namespace.target(variables=OLD), 7, a)
    item = namespace.get("Secret", f"{NAME}-env-7")
    assert (item["immutable"], item["type"], item["data"]) == (
        True,
        "Opaque",
        {"API_KEY": "cGxhbnRlZC1vbGQ="},
    )
    assert item["metadata"]["labels"] == namespace.get("Service")["metadata"]["labels"]


def test_no_other_object_has_a_secret(namespace: FakeNamespace, a: Release, b: Release) -> None:
    """Neither the history with its snapshot, nor an annotation."""
    roll_out(namespace.target(variables=OLD), 1, a)
    target = namespace.target(variables=NEW)
    with target.lock():
        target.begin(attempt(2, b))
        target.serve(b, trust)
    others = [
        item
        for kind in ("ConfigMap", "Deployment", "Pod", "ReplicaSet", "Service", "Lease", "Event")
        for item in namespace.cluster.objects.find_all(kind)
    ]
    assert len(others) > 5
    text = json.dumps(others)
    assert "planted" not in text
    assert "cGxhbnRlZ" not in text


def test_without_secrets_no_permission_for_secrets_is_needed(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """An older role of the deployer is enough for values."""
    verbs = ("get", "create", "delete", "list", "patch", "update")
    namespace.cluster.forbidden = {(verb, "Secret") for verb in verbs}
    values = Variables({"MODE": "a"})
    roll_out(namespace.target(variables=values), 1, a)
    fail(namespace.target(variables=Variables({"MODE": "b"})), 2, b, a)
    assert namespace.environments() == given(values)


def test_a_missing_permission_is_an_error_before_anything_is_recorded(
    namespace: FakeNamespace, a: Release
) -> None:
    """The error has the rule to add."""
    namespace.cluster.forbidden = {("get", "Secret")}
    with pytest.raises(ClusterForbidden):
        namespace.apply(a, namespace.deployer(variables=OLD))
    assert namespace.deployer().history() == ()


def test_a_secret_of_another_owner_is_not_touched(namespace: FakeNamespace, a: Release) -> None:
    """Its name is an error before anything is recorded."""
    item = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{NAME}-env-1"}}
    namespace.cluster.create({**item, "data": {}})
    with pytest.raises(ClusterRefused, match="no release of this environment"):
        namespace.apply(a, namespace.deployer(variables=OLD))
    assert namespace.deployer().history() == ()
    assert namespace.get("Secret", f"{NAME}-env-1")["data"] == {}


def test_what_a_lost_history_left_is_replaced(namespace: FakeNamespace, a: Release) -> None:
    """Attempts are counted from one again."""
    roll_out(namespace.target(variables=OLD), 1, a)
    for kind, name in (
        ("ConfigMap", f"{NAME}-history"),
        ("Deployment", NAME),
        ("Deployment", f"{NAME}-twin"),
    ):
        namespace.cluster.delete(kind, name)
    roll_out(namespace.target(variables=NEW), 1, a)
    assert namespace.environments() == given(NEW)
    assert sources(namespace) == [f"{NAME}-env-1"]


# --- attempts


def test_attempts_with_equal_secrets_share_an_object(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """There are as many objects as there were different secrets."""
    for number, release in enumerate((a, b, a), start=1):
        roll_out(namespace.target(variables=OLD), number, release)
    roll_out(namespace.target(variables=Variables({}, OLD.secrets)), 4, a)
    roll_out(namespace.target(variables=NEW), 5, b)
    assert sources(namespace) == [f"{NAME}-env-1", f"{NAME}-env-5"]


def test_a_rollback_returns_to_the_variables_of_its_release(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """Also without the secrets of the settings."""
    roll_out(namespace.target(variables=OLD), 1, a)
    roll_out(namespace.target(variables=NEW), 2, b)

    def missing() -> Variables:
        raise SettingsInvalid("the environment variable KEY is not set", on="", next="")

    target = namespace.target(variables=missing)
    assert target.variables_for(1) == OLD
    roll_out(target, 3, a, returns_to=1)
    assert namespace.environments() == given(OLD)
    assert target.variables() == OLD
    assert target.serves(a)


def test_a_rollback_of_a_changed_variable_returns_to_the_attempt_before(
    namespace: FakeNamespace, a: Release
) -> None:
    """The image is the same in both."""
    roll_out(namespace.target(variables=OLD), 1, a)
    roll_out(namespace.target(variables=NEW), 2, a)
    roll_out(namespace.target(variables=NEW), 3, a, returns_to=1)
    assert namespace.environments() == given(OLD)
    assert sources(namespace) == [f"{NAME}-env-1", f"{NAME}-env-2"]


def test_a_rollback_without_its_secrets_gets_those_of_the_settings(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """A person has removed the object."""
    roll_out(namespace.target(variables=OLD), 1, a)
    roll_out(namespace.target(variables=NEW), 2, b)
    namespace.cluster.delete("Secret", f"{NAME}-env-1")
    roll_out(namespace.target(variables=NEW), 3, a, returns_to=1)
    assert namespace.environments() == given(NEW)


def test_a_release_of_an_older_version_has_no_variables_to_return_to(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """Its history says nothing of them, so that the settings count."""
    roll_out(namespace.target(), 1, a)
    item = namespace.get("ConfigMap", f"{NAME}-history")
    del item["data"]["env-000001"]
    roll_out(namespace.target(variables=NEW), 2, b)
    roll_out(namespace.target(variables=NEW), 3, a, returns_to=1)
    assert namespace.environments() == given(NEW)


def test_an_undo_without_a_snapshot_returns_to_recorded_variables(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """The snapshot is lost with the Deployment's field owners, and the history is not."""
    roll_out(namespace.target(variables=OLD), 1, a)
    target = namespace.target(variables=NEW)
    with target.lock():
        target.begin(attempt(2, b))
        target.serve(b, trust)
        del namespace.get("ConfigMap", f"{NAME}-history")["data"]["before"]
        target.restore(a)
        target.settle(a)
    assert namespace.environments() == given(OLD)


def test_variables_of_a_lost_history_are_recorded_again(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """The Deployment has them."""
    namespace.apply(a, namespace.deployer(variables=OLD))
    namespace.cluster.delete("ConfigMap", f"{NAME}-history")
    namespace.apply(b, namespace.deployer(variables=NEW))
    back = Choice(namespace.deployer().history(), returns_to=1)
    namespace.apply(a, namespace.deployer(variables=NEW), trigger="rollback", choice=back)
    assert namespace.environments() == given(OLD)


def test_a_standby_of_other_variables_is_proven_before_it_gets_requests() -> None:
    """It is a new set of replicas, though its image was proven before."""
    namespace = FakeNamespace(strategy="blue-green", standby=True)
    a = namespace.release("a")
    roll_out(namespace.target(variables=OLD), 1, a)
    roll_out(namespace.target(variables=OLD), 2, namespace.release("b"))
    seen: list[set[str]] = []
    for variables in (NEW, NEW):
        target = namespace.target(variables=variables)
        with target.lock():
            target.begin(attempt(3, a))
            target.serve(a, lambda _: seen.append(namespace.answers()))
    assert seen == [{"b"}, {"b"}]


def test_a_release_that_cannot_start_leaves_its_secret_until_it_is_forgotten(
    namespace: FakeNamespace, a: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history refers to it as long as it has the attempt."""
    roll_out(namespace.target(variables=OLD), 1, a)
    broken = namespace.release("broken", PodScript(exits=3))
    with pytest.raises(RolloutFailed):
        namespace.apply(broken, namespace.deployer(variables=NEW))
    assert namespace.environments() == given(OLD)
    assert sources(namespace) == [f"{NAME}-env-1", f"{NAME}-env-2"]
    monkeypatch.setattr(histories, "MAX_ENTRIES", 1)
    namespace.apply(a, namespace.deployer(variables=OLD))
    assert sources(namespace) == [f"{NAME}-env-1"]
    assert namespace.environments() == given(OLD)


def test_a_secret_of_running_replicas_is_kept_without_its_history(
    namespace: FakeNamespace, a: Release
) -> None:
    """A person has removed the attempt from the history; a restarted replica needs the Secret."""
    roll_out(namespace.target(variables=OLD), 1, a)
    del namespace.get("ConfigMap", f"{NAME}-history")["data"]["000001"]
    namespace.target().settle(a)
    assert sources(namespace) == [f"{NAME}-env-1"]


def test_a_canary_of_other_variables_is_not_taken_over() -> None:
    """It was not made of the present settings; a secret is enough."""
    namespace = FakeNamespace(strategy="canary")
    roll_out(namespace.target(variables=OLD), 1, namespace.release("a"))
    held = namespace.deployment().variables
    writer = namespace.writer()
    writer.roll_out("twin", b := namespace.release("b"), 1, attempt(2, b), held)
    writer.supporting_objects.point_service(TrafficSplit("main", both=True))
    rotated = Variables(OLD.values, {"API_KEY": "planted-other"})
    for variables, expected in ((OLD, True), (rotated, False), (NEW, False)):
        assert namespace.target(variables=variables).may_take_over(b) is expected


def test_a_rendering_names_the_secret_that_serves_and_reads_none(
    namespace: FakeNamespace, a: Release
) -> None:
    """So it can be applied by hand."""
    settings: dict[str, Any] = {"env": dict(OLD.values), "secrets": {"API_KEY": "KEY"}}
    roll_out(namespace.target(variables=OLD, **settings), 1, a)
    namespace.cluster.requests.clear()
    target = namespace.target(**settings)
    for known in (attempt(1, a), None):
        deployment = target.rendered(a, known)[-1]
        found = json.loads(deployment["metadata"]["annotations"][VARIABLES_ANNOTATION])
        assert found == {
            "values": OLD.values,
            "secrets": ["API_KEY"],
            "source": f"{NAME}-env-1",
        }
    assert [name for verb, kind, name in namespace.cluster.requests if kind == "Secret"] == []


def test_a_release_without_variables_is_marked_with_none(
    namespace: FakeNamespace, a: Release
) -> None:
    """Objects stay as they were before there were variables."""
    roll_out(namespace.target(), 1, a)
    assert VARIABLES_ANNOTATION not in namespace.deployment().item["metadata"]["annotations"]
    assert namespace.target().variables() == NO_VARIABLES
