"""The choice of a context, and the errors of kubeconfig files that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from deploy.clients.kubernetes.kubeconfig import KubeconfigContext, choose_context
from deploy.errors import ClusterUnknown
from tests.fakes.kubeconfig import TOKEN, exec_user, kubeconfig, write_yaml


def context_of(kubeconfig: str = "", context: str = "") -> KubeconfigContext:
    """Return the chosen context of a kubeconfig."""
    chosen = choose_context(kubeconfig, context)
    assert chosen is not None
    return chosen


def error_of(kubeconfig: str = "", context: str = "") -> ClusterUnknown:
    """Return the error of a kubeconfig, which never shows values of the files."""
    with pytest.raises(ClusterUnknown) as caught:
        choose_context(kubeconfig, context)
    error = caught.value
    shown = error.__suppress_context__ or error.__context__
    text = f"{error} {error.next} {error.__cause__} {shown}"
    assert TOKEN not in text
    return caught.value


def test_the_current_context_is_chosen_unless_another_is_named(tmp_path: Path) -> None:
    """It has its own cluster and user."""
    path = write_yaml(tmp_path / "config", kubeconfig("red", "blue", current="blue"))
    assert context_of(path).name == "blue"
    red = context_of(path, "red")
    assert (red.name, red.files, red.cluster["server"], red.user["token"]) == (
        "red",
        path,
        "https://api.example",
        f"{TOKEN}-red",
    )


def test_the_files_are_those_of_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the named one, or KUBECONFIG, or the file in the home folder."""
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


def test_of_several_files_the_first_value_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This includes the current context; missing files are skipped."""
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


def test_a_missing_context_is_an_error_with_the_existing_ones(tmp_path: Path) -> None:
    """They are sorted, one a line."""
    path = write_yaml(tmp_path / "config", kubeconfig("red", "blue", current="green"))
    for name in ("", "green"):
        error = error_of(path, name)
        assert error.what == "the kubeconfig has no context green"
        assert error.detail.split() == ["blue", "red"]
        assert error.on == path
        assert error.exit_code == 80


def test_a_kubeconfig_without_a_current_context_is_an_error(tmp_path: Path) -> None:
    """The detail has its contexts, or says that it has none."""
    error = error_of(write_yaml(tmp_path / "config", kubeconfig("red")))
    assert (error.what, error.detail.strip()) == ("the kubeconfig has no current context", "red")
    assert (
        "no contexts"
        in error_of(write_yaml(tmp_path / "none", {"kind": "Config", "contexts": None})).detail
    )


def test_a_missing_kubeconfig_is_an_error_with_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All paths of KUBECONFIG are named."""
    assert error_of(str(tmp_path / "absent")).on == str(tmp_path / "absent")
    assert error_of().on.endswith("/.kube/config")
    monkeypatch.setenv(
        "KUBECONFIG", os.pathsep.join((str(tmp_path / "one"), str(tmp_path / "two")))
    )
    assert error_of().on == f"{tmp_path / 'one'}, {tmp_path / 'two'}"


def test_in_a_pod_its_own_account_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting asks for it, or no setting names a kubeconfig.

    A wrong path in a setting must not lead to another cluster.
    """
    assert choose_context("in-cluster", "") is None
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert choose_context("", "") is None
    error_of("", "red")
    error_of(str(tmp_path / "absent"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    error_of()
    monkeypatch.setenv(
        "KUBECONFIG", write_yaml(tmp_path / "config", kubeconfig("red", current="red"))
    )
    assert context_of().name == "red"
    assert choose_context("in-cluster", "") is None


def test_a_context_of_a_pods_account_is_an_error() -> None:
    """The settings contradict each other."""
    assert "no context red" in error_of("in-cluster", "red").what


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "it is empty"),
        (f"token: {TOKEN}: [", "it is not valid YAML"),
        ("[1, 2]", "not have the form"),
        (f"just {TOKEN}", "not have the form"),
        ({"contexts": "red"}, "its contexts do not have the right form"),
        ({"users": [{"user": {"token": TOKEN}}]}, "its users do not have the right form"),
        ({"users": [TOKEN]}, "its users do not have the right form"),
        (
            {"clusters": [{"name": "red", "cluster": [TOKEN]}]},
            "its clusters do not have the right form",
        ),
    ],
)
def test_a_file_that_is_no_kubeconfig_is_an_error(
    tmp_path: Path, content: object, what: str
) -> None:
    """The error says why, and nothing of its content."""
    path = write_yaml(tmp_path / "config", content)
    error = error_of(path)
    assert what in error.what
    assert error.on == path


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """It is a folder, or has bytes that are no text."""
    assert "Is a directory" in error_of(str(tmp_path)).what
    path = tmp_path / "bytes"
    path.write_bytes(b"\xff\xfe\x00")
    assert "not valid YAML" in error_of(str(path)).what


@pytest.mark.parametrize(
    ("entry", "change", "what"),
    [
        (
            "contexts",
            {"cluster": "other", "user": "red"},
            "names a cluster other that it does not have",
        ),
        ("contexts", {"user": "red"}, "names a cluster None"),
        (
            "contexts",
            {"cluster": "red", "user": "other"},
            "names a user other that it does not have",
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
def test_a_context_that_names_a_missing_entry_is_an_error(
    tmp_path: Path, entry: str, change: dict[str, Any], what: str
) -> None:
    """Without its user, the library would send requests without a login."""
    content = kubeconfig("red", current="red")
    content[entry][0][entry.removesuffix("s")] = change
    assert what in error_of(write_yaml(tmp_path / "config", content)).what


def test_paths_are_relative_to_the_kubeconfig(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are ignored if the content is in the kubeconfig itself."""
    folder = tmp_path / "folder"
    folder.mkdir()
    content = kubeconfig(
        "red",
        current="red",
        **{"client-key": "absent", "client-key-data": "aGk=", "client-certificate": "my.crt"},
    )
    monkeypatch.chdir(tmp_path)
    write_yaml(folder / "config", content)
    assert str(folder / "my.crt") in error_of("folder/config").what
    write_yaml(folder / "my.crt", "certificate")
    assert context_of("folder/config").name == "red"


def test_a_context_may_have_no_user(tmp_path: Path) -> None:
    """Requests then have no login."""
    content = kubeconfig("red", current="red")
    del content["contexts"][0]["context"]["user"]
    chosen = context_of(write_yaml(tmp_path / "config", content))
    assert (dict(chosen.user), chosen.login_program) == ({}, None)


def test_a_login_program_is_known(tmp_path: Path) -> None:
    """It is the command of the user's entry."""
    chosen = context_of(
        write_yaml(
            tmp_path / "config",
            kubeconfig("red", current="red", **exec_user("kubelogin", "get-token")),
        )
    )
    assert chosen.login_program == "kubelogin"
    assert (
        context_of(write_yaml(tmp_path / "other", kubeconfig("red", current="red"))).login_program
        is None
    )


def test_a_context_does_not_show_its_credentials(tmp_path: Path) -> None:
    """Its representation leaves them out."""
    assert TOKEN not in repr(
        context_of(write_yaml(tmp_path / "config", kubeconfig("red", current="red")))
    )
