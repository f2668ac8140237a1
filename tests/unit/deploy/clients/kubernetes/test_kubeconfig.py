"""Which context is meant, and what is told of kubeconfig files that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from deploy.clients.kubernetes.kubeconfig import Context, choose_context
from deploy.errors import ClusterUnknown
from tests.fakes.kubeconfig import TOKEN, exec_user, kubeconfig, write_yaml


def context_of(kubeconfig: str = "", context: str = "") -> Context:
    """The context that is meant, of a kubeconfig."""
    found = choose_context(kubeconfig, context)
    assert found is not None
    return found


def refused(kubeconfig: str = "", context: str = "") -> ClusterUnknown:
    """Why there is none; never with what the files hold."""
    with pytest.raises(ClusterUnknown) as caught:
        choose_context(kubeconfig, context)
    shown = f"{caught.value} {caught.value.next} {caught.value.__cause__} {caught.value.__suppress_context__ or caught.value.__context__}"
    assert TOKEN not in shown
    return caught.value


def test_the_current_context_is_meant_unless_another_is_named(tmp_path: Path) -> None:
    """With its own cluster and user."""
    path = write_yaml(tmp_path / "config", kubeconfig("red", "blue", current="blue"))
    assert context_of(path).name == "blue"
    red = context_of(path, "red")
    assert (red.name, red.files, red.cluster["server"], red.user["token"]) == (
        "red",
        path,
        "https://api.example",
        f"{TOKEN}-red",
    )


def test_the_place_is_found_as_kubectl_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is named, else KUBECONFIG, else the file in the home folder, with or without a tilde."""
    home = tmp_path / "home"
    (home / ".kube").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    write_yaml(home / ".kube" / "config", kubeconfig("home", current="home"))
    assert context_of().name == "home"
    assert context_of("~/.kube/config").name == "home"
    monkeypatch.setenv(
        "KUBECONFIG", write_yaml(tmp_path / "named", kubeconfig("named", current="named"))
    )
    assert context_of().name == "named"
    assert (
        context_of(write_yaml(tmp_path / "other", kubeconfig("other", current="other"))).name
        == "other"
    )


def test_of_several_files_the_first_that_says_something_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for the current context; files that are not there are passed over."""
    first = write_yaml(tmp_path / "first", kubeconfig("red", server="https://first.example"))
    second = write_yaml(
        tmp_path / "second",
        kubeconfig("red", "blue", current="red", server="https://second.example"),
    )
    third = write_yaml(tmp_path / "third", kubeconfig("blue", current="blue"))
    monkeypatch.setenv(
        "KUBECONFIG", os.pathsep.join((first, str(tmp_path / "absent"), "", second, third))
    )
    assert (context_of().name, context_of().cluster["server"]) == ("red", "https://first.example")
    assert context_of("", "blue").cluster["server"] == "https://second.example"
    assert context_of().files == os.pathsep.join((first, second, third))


def test_a_context_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    """In order, one a line."""
    path = write_yaml(tmp_path / "config", kubeconfig("red", "blue", current="green"))
    for name in ("", "green"):
        error = refused(path, name)
        assert error.what == "the kubeconfig has no context green"
        assert error.detail.split() == ["blue", "red"]
        assert error.on == path
        assert error.exit_code == 80


def test_a_kubeconfig_without_a_current_context(tmp_path: Path) -> None:
    """Is told apart, with its contexts or that it has none."""
    error = refused(write_yaml(tmp_path / "config", kubeconfig("red")))
    assert (error.what, error.detail.strip()) == ("the kubeconfig has no current context", "red")
    assert (
        "no contexts"
        in refused(write_yaml(tmp_path / "none", {"kind": "Config", "contexts": None})).detail
    )


def test_no_kubeconfig_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told where it was looked for."""
    assert refused(str(tmp_path / "absent")).on == str(tmp_path / "absent")
    assert refused().on.endswith("/.kube/config")
    monkeypatch.setenv(
        "KUBECONFIG", os.pathsep.join((str(tmp_path / "one"), str(tmp_path / "two")))
    )
    assert refused().on == f"{tmp_path / 'one'}, {tmp_path / 'two'}"


def test_in_a_pod_its_own_account_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it is asked for, or nothing is said of a kubeconfig: a wrong path there must not lead to another cluster."""
    assert choose_context("in-cluster", "") is None
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert choose_context("", "") is None
    refused("", "red")
    refused(str(tmp_path / "absent"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    refused()
    monkeypatch.setenv(
        "KUBECONFIG", write_yaml(tmp_path / "config", kubeconfig("red", current="red"))
    )
    assert context_of().name == "red"
    assert choose_context("in-cluster", "") is None


def test_a_pods_account_has_no_contexts() -> None:
    """To name one is a mistake in the settings."""
    assert "no context red" in refused("in-cluster", "red").what


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "it is empty"),
        (f"token: {TOKEN}: [", "it is no YAML"),
        ("[1, 2]", "not the form"),
        (f"just {TOKEN}", "not the form"),
        ({"contexts": "red"}, "its contexts have not the form"),
        ({"users": [{"user": {"token": TOKEN}}]}, "its users have not the form"),
        ({"users": [TOKEN]}, "its users have not the form"),
        ({"clusters": [{"name": "red", "cluster": [TOKEN]}]}, "its clusters have not the form"),
    ],
)
def test_a_file_that_is_no_kubeconfig(tmp_path: Path, content: object, what: str) -> None:
    """It is told why not, and nothing of its content."""
    path = write_yaml(tmp_path / "config", content)
    error = refused(path)
    assert what in error.what
    assert error.on == path


def test_a_file_that_is_no_text_or_cannot_be_read(tmp_path: Path) -> None:
    """A folder, or bytes."""
    assert "Is a directory" in refused(str(tmp_path)).what
    path = tmp_path / "bytes"
    path.write_bytes(b"\xff\xfe\x00")
    assert "no YAML" in refused(str(path)).what


@pytest.mark.parametrize(
    ("entry", "change", "what"),
    [
        (
            "contexts",
            {"cluster": "other", "user": "red"},
            "speaks of a cluster other that it does not describe",
        ),
        ("contexts", {"user": "red"}, "speaks of a cluster None"),
        (
            "contexts",
            {"cluster": "red", "user": "other"},
            "speaks of a user other that it does not describe",
        ),
        ("clusters", {}, "the cluster of its context red has no server"),
        ("clusters", {"server": 1}, "the cluster of its context red has no server"),
        (
            "clusters",
            {"server": "https://x", "certificate-authority": "ca.crt"},
            "its cluster red names a file that cannot be read",
        ),
        (
            "users",
            {"client-certificate": "/absent/my.crt"},
            "its user red names a file that cannot be read, /absent/my.crt",
        ),
        ("users", {"tokenFile": "token"}, "its user red names a file that cannot be read"),
    ],
)
def test_a_context_that_speaks_of_what_is_not_there(
    tmp_path: Path, entry: str, change: dict[str, Any], what: str
) -> None:
    """It is told what; a context whose user is missing would ask as nobody."""
    content = kubeconfig("red", current="red")
    content[entry][0][entry.removesuffix("s")] = change
    assert what in refused(write_yaml(tmp_path / "config", content)).what


def test_files_are_named_from_where_the_kubeconfig_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not looked for if their content is in the kubeconfig itself."""
    folder = tmp_path / "folder"
    folder.mkdir()
    content = kubeconfig(
        "red",
        current="red",
        **{"client-key": "absent", "client-key-data": "aGk=", "client-certificate": "my.crt"},
    )
    monkeypatch.chdir(tmp_path)
    write_yaml(folder / "config", content)
    assert str(folder / "my.crt") in refused("folder/config").what
    write_yaml(folder / "my.crt", "certificate")
    assert context_of("folder/config").name == "red"


def test_a_context_may_ask_as_nobody_if_it_says_so(tmp_path: Path) -> None:
    """By naming no user."""
    content = kubeconfig("red", current="red")
    del content["contexts"][0]["context"]["user"]
    found = context_of(write_yaml(tmp_path / "config", content))
    assert (dict(found.user), found.program) == ({}, None)


def test_a_login_program_is_known(tmp_path: Path) -> None:
    """By the command that the user names."""
    found = context_of(
        write_yaml(
            tmp_path / "config",
            kubeconfig("red", current="red", **exec_user("kubelogin", "get-token")),
        )
    )
    assert found.program == "kubelogin"
    assert (
        context_of(write_yaml(tmp_path / "other", kubeconfig("red", current="red"))).program is None
    )


def test_a_context_does_not_show_its_credentials(tmp_path: Path) -> None:
    """Not even to a debugger."""
    assert TOKEN not in repr(
        context_of(write_yaml(tmp_path / "config", kubeconfig("red", current="red")))
    )
