"""What the doctor says of an environment on Azure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

import pytest

from deploy.clients.azure.cluster_account import ClusterAccount
from deploy.clients.azure.identity import Principal
from deploy.clients.kubernetes.client import KubeCluster
from deploy.clients.kubernetes.transport import NoApiResponse
from deploy.errors import ClusterUnreachable
from deploy.machine.doctor import Check
from deploy.machine.host import connect_cluster
from tests.fakes.application import Application
from tests.fakes.azure.exchange import Answer
from tests.fakes.azure.logins import GITHUB_JOB, SERVICE_PRINCIPAL
from tests.fakes.azure.stand_in import CLIENT, OBJECT, REGISTRY, SUBJECT, SUBSCRIPTION, TENANT
from tests.fakes.transport import FakeTime, FakeTransport, Outcome, review, status

Arrange = Callable[[Application], object]

RESOURCE = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/pictures/providers"
    "/Microsoft.ContainerService/managedClusters/shop"
)
STAGING = "TWINSHIP_ENVIRONMENTS__STAGING"
SECRET = "keyvault://safe/password"
KEYS = {
    f"{STAGING}__REGISTRY": REGISTRY,
    f"{STAGING}__AKS": "pictures/shop",
    "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
}


def checks(
    application: Application,
    monkeypatch: pytest.MonkeyPatch,
    environ: Mapping[str, str],
) -> dict[str, Check]:
    """Return the checks of `staging` by part."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    found = application.context("staging").azure_doctor().checks()
    return {check.part: check for check in found}


def test_an_environment_without_azure_has_no_checks(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is requested."""
    assert checks(application, monkeypatch, SERVICE_PRINCIPAL) == {}
    assert application.azure.asked == []


def test_all_parts_are_there(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is found by a request that reads."""
    found = checks(application, monkeypatch, SERVICE_PRINCIPAL | KEYS)
    assert [check.part for check in found.values() if not check.ok] == []
    name = "a service principal (AZURE_CLIENT_SECRET)"
    assert found["Azure login"].found == f"{name}, as {CLIENT} of tenant {TENANT}"
    assert found["registry login"].found == f"pull and push, {REGISTRY}/classifier"
    assert found["cluster rights"].found == "namespace shop"


def test_without_a_login_nothing_else_is_tried(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cure is to log in."""
    found = checks(application, monkeypatch, KEYS)
    assert list(found) == ["Azure login"]
    cure = found["Azure login"].cure
    assert "`az login`" in cure
    assert "`permissions: id-token: write`" in cure
    assert cure.index("GitHub Actions (") < cure.index("Azure Pipelines (")


@pytest.mark.parametrize(
    ("part", "lacking", "role"),
    [
        ("registry login", {"push"}, "AcrPush"),
        ("registry login", {"push", "pull"}, "AcrPush"),
        ("key vault", {"secrets"}, "Key Vault Secrets User"),
    ],
)
def test_a_missing_role_is_a_command(
    application: Application,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    lacking: set[str],
    role: str,
) -> None:
    """It is filled in for the identity."""
    application.azure.roles -= lacking
    keys = SERVICE_PRINCIPAL | KEYS | {"TWINSHIP_MODEL__SAS": SECRET}
    found = checks(application, monkeypatch, keys)[part]
    assert f"az role assignment create --assignee-object-id {OBJECT}" in found.cure
    assert f'--role "{role}"' in found.cure


@pytest.mark.parametrize("kind", ["Lease", "Deployment", "Service"])
def test_missing_rights_in_a_cluster_are_a_command(
    application: Application, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """For roles of Azure, and for those of the cluster."""
    application.cluster.forbidden.add(("create", kind))
    found = checks(application, monkeypatch, SERVICE_PRINCIPAL | KEYS)["cluster rights"]
    assert '--role "Azure Kubernetes Service RBAC Writer"' in found.cure
    assert (
        f"--scope /subscriptions/{SUBSCRIPTION}/resourceGroups/pictures/providers"
        "/Microsoft.ContainerService/managedClusters/shop/namespaces/shop`"
    ) in found.cure
    assert f"--role twinship-deployer --user {OBJECT} --namespace shop`" in found.cure


def test_the_id_of_a_cluster_has_its_subscription(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The identity may see several subscriptions, and none has to be set."""
    resource = (
        "/subscriptions/other/resourceGroups/pictures/providers"
        "/Microsoft.ContainerService/managedClusters/shop"
    )
    application.cluster.forbidden.add(("create", "Deployment"))
    keys = SERVICE_PRINCIPAL | {f"{STAGING}__AKS": resource}
    found = checks(application, monkeypatch, keys)["cluster rights"]
    assert f"--scope {resource}/namespaces/shop`" in found.cure


@pytest.mark.parametrize("key", ["TWINSHIP_MODEL__SAS", f"{STAGING}__SECRETS__API_KEY"])
def test_a_secret_is_found_and_not_shown(
    application: Application, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """The report has its name."""
    keys = SERVICE_PRINCIPAL | {key: SECRET}
    found = checks(application, monkeypatch, keys)
    assert found["key vault"] == Check("key vault", SECRET)
    assert "planted" not in repr(found)


def test_no_subscription_is_needed_where_no_cluster_is_named_by_its_group(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An identity that has roles on data alone sees none."""
    keys = {f"{STAGING}__REGISTRY": REGISTRY, "TWINSHIP_MODEL__SAS": SECRET}
    found = checks(application, monkeypatch, SERVICE_PRINCIPAL | keys)
    assert list(found) == ["Azure login", "key vault", "registry login"]
    assert all(check.ok for check in found.values())
    assert "management.azure.com" not in application.azure.hosts()


# --- what each service says, and what the doctor says then


def refused_login(kind: str) -> Arrange:
    """Let each login be refused in that way."""
    return lambda application: setattr(application.azure, "refusal", kind)


def without(*roles: str) -> Arrange:
    """Take roles away from the identity."""
    return lambda application: application.azure.roles.difference_update(roles)


def answering(host: str, *answers: Answer) -> Arrange:
    """Let a service give other answers."""
    return lambda application: application.azure.faults.update({host: deque(answers)})


def closed_registry(application: Application) -> None:
    """Let the registry refuse this machine's address."""
    application.azure.firewall = True


def registry_of_repositories(application: Application) -> None:
    """Let the registry honour roles for repositories alone, of which the identity has none."""
    application.azure.abac = True


def on_aks(arrange: Arrange) -> Arrange:
    """Connect to the cluster as a release does, by the management API."""

    def connect(application: Application) -> None:
        application.machine.connect_cluster = connect_cluster  # type: ignore[method-assign]
        arrange(application)

    return connect


def management(status: int, code: str) -> Arrange:
    """Let the management API refuse a request."""
    refusal = Answer(status, {"error": {"code": code}})
    return on_aks(answering("management.azure.com", refusal))


def vault(status: int, reason: str) -> Arrange:
    """Let the key vault refuse a request, and again with another token."""
    error = {"error": {"code": "Forbidden", "innererror": {"code": reason}}}
    return answering("safe.vault.azure.net", *[Answer(status, error)] * 2)


def api_server(outcome: Outcome) -> Arrange:
    """Let the API server of the cluster answer so, or not at all."""
    account = ClusterAccount(Principal(OBJECT, "ServicePrincipal", CLIENT, TENANT), RESOURCE)
    transport = FakeTransport([outcome], identity=account)
    cluster = KubeCluster(transport, "shop", FakeTime().retry_policy())
    return lambda application: application.machine.clusters.update({"": cluster})


UNREACHABLE = ClusterUnreachable("the API server of a private cluster …", on="c", next="run this …")
SIGN_IN = f"`az login --tenant {TENANT} --scope https://management.core.windows.net//.default`"
ROWS: dict[str, tuple[Arrange, str, list[str]]] = {
    "federated credential": (
        refused_login("federation"),
        "Azure login",
        [f"federated-credential create --id {CLIENT}", f"subject: {SUBJECT}", "AADSTS700213"],
    ),
    "federated credential 70021": (
        refused_login("subject"),
        "Azure login",
        [f'"subject": "{SUBJECT}"', "AADSTS70021"],
    ),
    "federated credential, case": (
        refused_login("case"),
        "Azure login",
        ["upper and lower case only", f"subject: {SUBJECT}", "AADSTS7002138"],
    ),
    "client": (refused_login("app"), "Azure login", ["check the tenant and the client id"]),
    "tenant": (refused_login("tenant"), "Azure login", ["check the tenant and the client id"]),
    "wrong secret": (refused_login("secret"), "Azure login", ["make a new secret", CLIENT]),
    "old secret": (refused_login("old secret"), "Azure login", ["make a new secret", CLIENT]),
    "expired login": (refused_login("user"), "Azure login", [SIGN_IN]),
    "revoked login": (refused_login("revoked"), "Azure login", [SIGN_IN]),
    "second factor": (refused_login("factor"), "Azure login", [SIGN_IN]),
    "no second factor": (refused_login("enrolment"), "Azure login", [SIGN_IN]),
    "role of the cluster": (
        on_aks(without("cluster")),
        "cluster rights",
        [
            f"--assignee-object-id {OBJECT}",
            '--role "Azure Kubernetes Service Cluster User Role"',
            f"--scope {RESOURCE}`",
            "a new role counts after up to half an hour",
        ],
    ),
    "cluster": (
        management(404, "ResourceNotFound"),
        "cluster rights",
        ["404 ResourceNotFound", "check group and name"],
    ),
    "group": (
        management(404, "ResourceGroupNotFound"),
        "cluster rights",
        ["404 ResourceGroupNotFound", "check the resource group"],
    ),
    "subscription": (
        management(404, "SubscriptionNotFound"),
        "cluster rights",
        ["404 SubscriptionNotFound", "set `subscription` in [azure]"],
    ),
    "any role of the registry": (
        without("push", "pull"),
        "registry login",
        ['--role "AcrPush"', '--role "Container Registry Repository Writer"'],
    ),
    "role to push": (
        without("push"),
        "registry login",
        ['--role "AcrPush"', '--role "Container Registry Repository Writer"'],
    ),
    "role for repositories": (
        registry_of_repositories,
        "registry login",
        [f"--assignee-object-id {OBJECT}", '--role "Container Registry Repository Writer"'],
    ),
    "registry's firewall": (
        closed_registry,
        "registry login",
        ["the address 10.0.0.7: `az acr network-rule add --name shop --ip-address 10.0.0.7`"],
    ),
    "vault's role": (
        vault(403, "ForbiddenByRbac"),
        "key vault",
        [f"--assignee-object-id {OBJECT}", '--role "Key Vault Secrets User"'],
    ),
    "vault's policy": (
        vault(403, "AccessDenied"),
        "key vault",
        [f"`az keyvault set-policy --name safe --secret-permissions get --object-id {OBJECT}`"],
    ),
    "vault's firewall": (vault(403, "ForbiddenByFirewall"), "key vault", ["the vault's firewall"]),
    "vault's tenant": (vault(401, ""), "key vault", ["belongs to another tenant", TENANT]),
    "API server's login": (
        api_server(status(401, "Unauthorized")),
        "cluster rights",
        ["does not accept the token of the identity", f"{CLIENT} of tenant {TENANT}", RESOURCE],
    ),
    "rights in the cluster": (
        api_server(review(allowed=False)),
        "cluster rights",
        [
            f'--role "Azure Kubernetes Service RBAC Writer" --scope {RESOURCE}/namespaces/shop`',
            f"--user {OBJECT} --namespace shop`",
        ],
    ),
    "private cluster": (
        api_server(NoApiResponse(UNREACHABLE, transient=False)),
        "cluster rights",
        ["private cluster", "run this …"],
    ),
}


@pytest.mark.parametrize("row", list(ROWS))
def test_what_is_missing_is_told_with_everything_filled_in(
    application: Application, monkeypatch: pytest.MonkeyPatch, row: str
) -> None:
    """Each part has its own sentence, the one that a failing release has."""
    arrange, part, words = ROWS[row]
    arrange(application)
    keys = GITHUB_JOB | KEYS | {"TWINSHIP_MODEL__SAS": SECRET}
    found = checks(application, monkeypatch, keys)
    assert [check.part for check in found.values() if not check.ok] == [part]
    assert [word for word in words if word not in found[part].cure] == []
    assert "planted" not in repr(found)
