"""The requests that the cluster client sends, and what it returns or raises."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from deploy.clients.azure.cluster_account import ClusterAccount
from deploy.clients.azure.identity import Principal
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


def client_of(*outcomes: Outcome) -> tuple[KubeCluster, FakeTransport]:
    """Return a client of the namespace `shop` with these outcomes, and its transport."""
    transport = FakeTransport(list(outcomes))
    return KubeCluster(transport, "shop", FakeTime().retry_policy()), transport


def absent(name: str = "one") -> ApiResponse:
    """Return the response that an object does not exist."""
    return status(404, "NotFound", f'configmaps "{name}" not found', name=name, kind="configmaps")


def stored(item: Object, **metadata: Any) -> ApiResponse:
    """Return an object as the server stores it: with additions."""
    return response_with(
        **item
        | {
            "metadata": item["metadata"] | {"uid": "1", "resourceVersion": "7"} | metadata,
            "immutable": False,
        }
    )


def page(*names: str, more: str = "") -> ApiResponse:
    """Return a page of a list."""
    return response_with(
        kind="ConfigMapList",
        metadata={"continue": more},
        items=[{"metadata": {"name": name}} for name in names],
    )


# --- requests


def test_an_object_is_applied_by_our_field_manager() -> None:
    """The body is sent as YAML, of which JSON is a subset, without force."""
    cluster, transport = client_of(stored(deployment("web")))
    assert cluster.apply(deployment("web"))["metadata"]["uid"] == "1"
    (request,) = transport.requests
    assert (request.method, request.path) == (
        "PATCH",
        "/apis/apps/v1/namespaces/shop/deployments/web",
    )
    assert dict(request.query) == {"fieldManager": "twinship", "force": "false"}
    assert (request.content_type, request.body) == (
        "application/apply-patch+yaml",
        deployment("web"),
    )


def test_an_object_is_deleted_with_its_dependents() -> None:
    """The server does this in the background."""
    cluster, transport = client_of(response_with(kind="Status"))
    cluster.delete("ConfigMap", "one")
    assert transport.requests == [
        ApiRequest(
            "DELETE",
            "/api/v1/namespaces/shop/configmaps/one",
            (("propagationPolicy", "Background"),),
        )
    ]


@pytest.mark.parametrize(
    "write",
    [
        lambda cluster, require: cluster.apply(deployment("web"), require=require),
        lambda cluster, require: cluster.delete("Deployment", "web", require=require),
    ],
    ids=["apply", "delete"],
)
def test_require_is_called_before_each_attempt(
    write: Callable[[KubeCluster, Callable[[], None]], object],
) -> None:
    """It is also called when the request is sent again after a failure."""
    cluster, transport = client_of(no_response(), stored(deployment("web")))
    attempts: list[int] = []
    write(cluster, lambda: attempts.append(len(transport.requests)))
    assert attempts == [0, 1]


def test_objects_are_created_and_replaced_by_our_field_manager() -> None:
    """Objects are created in their collection, and replaced at their own path."""
    cluster, transport = client_of(stored(settings("one")))
    assert cluster.create(settings("one"))
    assert cluster.replace(settings("one"))
    assert [(request.method, request.path) for request in transport.requests] == [
        ("POST", "/api/v1/namespaces/shop/configmaps"),
        ("PUT", "/api/v1/namespaces/shop/configmaps/one"),
    ]
    assert all(
        dict(request.query) == {"fieldManager": "twinship"} for request in transport.requests
    )


def test_a_permission_is_reviewed_by_the_server() -> None:
    """The review has namespace, group, collection and subresource."""
    cluster, transport = client_of(review(allowed=True), review(allowed=False))
    assert cluster.is_allowed("patch", "Deployment")
    assert not cluster.is_allowed("get", "Pod", "log")
    attributes = [
        request.body["spec"]["resourceAttributes"]
        for request in transport.requests
        if isinstance(request.body, dict)
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


def test_an_endpoint_leads_through_the_api_server() -> None:
    """It names the port of a pod or Service, and has the credentials of the API server."""
    cluster, _ = client_of(response_with())
    endpoint = cluster.endpoint("Service", "web", 80)
    assert endpoint.url == "https://api.example/api/v1/namespaces/shop/services/web:80/proxy"
    assert endpoint.headers
    assert cluster.endpoint("Pod", "web-1", 8080).url.endswith("/pods/web-1:8080/proxy")


# --- responses


def test_a_kind_is_served_if_the_group_lists_it() -> None:
    """A group without the kind, or an unknown group, does not serve it."""
    group = response_with(
        kind="APIResourceList", resources=[{"name": "deployments"}, {"name": "deployments/status"}]
    )
    cluster, transport = client_of(group, ApiResponse(404, "404 page not found"))
    for _ in range(2):
        assert cluster.serves("Deployment")
        assert not cluster.serves("ReplicaSet")
        assert not cluster.serves("PodDisruptionBudget")
    # Each group is requested once.
    assert [request.path for request in transport.requests] == ["/apis/apps/v1", "/apis/policy/v1"]


@pytest.mark.parametrize(
    ("newer", "version"),
    [
        (response_with(kind="APIResourceList", resources=[{"name": "endpointslices"}]), "v1"),
        (ApiResponse(404, "404 page not found"), "v1beta1"),
    ],
    ids=["new", "old"],
)
def test_a_kind_with_an_older_version_is_read_in_the_newest_that_is_served(
    newer: ApiResponse, version: str
) -> None:
    """EndpointSlices are `v1` since Kubernetes 1.21."""
    older = response_with(kind="APIResourceList", resources=[{"name": "endpointslices"}])
    slices = response_with(items=[{"metadata": {"name": "web-x"}}])
    outcomes = [newer, slices] if version == "v1" else [newer, older, slices]
    cluster, transport = client_of(*outcomes)
    assert cluster.serves("EndpointSlice")
    (found,) = cluster.list("EndpointSlice", {"app": "web"})
    assert (found["apiVersion"], found["kind"]) == (
        f"discovery.k8s.io/{version}",
        "EndpointSlice",
    )
    assert (
        transport.requests[-1].path
        == f"/apis/discovery.k8s.io/{version}/namespaces/shop/endpointslices"
    )


def test_a_kind_that_is_served_in_no_version_has_no_objects() -> None:
    """It is requested in its newest version."""
    unknown = ApiResponse(404, "404 page not found")
    cluster, transport = client_of(unknown, unknown, unknown)
    assert not cluster.serves("EndpointSlice")
    assert cluster.list("EndpointSlice", {}) == []
    assert len(transport.requests) == 3


@pytest.mark.parametrize(
    "lost", [no_response(transient=False), status(401), ApiResponse(200, "<html>welcome</html>")]
)
def test_a_failed_discovery_of_a_group_is_not_remembered(lost: Outcome) -> None:
    """Without a response, nothing is known of what is served."""
    cluster, transport = client_of(
        lost, response_with(kind="APIResourceList", resources=[{"name": "deployments"}])
    )
    with pytest.raises(ClusterError):
        cluster.serves("Deployment")
    assert cluster.serves("Deployment")
    assert len(transport.requests) == 2


# --- access to the namespace


def test_a_namespace_exists_if_it_has_the_root_ca() -> None:
    """One request is enough; each account that may read the history may send it."""
    cluster, transport = client_of(stored(settings("kube-root-ca.crt")))
    cluster.require_access()
    assert transport.requests == [
        ApiRequest("GET", "/api/v1/namespaces/shop/configmaps/kube-root-ca.crt")
    ]


def test_a_namespace_without_the_root_ca_is_tried_by_a_dry_run() -> None:
    """It is new, or the cluster is old; nothing is created there."""
    cluster, transport = client_of(absent("kube-root-ca.crt"), stored(settings("kube-root-ca.crt")))
    cluster.require_access()
    assert [(request.method, request.path) for request in transport.requests[1:]] == [
        ("POST", "/api/v1/namespaces/shop/configmaps")
    ]
    assert dict(transport.requests[1].query) == {"dryRun": "All"}


def test_a_missing_namespace_is_an_error_with_the_command_to_create_it() -> None:
    """It has no root CA, and refuses the dry run."""
    cluster, transport = client_of(absent("kube-root-ca.crt"), NO_NAMESPACE)
    with pytest.raises(NamespaceMissing) as caught:
        cluster.require_access()
    assert caught.value.what == "there is no namespace shop"
    assert "`kubectl create namespace shop`" in caught.value.next
    assert len(transport.requests) == 2


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
    """The release itself shows whether the refusal matters."""
    cluster, _ = client_of(absent("kube-root-ca.crt"), refusal)
    cluster.require_access()


@pytest.mark.parametrize(
    ("outcomes", "error"),
    [
        ([no_response(transient=False)], ClusterUnreachable),
        ([status(401)], ClusterLogin),
        ([FORBIDDEN, review(allowed=False)], ClusterForbidden),
        ([ApiResponse(200, "<html>welcome</html>")], ClusterRefused),
    ],
)
def test_other_errors_of_access_do_not_call_a_namespace_missing(
    outcomes: list[Outcome], error: type[ClusterError]
) -> None:
    """Each has its own error, and no other request follows."""
    cluster, transport = client_of(*outcomes)
    with pytest.raises(error):
        cluster.require_access()
    assert len(transport.requests) == len(outcomes)


def test_all_pages_of_a_list_are_read() -> None:
    """The objects are ordered by name over all pages, and each has its kind."""
    cluster, transport = client_of(page("c", "a", more="page 2"), page("b", more="page 3"), page())
    items = cluster.list("ConfigMap", {"app": "web", "side": "a"})
    assert [item["metadata"]["name"] for item in items] == ["a", "b", "c"]
    assert {(item["apiVersion"], item["kind"]) for item in items} == {("v1", "ConfigMap")}
    queries = [dict(request.query) for request in transport.requests]
    assert [query.get("continue") for query in queries] == [None, "page 2", "page 3"]
    assert all(
        query["labelSelector"] == "app=web,side=a" and int(query["limit"]) > 0 for query in queries
    )


def test_a_list_that_has_expired_is_read_again_from_its_start() -> None:
    """No object is there twice, and none is missing."""
    cluster, transport = client_of(
        page("a", more="page 2"), status(410, "Expired"), page("a", more="page 2"), page("b")
    )
    assert [item["metadata"]["name"] for item in cluster.list("ConfigMap", {})] == ["a", "b"]
    assert ["continue" in dict(request.query) for request in transport.requests] == [
        False,
        True,
        False,
        True,
    ]


def test_a_list_of_nodes_that_has_expired_is_read_again_from_its_start() -> None:
    """A large cluster has more than one page of them."""
    cluster, transport = client_of(
        page("a", more="page 2"), status(410, "Expired"), page("a", more="page 2"), page("b")
    )
    assert cluster.nodes() == [{"metadata": {"name": name}} for name in ("a", "b")]
    queries = [dict(request.query) for request in transport.requests]
    assert [query.get("continue") for query in queries] == [None, "page 2", None, "page 2"]
    assert {request.path for request in transport.requests} == {"/api/v1/nodes"}


def test_nodes_that_an_account_may_not_see_are_none() -> None:
    """Most accounts of a namespace may not."""
    cluster, _ = client_of(FORBIDDEN)
    assert cluster.nodes() is None


def test_events_are_ordered_by_when_they_were_seen_last() -> None:
    """Any of their times may be set."""
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
    cluster, transport = client_of(response_with(kind="EventList", metadata={}, items=events))
    assert [event["metadata"]["name"] for event in cluster.events("web-1")] == [
        "0",
        "a",
        "b",
        "c",
        "d",
    ]
    assert dict(transport.requests[0].query)["fieldSelector"] == "involvedObject.name=web-1"


def test_events_of_one_second_are_ordered_as_they_were_written() -> None:
    """Only some times have fractions of seconds."""
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
    cluster, _ = client_of(response_with(kind="EventList", metadata={}, items=events))
    assert [event["metadata"]["name"] for event in cluster.events("web-1")] == [
        "scheduled",
        "pulling",
        "failed",
        "odd",
    ]


def pod(restarts: int | None) -> ApiResponse:
    """Return a pod whose container was restarted so often; None: it has no status yet."""
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
    """It has as many of the last lines as requested."""
    cluster, transport = client_of(pod(0), ApiResponse(200, "one\ntwo\n"))
    assert cluster.log("web-1", 2) == "one\ntwo\n"
    assert transport.requests[1].path == "/api/v1/namespaces/shop/pods/web-1/log"
    assert dict(transport.requests[1].query) == {"container": "app", "tailLines": "2"}


def test_a_container_that_has_logged_nothing_has_the_log_of_its_previous_run() -> None:
    """The same holds if it waits to be restarted, and only if there was a previous run."""
    for present in (
        ApiResponse(200, " \n"),
        status(400, "BadRequest", "container is waiting to start"),
    ):
        cluster, transport = client_of(pod(2), present, ApiResponse(200, "crashed\n"))
        assert cluster.log("web-1", 5) == "crashed\n"
        assert [dict(request.query).get("previous") for request in transport.requests] == [
            None,
            None,
            "true",
        ]
        for restarts in (0, None):
            cluster, transport = client_of(pod(restarts), present, ApiResponse(200, "crashed\n"))
            assert cluster.log("web-1", 5).strip() == ""
            assert len(transport.requests) == 2


def test_the_lines_of_a_log_have_their_times() -> None:
    """They are asked for since a time, in whole seconds as the API server takes it."""
    text = "2026-01-02T03:04:05.123456789Z one\u2028more\n2026-01-02T03:04:06Z two\r\n"
    cluster, transport = client_of(pod(0), ApiResponse(200, text))
    since = datetime(2026, 1, 2, 4, 4, 5, 900, tzinfo=timezone(timedelta(hours=1)))
    assert list(cluster.read_log("web-1", since, 7)) == [
        (datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC), "one\u2028more"),
        (datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC), "two"),
    ]
    assert dict(transport.requests[1].query) == {
        "container": "app",
        "timestamps": "true",
        "sinceTime": "2026-01-02T03:04:05Z",
        "tailLines": "7",
    }


def test_the_lines_of_the_previous_run_come_first() -> None:
    """They say why a container was restarted."""
    previous = ApiResponse(200, "2026-01-02T03:04:05Z out of memory\n")
    present = ApiResponse(200, "2026-01-02T03:04:06Z loading\n")
    cluster, transport = client_of(pod(1), previous, present)
    assert [text for _, text in cluster.read_log("web-1")] == ["out of memory", "loading"]
    assert [dict(request.query).get("previous") for request in transport.requests[1:]] == [
        "true",
        None,
    ]
    assert list(client_of(absent("web-1"))[0].read_log("web-1")) == []


def test_a_log_that_does_not_exist_is_empty() -> None:
    """There is no pod, no container yet, or no log of the previous run."""
    assert client_of(absent("web-1"))[0].log("web-1", 5) == ""
    assert client_of(pod(0), status(404, "NotFound"))[0].log("web-1", 5) == ""
    assert (
        client_of(pod(1), ApiResponse(200, ""), status(400, "BadRequest"))[0].log("web-1", 5) == ""
    )


def test_a_node_without_an_answer_is_retried_for_two_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The reason is logged; the error that the log explains matters more."""
    clock = FakeTime()
    transport = FakeTransport(
        [pod(0), status(500, message="dial tcp: lookup node-1: no such host")]
    )
    with caplog.at_level(logging.WARNING):
        assert KubeCluster(transport, "shop", clock.retry_policy()).log("web-1", 5) == ""
    assert "web-1" in caplog.text
    assert "no such host" in caplog.text
    assert clock.now == pytest.approx(2.0)


# --- refusals


def test_a_forbidden_write_names_the_missing_verbs() -> None:
    """Only the verbs that the account lacks are named, of those that apply needs."""
    cluster, transport = client_of(FORBIDDEN, review(allowed=True), review(allowed=False))
    with pytest.raises(ClusterForbidden) as caught:
        cluster.apply(deployment("web"))
    assert caught.value.what == "this account may not patch deployments.apps in namespace shop"
    assert [
        json.loads(json.dumps(request.body))["spec"]["resourceAttributes"]["verb"]
        for request in transport.requests[1:]
    ] == ["create", "patch"]


@pytest.mark.parametrize(
    ("operation", "lacking"),
    [
        (lambda cluster: cluster.find("ConfigMap", "one"), "get configmaps"),
        (lambda cluster: cluster.list("Pod", {}), "list pods"),
        (lambda cluster: cluster.create(settings("one")), "create configmaps"),
        (lambda cluster: cluster.replace(settings("one")), "update configmaps"),
        (lambda cluster: cluster.delete("Lease", "one"), "delete leases.coordination.k8s.io"),
        (lambda cluster: cluster.events("one"), "list events"),
    ],
)
def test_every_refusal_names_its_verb(operation: Any, lacking: str) -> None:
    """The verb is that of a Role."""
    cluster, _ = client_of(FORBIDDEN, review(allowed=False))
    with pytest.raises(ClusterForbidden) as caught:
        operation(cluster)
    assert f"may not {lacking} in namespace shop" in caught.value.what


def test_a_forbidden_log_names_the_subresource() -> None:
    """It is a permission of its own."""
    cluster, transport = client_of(pod(0), FORBIDDEN, review(allowed=False))
    with pytest.raises(ClusterForbidden) as caught:
        cluster.log("web-1", 5)
    assert "get pods/log" in caught.value.what
    assert (
        json.loads(json.dumps(transport.requests[-1].body))["spec"]["resourceAttributes"][
            "subresource"
        ]
        == "log"
    )


def test_a_refusal_by_a_quota_has_the_servers_message() -> None:
    """The account has the permission, so that a role would not help."""
    cluster, _ = client_of(status(403, "Forbidden", "exceeded quota: small"), review(allowed=True))
    with pytest.raises(ClusterRefused) as caught:
        cluster.create(settings("one"))
    assert "exceeded quota: small" in caught.value.what


def test_without_a_review_a_refusal_counts_as_a_missing_permission() -> None:
    """It most likely is one."""
    cluster, _ = client_of(FORBIDDEN)
    with pytest.raises(ClusterForbidden):
        cluster.create(settings("one"))
    with pytest.raises(ClusterRefused):
        client_of(FORBIDDEN)[0].is_allowed("get", "Pod")


@pytest.mark.parametrize("operation", ["apply", "create", "replace"])
def test_every_write_reports_a_missing_namespace(operation: str) -> None:
    """It is neither a missing object nor a conflict."""
    cluster, _ = client_of(NO_NAMESPACE)
    with pytest.raises(NamespaceMissing):
        getattr(cluster, operation)(settings("one"))


def test_each_other_error_has_its_own_type() -> None:
    """Conflicts, logins, refusals and silence are different errors."""
    conflict = status(
        409,
        "Conflict",
        causes=[
            {"reason": "FieldManagerConflict", "field": ".data.key", "message": 'conflict with "a"'}
        ],
    )
    for response, error in (
        (conflict, FieldConflict),
        (status(401), ClusterLogin),
        (status(422, "Invalid"), ClusterRefused),
    ):
        with pytest.raises(error):
            client_of(response)[0].apply(settings("one"))
    with pytest.raises(ClusterUnreachable):
        client_of(no_response())[0].find("ConfigMap", "one")
    with pytest.raises(ClusterLogin):
        client_of(status(401))[0].version()


@pytest.mark.parametrize(
    ("outcomes", "act", "filled_in"),
    [
        ([status(401)], KubeCluster.version, "--ids /resource/shop"),
        ([status(401)], KubeCluster.require_access, "--ids /resource/shop"),
        ([FORBIDDEN, review(allowed=False)], KubeCluster.require_access, "--user object"),
    ],
)
def test_errors_have_the_account_of_azure_whose_token_was_sent(
    outcomes: list[Outcome], act: Callable[[KubeCluster], object], filled_in: str
) -> None:
    """Whatever the request is: what to do is filled in for it."""
    principal = Principal("object", "ServicePrincipal", "app", "tenant")
    cluster, transport = client_of(*outcomes)
    transport.identity = ClusterAccount(principal, "/resource/shop")
    with pytest.raises(ClusterError) as caught:
        act(cluster)
    assert filled_in in caught.value.next


@pytest.mark.parametrize("text", ["<html>welcome</html>", "", "ok"])
def test_a_response_of_another_server_is_an_error(text: str) -> None:
    """A status of success alone does not make an API server."""
    cluster, _ = client_of(ApiResponse(200, text))
    for operation in (
        cluster.version,
        lambda: cluster.serves("Pod"),
        lambda: cluster.find("Pod", "one"),
        lambda: cluster.list("Pod", {}),
    ):
        with pytest.raises(ClusterRefused) as caught:
            operation()
        assert "no Kubernetes API server" in caught.value.what


# --- writes whose response was lost

LOST = [no_response(), status(503), status(504, "Timeout")]


@pytest.mark.parametrize("lost", LOST)
def test_an_object_created_before_the_response_was_lost_is_ours(lost: Outcome) -> None:
    """The existing object is what was sent, with the server's additions."""
    cluster, transport = client_of(
        lost, status(409, "AlreadyExists"), stored(settings("one", {"a": "b"}, key="value"))
    )
    assert cluster.create(settings("one", {"a": "b"}, key="value"))
    assert [request.method for request in transport.requests] == ["POST", "POST", "GET"]


@pytest.mark.parametrize("lost", LOST)
def test_an_object_created_by_another_client_is_not_ours(lost: Outcome) -> None:
    """It has another value, lacks one, or does not exist any more."""
    for existing in (stored(settings("one", key="theirs")), stored(settings("one")), absent()):
        cluster, _ = client_of(lost, status(409, "AlreadyExists"), existing)
        assert not cluster.create(settings("one", key="value"))


def test_an_existing_object_is_not_compared_if_no_response_was_lost() -> None:
    """It is not ours, even if it is equal."""
    cluster, transport = client_of(status(409, "AlreadyExists"), stored(settings("one")))
    assert not cluster.create(settings("one"))
    assert len(transport.requests) == 1


def test_an_object_replaced_before_the_response_was_lost_is_ours() -> None:
    """Its version differs from the one that was sent."""
    sent = settings("one", key="new")
    sent["metadata"] |= {
        "resourceVersion": "6",
        "uid": "1",
        "managedFields": [],
        "creationTimestamp": "2026-01-01T12:00:00Z",
    }
    cluster, _ = client_of(
        no_response(),
        status(409, "Conflict"),
        stored(settings("one", key="new"), resourceVersion="7", managedFields=[{}]),
    )
    assert cluster.replace(sent)
    cluster, _ = client_of(
        no_response(), status(409, "Conflict"), stored(settings("one", key="theirs"))
    )
    assert not cluster.replace(sent)
    cluster, _ = client_of(no_response(), absent(), absent())
    assert not cluster.replace(sent)


def test_lists_are_compared_as_a_whole() -> None:
    """Another length or another order makes another list."""
    sent = settings("one") | {"finalizers": [{"name": "a"}, {"name": "b"}]}
    for existing, ours in (
        ([{"name": "a", "more": 1}, {"name": "b"}], True),
        ([{"name": "a"}], False),
        ([{"name": "b"}, {"name": "a"}], False),
        ({"name": "a"}, False),
    ):
        cluster, _ = client_of(
            no_response(), status(409, "AlreadyExists"), stored(sent | {"finalizers": existing})
        )
        assert cluster.create(sent) is ours


def test_an_empty_value_equals_a_missing_one() -> None:
    """The server drops empty values."""
    sent = settings("one") | {
        "finalizers": [],
        "immutable": None,
        "message": "",
        "spec": {"paused": False, "replicas": 0},
    }
    cluster, _ = client_of(
        no_response(),
        status(409, "AlreadyExists"),
        response_with(kind="ConfigMap", apiVersion="v1", metadata={"name": "one"}),
    )
    assert cluster.create(sent)
    cluster, _ = client_of(
        no_response(), status(409, "AlreadyExists"), stored(settings("one") | {"finalizers": ["a"]})
    )
    assert not cluster.create(sent)


def test_a_delete_whose_response_was_lost_is_done() -> None:
    """The second attempt finds nothing, which is no error."""
    cluster, transport = client_of(no_response(), absent())
    cluster.delete("ConfigMap", "one")
    assert len(transport.requests) == 2
