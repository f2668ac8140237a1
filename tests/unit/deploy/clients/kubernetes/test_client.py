"""What is asked of an API server, and what is made of its answers."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from deploy.clients.kubernetes.client import KubeCluster
from deploy.clients.kubernetes.protocol import Object
from deploy.clients.kubernetes.transport import ApiRequest, ApiResponse
from deploy.errors import (
    ClusterError,
    ClusterForbidden,
    ClusterLogin,
    ClusterRefused,
    ClusterUnreachable,
    FieldConflict,
    NamespaceMissing,
)
from tests.contracts.cluster import deployment, settings
from tests.fakes.transport import (
    FakeTime,
    FakeTransport,
    Outcome,
    no_response,
    response_with,
    review,
    status,
)

FORBIDDEN = status(403, "Forbidden", "no")
NO_NAMESPACE = status(
    404, "NotFound", 'namespaces "shop" not found', name="shop", kind="namespaces"
)


def cluster(*outcomes: Outcome) -> tuple[KubeCluster, FakeTransport]:
    """The namespace `shop` of a cluster that says that, and the way there."""
    wire = FakeTransport(list(outcomes))
    return KubeCluster(wire, "shop", FakeTime().retry_policy()), wire


def absent(name: str = "one") -> ApiResponse:
    """An object is not there."""
    return status(404, "NotFound", f'configmaps "{name}" not found', name=name, kind="configmaps")


def stored(item: Object, **metadata: Any) -> ApiResponse:
    """An object as the server has it: with what it adds."""
    return response_with(
        **item
        | {
            "metadata": item["metadata"] | {"uid": "1", "resourceVersion": "7"} | metadata,
            "immutable": False,
        }
    )


def page(*names: str, more: str = "") -> ApiResponse:
    """A part of a list."""
    return response_with(
        kind="ConfigMapList",
        metadata={"continue": more},
        items=[{"metadata": {"name": name}} for name in names],
    )


# --- what is asked


def test_an_object_is_applied_under_our_name() -> None:
    """As YAML, which JSON is, without force."""
    server, wire = cluster(stored(deployment("web")))
    assert server.apply(deployment("web"))["metadata"]["uid"] == "1"
    (call,) = wire.requests
    assert (call.method, call.path) == ("PATCH", "/apis/apps/v1/namespaces/shop/deployments/web")
    assert dict(call.query) == {"fieldManager": "twinship", "force": "false"}
    assert (call.content_type, call.body) == ("application/apply-patch+yaml", deployment("web"))


def test_an_object_is_removed_with_what_it_owns() -> None:
    """In the background: nobody waits for that."""
    server, wire = cluster(response_with(kind="Status"))
    server.delete("ConfigMap", "one")
    assert wire.requests == [
        ApiRequest(
            "DELETE",
            "/api/v1/namespaces/shop/configmaps/one",
            (("propagationPolicy", "Background"),),
        )
    ]


@pytest.mark.parametrize(
    "write",
    [
        lambda server, require: server.apply(deployment("web"), require=require),
        lambda server, require: server.delete("Deployment", "web", require=require),
    ],
    ids=["apply", "delete"],
)
def test_what_must_hold_is_made_sure_of_each_time(
    write: Callable[[KubeCluster, Callable[[], None]], object],
) -> None:
    """Also when the server was away, and gets the same again."""
    server, wire = cluster(no_response(), stored(deployment("web")))
    asked: list[int] = []
    write(server, lambda: asked.append(len(wire.requests)))
    assert asked == [0, 1]


def test_objects_are_made_and_replaced_under_our_name() -> None:
    """In their collection, and at their place."""
    server, wire = cluster(stored(settings("one")))
    assert server.create(settings("one"))
    assert server.replace(settings("one"))
    assert [(call.method, call.path) for call in wire.requests] == [
        ("POST", "/api/v1/namespaces/shop/configmaps"),
        ("PUT", "/api/v1/namespaces/shop/configmaps/one"),
    ]
    assert all(dict(call.query) == {"fieldManager": "twinship"} for call in wire.requests)


def test_a_permission_is_asked_for_as_the_server_wants_it() -> None:
    """With namespace, group, collection and part."""
    server, wire = cluster(review(allowed=True), review(allowed=False))
    assert server.is_allowed("patch", "Deployment")
    assert not server.is_allowed("get", "Pod", "log")
    attributes = [
        call.body["spec"]["resourceAttributes"]
        for call in wire.requests
        if isinstance(call.body, dict)
    ]
    assert attributes == [
        {
            "namespace": "shop",
            "verb": "patch",
            "group": "apps",
            "resource": "deployments",
            "subresource": "",
        },
        {"namespace": "shop", "verb": "get", "group": "", "resource": "pods", "subresource": "log"},
    ]


def test_the_way_in_leads_through_the_api_server() -> None:
    """To the port of a pod or service, with what lets one in there."""
    server, _ = cluster(response_with())
    made = server.endpoint("Service", "web", 80)
    assert made.url == "https://api.example/api/v1/namespaces/shop/services/web:80/proxy"
    assert made.headers
    assert server.endpoint("Pod", "web-1", 8080).url.endswith("/pods/web-1:8080/proxy")


# --- what is read


def test_a_kind_is_served_if_the_group_lists_it() -> None:
    """A group that is known without it, or not known, does not serve it."""
    group = response_with(
        kind="APIResourceList", resources=[{"name": "deployments"}, {"name": "deployments/status"}]
    )
    server, wire = cluster(group, ApiResponse(404, "404 page not found"))
    for _ in range(2):
        assert server.serves("Deployment")
        assert not server.serves("ReplicaSet")
        assert not server.serves("PodDisruptionBudget")
    # Each group is asked for once.
    assert [call.path for call in wire.requests] == ["/apis/apps/v1", "/apis/policy/v1"]


@pytest.mark.parametrize(
    "failure", [no_response(passing=False), status(401), ApiResponse(200, "<html>welcome</html>")]
)
def test_what_could_not_be_asked_of_a_group_is_asked_again(failure: Outcome) -> None:
    """That there was no answer says nothing of what is served."""
    server, wire = cluster(
        failure, response_with(kind="APIResourceList", resources=[{"name": "deployments"}])
    )
    with pytest.raises(ClusterError):
        server.serves("Deployment")
    assert server.serves("Deployment")
    assert len(wire.requests) == 2


# --- whether there is such a namespace


def test_a_namespace_is_known_by_what_the_cluster_puts_into_it() -> None:
    """One question, which whoever may read the history may ask."""
    server, wire = cluster(stored(settings("kube-root-ca.crt")))
    server.require_access()
    assert wire.requests == [
        ApiRequest("GET", "/api/v1/namespaces/shop/configmaps/kube-root-ca.crt")
    ]


def test_a_namespace_that_lacks_it_is_asked_whether_it_takes_objects() -> None:
    """In one that is new, or on an old cluster; nothing is made there."""
    server, wire = cluster(absent("kube-root-ca.crt"), stored(settings("kube-root-ca.crt")))
    server.require_access()
    assert [(call.method, call.path) for call in wire.requests[1:]] == [
        ("POST", "/api/v1/namespaces/shop/configmaps")
    ]
    assert dict(wire.requests[1].query) == {"dryRun": "All"}


def test_a_namespace_that_is_not_there_is_told_with_the_cure() -> None:
    """It lacks what every one has, and takes nothing."""
    server, wire = cluster(absent("kube-root-ca.crt"), NO_NAMESPACE)
    with pytest.raises(NamespaceMissing) as caught:
        server.require_access()
    assert caught.value.what == "there is no namespace shop"
    assert "`kubectl create namespace shop`" in caught.value.next
    assert len(wire.requests) == 2


@pytest.mark.parametrize(
    "refusal",
    [
        FORBIDDEN,
        status(403, "Forbidden", "exceeded quota: small"),
        status(400, "BadRequest", "admission webhook does not support dry run"),
        status(409, "AlreadyExists"),
        status(404, "NotFound"),
        status(422, "Invalid"),
        status(500, "InternalError"),
    ],
)
def test_no_other_refusal_makes_a_namespace_missing(refusal: ApiResponse) -> None:
    """Whether it matters to a release is told when one is made."""
    server, _ = cluster(absent("kube-root-ca.crt"), refusal)
    server.require_access()


@pytest.mark.parametrize(
    ("outcomes", "error"),
    [
        ([no_response(passing=False)], ClusterUnreachable),
        ([status(401)], ClusterLogin),
        ([FORBIDDEN, review(allowed=False)], ClusterForbidden),
        ([ApiResponse(200, "<html>welcome</html>")], ClusterRefused),
    ],
)
def test_who_cannot_look_into_a_namespace_is_not_told_that_it_is_missing(
    outcomes: list[Outcome], error: type[ClusterError]
) -> None:
    """But why they cannot, and nothing more is tried."""
    server, wire = cluster(*outcomes)
    with pytest.raises(error):
        server.require_access()
    assert len(wire.requests) == len(outcomes)


def test_a_list_is_read_to_its_end() -> None:
    """Page by page, ordered by name over all of them, and each object is told its kind."""
    server, wire = cluster(page("c", "a", more="go on"), page("b", more="and on"), page())
    found = server.list("ConfigMap", {"app": "web", "side": "a"})
    assert [item["metadata"]["name"] for item in found] == ["a", "b", "c"]
    assert {(item["apiVersion"], item["kind"]) for item in found} == {("v1", "ConfigMap")}
    queries = [dict(call.query) for call in wire.requests]
    assert [query.get("continue") for query in queries] == [None, "go on", "and on"]
    assert all(
        query["labelSelector"] == "app=web,side=a" and int(query["limit"]) > 0 for query in queries
    )


def test_a_list_that_has_become_too_old_is_read_anew() -> None:
    """No object is there twice, and none is missing."""
    server, wire = cluster(
        page("a", more="go on"), status(410, "Expired"), page("a", more="go on"), page("b")
    )
    assert [item["metadata"]["name"] for item in server.list("ConfigMap", {})] == ["a", "b"]
    assert ["continue" in dict(call.query) for call in wire.requests] == [False, True, False, True]


def test_events_are_ordered_by_when_they_were_seen_last() -> None:
    """Whichever of their times is filled in."""
    events: list[dict[str, Any]] = [
        {
            "metadata": {"name": "d"},
            "lastTimestamp": "2026-01-01T12:00:03Z",
            "eventTime": "2026-01-01T11:00:00.000000Z",
        },
        {
            "metadata": {"name": "b"},
            "lastTimestamp": None,
            "eventTime": "2026-01-01T12:00:01.500000Z",
        },
        {
            "metadata": {"name": "c"},
            "eventTime": "2026-01-01T11:00:00.000000Z",
            "series": {"lastObservedTime": "2026-01-01T12:00:02.000000Z"},
        },
        {"metadata": {"name": "a", "creationTimestamp": "2026-01-01T12:00:00Z"}},
        {"metadata": {"name": "0"}},
    ]
    server, wire = cluster(response_with(kind="EventList", metadata={}, items=events))
    assert [event["metadata"]["name"] for event in server.events("web-1")] == [
        "0",
        "a",
        "b",
        "c",
        "d",
    ]
    assert dict(wire.requests[0].query)["fieldSelector"] == "involvedObject.name=web-1"


def test_events_of_one_second_are_ordered_as_they_were_written() -> None:
    """Some say fractions of it, others none."""
    events: list[dict[str, Any]] = [
        {
            "metadata": {"name": "pulling", "resourceVersion": "100"},
            "lastTimestamp": "2026-01-01T12:00:01Z",
        },
        {
            "metadata": {"name": "failed", "resourceVersion": "101"},
            "lastTimestamp": "2026-01-01T12:00:01Z",
        },
        {
            "metadata": {"name": "scheduled", "resourceVersion": "99"},
            "eventTime": "2026-01-01T12:00:01.500000Z",
        },
        {
            "metadata": {"name": "odd", "resourceVersion": "x"},
            "lastTimestamp": "2026-01-01T12:00:02Z",
        },
    ]
    server, _ = cluster(response_with(kind="EventList", metadata={}, items=events))
    assert [event["metadata"]["name"] for event in server.events("web-1")] == [
        "scheduled",
        "pulling",
        "failed",
        "odd",
    ]


def pod(restarts: int | None) -> ApiResponse:
    """A pod whose container was started again so often; None: it has no status yet."""
    statuses = (
        None
        if restarts is None
        else [{"name": "other", "restartCount": 9}, {"name": "app", "restartCount": restarts}]
    )
    return response_with(
        kind="Pod",
        metadata={"name": "web-1"},
        spec={"containers": [{"name": "app"}]},
        status={"containerStatuses": statuses},
    )


def test_a_log_is_that_of_the_application() -> None:
    """As many lines of its end as are wanted."""
    server, wire = cluster(pod(0), ApiResponse(200, "one\ntwo\n"))
    assert server.log("web-1", 2) == "one\ntwo\n"
    assert wire.requests[1].path == "/api/v1/namespaces/shop/pods/web-1/log"
    assert dict(wire.requests[1].query) == {"container": "app", "tailLines": "2"}


def test_a_container_that_wrote_nothing_yet_has_the_log_of_its_last_run() -> None:
    """Or if it waits to be started again; only if there was a run before."""
    for present in (
        ApiResponse(200, " \n"),
        status(400, "BadRequest", "container is waiting to start"),
    ):
        server, wire = cluster(pod(2), present, ApiResponse(200, "crashed\n"))
        assert server.log("web-1", 5) == "crashed\n"
        assert [dict(call.query).get("previous") for call in wire.requests] == [None, None, "true"]
        for restarts in (0, None):
            server, wire = cluster(pod(restarts), present, ApiResponse(200, "crashed\n"))
            assert server.log("web-1", 5).strip() == ""
            assert len(wire.requests) == 2


def test_a_log_that_is_not_there_is_empty() -> None:
    """No pod, no container yet, or the last run's is gone."""
    assert cluster(absent("web-1"))[0].log("web-1", 5) == ""
    assert cluster(pod(0), status(404, "NotFound"))[0].log("web-1", 5) == ""
    assert cluster(pod(1), ApiResponse(200, ""), status(400, "BadRequest"))[0].log("web-1", 5) == ""


def test_a_node_that_does_not_give_a_log_is_not_waited_for_long(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is told why there is none, as something else is about to be told with it."""
    waiting = FakeTime()
    wire = FakeTransport([pod(0), status(500, message="dial tcp: lookup node-1: no such host")])
    with caplog.at_level(logging.WARNING):
        assert KubeCluster(wire, "shop", waiting.retry_policy()).log("web-1", 5) == ""
    assert "web-1" in caplog.text
    assert "no such host" in caplog.text
    assert waiting.now == pytest.approx(2.0)


# --- refusals


def test_what_this_account_may_not_is_told_with_the_rule() -> None:
    """Only the verbs that it lacks, of those that applying takes."""
    server, wire = cluster(FORBIDDEN, review(allowed=True), review(allowed=False))
    with pytest.raises(ClusterForbidden) as caught:
        server.apply(deployment("web"))
    assert caught.value.what == "this account may not patch deployments.apps in namespace shop"
    assert [
        json.loads(json.dumps(call.body))["spec"]["resourceAttributes"]["verb"]
        for call in wire.requests[1:]
    ] == ["create", "patch"]


@pytest.mark.parametrize(
    ("ask", "lacking"),
    [
        (lambda server: server.find("ConfigMap", "one"), "get configmaps"),
        (lambda server: server.list("Pod", {}), "list pods"),
        (lambda server: server.create(settings("one")), "create configmaps"),
        (lambda server: server.replace(settings("one")), "update configmaps"),
        (lambda server: server.delete("Lease", "one"), "delete leases.coordination.k8s.io"),
        (lambda server: server.events("one"), "list events"),
    ],
)
def test_every_refusal_names_its_verb(ask: Any, lacking: str) -> None:
    """In the words of a role."""
    server, _ = cluster(FORBIDDEN, review(allowed=False))
    with pytest.raises(ClusterForbidden) as caught:
        ask(server)
    assert f"may not {lacking} in namespace shop" in caught.value.what


def test_a_log_that_one_may_not_read_is_a_permission_of_its_own() -> None:
    """That of the part of a pod."""
    server, wire = cluster(pod(0), FORBIDDEN, review(allowed=False))
    with pytest.raises(ClusterForbidden) as caught:
        server.log("web-1", 5)
    assert "get pods/log" in caught.value.what
    assert (
        json.loads(json.dumps(wire.requests[-1].body))["spec"]["resourceAttributes"]["subresource"]
        == "log"
    )


def test_what_a_quota_forbids_is_refused_with_the_servers_words() -> None:
    """The account has the permission, so a role would not help."""
    server, _ = cluster(status(403, "Forbidden", "exceeded quota: small"), review(allowed=True))
    with pytest.raises(ClusterRefused) as caught:
        server.create(settings("one"))
    assert "exceeded quota: small" in caught.value.detail


def test_who_may_not_ask_for_permissions_is_told_of_the_first_refusal() -> None:
    """As a lack of permission, which it most likely is."""
    server, _ = cluster(FORBIDDEN)
    with pytest.raises(ClusterForbidden):
        server.create(settings("one"))
    with pytest.raises(ClusterRefused):
        cluster(FORBIDDEN)[0].is_allowed("get", "Pod")


@pytest.mark.parametrize("ask", ["apply", "create", "replace"])
def test_a_missing_namespace_is_told_by_every_write(ask: str) -> None:
    """It is neither an object that is gone, nor one that could not be made."""
    server, _ = cluster(NO_NAMESPACE)
    with pytest.raises(NamespaceMissing):
        getattr(server, ask)(settings("one"))


def test_other_errors_come_as_they_are() -> None:
    """Each as its own type."""
    conflict = status(
        409,
        "Conflict",
        causes=[
            {"reason": "FieldManagerConflict", "field": ".data.key", "message": 'conflict with "a"'}
        ],
    )
    for answer, error in (
        (conflict, FieldConflict),
        (status(401), ClusterLogin),
        (status(422, "Invalid"), ClusterRefused),
    ):
        with pytest.raises(error):
            cluster(answer)[0].apply(settings("one"))
    with pytest.raises(ClusterUnreachable):
        cluster(no_response())[0].find("ConfigMap", "one")
    with pytest.raises(ClusterLogin):
        cluster(status(401))[0].version()


@pytest.mark.parametrize("text", ["<html>welcome</html>", "", "ok"])
def test_a_page_of_something_else_is_no_cluster(text: str) -> None:
    """A good status alone does not make an API server."""
    server, _ = cluster(ApiResponse(200, text))
    for ask in (
        server.version,
        lambda: server.serves("Pod"),
        lambda: server.find("Pod", "one"),
        lambda: server.list("Pod", {}),
    ):
        with pytest.raises(ClusterRefused) as caught:
            ask()
        assert "no Kubernetes API server" in caught.value.what


# --- writes whose answer was lost

LOST = [no_response(), status(503), status(504, "Timeout")]


@pytest.mark.parametrize("failure", LOST)
def test_an_object_that_was_made_before_the_answer_was_lost_is_ours(failure: Outcome) -> None:
    """What is there is what was sent, with what the server adds."""
    server, wire = cluster(
        failure, status(409, "AlreadyExists"), stored(settings("one", {"a": "b"}, key="value"))
    )
    assert server.create(settings("one", {"a": "b"}, key="value"))
    assert [call.method for call in wire.requests] == ["POST", "POST", "GET"]


@pytest.mark.parametrize("failure", LOST)
def test_an_object_that_somebody_else_made_meanwhile_is_not_ours(failure: Outcome) -> None:
    """It has another value, lacks one, or is gone again."""
    for there in (stored(settings("one", key="theirs")), stored(settings("one")), absent()):
        server, _ = cluster(failure, status(409, "AlreadyExists"), there)
        assert not server.create(settings("one", key="value"))


def test_an_object_that_was_there_before_is_not_looked_at() -> None:
    """Though it is the same: nothing was lost."""
    server, wire = cluster(status(409, "AlreadyExists"), stored(settings("one")))
    assert not server.create(settings("one"))
    assert len(wire.requests) == 1


def test_an_object_that_was_replaced_before_the_answer_was_lost_is_ours() -> None:
    """Though its version is another one than was sent."""
    sent = settings("one", key="new")
    sent["metadata"] |= {
        "resourceVersion": "6",
        "uid": "1",
        "managedFields": [],
        "creationTimestamp": "2026-01-01T12:00:00Z",
    }
    server, _ = cluster(
        no_response(),
        status(409, "Conflict"),
        stored(settings("one", key="new"), resourceVersion="7", managedFields=[{}]),
    )
    assert server.replace(sent)
    server, _ = cluster(
        no_response(), status(409, "Conflict"), stored(settings("one", key="theirs"))
    )
    assert not server.replace(sent)
    server, _ = cluster(no_response(), absent(), absent())
    assert not server.replace(sent)


def test_lists_are_the_same_only_as_a_whole() -> None:
    """An item more or less, or in another order, is another list."""
    sent = settings("one") | {"finalizers": [{"name": "a"}, {"name": "b"}]}
    for there, ours in (
        ([{"name": "a", "more": 1}, {"name": "b"}], True),
        ([{"name": "a"}], False),
        ([{"name": "b"}, {"name": "a"}], False),
        ({"name": "a"}, False),
    ):
        server, _ = cluster(
            no_response(), status(409, "AlreadyExists"), stored(sent | {"finalizers": there})
        )
        assert server.create(sent) is ours


def test_what_is_empty_is_dropped_by_the_server() -> None:
    """It was sent, and is not there, and that is the same."""
    sent = settings("one") | {
        "finalizers": [],
        "immutable": None,
        "message": "",
        "spec": {"paused": False, "replicas": 0},
    }
    server, _ = cluster(
        no_response(),
        status(409, "AlreadyExists"),
        response_with(kind="ConfigMap", apiVersion="v1", metadata={"name": "one"}),
    )
    assert server.create(sent)
    server, _ = cluster(
        no_response(), status(409, "AlreadyExists"), stored(settings("one") | {"finalizers": ["a"]})
    )
    assert not server.create(sent)


def test_a_removal_whose_answer_was_lost_is_done() -> None:
    """The second attempt finds nothing, which is no error."""
    server, wire = cluster(no_response(), absent())
    server.delete("ConfigMap", "one")
    assert len(wire.requests) == 2
