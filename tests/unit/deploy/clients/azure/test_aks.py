"""Clusters on AKS: their kubeconfig, and the token in place of `kubelogin`."""

from __future__ import annotations

import socket
from collections import deque
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from deploy.clients.azure.aks import SERVER, AksCluster, AksLogin, is_private_cluster, server_of
from deploy.clients.azure.cluster_account import ClusterAccount
from deploy.clients.azure.sources import Account
from deploy.clients.kubernetes.auth import ApiServerAccess
from deploy.clients.kubernetes.transport import ApiRequest, NoApiResponse
from deploy.errors import ClusterLogin, ClusterUnknown, ClusterUnreachable
from tests.fakes.azure.exchange import Answer
from tests.fakes.azure.logins import SERVICE_PRINCIPAL, identity_on
from tests.fakes.azure.stand_in import OBJECT, SUBSCRIPTION, StandIn
from tests.fakes.kubeconfig import (
    credential_lines,
    exec_user,
    kubeconfig,
    write_login_program,
    write_yaml,
)

CLUSTER = AksCluster.parse("pictures/shop")
ARGUMENTS = ("get-token", "--server-id", SERVER, "--login", "devicecode")
MANAGEMENT = "management.azure.com"


def login_to(azure: StandIn, *arguments: str, command: str = "kubelogin") -> AksLogin:
    """Return the login to a cluster whose kubeconfig has that login program."""
    user = exec_user(command, *(arguments or ARGUMENTS))
    azure.kubeconfig = yaml.safe_dump(kubeconfig("shop", current="shop", **user))
    account = Account(subscription=SUBSCRIPTION)
    return AksLogin(CLUSTER, identity_on(azure, SERVICE_PRINCIPAL, account))


def authorization_of(configuration: object) -> str:
    """Return the header that the library sends with a request."""
    settings = configuration.auth_settings()  # type: ignore[attr-defined]
    return str(settings["BearerToken"]["value"]).removeprefix("Bearer ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pictures/shop", ("", "pictures", "shop")),
        (
            (
                f"/subscriptions/{SUBSCRIPTION}/resourceGroups/pictures/providers"
                "/Microsoft.ContainerService/managedClusters/shop"
            ),
            (SUBSCRIPTION, "pictures", "shop"),
        ),
    ],
)
def test_a_cluster_is_named_by_group_or_id(text: str, expected: tuple[str, str, str]) -> None:
    """The id has the subscription, too."""
    found = AksCluster.parse(text)
    assert (found.subscription, found.group, found.name) == expected


def test_the_login_program_is_replaced_by_a_token(azure: StandIn, tmp_path: Path) -> None:
    """It is for the application that the API server is; no program is run, no file is written."""
    name, configuration = login_to(azure).load()
    assert name == "pictures/shop"
    assert configuration.host == "https://api.example"
    assert azure.accepts(authorization_of(configuration), SERVER)
    asked = next(one for one in azure.asked if one.host == MANAGEMENT)
    assert asked.method == "POST"
    assert asked.path == (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/pictures/providers"
        "/Microsoft.ContainerService/managedClusters/shop/listClusterUserCredential"
    )


def test_each_request_asks_for_the_token(azure: StandIn) -> None:
    """A rollout lasts longer than a token, and one may be revoked."""
    login = login_to(azure)
    _, configuration = login.load()
    old = authorization_of(configuration)
    assert authorization_of(configuration) == old
    login.load()
    assert authorization_of(configuration) != old


def test_a_renewal_replaces_the_token_alone(azure: StandIn) -> None:
    """The kubeconfig is requested once."""
    login = login_to(azure)
    _, configuration = login.load()
    authorization_of(configuration)
    login.load()
    assert azure.hosts().count(MANAGEMENT) == 1
    assert azure.tokens_issued(SERVER) == 2


def test_a_cluster_without_entra_is_used_with_a_warning(
    azure: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    """Its kubeconfig has the certificate or the token of an administrator."""
    azure.kubeconfig = yaml.safe_dump(kubeconfig("shop", current="shop", token="planted-admin"))
    account = Account(subscription=SUBSCRIPTION)
    _, configuration = AksLogin(CLUSTER, identity_on(azure, SERVICE_PRINCIPAL, account)).load()
    assert authorization_of(configuration) == "planted-admin"
    assert "has no login by Entra" in caplog.text


def test_a_missing_role_is_told(azure: StandIn) -> None:
    """The scope is that of the answer."""
    azure.roles.discard("cluster")
    with pytest.raises(ClusterLogin) as caught:
        login_to(azure).load()
    assert caught.value.next == (
        f"`az role assignment create --assignee-object-id {OBJECT} "
        "--assignee-principal-type ServicePrincipal "
        '--role "Azure Kubernetes Service Cluster User Role" '
        f"--scope /subscriptions/{SUBSCRIPTION}/resourceGroups/pictures/providers"
        "/Microsoft.ContainerService/managedClusters/shop`; "
        "a new role counts after up to half an hour"
    )


def test_a_cluster_without_any_login_is_told(azure: StandIn) -> None:
    """Its own accounts are disabled, and it has no login by Entra."""
    message = (
        "Getting static credential is not allowed because this cluster is set to disable "
        "local accounts."
    )
    azure.faults[MANAGEMENT] = deque(
        [Answer(400, {"error": {"code": "BadRequest", "message": message}})]
    )
    with pytest.raises(ClusterLogin, match="400 BadRequest") as caught:
        login_to(azure).load()
    assert (
        f"`az aks update --ids /subscriptions/{SUBSCRIPTION}/resourceGroups/pictures/providers"
        "/Microsoft.ContainerService/managedClusters/shop --enable-aad`"
    ) in caught.value.next


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("ResourceNotFound", "check group and name"),
        ("ResourceGroupNotFound", "check the resource group"),
        ("SubscriptionNotFound", "set `subscription` in [azure]"),
    ],
)
def test_a_cluster_that_is_not_found_is_told(azure: StandIn, code: str, advice: str) -> None:
    """Each code has its advice."""
    azure.faults[MANAGEMENT] = deque([Answer(404, {"error": {"code": code}})])
    with pytest.raises(ClusterLogin, match=f"404 {code}") as caught:
        login_to(azure).load()
    assert caught.value.next.startswith(advice)


def test_the_only_subscription_is_used(azure: StandIn) -> None:
    """None has to be named then."""
    login_to(azure)
    azure.subscriptions = ["only"]
    AksLogin(CLUSTER, identity_on(azure, SERVICE_PRINCIPAL)).load()
    paths = [one.path for one in azure.asked if one.host == MANAGEMENT]
    assert paths[0] == "/subscriptions"
    assert paths[1].startswith("/subscriptions/only/resourceGroups/pictures/")


@pytest.mark.parametrize("names", [[], ["first", "second"]])
def test_one_of_several_subscriptions_has_to_be_named(azure: StandIn, names: list[str]) -> None:
    """The error names the variable for it."""
    login = AksLogin(CLUSTER, identity_on(azure, SERVICE_PRINCIPAL))
    azure.subscriptions = names
    with pytest.raises(ClusterLogin, match=f"sees {len(names)} subscriptions") as caught:
        login.load()
    assert "AZURE_SUBSCRIPTION_ID" in caught.value.next


@pytest.mark.parametrize("text", ["", "a: [", "users: []"])
def test_an_answer_without_a_kubeconfig_is_an_error(azure: StandIn, text: str) -> None:
    """It is not quoted."""
    login = login_to(azure)
    azure.kubeconfig = text
    with pytest.raises(ClusterUnknown, match="gave no kubeconfig"):
        login.load()


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (exec_user("kubelogin", "get-token", "--server-id", "app"), "app"),
        (exec_user("/usr/bin/kubelogin.exe", "get-token", "--server-id=app"), "app"),
        (exec_user("kubelogin", "get-token"), SERVER),
        (exec_user("aws", "--server-id", "app"), None),
        ({"token": "t"}, None),
    ],
)
def test_the_application_of_a_kubeconfig(user: dict[str, object], expected: str | None) -> None:
    """Only users who log in by `kubelogin` have one."""
    assert server_of(user) == expected


# --- the access to an API server


def authorization_at(access: ApiServerAccess) -> str:
    """Return the token that a request would have."""
    return access.endpoint("/").headers["Authorization"].removeprefix("Bearer ")


def test_a_cluster_on_aks_is_an_api_server_as_others_are(azure: StandIn) -> None:
    """Its token is replaced when the server does not accept it."""
    login_to(azure)
    account = Account(subscription=SUBSCRIPTION)
    identity = identity_on(azure, SERVICE_PRINCIPAL, account)
    access = ApiServerAccess("aks:pictures/shop", "", identity)
    assert access.name == "pictures/shop at https://api.example"
    old = authorization_at(access)
    assert azure.accepts(old, SERVER)
    access.renew()
    assert authorization_at(access) != old


def test_a_cluster_on_aks_needs_an_identity() -> None:
    """Only settings name one."""
    with pytest.raises(ClusterLogin, match="needs the identity on Azure"):
        ApiServerAccess("aks:pictures/shop", "")


def test_the_identity_takes_the_place_of_a_missing_kubelogin(
    azure: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In a kubeconfig of the user's own; its files are found from its folder."""
    caplog.set_level("INFO", logger="deploy")
    content = kubeconfig("shop", current="shop", **exec_user("kubelogin", *ARGUMENTS))
    content["clusters"][0]["cluster"]["certificate-authority"] = "ca.pem"
    (tmp_path / "ca.pem").write_text("authority")
    path = write_yaml(tmp_path / "config", content)
    access = ApiServerAccess(path, "", identity_on(azure, SERVICE_PRINCIPAL))
    assert access.endpoint("/").ca_bundle == str(tmp_path / "ca.pem")
    old = authorization_at(access)
    assert azure.accepts(old, SERVER)
    assert "kubelogin is not installed: the identity logs in to shop" in caplog.text
    access.renew()
    assert authorization_at(access) != old


@pytest.mark.parametrize(
    ("cluster", "login"),
    [({"certificate-authority-data": "planted!"}, {}), ({}, {"args": 1}), ({}, {"env": 1})],
)
def test_damaged_entries_are_an_error_where_kubelogin_is_missing(
    azure: StandIn, tmp_path: Path, cluster: dict[str, object], login: dict[str, object]
) -> None:
    """They are not quoted, as with any other login."""
    content = kubeconfig("shop", current="shop", **exec_user("kubelogin", *ARGUMENTS))
    content["clusters"][0]["cluster"] |= cluster
    content["users"][0]["user"]["exec"] |= login
    path = write_yaml(tmp_path / "config", content)
    with pytest.raises(ClusterUnknown, match="its context shop cannot be loaded") as caught:
        ApiServerAccess(path, "", identity_on(azure, SERVICE_PRINCIPAL))
    assert "planted" not in str(caught.value)
    assert caught.value.__suppress_context__


# --- whose token it is, and what refusals need


def account_of(access: ApiServerAccess) -> ClusterAccount:
    """Return the account of Azure whose token is sent."""
    account = access.account()
    assert account is not None
    return account


def test_the_account_of_a_cluster_on_aks_is_the_identity(azure: StandIn) -> None:
    """Commands have its object id, and the id of the cluster's resource."""
    login_to(azure)
    identity = identity_on(azure, SERVICE_PRINCIPAL, Account(subscription=SUBSCRIPTION))
    account = account_of(ApiServerAccess("aks:pictures/shop", "", identity))
    assert account.is_identity
    assert account.principal.object_id == OBJECT
    assert account.cluster == (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/pictures/providers"
        "/Microsoft.ContainerService/managedClusters/shop"
    )


def test_a_cluster_without_entra_has_no_account_of_azure(azure: StandIn) -> None:
    """Its certificate is an administrator's."""
    azure.kubeconfig = yaml.safe_dump(kubeconfig("shop", current="shop", token="planted-admin"))
    identity = identity_on(azure, SERVICE_PRINCIPAL, Account(subscription=SUBSCRIPTION))
    assert ApiServerAccess("aks:pictures/shop", "", identity).account() is None


def test_the_account_of_a_kubeconfig_is_the_identity_in_place_of_kubelogin(
    azure: StandIn, tmp_path: Path
) -> None:
    """The cluster is found by the host of its API server."""
    content = kubeconfig("shop", current="shop", **exec_user("kubelogin", *ARGUMENTS))
    path = write_yaml(tmp_path / "config", content)
    access = ApiServerAccess(path, "", identity_on(azure, SERVICE_PRINCIPAL))
    authorization_at(access)
    account = account_of(access)
    assert (account.is_identity, account.principal.object_id) == (True, OBJECT)
    assert account.cluster == (
        "$(az aks list --query \"[?fqdn=='api.example' || privateFqdn=='api.example'].id\" "
        "--output tsv)"
    )


def test_the_account_of_a_login_program_is_read_from_its_token(
    azure: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of an installed `kubelogin` has the object id; other tokens have none."""
    for token, expected in ((azure.signer.sign(60, oid="its-object"), "its-object"), ("t", None)):
        write_login_program(tmp_path / "kubelogin", *credential_lines(token=token))
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        content = kubeconfig("shop", current="shop", **exec_user("kubelogin", *ARGUMENTS))
        access = ApiServerAccess(write_yaml(tmp_path / "config", content), "")
        account = access.account()
        assert (account and account.principal.object_id) == expected
        assert account is None or not account.is_identity


@pytest.mark.parametrize(
    ("host", "address", "expected"),
    [
        ("shop-1.abc.privatelink.westeurope.azmk8s.io", "", True),
        ("shop.private.westeurope.azmk8s.io", "", True),
        ("shop.privatelink.chinaeast2.cx.prod.service.azk8s.cn", "", True),
        ("shop.privatelink.usgovvirginia.cx.aks.containerservice.azure.us", "", True),
        ("shop-1.hcp.westeurope.azmk8s.io", "10.1.0.4", True),
        ("shop-1.hcp.westeurope.azmk8s.io", "20.1.0.4", False),
        ("shop-1.hcp.westeurope.azmk8s.io", "", False),
        ("privatelink.example", "10.1.0.4", False),
        ("azmk8s.io.example", "10.1.0.4", False),
    ],
)
def test_private_clusters(
    monkeypatch: pytest.MonkeyPatch, host: str, address: str, expected: bool
) -> None:
    """By the name of a private zone, or by the address to which a public name leads."""

    def look_up(_host: str, _port: object) -> list[Any]:
        if not address:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert is_private_cluster(host) is expected


@pytest.mark.parametrize("is_private", [True, False])
def test_a_private_cluster_that_is_not_reached_is_told(
    azure: StandIn, monkeypatch: pytest.MonkeyPatch, is_private: bool
) -> None:
    """Its name does not resolve outside of its network."""

    def unknown(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    zone = "privatelink" if is_private else "hcp"
    content = kubeconfig("shop", current="shop", **exec_user("kubelogin", *ARGUMENTS))
    content["clusters"][0]["cluster"]["server"] = f"https://shop.{zone}.westeurope.azmk8s.io:443"
    azure.kubeconfig = yaml.safe_dump(content)
    identity = identity_on(azure, SERVICE_PRINCIPAL, Account(subscription=SUBSCRIPTION))
    access = ApiServerAccess("aks:pictures/shop", "", identity)
    with pytest.raises(NoApiResponse) as caught:
        access.send(ApiRequest("GET", "/version"), (1.0, 1.0))
    error = caught.value.error
    assert isinstance(error, ClusterUnreachable)
    assert "(Name or service not known)" in error.what
    assert ("private cluster on AKS" in error.what) is is_private
    assert ("a runner or an agent" in error.next) is is_private


def test_a_kubelogin_that_is_installed_is_used(
    azure: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that works is left as it is."""
    write_login_program(tmp_path / "kubelogin", *credential_lines(token="its-own"))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    content = kubeconfig("shop", current="shop", **exec_user("kubelogin", *ARGUMENTS))
    path = write_yaml(tmp_path / "config", content)
    access = ApiServerAccess(path, "", identity_on(azure, SERVICE_PRINCIPAL))
    assert authorization_at(access) == "its-own"
    assert azure.asked == []
