from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.application import Application
from tests.e2e.cluster import Namespace, on_cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "e2e" in Path(item.fspath).parts:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session", autouse=True)
def _engine() -> None:
    """Skips the stories where no engine answers; on CI that is a failure."""
    done = subprocess.run(["docker", "version"], capture_output=True, check=False)
    if done.returncode != 0:
        reason = "no container engine answers; start one with `./run invoke up`"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


@pytest.fixture(scope="module", name="application")
def _application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """An application that nobody has released yet; all it started is gone afterwards."""
    application = Application.create(tmp_path_factory.mktemp("application"))
    yield application
    application.invoke("down", "--purge")


@pytest.fixture(scope="module", name="serving")
def _serving(application: Application) -> Application:
    """The application with two models published and the first released."""
    application.ok("release")
    application.ok("model.publish", "--sample", "2")
    return application


@pytest.fixture(scope="session", name="cluster")
def _cluster() -> Iterator[Namespace]:
    """A namespace of a real cluster."""
    kubeconfig = os.environ.get("KUBECONFIG", "")
    if not kubeconfig:
        reason = "no cluster is named; set KUBECONFIG to the kubeconfig of one whose nodes pull from 127.0.0.1:5000"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    namespace = Namespace.made(kubeconfig)
    yield namespace
    namespace.remove()


@pytest.fixture(scope="session", name="served")
def _served(tmp_path_factory: pytest.TempPathFactory, cluster: Namespace) -> Iterator[Application]:
    """An application with two models published and the first released to `staging` on the cluster, shared by all that need one."""
    application = on_cluster(Application.create(tmp_path_factory.mktemp("cluster")), cluster)
    application.ok("release", "--env", "staging")
    application.ok("model.publish", "--sample", "2")
    yield application
    application.invoke("down", "--purge")
