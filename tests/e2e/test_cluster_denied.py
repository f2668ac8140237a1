"""Clusters that refuse access: each is a clear error with its own exit code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bench.application import Application
from tests.e2e.cluster import Namespace, until, write_kubeconfig

KEY = "TWINSHIP_ENVIRONMENTS__STAGING__{}"


@pytest.fixture(scope="module")
def before(served: Application) -> dict[str, Any]:
    """Return the state of the environment before the tests."""
    found: dict[str, Any] = served.ok("status", "--env", "staging", "--json").json
    return found


def _refused(application: Application, code: int, *words: str, **settings: str) -> None:
    done = application.invoke(
        "deploy", "--env", "staging", "--records", str(application.home / "records"), **settings
    )
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    assert "next:" in done.err
    for text in words:
        assert text in done.err


@pytest.fixture(scope="module", autouse=True)
def _pushed(served: Application) -> None:
    """Push another release, so that only the rollout is left."""
    for stage in ("fetch", "build", "smoke", "push"):
        served.ok(stage, "--env", "staging", "--records", str(served.home / "records"))


def test_a_context_that_is_not_there_is_named_with_those_that_are(
    served: Application, before: dict[str, Any]
) -> None:
    """A mistyped context is an error that lists the right ones."""
    _refused(served, 80, "nowhere", "deployer", **{KEY.format("CONTEXT"): "nowhere"})
    assert served.ok("status", "--env", "staging", "--json").json == before


def test_a_kubeconfig_that_is_not_there_is_named(served: Application, tmp_path: Path) -> None:
    """The error has the path."""
    _refused(served, 80, "absent", **{KEY.format("KUBECONFIG"): str(tmp_path / "absent")})


def test_a_server_that_does_not_answer_is_named(
    served: Application, cluster: Namespace, tmp_path: Path
) -> None:
    """The error has the address, and comes soon."""
    write_kubeconfig(tmp_path / "config", cluster.api.configuration, cluster.name, "any")
    text = (tmp_path / "config").read_text(encoding="utf-8")
    (tmp_path / "config").write_text(
        text.replace(cluster.api.configuration.host, "https://127.0.0.1:9"), encoding="utf-8"
    )
    _refused(served, 81, "127.0.0.1:9", **{KEY.format("KUBECONFIG"): str(tmp_path / "config")})


def test_rejected_credentials_are_another_error_than_missing_permissions(
    served: Application, cluster: Namespace, tmp_path: Path
) -> None:
    """An expired or wrong token is not a missing rule, and it is not printed."""
    write_kubeconfig(tmp_path / "config", cluster.api.configuration, cluster.name, "s3cret-token")
    done = served.invoke(
        "status", "--env", "staging", **{KEY.format("KUBECONFIG"): str(tmp_path / "config")}
    )
    assert done.code == 82, done.err
    assert "s3cret" not in done.out + done.err


def test_an_account_without_permissions_gets_the_rule_to_add(
    served: Application, cluster: Namespace, tmp_path: Path
) -> None:
    """The error has verb, resource and namespace, and the rule as YAML."""
    cluster.account("nobody")
    config = cluster.deployer(tmp_path / "config", "nobody")
    _refused(
        served,
        83,
        "may not get configmaps",
        cluster.name,
        "resources:",
        "verbs:",
        **{KEY.format("KUBECONFIG"): str(config)},
    )


def test_a_namespace_that_is_not_there_is_named(served: Application) -> None:
    """The error has the command that makes it; only an administrator gets this answer."""
    settings = {
        KEY.format("KUBECONFIG"): os.environ["KUBECONFIG"],
        KEY.format("NAMESPACE"): "not-there",
    }
    _refused(served, 84, "not-there", "kubectl create namespace", **settings)


def test_a_field_of_another_manager_is_reported_with_its_owner(
    served: Application, cluster: Namespace, before: dict[str, Any]
) -> None:
    """A field that a person took over stays as it is, and the previous release serves."""
    name = f"{served.name}-staging"
    patch = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "template": {
                "spec": {
                    "containers": [
                        {"name": "app", "image": cluster.image(name), "imagePullPolicy": "Always"}
                    ]
                }
            }
        },
    }
    cluster.apply_deployment(name, patch, "kubectl-edit")
    _refused(served, 85, "kubectl-edit", "imagePullPolicy")
    cluster.apply_deployment(
        name, {key: patch[key] for key in ("apiVersion", "kind", "metadata")}, "kubectl-edit"
    )
    # Each of the two edits is a rolling update by the cluster itself, which takes its time.
    until(
        lambda: served.ok("status", "--env", "staging", "--json").json["healthy"],
        "the replicas serve as before",
    )
    assert served.ok("status", "--env", "staging", "--json").json["serving"] == before["serving"]
