"""The one identity on Azure: real azure-cli-core, on a stand-in in memory."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path

import pytest

from deploy.clients.azure.errors import AzureError
from deploy.clients.azure.identity import Identity, Principal
from deploy.clients.azure.sources import Account
from tests.fakes.azure.exchange import Answer
from tests.fakes.azure.logins import (
    GITHUB_JOB,
    SERVICE_PRINCIPAL,
    http_to,
    identity_on,
    write_az_login,
)
from tests.fakes.azure.stand_in import (
    CLIENT,
    OBJECT,
    SUBJECT,
    TENANT,
    USER,
    USER_OBJECT,
    Cut,
    StandIn,
)

STORAGE = "https://storage.azure.com"
VAULT = "https://vault.azure.net"
LOGIN = "login.microsoftonline.com"


class Time:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def refusal_of(identity: Identity, resource: str = STORAGE) -> AzureError:
    """Return the failure of a token request."""
    with pytest.raises(AzureError) as caught:
        identity.token(resource)
    return caught.value


def test_a_token_is_for_its_resource_and_its_principal(azure: StandIn) -> None:
    """The object id in it is what roles are assigned to."""
    identity = identity_on(azure, SERVICE_PRINCIPAL)
    claims = azure.signer.claims(identity.token(STORAGE).value, STORAGE)
    assert claims["appid"] == CLIENT
    assert identity.principal() == Principal(OBJECT, "ServicePrincipal", CLIENT, TENANT)


def test_a_user_is_told_apart_from_a_service_principal(azure: StandIn, tmp_path: Path) -> None:
    """Assignments of roles name the kind."""
    identity = identity_on(azure, write_az_login(tmp_path / "az"))
    assert identity.principal() == Principal(USER_OBJECT, "User", USER, TENANT)


def test_a_token_is_kept_until_five_minutes_before_its_end(
    azure: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then a new one is requested."""
    time = Time()
    # The library has a clock of its own, and keeps tokens, too.
    monkeypatch.setattr("time.time", time)
    identity = Identity(Account(), SERVICE_PRINCIPAL, http_to(azure), now=time)
    first = identity.token(STORAGE)
    time.now += 3600 - 301
    assert identity.token(STORAGE) is first
    assert azure.tokens_issued(STORAGE) == 1
    time.now += 2
    assert identity.token(STORAGE).value != first.value
    assert azure.tokens_issued(STORAGE) == 2


def test_a_token_of_a_minute_is_renewed_after_half_of_it(azure: StandIn) -> None:
    """Five minutes early would be a request each time."""
    azure.lifetime = 60
    time = Time()
    identity = Identity(Account(), SERVICE_PRINCIPAL, http_to(azure), now=time)
    first = identity.token(STORAGE)
    time.now += 29
    assert identity.token(STORAGE) is first
    time.now += 2
    assert identity.token(STORAGE) != first


def test_a_refused_token_is_replaced_once(azure: StandIn) -> None:
    """The library would give the same token again from its cache."""
    identity = identity_on(azure, SERVICE_PRINCIPAL)
    old = identity.token(STORAGE)
    new = identity.token(STORAGE, old.value)
    assert new.value != old.value
    assert identity.token(STORAGE, old.value) is new
    assert azure.tokens_issued(STORAGE) == 2


def test_a_refused_token_of_a_user_is_replaced(azure: StandIn, tmp_path: Path) -> None:
    """The copy of the cache of `az` has a token of the same kind."""
    identity = identity_on(azure, write_az_login(tmp_path / "az"))
    old = identity.token(STORAGE)
    assert identity.token(STORAGE, old.value).value != old.value


def test_threads_share_one_request_for_a_resource(azure: StandIn) -> None:
    """Eight threads on a cold start are one token request for each resource."""
    identity = identity_on(azure, SERVICE_PRINCIPAL)
    start = threading.Barrier(8)
    found: list[str] = []

    def run(resource: str) -> None:
        start.wait()
        found.append(identity.token(resource).value)

    threads = [threading.Thread(target=run, args=(name,)) for name in [STORAGE, VAULT] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 2
    assert (azure.tokens_issued(STORAGE), azure.tokens_issued(VAULT)) == (1, 1)


def test_an_assertion_is_requested_for_each_token(azure: StandIn) -> None:
    """One of the start of the job would be too old later."""
    identity = identity_on(azure, GITHUB_JOB)
    identity.token(STORAGE)
    identity.token(VAULT)
    assert azure.hosts().count("pipelines.actions.githubusercontent.com") == 2


def test_an_assertion_of_a_second_is_never_too_old(azure: StandIn) -> None:
    """However long the job lasts: a token for another resource may be needed late in it."""
    azure.assertion_lifetime = 1
    time = Time()
    azure.signer.now = time
    identity = identity_on(azure, GITHUB_JOB)
    for resource in (STORAGE, VAULT, "https://containerregistry.azure.net"):
        identity.token(resource)
        time.now += 600
    refused = identity.token(STORAGE)
    assert identity.token(STORAGE, refused.value) != refused


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7),
        ("Mon, 12 Jan 1970 13:47:05 GMT", 25, 25),
        ("Mon, 12 Jan 1970 13:46:39 GMT", 0, 0.5),
        ("Mon, 01 Jan 1900 00:00:00 GMT", 0, 0.5),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 60, 60),
        ("99999999999999999999", 60, 60),
        ("Mon, 99 Foo 1970 25:61:61 GMT", 0, 0.5),
        ("soon", 0, 0.5),
    ],
    ids=["seconds", "future", "past", "year 1900", "year 9999", "ages", "no date", "words"],
)
def test_a_busy_login_service_is_asked_again_when_it_says(
    azure: StandIn, monkeypatch: pytest.MonkeyPatch, header: str, least: float, most: float
) -> None:
    """Retry-After is seconds or a date; a minute is the longest, and without sense it is short."""
    monkeypatch.setattr("time.time", Time())
    waits: list[float] = []
    identity = Identity(Account(), SERVICE_PRINCIPAL, http_to(azure, waits))
    azure.faults[LOGIN] = deque([Answer(429, {"error": "busy"}, {"Retry-After": header})])
    identity.token(STORAGE)
    (seconds,) = waits
    assert least <= seconds <= most


def test_a_login_service_that_was_cut_is_asked_again(azure: StandIn) -> None:
    """After a moment."""
    waits: list[float] = []
    identity = Identity(Account(), SERVICE_PRINCIPAL, http_to(azure, waits))
    azure.faults[LOGIN] = deque([Cut])
    identity.token(STORAGE)
    assert len(waits) == 1


def test_a_login_service_without_an_answer_is_an_error(azure: StandIn) -> None:
    """The error has the address and what to look at."""
    azure.faults[LOGIN] = deque([Cut] * 50)
    error = refusal_of(identity_on(azure, SERVICE_PRINCIPAL))
    assert error.what == "a service of Azure gave no answer (ConnectionError)"
    assert LOGIN in error.on
    assert "HTTPS_PROXY" in error.next


@pytest.mark.parametrize(
    "answer",
    [
        Answer(400),
        Answer(404, b"<html>"),
        Answer(200, b"<html>"),
        Answer(200, {"token_endpoint": "https://login.microsoftonline.com/t"}),
        Answer(200, []),
        Answer(503),
    ],
)
@pytest.mark.parametrize("good", [0, 1])
def test_an_answer_of_another_server_is_an_error(azure: StandIn, answer: Answer, good: int) -> None:
    """A proxy may answer for the login service, at its description or at a token request."""
    login = identity_on(azure, SERVICE_PRINCIPAL)
    if good:
        login.token(VAULT)
    azure.faults[LOGIN] = deque([answer] * 50)
    error = refusal_of(login)
    assert error.what.startswith(("the login to Azure", "a service of Azure"))


def test_an_early_renewal_that_fails_is_no_error(azure: StandIn) -> None:
    """The token still works: a login service that is away for a moment fails no release."""
    time = Time()
    identity = Identity(Account(), SERVICE_PRINCIPAL, http_to(azure), now=time)
    # msal has a clock of its own, and requests a token of such a life each time.
    azure.lifetime = 120
    first = identity.token(STORAGE)
    time.now += 100
    azure.secret = "changed"
    assert identity.token(STORAGE) is first
    time.now += 21
    assert refusal_of(identity).what == "the login to Azure was refused"


def test_a_wrong_secret_is_told(azure: StandIn) -> None:
    """The secret itself is not."""
    error = refusal_of(identity_on(azure, SERVICE_PRINCIPAL | {"AZURE_CLIENT_SECRET": "wrong-one"}))
    assert error.what == "the login to Azure was refused"
    assert "AADSTS7000215" in error.detail
    assert "new secret" in error.next
    assert "wrong-one" not in f"{error.what}{error.on}{error.next}{error.detail}"


def test_a_missing_federated_credential_is_shown_as_the_command_that_adds_it(
    azure: StandIn,
) -> None:
    """It has issuer and subject as they were presented, character by character."""
    azure.subjects.clear()
    error = refusal_of(identity_on(azure, GITHUB_JOB))
    assert f"subject: {SUBJECT}" in error.detail
    assert f"az ad app federated-credential create --id {CLIENT}" in error.next
    assert f'"subject": "{SUBJECT}"' in error.next
    assert '"audiences": ["api://AzureADTokenExchange"]' in error.next


def test_an_expired_login_of_a_user_is_told(azure: StandIn, tmp_path: Path) -> None:
    """The advice is the command, with tenant and scope."""
    azure.user_is_known = False
    error = refusal_of(identity_on(azure, write_az_login(tmp_path / "az")))
    assert f"`az login --tenant {TENANT} --scope {STORAGE}/.default`" in error.next


@pytest.mark.parametrize(
    ("refusal", "advice"),
    [
        ("subject", "give the identity a federated credential with exactly these"),
        ("case", "the subject differs in upper and lower case only"),
        ("expired", "see whether the clock of this machine is right"),
        ("tenant", "check the tenant and the client id"),
        ("old secret", "make a new secret or certificate for the client"),
        ("revoked", f"log in again: `az login --tenant {TENANT} --scope {STORAGE}/.default`"),
        ("factor", "log in again: `az login --tenant"),
        ("enrolment", "log in again: `az login --tenant"),
    ],
)
def test_each_refusal_of_a_login_has_its_advice(azure: StandIn, refusal: str, advice: str) -> None:
    """By the code of the authority."""
    azure.refusal = refusal
    error = refusal_of(identity_on(azure, GITHUB_JOB))
    assert error.what == "the login to Azure was refused"
    assert error.next.startswith(advice)
    assert "AADSTS" in error.detail


def test_an_unknown_client_is_told(azure: StandIn) -> None:
    """The advice names where tenant and client id are set."""
    error = refusal_of(identity_on(azure, SERVICE_PRINCIPAL | {"AZURE_CLIENT_ID": "other"}))
    assert "AADSTS700016" in error.detail
    assert "client_id" in error.next or "client id" in error.next


def test_the_login_is_said_in_one_line(azure: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    """Once, with the source and whom it is for."""
    caplog.set_level("INFO", logger="deploy")
    identity = identity_on(azure, GITHUB_JOB)
    identity.token(STORAGE)
    identity.token(VAULT)
    lines = [one.getMessage() for one in caplog.records if one.name.startswith("deploy")]
    assert lines == [f"azure  GitHub Actions (OpenID Connect), as {CLIENT} of tenant {TENANT}"]


def test_no_secret_is_in_the_log(
    azure: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even at the level of debugging, in the logs of any library."""
    caplog.set_level("DEBUG")
    for environ in (SERVICE_PRINCIPAL, GITHUB_JOB, write_az_login(tmp_path / "az")):
        identity = identity_on(azure, environ)
        token = identity.token(STORAGE)
        identity.token(STORAGE, token.value)
        assert token.value not in caplog.text
        assert token.value not in repr(token)
    assert "planted" not in caplog.text
