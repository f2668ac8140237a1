"""What every cluster does, whatever it is made of."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from deploy.clients.kubernetes.protocol import KINDS, Cluster, Object
from deploy.errors import ClusterRefused, FieldConflict, RolloutLocked

Write = Callable[[Object, str], None]
_PATIENCE = 30


def until(reached: Callable[[], bool], what: str) -> None:
    """Waits for what a cluster does in its own time."""
    deadline = time.monotonic() + _PATIENCE
    while not reached():
        assert time.monotonic() < deadline, f"not within {_PATIENCE} s: {what}"
        time.sleep(0.05)


def settings(name: str, labels: dict[str, str] | None = None, **data: str) -> Object:
    """A ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": labels or {}},
        "data": data,
    }


def deployment(name: str, **spec: Any) -> Object:
    """A Deployment that runs nothing unless it is told a number of replicas."""
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
    """Of a Deployment, what an autoscaler sets."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas},
    }


def event(namespace: str, name: str, about: str, message: str, when: str) -> Object:
    """Something that happened to a pod."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name},
        "involvedObject": {"kind": "Pod", "name": about, "namespace": namespace},
        "message": message,
        "lastTimestamp": when,
    }


def found(cluster: Cluster, kind: str, name: str) -> Object:
    """An object that is there."""
    item = cluster.find(kind, name)
    assert item is not None
    return item


class ClusterContract:
    """Subclasses give the fixtures `cluster`, `other` and `unserved`."""

    @pytest.fixture
    def cluster(self) -> Cluster:
        """A namespace with nothing in it that these tests would see."""
        raise NotImplementedError

    @pytest.fixture
    def other(self) -> Write:
        """Sets fields of an object under another manager's name, taking them from whoever has them."""
        raise NotImplementedError

    @pytest.fixture
    def unserved(self) -> str:
        """A kind that the cluster does not serve."""
        raise NotImplementedError

    # --- what is there

    def test_it_says_what_it_is(self, cluster: Cluster) -> None:
        """Its name and its API server's version can be shown to people."""
        assert cluster.name
        assert re.match(r"v\d+\.\d+\.\d+", cluster.version())

    def test_a_namespace_that_is_there_is_seen_to_be(self, cluster: Cluster) -> None:
        """However new it is; nothing is made there to find that out, and nothing is in the way of what is made next."""
        cluster.require()
        assert cluster.list("ConfigMap", {"app": "web"}) == []
        cluster.apply(settings("one"))
        cluster.require()

    def test_what_was_never_made_is_not_there(self, cluster: Cluster) -> None:
        """To look for it, to list it and to remove it is no error."""
        assert cluster.find("Deployment", "absent") is None
        assert cluster.list("Deployment", {"app": "absent"}) == []
        cluster.delete("Deployment", "absent")
        assert cluster.events("absent") == []
        assert cluster.log("absent", 10) == ""

    def test_it_knows_the_kinds_that_it_serves(self, cluster: Cluster) -> None:
        """Of the core and of groups."""
        assert cluster.serves("Service")
        assert cluster.serves("Deployment")

    def test_a_kind_that_it_does_not_serve_has_no_objects(
        self, cluster: Cluster, unserved: str
    ) -> None:
        """None can be found, listed or removed, which is no error; to make one is."""
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

    def test_applying_makes_an_object(self, cluster: Cluster) -> None:
        """What comes back is what can be found from then on, with its kind and version."""
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

    def test_what_was_read_is_ones_own(self, cluster: Cluster) -> None:
        """To change it changes nothing on the cluster."""
        cluster.apply(settings("one", key="value"))["data"]["key"] = "changed"
        found(cluster, "ConfigMap", "one")["data"]["key"] = "changed"
        cluster.list("ConfigMap", {})[0].clear()
        assert found(cluster, "ConfigMap", "one")["data"] == {"key": "value"}

    def test_applying_sets_what_is_given(self, cluster: Cluster) -> None:
        """A field with another value gets that value, and the object is another version of the same."""
        first = cluster.apply(settings("one", key="old"))
        second = cluster.apply(settings("one", key="new", more="yes"))
        assert second["data"] == {"key": "new", "more": "yes"}
        assert second["metadata"]["uid"] == first["metadata"]["uid"]
        assert second["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]

    def test_applying_the_same_again_changes_nothing(self, cluster: Cluster) -> None:
        """The object is not even another version of itself."""
        first = cluster.apply(deployment("web", replicas=0))
        assert first["metadata"]["generation"] == 1
        assert cluster.apply(deployment("web", replicas=0))["metadata"]["generation"] == 1
        cluster.apply(settings("one", key="value"))
        version = found(cluster, "ConfigMap", "one")["metadata"]["resourceVersion"]
        assert cluster.apply(settings("one", key="value"))["metadata"]["resourceVersion"] == version

    def test_the_generation_counts_changes_of_what_is_wanted(self, cluster: Cluster) -> None:
        """Labels of the object itself are not among them."""
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

    def test_a_field_that_is_no_longer_given_goes(self, cluster: Cluster) -> None:
        """What this project set once and sets no more is removed."""
        cluster.apply(settings("one", {"a": "b", "c": "d"}, key="value", old="yes"))
        made = cluster.apply(settings("one", {"a": "b"}, key="value"))
        assert made["data"] == {"key": "value"}
        assert made["metadata"]["labels"] == {"a": "b"}

    def test_what_others_set_stays(self, cluster: Cluster, other: Write) -> None:
        """Fields that are not given are left alone, in objects and in lists whose items have names."""
        cluster.apply(settings("one", key="value"))
        other(settings("one", {"theirs": "yes"}, more="theirs"), "visitor")
        made = cluster.apply(settings("one", key="new"))
        assert made["data"] == {"key": "new", "more": "theirs"}
        assert made["metadata"]["labels"] == {"theirs": "yes"}
        cluster.apply(deployment("web", replicas=0))
        beside = deployment("web")
        beside["spec"]["template"]["spec"]["containers"].append(
            {"name": "sidecar", "image": "registry.invalid/sidecar:1"}
        )
        other(beside, "mesh")
        containers = cluster.apply(deployment("web", replicas=0))["spec"]["template"]["spec"][
            "containers"
        ]
        assert {container["name"] for container in containers} == {"app", "sidecar"}

    def test_a_field_that_somebody_else_set_is_a_conflict(
        self, cluster: Cluster, other: Write
    ) -> None:
        """The error names field and owner, and nothing was changed, nor anything else that was given."""
        cluster.apply(deployment("web", replicas=0))
        other(scaled("web", 1), "autoscaler")
        with pytest.raises(FieldConflict) as caught:
            cluster.apply(deployment("web", replicas=0, minReadySeconds=3))
        assert dict(caught.value.owners) == {"spec.replicas": "autoscaler"}
        assert "autoscaler" in caught.value.what
        assert "spec.replicas: autoscaler" in caught.value.detail
        spec = found(cluster, "Deployment", "web")["spec"]
        assert (spec["replicas"], spec.get("minReadySeconds", 0)) == (1, 0)

    def test_what_somebody_else_set_can_be_taken_from_them(
        self, cluster: Cluster, other: Write
    ) -> None:
        """By force, and from then on it is ours."""
        cluster.apply(deployment("web", replicas=0))
        other(scaled("web", 1), "autoscaler")
        assert cluster.apply(deployment("web", replicas=0), force=True)["spec"]["replicas"] == 0
        assert cluster.apply(deployment("web", replicas=2))["spec"]["replicas"] == 2

    def test_two_may_want_the_same(self, cluster: Cluster, other: Write) -> None:
        """A field that somebody else set to the same value is no conflict; when one lets go of it, it stays."""
        cluster.apply(settings("one", key="value"))
        other(settings("one", key="value"), "visitor")
        cluster.apply(settings("one", key="value"))
        assert cluster.apply(settings("one"))["data"] == {"key": "value"}

    def test_a_field_that_was_given_up_belongs_to_whoever_took_it(
        self, cluster: Cluster, other: Write
    ) -> None:
        """An autoscaler that took the number of replicas keeps it while this project no longer says one."""
        cluster.apply(deployment("web", replicas=0))
        other(scaled("web", 1), "autoscaler")
        made = cluster.apply(deployment("web", minReadySeconds=3))
        assert (made["spec"]["replicas"], made["spec"]["minReadySeconds"]) == (1, 3)

    def test_what_must_hold_is_made_sure_of_before_anything_changes(self, cluster: Cluster) -> None:
        """Where it does not, nothing was applied or removed; where it does, that is all there is to it."""
        held = [True, True]

        def require() -> None:
            if not held:
                raise RolloutLocked("the lock was lost", on="it", next="again")
            held.pop()

        cluster.apply(settings("one", key="value"), require=require)
        cluster.apply(settings("one", key="new"), require=require)
        with pytest.raises(RolloutLocked):
            cluster.apply(settings("one", key="lost"), require=require)
        with pytest.raises(RolloutLocked):
            cluster.delete("ConfigMap", "one", require=require)
        assert found(cluster, "ConfigMap", "one")["data"] == {"key": "new"}
        held.append(True)
        cluster.delete("ConfigMap", "one", require=require)
        assert cluster.find("ConfigMap", "one") is None

    # --- making and replacing

    def test_an_object_is_made_once(self, cluster: Cluster) -> None:
        """Who comes second is told so, and changes nothing."""
        assert cluster.create(settings("one", key="first"))
        assert not cluster.create(settings("one", key="second"))
        assert found(cluster, "ConfigMap", "one")["data"] == {"key": "first"}

    def test_an_object_is_replaced_as_it_was_read(self, cluster: Cluster) -> None:
        """Whole: what is no longer in it is gone."""
        cluster.create(settings("one", {"a": "b"}, key="value", old="yes"))
        item = found(cluster, "ConfigMap", "one")
        item["data"] = {"key": "new"}
        assert cluster.replace(item)
        replaced = found(cluster, "ConfigMap", "one")
        assert replaced["data"] == {"key": "new"}
        assert replaced["metadata"]["labels"] == {"a": "b"}
        assert replaced["metadata"]["uid"] == item["metadata"]["uid"]

    def test_an_object_that_has_changed_since_is_not_replaced(self, cluster: Cluster) -> None:
        """Of two who read the same, one wins; what is gone cannot be replaced either."""
        cluster.create(settings("one", key="value"))
        mine = found(cluster, "ConfigMap", "one")
        theirs = found(cluster, "ConfigMap", "one")
        mine["data"], theirs["data"] = {"key": "mine"}, {"key": "theirs"}
        assert cluster.replace(theirs)
        assert not cluster.replace(mine)
        assert found(cluster, "ConfigMap", "one")["data"] == {"key": "theirs"}
        item = found(cluster, "ConfigMap", "one")
        cluster.delete("ConfigMap", "one")
        assert not cluster.replace(item)
        assert cluster.find("ConfigMap", "one") is None

    # --- listing and removing

    def test_a_list_has_what_carries_all_labels(self, cluster: Cluster) -> None:
        """Ordered by name, each with its kind and version."""
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

    def test_a_removed_object_is_gone(self, cluster: Cluster) -> None:
        """Removing it twice is no error, and another one of its name is another one."""
        first = cluster.apply(settings("one", key="value"))
        cluster.apply(settings("two"))
        cluster.delete("ConfigMap", "one")
        cluster.delete("ConfigMap", "one")
        assert cluster.find("ConfigMap", "one") is None
        assert cluster.find("ConfigMap", "two") is not None
        assert cluster.apply(settings("one"))["metadata"]["uid"] != first["metadata"]["uid"]

    def test_what_an_object_owns_goes_with_it(self, cluster: Cluster) -> None:
        """In the cluster's own time."""
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

    # --- what pods went through, and ways in

    def test_events_come_in_the_order_in_which_they_happened(self, cluster: Cluster) -> None:
        """Those about that object alone."""
        cluster.create(event(cluster.namespace, "x1", "web-1", "third", "2030-01-01T10:00:02Z"))
        cluster.create(event(cluster.namespace, "x2", "web-1", "first", "2030-01-01T09:59:59Z"))
        cluster.create(event(cluster.namespace, "x3", "web-1", "second", "2030-01-01T10:00:00Z"))
        cluster.create(event(cluster.namespace, "x4", "web-2", "other", "2030-01-01T10:00:01Z"))
        assert [one["message"] for one in cluster.events("web-1")] == ["first", "second", "third"]

    def test_who_may_everything_may_this(self, cluster: Cluster) -> None:
        """Permissions can be asked for, also those for a part of an object."""
        assert cluster.may("delete", "Deployment")
        assert cluster.may("get", "Pod", "log")

    def test_each_port_of_each_thing_has_an_entrance_of_its_own(self, cluster: Cluster) -> None:
        """A path is appended to it, so that it does not end with a slash."""
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
