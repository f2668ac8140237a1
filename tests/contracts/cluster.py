"""The contract of every cluster, in memory or real."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from deploy.clients.kubernetes.protocol import KINDS, Cluster, Object
from deploy.errors import ClusterRefused, FieldConflict, RolloutLocked

Write = Callable[[Object, str], None]
_TIMEOUT = 30


def until(is_met: Callable[[], bool], what: str) -> None:
    """Wait until a condition is met, which a cluster may take some time for."""
    deadline = time.monotonic() + _TIMEOUT
    while not is_met():
        assert time.monotonic() < deadline, f"not within {_TIMEOUT} s: {what}"
        time.sleep(0.05)


def settings(name: str, labels: dict[str, str] | None = None, **data: str) -> Object:
    """Return a ConfigMap, without the maps that would be empty.

    A manager that applies an empty map claims all of it, so that another one cannot add to it.
    """
    metadata = {"name": name, **({"labels": labels} if labels else {})}
    content = {"data": data} if data else {}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **content}


def deployment(name: str, **spec: Any) -> Object:
    """Return a Deployment without pods, unless a number of replicas is given."""
    labels = {"app": name}
    pod = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "app", "image": "registry.invalid/app:1"}]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": pod, **spec},
    }


def scaled(name: str, replicas: int) -> Object:
    """Return the part of a Deployment that an autoscaler sets."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas},
    }


def event(namespace: str, name: str, about: str, message: str, when: str) -> Object:
    """Return an event about a pod."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name},
        "involvedObject": {"kind": "Pod", "name": about, "namespace": namespace},
        "message": message,
        "lastTimestamp": when,
    }


def found(cluster: Cluster, kind: str, name: str) -> Object:
    """Return an object that must exist."""
    item = cluster.find(kind, name)
    assert item is not None
    return item


class ClusterContract:
    """Tests of a cluster; subclasses define the fixtures `cluster`, `other` and `unserved`."""

    @pytest.fixture
    def cluster(self) -> Cluster:
        """Return a namespace without objects that these tests would see."""
        raise NotImplementedError

    @pytest.fixture
    def other(self) -> Write:
        """Return a function that sets fields of an object as another manager, by force."""
        raise NotImplementedError

    @pytest.fixture
    def unserved(self) -> str:
        """Return a kind that the cluster does not serve."""
        raise NotImplementedError

    # --- finding

    def test_it_has_a_name_and_a_version(self, cluster: Cluster) -> None:
        """Both can be shown to people."""
        assert cluster.name
        assert re.match(r"v\d+\.\d+\.\d+", cluster.version())

    def test_an_existing_namespace_is_found(self, cluster: Cluster) -> None:
        """A new one is found too, and the check creates nothing."""
        cluster.require_access()
        assert cluster.list("ConfigMap", {"app": "web"}) == []
        cluster.apply(settings("one"))
        cluster.require_access()

    def test_its_nodes_are_of_the_whole_cluster(self, cluster: Cluster) -> None:
        """Each has a name and labels; another account may not read them."""
        nodes = cluster.nodes()
        assert nodes
        assert all(node["metadata"]["labels"]["kubernetes.io/arch"] for node in nodes)

    def test_an_absent_object_is_not_found(self, cluster: Cluster) -> None:
        """To find, list or delete it is no error."""
        assert cluster.find("Deployment", "absent") is None
        assert cluster.list("Deployment", {"app": "absent"}) == []
        cluster.delete("Deployment", "absent")
        assert cluster.events("absent") == []
        assert cluster.log("absent", 10) == ""

    def test_it_knows_the_kinds_that_it_serves(self, cluster: Cluster) -> None:
        """They are in the core and in API groups."""
        assert cluster.serves("Service")
        assert cluster.serves("Deployment")

    def test_a_kind_that_it_does_not_serve_has_no_objects(
        self, cluster: Cluster, unserved: str
    ) -> None:
        """To find, list or delete one is no error; to create one is."""
        assert not cluster.serves(unserved)
        assert cluster.find(unserved, "one") is None
        assert cluster.list(unserved, {}) == []
        cluster.delete(unserved, "one")
        with pytest.raises(ClusterRefused):
            cluster.apply(
                {
                    "apiVersion": KINDS[unserved].api_version,
                    "kind": unserved,
                    "metadata": {"name": "one"},
                    "spec": {},
                }
            )

    # --- applying

    def test_applying_creates_an_object(self, cluster: Cluster) -> None:
        """The result is the object that can be found from then on, with its kind and version."""
        made = cluster.apply(settings("one", {"a": "b"}, key="value"))
        assert made == cluster.find("ConfigMap", "one")
        assert (made["apiVersion"], made["kind"], made["data"]) == (
            "v1",
            "ConfigMap",
            {"key": "value"},
        )
        assert made["metadata"]["labels"] == {"a": "b"}
        assert made["metadata"]["namespace"] == cluster.namespace
        assert made["metadata"]["uid"]
        assert made["metadata"]["resourceVersion"]

    def test_a_read_object_is_a_copy(self, cluster: Cluster) -> None:
        """To change it changes nothing on the cluster."""
        cluster.apply(settings("one", key="value"))["data"]["key"] = "changed"
        found(cluster, "ConfigMap", "one")["data"]["key"] = "changed"
        cluster.list("ConfigMap", {})[0].clear()
        assert found(cluster, "ConfigMap", "one")["data"] == {"key": "value"}

    def test_applying_sets_the_given_fields(self, cluster: Cluster) -> None:
        """The object gets a new version."""
        first = cluster.apply(settings("one", key="old"))
        second = cluster.apply(settings("one", key="new", more="yes"))
        assert second["data"] == {"key": "new", "more": "yes"}
        assert second["metadata"]["uid"] == first["metadata"]["uid"]
        assert second["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]

    def test_applying_the_same_again_changes_nothing(self, cluster: Cluster) -> None:
        """The object keeps its version."""
        first = cluster.apply(deployment("web", replicas=0))
        assert first["metadata"]["generation"] == 1
        assert cluster.apply(deployment("web", replicas=0))["metadata"]["generation"] == 1
        cluster.apply(settings("one", key="value"))
        version = found(cluster, "ConfigMap", "one")["metadata"]["resourceVersion"]
        assert cluster.apply(settings("one", key="value"))["metadata"]["resourceVersion"] == version

    def test_the_generation_counts_changes_of_the_specification(self, cluster: Cluster) -> None:
        """A label of the object itself does not count."""
        cluster.apply(deployment("web", replicas=0))
        labelled = deployment("web", replicas=0)
        labelled["metadata"]["labels"] = {"note": "something"}
        assert cluster.apply(labelled)["metadata"]["generation"] == 1
        assert (
            cluster.apply(deployment("web", replicas=0, minReadySeconds=3))["metadata"][
                "generation"
            ]
            == 2
        )

    def test_a_field_that_is_no_longer_given_is_removed(self, cluster: Cluster) -> None:
        """It was applied by the same manager."""
        cluster.apply(settings("one", {"a": "b", "c": "d"}, key="value", old="yes"))
        made = cluster.apply(settings("one", {"a": "b"}, key="value"))
        assert made["data"] == {"key": "value"}
        assert made["metadata"]["labels"] == {"a": "b"}

    def test_fields_of_other_managers_stay(self, cluster: Cluster, other: Write) -> None:
        """That holds in objects, and in lists whose items have names."""
        cluster.apply(settings("one", key="value"))
        other(settings("one", {"theirs": "yes"}, more="theirs"), "visitor")
        made = cluster.apply(settings("one", key="new"))
        assert made["data"] == {"key": "new", "more": "theirs"}
        assert made["metadata"]["labels"] == {"theirs": "yes"}
        cluster.apply(deployment("web", replicas=0))
        with_sidecar = deployment("web")
        with_sidecar["spec"]["template"]["spec"]["containers"].append(
            {"name": "sidecar", "image": "registry.invalid/sidecar:1"}
        )
        other(with_sidecar, "mesh")
        containers = cluster.apply(deployment("web", replicas=0))["spec"]["template"]["spec"][
            "containers"
        ]
        assert {container["name"] for container in containers} == {"app", "sidecar"}

    def test_a_field_of_another_manager_is_a_conflict(self, cluster: Cluster, other: Write) -> None:
        """The error names field and owner, and none of the given fields is changed."""
        cluster.apply(deployment("web", replicas=0))
        other(scaled("web", 1), "autoscaler")
        with pytest.raises(FieldConflict) as caught:
            cluster.apply(deployment("web", replicas=0, minReadySeconds=3))
        assert dict(caught.value.owners) == {"spec.replicas": "autoscaler"}
        assert "autoscaler" in caught.value.what
        assert "spec.replicas: autoscaler" in caught.value.detail
        spec = found(cluster, "Deployment", "web")["spec"]
        assert (spec["replicas"], spec.get("minReadySeconds", 0)) == (1, 0)

    def test_a_field_of_another_manager_can_be_taken_by_force(
        self, cluster: Cluster, other: Write
    ) -> None:
        """From then on it is ours."""
        cluster.apply(deployment("web", replicas=0))
        other(scaled("web", 1), "autoscaler")
        assert cluster.apply(deployment("web", replicas=0), force=True)["spec"]["replicas"] == 0
        assert cluster.apply(deployment("web", replicas=2))["spec"]["replicas"] == 2

    def test_two_managers_may_set_the_same_value(self, cluster: Cluster, other: Write) -> None:
        """There is no conflict, and the field stays when one of them gives it up."""
        cluster.apply(settings("one", key="value"))
        other(settings("one", key="value"), "visitor")
        cluster.apply(settings("one", key="value"))
        assert cluster.apply(settings("one"))["data"] == {"key": "value"}

    def test_a_field_that_was_given_up_belongs_to_its_new_owner(
        self, cluster: Cluster, other: Write
    ) -> None:
        """An autoscaler keeps the number of replicas that this project no longer sets."""
        cluster.apply(deployment("web", replicas=0))
        other(scaled("web", 1), "autoscaler")
        made = cluster.apply(deployment("web", minReadySeconds=3))
        assert (made["spec"]["replicas"], made["spec"]["minReadySeconds"]) == (1, 3)

    def test_a_requirement_is_checked_before_each_write(self, cluster: Cluster) -> None:
        """If it fails, nothing is applied or deleted."""
        remaining = [True, True]

        def require() -> None:
            if not remaining:
                raise RolloutLocked("the lock was lost", on="it", next="again")
            remaining.pop()

        cluster.apply(settings("one", key="value"), require=require)
        cluster.apply(settings("one", key="new"), require=require)
        with pytest.raises(RolloutLocked):
            cluster.apply(settings("one", key="lost"), require=require)
        with pytest.raises(RolloutLocked):
            cluster.delete("ConfigMap", "one", require=require)
        assert found(cluster, "ConfigMap", "one")["data"] == {"key": "new"}
        remaining.append(True)
        cluster.delete("ConfigMap", "one", require=require)
        assert cluster.find("ConfigMap", "one") is None

    # --- creating and replacing

    def test_an_object_is_created_once(self, cluster: Cluster) -> None:
        """The second call returns that it exists and changes nothing."""
        assert cluster.create(settings("one", key="first"))
        assert not cluster.create(settings("one", key="second"))
        assert found(cluster, "ConfigMap", "one")["data"] == {"key": "first"}

    def test_an_object_is_replaced_as_a_whole(self, cluster: Cluster) -> None:
        """Fields that are not in it any more are removed."""
        cluster.create(settings("one", {"a": "b"}, key="value", old="yes"))
        item = found(cluster, "ConfigMap", "one")
        item["data"] = {"key": "new"}
        assert cluster.replace(item)
        replaced = found(cluster, "ConfigMap", "one")
        assert replaced["data"] == {"key": "new"}
        assert replaced["metadata"]["labels"] == {"a": "b"}
        assert replaced["metadata"]["uid"] == item["metadata"]["uid"]

    def test_an_object_that_has_changed_meanwhile_is_not_replaced(self, cluster: Cluster) -> None:
        """One of two writers wins; an object that was deleted cannot be replaced either."""
        cluster.create(settings("one", key="value"))
        mine = found(cluster, "ConfigMap", "one")
        theirs = found(cluster, "ConfigMap", "one")
        mine["data"] = {"key": "mine"}
        theirs["data"] = {"key": "theirs"}
        assert cluster.replace(theirs)
        assert not cluster.replace(mine)
        assert found(cluster, "ConfigMap", "one")["data"] == {"key": "theirs"}
        item = found(cluster, "ConfigMap", "one")
        cluster.delete("ConfigMap", "one")
        assert not cluster.replace(item)
        assert cluster.find("ConfigMap", "one") is None

    # --- listing and deleting

    def test_a_list_has_the_objects_with_all_labels(self, cluster: Cluster) -> None:
        """They are ordered by name, each with its kind and version."""
        for name in ("c", "a", "b"):
            cluster.apply(settings(name, {"app": "web", "side": name}))
        cluster.apply(settings("d", {"app": "other", "side": "a"}))
        assert [item["metadata"]["name"] for item in cluster.list("ConfigMap", {"app": "web"})] == [
            "a",
            "b",
            "c",
        ]
        (item,) = cluster.list("ConfigMap", {"app": "web", "side": "b"})
        assert item == cluster.find("ConfigMap", "b")

    def test_a_deleted_object_is_absent(self, cluster: Cluster) -> None:
        """To delete it twice is no error, and a new one of its name is another object."""
        first = cluster.apply(settings("one", key="value"))
        cluster.apply(settings("two"))
        cluster.delete("ConfigMap", "one")
        cluster.delete("ConfigMap", "one")
        assert cluster.find("ConfigMap", "one") is None
        assert cluster.find("ConfigMap", "two") is not None
        assert cluster.apply(settings("one"))["metadata"]["uid"] != first["metadata"]["uid"]

    def test_the_objects_that_an_object_owns_are_deleted_with_it(self, cluster: Cluster) -> None:
        """That may take some time."""
        owner = cluster.apply(settings("owner"))
        owned = settings("owned")
        reference = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": "owner",
            "uid": owner["metadata"]["uid"],
        }
        owned["metadata"]["ownerReferences"] = [reference]
        cluster.apply(owned)
        cluster.delete("ConfigMap", "owner")
        until(lambda: cluster.find("ConfigMap", "owned") is None, "what is owned is removed")

    # --- events, permissions and endpoints

    def test_events_are_ordered_by_time(self, cluster: Cluster) -> None:
        """Only those about that object are returned."""
        cluster.create(event(cluster.namespace, "x1", "web-1", "third", "2030-01-01T10:00:02Z"))
        cluster.create(event(cluster.namespace, "x2", "web-1", "first", "2030-01-01T09:59:59Z"))
        cluster.create(event(cluster.namespace, "x3", "web-1", "second", "2030-01-01T10:00:00Z"))
        cluster.create(event(cluster.namespace, "x4", "web-2", "other", "2030-01-01T10:00:01Z"))
        assert [one["message"] for one in cluster.events("web-1")] == ["first", "second", "third"]

    def test_an_administrator_has_all_permissions(self, cluster: Cluster) -> None:
        """Permissions can also be asked for a subresource."""
        assert cluster.is_allowed("delete", "Deployment")
        assert cluster.is_allowed("get", "Pod", "log")

    def test_each_port_of_each_object_has_its_own_endpoint(self, cluster: Cluster) -> None:
        """Its URL does not end with a slash, because a path is appended to it."""
        things = [
            ("Service", "web", 80),
            ("Service", "web", 8080),
            ("Service", "web-2", 80),
            ("Pod", "web", 80),
        ]
        urls = [cluster.endpoint(*thing).url for thing in things]
        assert len(set(urls)) == len(things)
        assert not any(url.endswith("/") for url in urls)
        assert cluster.endpoint("Service", "web", 80).url == urls[0]
