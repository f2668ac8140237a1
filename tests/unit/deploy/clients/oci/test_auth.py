"""Credentials belong to a host: which servers get them, and which get a request at all."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from deploy.clients.oci.client import HttpRegistry
from deploy.clients.oci.credentials import TOKEN_USER, Login
from deploy.clients.oci.http import RetryPolicy
from deploy.errors import RegistryDenied, RegistryRefused, SettingsInvalid
from tests.fakes.registry import digest
from tests.fakes.web import Answer, FakeWeb, Handler

HOST = "registry.example"
OWN = f"https://{HOST}"
OTHER = "https://storage.example"
LOGIN = Login("ada", "open-sesame")
BLOB = b"a blob"
REPOSITORY = "team/app"
BASIC = {"WWW-Authenticate": 'Basic realm="the registry"'}


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> FakeWeb:
    """Replace the network."""
    return FakeWeb(monkeypatch)


def connect(
    find_login: Callable[[], Login | None] = lambda: LOGIN, host: str = HOST
) -> HttpRegistry:
    """Return a client that does not wait between attempts."""
    return HttpRegistry(host, find_login, retry_policy=RetryPolicy(wait=lambda _: None))


def protect(answer: Handler, challenge: str = BASIC["WWW-Authenticate"]) -> Handler:
    """Return a server that requires a login."""

    def handle(request: requests.PreparedRequest) -> Answer:
        if "Authorization" not in request.headers:
            return Answer(401, {"WWW-Authenticate": challenge})
        return answer(request)

    return handle


def redirect(status: int, location: str) -> Handler:
    """Return a server that redirects each request to one URL, and answers there."""

    def handle(request: requests.PreparedRequest) -> Answer:
        arrived = (request.url or "").partition("?")[0].endswith("/there")
        return Answer(200, {}, BLOB) if arrived else Answer(status, {"Location": location})

    return handle


def upload(registry: HttpRegistry) -> None:
    """Upload a blob."""
    registry.upload(REPOSITORY, digest(BLOB), len(BLOB), partial(io.BytesIO, BLOB), lambda _: None)


def start_upload(location: str) -> Handler:
    """Return a registry whose uploads continue at a URL."""

    def handle(request: requests.PreparedRequest) -> Answer:
        if request.method == "POST":
            return Answer(202, {"Location": location})
        return Answer(201 if request.method == "PUT" else 404)

    return handle


def authorizations(requests_: list[requests.PreparedRequest]) -> set[str]:
    """Return the credentials of requests; empty for a request without any."""
    return {str(request.headers.get("Authorization", "")) for request in requests_}


# --- what is read


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_blob_may_come_from_another_server_which_gets_no_credentials(
    web: FakeWeb, status: int
) -> None:
    """Registries redirect downloads to where they store blobs."""
    web.servers = {
        OWN: protect(redirect(status, f"{OTHER}/there?secret=x")),
        OTHER: lambda _: Answer(200, {}, BLOB),
    }
    with connect().download(REPOSITORY, digest(BLOB)) as blob:
        assert blob.read() == BLOB
    assert authorizations(web.sent_to(OTHER)) == {""}
    assert LOGIN.authorization in authorizations(web.sent_to(OWN))


def test_another_server_that_asks_for_a_login_gets_none(web: FakeWeb) -> None:
    """Its challenge is not answered."""
    web.servers = {OWN: redirect(307, f"{OTHER}/there"), OTHER: protect(lambda _: Answer(200))}
    with pytest.raises(RegistryDenied):
        connect().download(REPOSITORY, digest(BLOB))
    assert authorizations(web.seen) == {""}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["/there", f"{OWN}/there", f"{OWN}:443/there"])
def test_a_redirect_within_the_registry_is_logged_in(
    web: FakeWeb, status: int, location: str
) -> None:
    """Manifests and the existence of blobs are asked for in this way, too."""
    web.servers = dict.fromkeys((OWN, f"{OWN}:443"), protect(redirect(status, location)))
    registry = connect()
    assert registry.has_blob(REPOSITORY, digest(BLOB))
    assert registry.get_manifest(REPOSITORY, "latest") == BLOB
    assert authorizations(web.seen[1:]) == {LOGIN.authorization}


@pytest.mark.parametrize(
    "location", [f"http://{HOST}/there", "http://127.0.0.1/there", "file:///etc/passwd"]
)
def test_a_redirect_to_an_address_without_https_is_not_followed(
    web: FakeWeb, location: str
) -> None:
    """Others could change a tag on the way; the error is no reason for another attempt."""
    web.servers = {OWN: redirect(307, location)}
    with pytest.raises(RegistryRefused, match="without HTTPS"):
        connect().get_manifest(REPOSITORY, "latest")
    assert len(web.seen) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_redirects_without_an_end_are_not_followed(web: FakeWeb, method: str) -> None:
    """Only a few are followed, once."""
    web.servers = {OWN: redirect(307, "/again")}
    with pytest.raises(RegistryRefused, match="again and again"):
        upload(connect()) if method == "POST" else connect().get_manifest(REPOSITORY, "latest")
    assert len(web.seen) < 10


@pytest.mark.parametrize(
    "location", ["https://[", "https://registry.example:port/", "https://\xff.example/"]
)
def test_a_location_that_is_no_url_is_an_error(web: FakeWeb, location: str) -> None:
    """A redirect has it, or an upload."""
    for server in (redirect(307, location), start_upload(location)):
        web.servers = {OWN: server}
        with pytest.raises(RegistryRefused, match=r"not a URL|cannot be read|another address"):
            upload(connect())


# --- what is written

ELSEWHERE = [
    f"{OTHER}/upload",
    f"{OWN}:8443/upload",
    f"http://{HOST}/upload",
    "//storage.example/upload",
    f"https://{HOST}@storage.example/upload",
    "ftp://registry.example/upload",
]


@pytest.mark.parametrize("location", ELSEWHERE)
@pytest.mark.parametrize("redirects", [True, False])
def test_an_upload_to_another_address_is_refused(
    web: FakeWeb, location: str, redirects: bool
) -> None:
    """By the location of the upload, or a redirect of its start; no byte and no login is sent."""
    server = redirect(307, location) if redirects else start_upload(location)
    web.servers = {OWN: protect(server)}
    with pytest.raises(RegistryRefused, match="another address") as caught:
        upload(connect())
    assert caught.value.exit_code == 53
    assert "`registry`" in caught.value.next
    assert {(request.method, request.url) for request in web.seen} == {
        ("POST", f"{OWN}/v2/{REPOSITORY}/blobs/uploads/")
    }


@pytest.mark.parametrize(
    "location", ["/upload?state=x", f"{OWN}/upload?state=x", "https://REGISTRY.example/upload"]
)
def test_an_upload_continues_where_the_registry_says(web: FakeWeb, location: str) -> None:
    """The URL may be relative, and may name the registry in another form."""
    web.servers = dict.fromkeys((OWN, "https://REGISTRY.example"), protect(start_upload(location)))
    upload(connect())
    put = web.seen[-1]
    assert (put.method, urlsplit(put.url or "").path) == ("PUT", "/upload")
    assert put.headers["Authorization"] == LOGIN.authorization


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirected_start_of_an_upload_is_followed(web: FakeWeb, status: int) -> None:
    """With its method, its login and its parameters, which the new URL has (RFC 9110, 15.4.8)."""

    def handle(request: requests.PreparedRequest) -> Answer:
        url = request.url or ""
        if request.method == "POST" and "via=" not in url:
            return Answer(status, {"Location": f"{url}{'&' if '?' in url else '?'}via=x"})
        return start_upload("/upload")(request)

    web.servers = {OWN: protect(handle)}
    registry = connect()
    upload(registry)
    assert not registry.mount(REPOSITORY, digest(BLOB), "team/other")
    mounts = [
        parse_qs(urlsplit(request.url or "").query)
        for request in web.seen
        if "mount=" in (request.url or "")
    ]
    assert mounts == [
        {"mount": [digest(BLOB)], "from": ["team/other"]},
        {"mount": [digest(BLOB)], "from": ["team/other"], "via": ["x"]},
    ]


def test_a_redirect_that_would_change_the_method_is_an_error(web: FakeWeb) -> None:
    """A client may repeat such a request as a GET."""
    web.servers = {OWN: redirect(302, "/there")}
    with pytest.raises(RegistryRefused, match="302"):
        upload(connect())


# --- login services


def issue_token(request: requests.PreparedRequest) -> Answer:
    """Return a token to each request."""
    return Answer(200, {}, b'{"token": "t0ken"}')


def ask_for_token(realm: str) -> Handler:
    """Return a registry that requires a token of a login service."""

    def handle(request: requests.PreparedRequest) -> Answer:
        if (request.url or "").startswith(realm):
            return issue_token(request)
        if request.headers.get("Authorization") == "Bearer t0ken":
            return Answer(404)
        return Answer(401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'})

    return handle


def test_a_login_service_with_https_gets_user_and_password(web: FakeWeb) -> None:
    """It is often another host; the registry itself gets the token alone."""
    web.servers = {OWN: ask_for_token(f"{OTHER}/token"), OTHER: issue_token}
    assert not connect().has_blob(REPOSITORY, digest(BLOB))
    assert authorizations(web.sent_to(OTHER)) == {LOGIN.authorization}
    assert authorizations(web.sent_to(OWN)) == {"", "Bearer t0ken"}


@pytest.mark.parametrize(
    ("host", "realm"),
    [
        (HOST, "http://storage.example/token"),
        (HOST, f"http://{HOST}/token"),
        (HOST, "http://127.0.0.1/token"),
        (HOST, "file:///etc/passwd"),
        ("127.0.0.1:5000", "http://storage.example/token"),
    ],
)
def test_a_login_service_without_https_is_not_asked(web: FakeWeb, host: str, realm: str) -> None:
    """A registry of this machine may have one on this machine."""
    web.servers = dict.fromkeys((OWN, "http://127.0.0.1:5000"), ask_for_token(realm))
    with pytest.raises(RegistryDenied, match="unencrypted"):
        connect(host=host).has_blob(REPOSITORY, digest(BLOB))
    assert len(web.seen) == 1


def test_a_login_service_on_this_machine_is_asked_by_a_registry_here(web: FakeWeb) -> None:
    """What is sent there does not leave the machine."""
    here = "http://127.0.0.1:5000"
    web.servers = {here: ask_for_token("http://localhost:5001/token")}
    web.servers["http://localhost:5001"] = issue_token
    assert not connect(host="127.0.0.1:5000").has_blob(REPOSITORY, digest(BLOB))


@pytest.mark.parametrize("user", ["ada", TOKEN_USER])
def test_a_login_service_that_redirects_elsewhere_is_refused(web: FakeWeb, user: str) -> None:
    """Neither a password nor an identity token is sent on."""
    realm = f"{OWN}/token"

    def handle(request: requests.PreparedRequest) -> Answer:
        if "/token" in (request.url or ""):
            return Answer(307, {"Location": f"{OTHER}/token"})
        return ask_for_token(realm)(request)

    web.servers = {OWN: handle, OTHER: issue_token}
    with pytest.raises(RegistryDenied, match="redirects to another server"):
        connect(lambda: Login(user, "secret")).has_blob(REPOSITORY, digest(BLOB))
    assert web.sent_to(OTHER) == []


def test_what_a_login_service_repeats_of_a_login_is_not_shown(web: FakeWeb) -> None:
    """A refusal may have the header of the request, or the password."""

    def refuse(request: requests.PreparedRequest) -> Answer:
        message = f"no: {request.headers['Authorization']}, {LOGIN.password}"
        body = json.dumps({"errors": [{"code": "UNAUTHORIZED", "message": message}]})
        return Answer(401, {}, body.encode())

    web.servers = {OWN: ask_for_token(f"{OTHER}/token"), OTHER: refuse}
    with pytest.raises(RegistryDenied) as caught:
        connect().has_blob(REPOSITORY, digest(BLOB))
    assert caught.value.detail == "  UNAUTHORIZED: no: Basic …, …"


def test_an_identity_token_is_exchanged_for_a_token(web: FakeWeb) -> None:
    """As a login to ACR leaves one: it is in the body of a POST, and nowhere else."""
    web.servers = {OWN: ask_for_token(f"{OTHER}/oauth2/token"), OTHER: issue_token}
    registry = connect(lambda: Login(TOKEN_USER, "identity"))
    assert not registry.has_blob(REPOSITORY, digest(BLOB))
    (asked,) = web.sent_to(OTHER)
    assert (asked.method, asked.url) == ("POST", f"{OTHER}/oauth2/token")
    assert "Authorization" not in asked.headers
    assert parse_qs(str(asked.body)) == {
        "grant_type": ["refresh_token"],
        "client_id": ["twinship"],
        "service": ["x"],
        "scope": [f"repository:{REPOSITORY}:pull"],
        "refresh_token": ["identity"],
    }


def test_an_identity_token_is_no_password(web: FakeWeb) -> None:
    """A registry without a login service does not get it."""
    web.servers = {OWN: protect(lambda _: Answer(200))}
    with pytest.raises(RegistryDenied):
        connect(lambda: Login(TOKEN_USER, "identity")).has_blob(REPOSITORY, digest(BLOB))
    assert authorizations(web.seen) == {""}


# --- logins that cannot be read


def lack_helper() -> Login | None:
    """Fail as a missing credential helper does."""
    raise RegistryDenied("the helper is not installed", on="config.json", next="install it")


def test_a_login_that_cannot_be_read_is_no_error_where_none_is_needed(web: FakeWeb) -> None:
    """A token for everyone needs none, though the registry asks for a token."""
    web.servers = {OWN: ask_for_token(f"{OWN}/token")}
    assert not connect(lack_helper).has_blob(REPOSITORY, digest(BLOB))


@pytest.mark.parametrize("challenge", ["Basic", f'Bearer realm="{OWN}/token"'])
def test_a_login_that_cannot_be_read_is_the_reason_of_a_refusal(
    web: FakeWeb, challenge: str
) -> None:
    """The registry's own message would not say what is wrong."""
    web.servers = {OWN: lambda _: Answer(401, {"WWW-Authenticate": challenge})}
    with pytest.raises(RegistryDenied, match="not installed"):
        connect(lack_helper).has_blob(REPOSITORY, digest(BLOB))


def test_a_variable_that_is_not_set_is_an_error(web: FakeWeb) -> None:
    """The settings name it, so access without a login is not meant."""

    def find_login() -> Login | None:
        raise SettingsInvalid("the variable is not set", on="login", next="set it")

    web.servers = {OWN: ask_for_token(f"{OWN}/token")}
    with pytest.raises(SettingsInvalid):
        connect(find_login).has_blob(REPOSITORY, digest(BLOB))


# --- the logins of other programs


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a .netrc with a login for every host."""
    path = tmp_path / "netrc"
    path.write_text("default login index-reader password index-pass\n", encoding="utf-8")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))


@pytest.mark.usefixtures("netrc")
def test_netrc_is_not_read(web: FakeWeb) -> None:
    """Neither in place of a token, nor for a request without credentials, nor after a redirect."""
    web.servers = {
        OWN: ask_for_token(f"{OWN}/token"),
        OTHER: redirect(307, f"{OTHER}/there"),
    }
    assert not connect(lambda: None).has_blob(REPOSITORY, digest(BLOB))
    assert connect(lambda: None, host="storage.example").has_blob(REPOSITORY, digest(BLOB))
    assert authorizations(web.seen) == {"", "Bearer t0ken"}


def test_a_login_in_a_url_is_not_sent(web: FakeWeb) -> None:
    """A registry cannot choose the credentials that another server gets."""
    web.servers = {
        OWN: redirect(307, "https://eve:secret@storage.example/there"),
        "https://eve:secret@storage.example": lambda _: Answer(200, {}, BLOB),
    }
    with connect(lambda: None).download(REPOSITORY, digest(BLOB)) as blob:
        assert blob.read() == BLOB
    assert authorizations(web.seen) == {""}


def test_proxies_and_authorities_of_the_environment_are_used(
    web: FakeWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the logins of the environment are not."""
    seen: list[object] = []
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    merge = requests.Session.merge_environment_settings

    def merge_environment_settings(self: requests.Session, *arguments: object) -> object:
        seen.append(merged := merge(self, *arguments))  # type: ignore[arg-type]  # passed on
        return merged

    monkeypatch.setattr(requests.Session, "merge_environment_settings", merge_environment_settings)
    web.servers = {OWN: lambda _: Answer(404)}
    assert not connect().has_blob(REPOSITORY, digest(BLOB))
    assert "proxy.example" in str(seen)
