"""What is made of a context: address, TLS and credentials, without asking the server."""

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
    """Whoever runs these may have some."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def access(tmp_path: Path, content: object) -> ApiServerAccess:
    """The way that the current context of such a kubeconfig leads."""
    return ApiServerAccess(write_yaml(tmp_path / "config", content), "")


def endpoint(tmp_path: Path, content: object) -> Endpoint:
    """What the API server asks for at a path."""
    return access(tmp_path, content).endpoint("/path")


def chain(error: BaseException) -> str:
    """All that can be seen of an error, in a traceback as well."""
    shown = ""
    one: BaseException | None = error
    while one:
        shown += f"{one!r} {one} "
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return shown


def test_it_is_named_for_people(tmp_path: Path) -> None:
    """By context and server, without credentials that the server's URL may hold."""
    made = access(
        tmp_path,
        kubeconfig("red", current="red", server="https://ada:sesame@api.example:6443/cluster/"),
    )
    assert made.name == "red at https://api.example:6443/cluster"
    assert made.endpoint("/path").url == "https://api.example:6443/cluster/path"


def test_a_token_is_sent(tmp_path: Path) -> None:
    """And not shown."""
    made = endpoint(tmp_path, kubeconfig("red", current="red"))
    assert dict(made.headers) == {"Authorization": f"Bearer {TOKEN}-red"}
    assert (made.authority, made.certificate, made.proxy, made.server_name, made.unverified) == (
        "",
        None,
        "",
        "",
        False,
    )
    assert TOKEN not in repr(made)


def test_the_token_is_that_of_the_context_that_is_named(tmp_path: Path) -> None:
    """Not of the current one."""
    made = ApiServerAccess(
        write_yaml(tmp_path / "config", kubeconfig("red", "blue", current="red")), "blue"
    )
    assert made.name == "blue at https://api.example"
    assert dict(made.endpoint("/path").headers) == {"Authorization": f"Bearer {TOKEN}-blue"}


def test_a_client_certificate_is_sent(tmp_path: Path) -> None:
    """From the kubeconfig itself or from files beside it; others cannot read what is written of it."""
    content = kubeconfig(
        "red", current="red", **{"client-certificate-data": "aGk=", "client-key": "my.key"}
    )
    content["clusters"][0]["cluster"]["certificate-authority-data"] = "Q0E="
    key = write_yaml(tmp_path / "my.key", "key")
    made = endpoint(tmp_path, content)
    assert made.certificate is not None
    assert [Path(made.certificate[0]).read_text(encoding="utf-8"), made.certificate[1]] == [
        "hi",
        key,
    ]
    assert Path(made.certificate[0]).stat().st_mode & 0o077 == 0
    assert Path(made.authority).read_text(encoding="utf-8") == "CA"
    assert dict(made.headers) == {}


def test_what_else_leads_to_the_server(tmp_path: Path) -> None:
    """The name in its certificate, a proxy, and trust without a look at it."""
    content = kubeconfig("red", current="red")
    content["clusters"][0]["cluster"] |= {
        "tls-server-name": "kubernetes",
        "proxy-url": f"http://ada:{TOKEN}@proxy.example:3128",
        "insecure-skip-tls-verify": True,
    }
    made = endpoint(tmp_path, content)
    assert (made.server_name, made.proxy, made.unverified) == (
        "kubernetes",
        f"http://ada:{TOKEN}@proxy.example:3128",
        True,
    )
    assert TOKEN not in repr(made)
    session = made.session()
    assert session.verify is False
    assert session.proxies["https"] == made.proxy


def test_a_proxy_of_the_environment_is_for_others_than_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot reach a cluster that runs here; what NO_PROXY names is not sent there either."""
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
    """It is told by its environment what is asked of it."""
    command = write_login_program(
        tmp_path / "kubelogin",
        'test -n "$KUBERNETES_EXEC_INFO" || exit 1',
        *credential_lines(token="$1"),
    )
    made = endpoint(tmp_path, kubeconfig("red", current="red", **exec_user(command, TOKEN)))
    assert dict(made.headers) == {"Authorization": f"Bearer {TOKEN}"}


def test_a_login_program_gives_a_certificate(tmp_path: Path) -> None:
    """With its key."""
    command = write_login_program(
        tmp_path / "kubelogin", *credential_lines(clientCertificateData="cert", clientKeyData="key")
    )
    made = endpoint(tmp_path, kubeconfig("red", current="red", **exec_user(command)))
    assert made.certificate is not None
    assert [Path(path).read_text(encoding="utf-8") for path in made.certificate] == ["cert", "key"]


def test_credentials_of_a_login_program_can_be_had_again(tmp_path: Path) -> None:
    """It is run anew, and what it gives then is sent."""
    count = tmp_path / "count"
    command = write_login_program(
        tmp_path / "kubelogin",
        f"echo x >> {count}",
        *credential_lines(token=f"$(grep -c x {count})"),
    )
    made = access(tmp_path, kubeconfig("red", current="red", **exec_user(command)))
    first = made.endpoint("/path").headers["Authorization"]
    made.renew()
    assert (first, made.endpoint("/path").headers["Authorization"]) == ("Bearer 1", "Bearer 2")


def test_a_login_program_that_is_not_installed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is named, and nothing is printed by the way."""
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
def test_a_login_program_that_fails(
    tmp_path: Path, lines: tuple[str, ...], detail: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """What it wrote to stderr is shown, and never what it wrote to stdout."""
    command = write_login_program(tmp_path / "kubelogin", *lines)
    with pytest.raises(ClusterLogin) as caught:
        access(tmp_path, kubeconfig("red", current="red", **exec_user(command)))
    assert caught.value.what == f"the login program {command} gave no credentials"
    assert "kubelogin" in caught.value.next
    assert detail in caught.value.detail
    assert TOKEN not in chain(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_login_program_that_cannot_be_run_as_the_kubeconfig_says(tmp_path: Path) -> None:
    """The library's words for it quote the whole entry, and are not shown."""
    command = write_login_program(tmp_path / "kubelogin", *credential_lines(token=TOKEN))
    user = exec_user(command, TOKEN)
    user["exec"]["env"] = [{"name": "WITHOUT_VALUE"}]
    with pytest.raises(ClusterLogin) as caught:
        access(tmp_path, kubeconfig("red", current="red", **user))
    assert TOKEN not in chain(caught.value)


# --- what cannot be loaded


def test_entries_that_cannot_be_loaded_are_not_quoted(tmp_path: Path) -> None:
    """Neither in the error nor in what it came from."""
    for user in (
        {"client-certificate-data": f"{TOKEN}!"},
        {"username": [TOKEN], "password": TOKEN},
        {"exec": {"args": [TOKEN], "command": None}},
    ):
        with pytest.raises((ClusterUnknown, ClusterLogin)) as caught:
            access(tmp_path, kubeconfig("red", current="red", **user))
        assert TOKEN not in chain(caught.value)


def test_a_login_that_cannot_be_renewed_is_no_broken_kubeconfig(tmp_path: Path) -> None:
    """The old ways to log in, which the library itself speaks."""
    user: dict[str, Any] = {"auth-provider": {"name": "oidc", "config": {"client-id": TOKEN}}}
    with pytest.raises(ClusterLogin) as caught:
        access(tmp_path, kubeconfig("red", current="red", **user))
    assert TOKEN not in chain(caught.value)


def test_where_no_pod_is_there_is_no_account_of_one() -> None:
    """It is told what to do instead."""
    with pytest.raises(ClusterUnknown) as caught:
        ApiServerAccess("in-cluster", "")
    assert caught.value.on == "in-cluster"


def test_the_librarys_own_configuration_is_left_alone(tmp_path: Path) -> None:
    """It belongs to the process."""
    from kubernetes.client import Configuration

    before = Configuration.get_default_copy().host
    access(tmp_path, kubeconfig("red", current="red"))
    assert Configuration.get_default_copy().host == before
