"""The address, TLS and credentials of a context, without a request to the server."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from deploy.clients.http import Endpoint
from deploy.clients.kubernetes.auth import ApiServerAccess
from deploy.errors import ClusterLogin, ClusterUnknown
from tests.fakes.kubeconfig import (
    TOKEN,
    credential_lines,
    exec_user,
    kubeconfig,
    write_login_program,
    write_yaml,
)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the proxies of the environment in which the tests run."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def access(tmp_path: Path, content: object) -> ApiServerAccess:
    """Return the access by the current context of such a kubeconfig."""
    return ApiServerAccess(write_yaml(tmp_path / "config", content), "")


def endpoint(tmp_path: Path, content: object) -> Endpoint:
    """Return the endpoint of a path."""
    return access(tmp_path, content).endpoint("/path")


def chain(error: BaseException) -> str:
    """Return all text that a traceback of the error shows."""
    text = ""
    link: BaseException | None = error
    while link:
        text += f"{link!r} {link} "
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return text


def test_the_name_has_context_and_server(tmp_path: Path) -> None:
    """The credentials that the server's URL may have are left out."""
    result = access(
        tmp_path,
        kubeconfig("red", current="red", server="https://ada:sesame@api.example:6443/cluster/"),
    )
    assert result.name == "red at https://api.example:6443/cluster"
    assert result.endpoint("/path").url == "https://api.example:6443/cluster/path"


def test_a_token_is_sent(tmp_path: Path) -> None:
    """It is not shown."""
    result = endpoint(tmp_path, kubeconfig("red", current="red"))
    assert dict(result.headers) == {"Authorization": f"Bearer {TOKEN}-red"}
    assert (
        result.ca_bundle,
        result.client_certificate,
        result.proxy,
        result.server_name,
        result.unverified,
    ) == (
        "",
        None,
        "",
        "",
        False,
    )
    assert TOKEN not in repr(result)


def test_the_token_is_that_of_the_named_context(tmp_path: Path) -> None:
    """The current context does not matter."""
    result = ApiServerAccess(
        write_yaml(tmp_path / "config", kubeconfig("red", "blue", current="red")), "blue"
    )
    assert result.name == "blue at https://api.example"
    assert dict(result.endpoint("/path").headers) == {"Authorization": f"Bearer {TOKEN}-blue"}


def test_a_client_certificate_is_sent(tmp_path: Path) -> None:
    """It is in the kubeconfig or in files next to it; copies are readable by the user alone."""
    content = kubeconfig(
        "red", current="red", **{"client-certificate-data": "aGk=", "client-key": "my.key"}
    )
    content["clusters"][0]["cluster"]["certificate-authority-data"] = "Q0E="
    key = write_yaml(tmp_path / "my.key", "key")
    result = endpoint(tmp_path, content)
    assert result.client_certificate is not None
    assert [
        Path(result.client_certificate[0]).read_text(encoding="utf-8"),
        result.client_certificate[1],
    ] == [
        "hi",
        key,
    ]
    assert Path(result.client_certificate[0]).stat().st_mode & 0o077 == 0
    assert Path(result.ca_bundle).read_text(encoding="utf-8") == "CA"
    assert dict(result.headers) == {}


def test_server_name_proxy_and_unverified_tls_are_used(tmp_path: Path) -> None:
    """The kubeconfig sets all three."""
    content = kubeconfig("red", current="red")
    content["clusters"][0]["cluster"] |= {
        "tls-server-name": "kubernetes",
        "proxy-url": f"http://ada:{TOKEN}@proxy.example:3128",
        "insecure-skip-tls-verify": True,
    }
    result = endpoint(tmp_path, content)
    assert (result.server_name, result.proxy, result.unverified) == (
        "kubernetes",
        f"http://ada:{TOKEN}@proxy.example:3128",
        True,
    )
    assert TOKEN not in repr(result)
    session = result.open_session()
    assert session.verify is False
    assert session.proxies["https"] == result.proxy


def test_a_proxy_of_the_environment_is_not_used_for_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot reach a cluster on this machine; NO_PROXY is respected too."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "internal.example")
    proxied = {
        server: endpoint(tmp_path, kubeconfig("red", current="red", server=server)).proxy
        for server in (
            "https://api.example",
            "https://127.0.0.1:6443",
            "https://localhost:6443",
            "https://api.internal.example",
        )
    }
    assert list(proxied.values()) == ["http://proxy.example:3128", "", "", ""]
    content = kubeconfig("red", current="red", server="https://127.0.0.1:6443")
    content["clusters"][0]["cluster"]["proxy-url"] = "socks5://bastion.example:1080"
    assert endpoint(tmp_path, content).proxy == "socks5://bastion.example:1080"


# --- login programs


def test_a_login_program_gives_a_token(tmp_path: Path) -> None:
    """Its environment has the request for credentials."""
    command = write_login_program(
        tmp_path / "kubelogin",
        'test -n "$KUBERNETES_EXEC_INFO" || exit 1',
        *credential_lines(token="$1"),
    )
    result = endpoint(tmp_path, kubeconfig("red", current="red", **exec_user(command, TOKEN)))
    assert dict(result.headers) == {"Authorization": f"Bearer {TOKEN}"}


def test_a_login_program_gives_a_certificate(tmp_path: Path) -> None:
    """It comes with its key."""
    command = write_login_program(
        tmp_path / "kubelogin", *credential_lines(clientCertificateData="cert", clientKeyData="key")
    )
    result = endpoint(tmp_path, kubeconfig("red", current="red", **exec_user(command)))
    assert result.client_certificate is not None
    assert [Path(path).read_text(encoding="utf-8") for path in result.client_certificate] == [
        "cert",
        "key",
    ]


def test_credentials_of_a_login_program_can_be_renewed(tmp_path: Path) -> None:
    """The program runs again, and its new token is sent."""
    count = tmp_path / "count"
    command = write_login_program(
        tmp_path / "kubelogin",
        f"echo x >> {count}",
        *credential_lines(token=f"$(grep -c x {count})"),
    )
    result = access(tmp_path, kubeconfig("red", current="red", **exec_user(command)))
    first = result.endpoint("/path").headers["Authorization"]
    result.renew()
    assert (first, result.endpoint("/path").headers["Authorization"]) == ("Bearer 1", "Bearer 2")


def test_a_missing_login_program_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is printed."""
    handlers = list(logging.getLogger().handlers)
    with pytest.raises(ClusterLogin) as caught:
        access(tmp_path, kubeconfig("red", current="red", **exec_user("kubelogin-absent", TOKEN)))
    assert logging.getLogger().handlers == handlers
    assert caught.value.what == "the login program kubelogin-absent is not installed"
    assert caught.value.on == "context red"
    assert caught.value.exit_code == 82
    assert TOKEN not in chain(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("lines", "detail"),
    [
        (("echo 'AADSTS700082: the refresh token has expired' >&2", "exit 3"), "AADSTS700082"),
        (("exit 1",), "process returned 1"),
        ((f"echo {TOKEN}",), ""),
        ((f"""echo '{{"token": "{TOKEN}"}}'""",), ""),
        (credential_lines(), ""),
        (credential_lines(clientCertificateData=TOKEN), ""),
    ],
)
def test_a_failing_login_program_is_an_error(
    tmp_path: Path, lines: tuple[str, ...], detail: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its standard error is shown, and never its standard output."""
    command = write_login_program(tmp_path / "kubelogin", *lines)
    with pytest.raises(ClusterLogin) as caught:
        access(tmp_path, kubeconfig("red", current="red", **exec_user(command)))
    assert caught.value.what == f"the login program {command} gave no credentials"
    assert "kubelogin" in caught.value.next
    assert detail in caught.value.detail
    assert TOKEN not in chain(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_malformed_login_entry_is_not_quoted(tmp_path: Path) -> None:
    """The library's message quotes the whole entry, and is not shown."""
    command = write_login_program(tmp_path / "kubelogin", *credential_lines(token=TOKEN))
    user = exec_user(command, TOKEN)
    user["exec"]["env"] = [{"name": "WITHOUT_VALUE"}]
    with pytest.raises(ClusterLogin) as caught:
        access(tmp_path, kubeconfig("red", current="red", **user))
    assert TOKEN not in chain(caught.value)


# --- entries that cannot be loaded


def test_entries_that_cannot_be_loaded_are_not_quoted(tmp_path: Path) -> None:
    """Neither the error nor its cause has them."""
    for user in (
        {"client-certificate-data": f"{TOKEN}!"},
        {"username": [TOKEN], "password": TOKEN},
        {"exec": {"args": [TOKEN], "command": None}},
    ):
        with pytest.raises((ClusterUnknown, ClusterLogin)) as caught:
            access(tmp_path, kubeconfig("red", current="red", **user))
        assert TOKEN not in chain(caught.value)


def test_a_login_of_the_library_that_fails_is_a_login_error(tmp_path: Path) -> None:
    """These are the old logins that the library implements."""
    user: dict[str, Any] = {"auth-provider": {"name": "oidc", "config": {"client-id": TOKEN}}}
    with pytest.raises(ClusterLogin) as caught:
        access(tmp_path, kubeconfig("red", current="red", **user))
    assert TOKEN not in chain(caught.value)


def test_outside_a_pod_its_account_is_an_error() -> None:
    """The error says what to do instead."""
    with pytest.raises(ClusterUnknown) as caught:
        ApiServerAccess("in-cluster", "")
    assert caught.value.on == "in-cluster"


def test_the_default_configuration_of_the_library_is_unchanged(tmp_path: Path) -> None:
    """The whole process shares it."""
    from kubernetes.client import Configuration

    before = Configuration.get_default_copy().host
    access(tmp_path, kubeconfig("red", current="red"))
    assert Configuration.get_default_copy().host == before
