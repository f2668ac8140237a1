"""The login to a registry on Azure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

import pytest
import requests

from deploy.clients.azure.registry import USER, RegistryLogin, is_registry
from deploy.clients.azure.sources import Account
from deploy.clients.oci.client import HttpRegistry
from deploy.clients.oci.credentials import Login
from deploy.errors import RegistryDenied
from tests.fakes import web
from tests.fakes.azure.exchange import Answer
from tests.fakes.azure.logins import SERVICE_PRINCIPAL, identity_on
from tests.fakes.azure.stand_in import OBJECT, REGISTRY, TENANT, StandIn, asked_of
from tests.fakes.web import FakeWeb

RESOURCE = "https://containerregistry.azure.net"
DIGEST = "sha256:" + "0" * 64


def login_to(azure: StandIn) -> RegistryLogin:
    """Return the login to the stand-in's registry."""
    return RegistryLogin(REGISTRY, identity_on(azure, SERVICE_PRINCIPAL))


def denial_of(azure: StandIn) -> RegistryDenied:
    """Return the error of a login."""
    with pytest.raises(RegistryDenied) as caught:
        login_to(azure)()
    return caught.value


@pytest.mark.parametrize(
    ("host", "cloud", "expected"),
    [
        ("shop.azurecr.io", "", True),
        ("shop.azurecr.cn", "", False),
        ("shop.azurecr.cn", "AzureChinaCloud", True),
        ("shop.azurecr.io.example", "", False),
        ("127.0.0.1:5000", "", False),
        ("ghcr.io", "AzureCloud", False),
    ],
)
def test_registries_of_the_cloud(azure: StandIn, host: str, cloud: str, expected: bool) -> None:
    """Tokens are for registries of the identity's own cloud alone."""
    assert is_registry(host, identity_on(azure, {}, Account(cloud=cloud))) is expected


def test_the_identity_becomes_a_login(azure: StandIn) -> None:
    """It is kept: the exchange happens once."""
    login = login_to(azure)
    first = login()
    assert first is not None
    assert first.user == USER
    assert azure.accepts(first.password, REGISTRY)
    assert login() is first
    assert [one.path for one in azure.asked].count("/oauth2/exchange") == 1


def test_a_login_is_renewed_five_minutes_before_its_end(azure: StandIn) -> None:
    """A long push outlives it."""
    time = [azure_now()]
    login = RegistryLogin(REGISTRY, identity_on(azure, SERVICE_PRINCIPAL), now=lambda: time[0])
    first = login()
    time[0] += azure.lifetime * 3 - 310
    assert login() is first
    time[0] += 20
    assert login() != first


def azure_now() -> float:
    """Return the time of the tokens."""
    import time

    return time.time()


def test_the_token_goes_to_the_registry_alone(azure: StandIn) -> None:
    """And over HTTPS."""
    login_to(azure)()
    carrying = [one.url for one in azure.asked if one.value("access_token")]
    assert carrying == [f"https://{REGISTRY}/oauth2/exchange"]


def test_the_service_is_that_of_the_challenge(azure: StandIn) -> None:
    """It can differ from the host, for registries with regional names."""
    challenge = f'Bearer realm="https://elsewhere/oauth2/token",service="{REGISTRY}"'
    azure.faults[REGISTRY] = deque([Answer(401, {}, {"WWW-Authenticate": challenge})])
    assert login_to(azure)() is not None
    exchange = next(one for one in azure.asked if one.path == "/oauth2/exchange")
    assert exchange.value("service") == REGISTRY


def test_a_revoked_token_is_replaced(azure: StandIn) -> None:
    """A registry that does not accept the first gets another."""
    identity = identity_on(azure, SERVICE_PRINCIPAL)
    azure.revoked.add(identity.token(RESOURCE).value)
    assert RegistryLogin(REGISTRY, identity)() is not None
    assert azure.tokens_issued(RESOURCE) == 2


def client_of(azure: StandIn, monkeypatch: pytest.MonkeyPatch) -> HttpRegistry:
    """Return a client of the stand-in's registry, which the identity logs in."""
    FakeWeb(monkeypatch).servers = {f"https://{REGISTRY}": partial(answer_by, azure)}
    return HttpRegistry(REGISTRY, login_to(azure))


def answer_by(azure: StandIn, request: requests.PreparedRequest) -> web.Answer:
    """Return the stand-in's answer to a request of the registry's client."""
    found = azure.answer(asked_of(request))
    return web.Answer(found.status, found.headers, found.data)


def exchanges(azure: StandIn) -> int:
    """Return how many tokens were exchanged."""
    return [one.path for one in azure.asked].count("/oauth2/exchange")


def test_a_login_that_is_refused_before_its_end_is_renewed(
    azure: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It happens once, for this request and for later ones."""
    client = client_of(azure, monkeypatch)
    assert client.has_blob("shop", DIGEST)
    azure.revoked |= set(azure.signer.signed)
    assert client.has_blob("shop", DIGEST)
    assert client.has_blob("other", DIGEST)
    # The first of the new ones was with the identity's token, which was revoked as well.
    assert exchanges(azure) == 3


def test_a_login_that_is_refused_again_is_an_error(
    azure: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One exchange more is tried, and no third."""
    client = client_of(azure, monkeypatch)
    accepts = azure.accepts
    monkeypatch.setattr(azure, "accepts", lambda token, of: of != REGISTRY and accepts(token, of))
    with pytest.raises(RegistryDenied) as caught:
        client.has_blob("shop", DIGEST)
    assert '--role "AcrPull"' in caught.value.next
    assert exchanges(azure) == 2


def test_a_login_is_renewed_once_for_all_that_were_refused(azure: StandIn) -> None:
    """Uploads of several layers are refused at the same time."""
    login = login_to(azure)
    first = login()
    assert first is not None
    assert first.renew is not None
    second = first.renew()
    assert second not in (None, first)
    assert first.renew() is second
    assert exchanges(azure) == 2


def test_the_actions_that_are_granted_are_asked_with_another_login(azure: StandIn) -> None:
    """One that was refused grants nothing, which is no missing role."""
    login = login_to(azure)
    first = login()
    assert first is not None
    azure.revoked.add(first.password)
    assert login.granted_actions("shop") == {"pull", "push"}


def test_a_refusal_of_the_network_is_not_one_of_the_actions(azure: StandIn) -> None:
    """A firewall between two requests is no missing role."""
    login = login_to(azure)
    login()
    text = "client with IP '10.0.0.7' is not allowed access."
    azure.faults[REGISTRY] = deque([Answer(401), Answer(403, {"errors": [{"message": text}]})])
    with pytest.raises(RegistryDenied, match="answered 403") as caught:
        login.granted_actions("shop")
    assert "firewall" in caught.value.next
    assert "role" not in caught.value.next


def test_an_identity_without_a_role_is_told_which(azure: StandIn) -> None:
    """The advice is the command, filled in, for both kinds of registries; or the tenant is."""
    azure.roles.clear()
    error = denial_of(azure)
    assert error.what == "the registry does not accept the identity"
    assert f"--assignee-object-id {OBJECT}" in error.next
    assert '--role "AcrPush"' in error.next
    assert "--scope $(az acr show --name shop --query id --output tsv)" in error.next
    assert "Container Registry Repository Writer" in error.next
    assert f"another tenant than {TENANT}" in error.next


@pytest.mark.parametrize("refuses_early", [True, False])
@pytest.mark.parametrize(
    ("lacking", "act", "roles"),
    [
        (
            {"push", "repository writer"},
            lambda client: client.put_manifest("shop", "latest", b"{}"),
            ["AcrPush", "Container Registry Repository Writer"],
        ),
        (
            {"push", "pull", "repository writer"},
            lambda client: client.has_blob("shop", DIGEST),
            ["AcrPull", "Container Registry Repository Reader"],
        ),
    ],
)
@pytest.mark.parametrize("abac", [True, False])
def test_a_missing_role_is_told_for_both_kinds_of_registries(
    azure: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    refuses_early: bool,
    lacking: set[str],
    act: Callable[[HttpRegistry], object],
    roles: list[str],
    abac: bool,
) -> None:
    """One with permissions for repositories ignores AcrPush; it is refused as a token, or late."""
    azure.abac = abac
    azure.refuses_early = refuses_early
    # Those of the other kind of registries have no part in it.
    ignored = {"push", "pull"} if abac else {"repository writer", "repository reader"}
    azure.roles = (azure.roles - lacking) | ignored
    with pytest.raises(RegistryDenied) as caught:
        act(client_of(azure, monkeypatch))
    for role in roles:
        assert (
            f"`az role assignment create --assignee-object-id {OBJECT} --assignee-principal-type "
            f'ServicePrincipal --role "{role}" --scope $(az acr show --name shop'
        ) in caught.value.next


def test_a_registry_with_permissions_for_repositories_takes_their_roles(
    azure: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else is needed."""
    azure.abac = True
    azure.roles = {"repository writer"}
    assert client_of(azure, monkeypatch).has_blob("shop", DIGEST)
    assert login_to(azure).granted_actions("shop") == {"pull", "push"}
    azure.roles = {"repository reader"}
    assert login_to(azure).granted_actions("shop") == {"pull"}


def test_a_firewall_is_not_a_missing_role(azure: StandIn) -> None:
    """The command has the address that the registry refuses."""
    azure.firewall = True
    error = denial_of(azure)
    assert "10.0.0.7" in error.detail
    assert "`az acr network-rule add --name shop --ip-address 10.0.0.7`" in error.next
    assert "role" not in error.next


def test_without_an_identity_there_is_no_login(azure: StandIn) -> None:
    """Access is anonymous, or by Docker's configuration."""
    assert RegistryLogin(REGISTRY, identity_on(azure, {}))() is None


@pytest.mark.parametrize(
    ("method", "role"), [("HEAD", '--role "AcrPull"'), ("PUT", '--role "AcrPush"')]
)
def test_a_refused_request_names_the_role(azure: StandIn, method: str, role: str) -> None:
    """A push that is refused late needs another role than a pull."""
    login = login_to(azure)
    login()
    assert role in login.advise(method, "")


def test_the_advice_of_a_login_is_not_part_of_its_value() -> None:
    """Two logins of one user are the same."""
    assert Login("a", "b", lambda _method, _detail: "") == Login("a", "b")
    assert HttpRegistry(REGISTRY).host == REGISTRY
