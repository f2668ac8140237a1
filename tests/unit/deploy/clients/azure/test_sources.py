"""The sources of a login to Azure: their order, and what each needs."""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.clients.azure.errors import AzureError, NoLogin
from deploy.clients.azure.sources import Account
from tests.fakes.azure.exchange import Answer
from tests.fakes.azure.logins import (
    GITHUB_JOB,
    PIPELINES_JOB,
    PRINCIPAL,
    SERVICE_PRINCIPAL,
    identity_on,
    write_az_login,
    write_az_principal,
)
from tests.fakes.azure.stand_in import (
    CLIENT,
    GITHUB,
    SECRET,
    SUBJECT,
    SUBSCRIPTION,
    TENANT,
    StandIn,
)

STORAGE = "https://storage.azure.com"
IMDS = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://169.254.169.254"}


def source_of(azure: StandIn, environ: Mapping[str, str], account: Account | None = None) -> str:
    """Return the name of the source of a login that gives tokens."""
    identity = identity_on(azure, environ, account)
    assert azure.accepts(identity.token(STORAGE).value, STORAGE)
    return identity.source.name


def federated(azure: StandIn, folder: Path) -> dict[str, str]:
    """Return the variables of a pod with workload identity."""
    file = folder / "token"
    file.write_text(azure.assertion(GITHUB, SUBJECT))
    return {**PRINCIPAL, "AZURE_FEDERATED_TOKEN_FILE": str(file)}


def test_the_first_source_in_order_is_used(azure: StandIn, tmp_path: Path) -> None:
    """What a job gives comes before what a person left on the machine."""
    named = Account(client_secret="NAMED")
    laptop = write_az_login(tmp_path / "az")
    everything = {
        "NAMED": SECRET,
        **laptop,
        **SERVICE_PRINCIPAL,
        **federated(azure, tmp_path),
        **PIPELINES_JOB,
        **GITHUB_JOB,
    }
    found = [source_of(azure, everything, named)]
    for variable in (
        "GITHUB_ACTIONS",
        "SYSTEM_OIDCREQUESTURI",
        "AZURE_FEDERATED_TOKEN_FILE",
        "AZURE_CLIENT_SECRET",
    ):
        found.append(source_of(azure, everything))
        del everything[variable]
    found.append(source_of(azure, everything))
    assert found == [
        "the variable of [azure] client_secret",
        "GitHub Actions (OpenID Connect)",
        "Azure Pipelines (service connection)",
        "workload identity (AZURE_FEDERATED_TOKEN_FILE)",
        "a service principal (AZURE_CLIENT_SECRET)",
        "`az login`",
    ]


def test_settings_name_tenant_and_client(azure: StandIn) -> None:
    """Then the job needs no variables of Azure."""
    job = {name: value for name, value in GITHUB_JOB.items() if name not in PRINCIPAL}
    account = Account(tenant=TENANT, client_id=CLIENT)
    assert source_of(azure, job, account) == "GitHub Actions (OpenID Connect)"


def test_a_file_with_an_assertion_is_read_again(azure: StandIn, tmp_path: Path) -> None:
    """The cluster replaces it from time to time."""
    variables = federated(azure, tmp_path)
    identity = identity_on(azure, variables)
    identity.token(STORAGE)
    (tmp_path / "token").write_text("no.such.token")
    with pytest.raises(AzureError):
        identity.token("https://vault.azure.net")


@pytest.mark.parametrize("write", [write_az_login, write_az_principal])
def test_a_login_of_az_is_used_and_never_written(
    azure: StandIn, tmp_path: Path, write: Callable[[Path], dict[str, str]]
) -> None:
    """Of a user or of a service principal; the folder of `az` stays as it is."""
    environ = write(tmp_path / "az")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.rglob("*.*")}
    assert source_of(azure, environ) == "`az login`"
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.rglob("*.*")}
    assert after == before
    assert not (Path.home() / ".azure").exists()


def test_a_federated_login_of_az_is_used(azure: StandIn, tmp_path: Path) -> None:
    """`az login --federated-token` leaves the assertion in the place of a secret."""
    environ = write_az_principal(tmp_path)
    path = tmp_path / "service_principal_entries.json"
    (entry,) = json.loads(path.read_text(encoding="utf-8"))
    del entry["client_secret"]
    entry["client_assertion"] = azure.assertion(GITHUB, SUBJECT)
    path.write_text(json.dumps([entry]), encoding="utf-8")
    assert source_of(azure, environ) == "`az login`"


def test_az_gives_the_subscription(azure: StandIn, tmp_path: Path) -> None:
    """Settings and variables come first."""
    environ = write_az_login(tmp_path / "az")
    assert identity_on(azure, environ).subscription == SUBSCRIPTION
    named = Account(subscription="other")
    assert identity_on(azure, environ, named).subscription == "other"


def test_a_cache_that_is_being_written_is_read_again(
    azure: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers truncate it first: a reader in between sees nothing."""
    environ = write_az_login(tmp_path / "az")
    cache = tmp_path / "az" / "msal_token_cache.json"
    text = cache.read_text()
    cache.write_text("")
    monkeypatch.setattr("time.sleep", lambda _: cache.write_text(text))
    assert source_of(azure, environ) == "`az login`"


def test_a_user_that_left_the_cache_is_an_error(
    azure: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The advice is to log in again."""
    environ = write_az_login(tmp_path / "az")
    (tmp_path / "az" / "msal_token_cache.json").write_text(json.dumps({"Account": {}}))
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(AzureError, match="cannot be read") as caught:
        identity_on(azure, environ).token(STORAGE)
    assert caught.value.next == "log in again: `az login`"


def test_the_identity_of_the_machine_is_used_only_where_asked_for(
    azure: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a laptop its address would hang."""
    monkeypatch.setenv(*next(iter(IMDS.items())))
    with pytest.raises(NoLogin, match="no login to Azure"):
        identity_on(azure, IMDS).token(STORAGE)
    assert azure.asked == []
    account = Account(managed_identity=True, client_id="assigned")
    identity = identity_on(azure, IMDS, account)
    assert identity.source.name == "managed identity"


class Probe:
    """A connection to the address of the machine's identity."""

    def __init__(self, failure: Exception | None) -> None:
        self.failure = failure
        self.asked: list[tuple[object, float]] = []

    def __call__(self, address: object, timeout: float) -> socket.socket:
        """Connect, or fail as that network does."""
        self.asked.append((address, timeout))
        if self.failure:
            raise self.failure
        return socket.socket()


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Probe:
    """Return the connection; it is accepted."""
    found = Probe(None)
    monkeypatch.setattr(socket, "create_connection", found)
    return found


MACHINE = Account(managed_identity=True)


def test_the_identity_of_the_machine_logs_in(azure: StandIn, probe: Probe) -> None:
    """It is looked for a second long, at the address that each virtual machine has."""
    assert source_of(azure, {}, MACHINE) == "managed identity"
    assert probe.asked == [(("169.254.169.254", 80), 1.0)]


def test_one_of_several_identities_of_the_machine_is_named(azure: StandIn, probe: Probe) -> None:
    """By its client id."""
    identity = identity_on(azure, {}, replace(MACHINE, client_id="assigned"))
    assert azure.signer.claims(identity.token(STORAGE).value, STORAGE)["appid"] == "assigned"


@pytest.mark.parametrize(
    "failure",
    [ConnectionRefusedError(), OSError(101, "Network is unreachable"), TimeoutError("timed out")],
    ids=["absent", "no network", "hanging"],
)
def test_off_azure_the_identity_of_the_machine_is_not_there(
    azure: StandIn, probe: Probe, failure: Exception
) -> None:
    """An address that hangs costs that second, and no request is sent to it."""
    probe.failure = failure
    with pytest.raises(NoLogin) as caught:
        identity_on(azure, {}, MACHINE).token(STORAGE)
    assert caught.value.detail.splitlines()[-1] == "  managed identity: this machine has none"
    assert azure.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        Answer(400, {"error": "invalid_request", "error_description": "Identity not found"}),
        Answer(404, {}),
        Answer(404, b"<html>"),
    ],
)
def test_a_machine_without_an_assigned_identity_is_told(
    azure: StandIn, probe: Probe, answer: Answer
) -> None:
    """Its service answers, but has no token; the library means something else by that."""
    azure.faults["169.254.169.254"] = deque([answer])
    with pytest.raises(AzureError) as caught:
        identity_on(azure, {}, MACHINE).token(STORAGE)
    assert "az vm identity assign" in caught.value.next
    assert "client_id" in caught.value.next


def test_without_any_source_the_error_lists_what_was_looked_for(azure: StandIn) -> None:
    """In order, each with what is missing."""
    with pytest.raises(NoLogin) as caught:
        identity_on(azure, {"GITHUB_ACTIONS": "true"}).token(STORAGE)
    lines = caught.value.detail.splitlines()
    assert len(lines) == 8
    assert lines[1].endswith("the job has no `permissions: id-token: write`")
    assert "docs/11-azure.md" in caught.value.next


def test_a_job_without_its_access_token_is_told_what_to_map(azure: StandIn) -> None:
    """Azure Pipelines gives the token to a step only where it is mapped."""
    job = PIPELINES_JOB | {"SYSTEM_ACCESSTOKEN": ""}
    with pytest.raises(NoLogin) as caught:
        identity_on(azure, job).token(STORAGE)
    assert "map SYSTEM_ACCESSTOKEN: $(System.AccessToken)" in caught.value.detail


def test_a_named_variable_that_is_not_set_is_an_error(azure: StandIn) -> None:
    """No other source takes its place."""
    with pytest.raises(AzureError, match="NAMED is not set"):
        identity_on(azure, SERVICE_PRINCIPAL, Account(client_secret="NAMED")).token(STORAGE)


def test_a_secret_in_place_of_its_variables_name_is_not_shown(azure: StandIn) -> None:
    """The error is printed to the log of a CI system."""
    with pytest.raises(AzureError, match="like the value of `client_secret`") as caught:
        identity_on(azure, SERVICE_PRINCIPAL, Account(client_secret="hunter2")).token(STORAGE)
    assert "hunter2" not in f"{caught.value}{caught.value.on}{caught.value.next}"


def test_a_named_variable_that_is_empty_is_an_error(azure: StandIn) -> None:
    """CI systems set it so where the secret is missing."""
    environ = SERVICE_PRINCIPAL | {"NAMED": ""}
    with pytest.raises(AzureError, match="NAMED is not set"):
        identity_on(azure, environ, Account(client_secret="NAMED")).token(STORAGE)
