"""Fixtures of the stories: the engine, the cluster, and applications that several tests share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.application import Application
from tests.e2e.cluster import Namespace, on_cluster
from tests.e2e.keeper import registry_kept
from tests.missing import lacking
from tests.scheduling import GroupScheduling

# The groups in the order in which they start, the longest first, so that all processes end at about
# the same time. Of the cluster's modules, the first begins with an application without a history.
_ORDER = (
    "test_cluster",
    "test_cluster_interrupted",
    "test_cluster_denied",
    "test_cluster_balanced",
    "test_azure",
    "test_cluster_killed",
    "test_cluster_load",
    "test_killed",
    "test_load",
    "test_hostile",
    "test_engine_killed",
    "test_http",
)


def _group(node: str) -> str:
    """Return the group of a test.

    All modules `test_cluster…` are one group: they share an application, and one of their tests
    restarts the API server. Every other module has an application of its own. What different groups
    start has names, folders, ports and namespaces of its own.
    """
    module = Path(node.partition("::")[0]).stem
    return "test_cluster" if module.startswith("test_cluster") else module


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    """Run all stories of one application in one process, in order."""
    return GroupScheduling(config, log, _group)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the stories and put the longest groups first."""
    own = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in own:
        item.add_marker(pytest.mark.e2e)
        if item.path.stem.endswith(("load", "http")):
            item.add_marker(pytest.mark.load)
    items.sort(key=_position)


def _position(item: pytest.Item) -> int:
    """Return the place of a test's module in the order."""
    module = item.path.stem
    return _ORDER.index(module) if module in _ORDER else len(_ORDER)


@pytest.fixture(scope="session", autouse=True)
def _engine() -> Iterator[None]:
    """Skip the stories where no engine answers; on CI that is a failure."""
    done = subprocess.run(["docker", "version"], capture_output=True, check=False)
    if done.returncode != 0:
        lacking("no container engine answers", "start one with `./run invoke up`")
    with registry_kept():
        yield


@pytest.fixture(scope="module", name="application")
def _application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """Make an application that was never released; all it started is removed afterwards."""
    application = Application.create(tmp_path_factory.mktemp("application"))
    yield application
    application.invoke("down", "--purge")


@pytest.fixture(scope="module", name="serving")
def _serving(application: Application) -> Application:
    """Publish two models of the application and release the first."""
    application.ok("release")
    application.ok("model.publish", "--sample", "2")
    return application


@pytest.fixture(scope="session", name="cluster")
def _cluster() -> Iterator[Namespace]:
    """Make a namespace of a real cluster."""
    kubeconfig = os.environ.get("KUBECONFIG", "")
    if not kubeconfig:
        lacking(
            "no cluster is named",
            "set KUBECONFIG to the kubeconfig of one whose nodes pull from 127.0.0.1:5000",
        )
    namespace = Namespace.made(kubeconfig)
    yield namespace
    namespace.remove()


@pytest.fixture(scope="session", name="served")
def _served(tmp_path_factory: pytest.TempPathFactory, cluster: Namespace) -> Iterator[Application]:
    """Release an application with two models to `staging` on the cluster, for all tests that ask.

    The first model serves; both are published.
    """
    application = on_cluster(Application.create(tmp_path_factory.mktemp("cluster")), cluster)
    application.ok("release", "--env", "staging")
    application.ok("model.publish", "--sample", "2")
    yield application
    application.invoke("down", "--purge")
