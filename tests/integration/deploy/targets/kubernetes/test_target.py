"""The target on a real cluster: its contracts, with proxies that answer requests as replicas."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from deploy.cache import Cache
from deploy.clients.docker.client import DockerEngine
from deploy.clients.kubernetes.client import KubeCluster, connect
from deploy.clients.oci.client import HttpRegistry
from deploy.image.build import create_app_image
from deploy.image.export import export_image
from deploy.records import Commit, Image, Release
from deploy.rollout.target import Target
from deploy.settings.app import App
from deploy.settings.environments import Kubernetes
from deploy.targets.kubernetes.render import Rendering
from deploy.variables import NO_VARIABLES
from tests.contracts.kubernetes_target import Deployer, SupportingObjectsContract, environment
from tests.contracts.target import LogTargetContract, Place, StandbyContract, TargetContract
from tests.contracts.variables import GivingPlace, VariablesContract, parse_environment
from tests.fakes.engine import Script
from tests.fakes.releases import release as recorded
from tests.integration.deploy.responder import build_replica
from tests.missing import lacking
from tests.processes import read_pod_environment

pytestmark = pytest.mark.integration

REQUESTS = 12


class Images:
    """Images of replicas, in a registry."""

    def __init__(self, engine: DockerEngine, services_image: str, host: str, cache: Cache) -> None:
        self._engine = engine
        self._services_image = services_image
        self._registry = HttpRegistry(host)
        self._cache = cache
        self._releases: dict[str, Release] = {}

    def release(self, code: str, script: Script) -> Release:
        """Return a release whose replicas answer with that text and follow the script."""
        key = f"{code} {script}"
        if key not in self._releases:
            self._releases[key] = self._push(code, script)
        return self._releases[key]

    def _push(self, code: str, script: Script) -> Release:
        tag = f"test-cluster:{secrets.token_hex(4)}"
        build_replica(self._engine, self._services_image, tag, code, script, check=0.5)
        config, layers = export_image(self._engine.save(tag), self._cache, tag)
        self._engine._api.remove_image(tag, force=True)
        app = create_app_image(
            "replica", code, Commit(revision="0" * 40, dirty=False), config, layers, self._cache
        )
        for item in (config, *layers):
            if not self._registry.has_blob("test-cluster", item.digest):
                self._registry.upload(
                    "test-cluster",
                    item.digest,
                    item.size,
                    partial(self._cache.open, item.digest),
                    lambda _: None,
                )
        self._registry.put_manifest(
            "test-cluster", app.manifest.digest, self._cache.read(app.manifest.digest)
        )
        joined = Image(
            app=app, layer=recorded().image.layer, manifest=app.manifest, config=config.digest
        )
        return Release(image=joined, repository=f"{self._registry.host}/test-cluster")


class RealNamespace:
    """An environment in a namespace of its own."""

    def __init__(self, cluster: KubeCluster, images: Images, **settings: Any) -> None:
        self.cluster = cluster
        self._images = images
        self._settings = {
            "namespace": cluster.namespace,
            "resources": {"cpu": "10m", "memory": "64Mi"},
            "service": "NodePort",
            **settings,
        }

    def target(self, *, replicas: int = 2, **changed: Any) -> Target:
        variables = changed.pop("variables", NO_VARIABLES)
        env = Kubernetes(**environment(replicas=replicas, **{**self._settings, **changed}))
        return Deployer(
            self.cluster,
            Rendering.read(App(name="replica"), "local", env, Path()),
            lambda _: 100_000_000,
            variables=lambda: variables,
        )

    def release(self, code: str, script: Script | None = None) -> Release:
        return self._images.release(code, script or Script())

    def answers(self, **changed: object) -> set[str]:
        url = self.target().url
        return {self._request(url) for _ in range(REQUESTS)}

    def _request(self, url: str) -> str:
        try:
            response = requests.get(url, timeout=5)
        except requests.RequestException as error:
            return type(error).__name__
        return response.text if response.ok else str(response.status_code)

    def environments(self) -> list[dict[str, str]]:
        pods = self.cluster.list("Pod", {"app.kubernetes.io/instance": "local"})
        names = [
            pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]
        ]
        return [
            parse_environment(read_pod_environment(self.cluster.namespace, name)) for name in names
        ]

    def lose(self, replica: str) -> None:
        self.cluster.delete("Pod", replica)


@pytest.fixture(scope="module")
def images(
    engine: DockerEngine, registry_host: str, tmp_path_factory: pytest.TempPathFactory
) -> Images:
    """Return the images of replicas."""
    from deploy.machine import services
    from deploy.settings.reading import Settings

    made = services.ensure_services_image(
        engine, Settings.read(Path(__file__).parents[5], {}).image
    )
    return Images(engine, made, registry_host, Cache(tmp_path_factory.mktemp("blobs")))


@pytest.fixture
def namespace() -> Iterator[str]:
    """Create an empty namespace of a real cluster."""
    if not os.environ.get("KUBECONFIG"):
        lacking("no cluster is named", "set KUBECONFIG to the kubeconfig of one")
    from kubernetes import client, config

    library: Any = config
    core: Any = client.CoreV1Api(library.new_client_from_config())
    name = f"test-{secrets.token_hex(4)}"
    core.create_namespace({"metadata": {"name": name}})
    yield name
    core.delete_namespace(name)


@pytest.fixture
def make(namespace: str, images: Images) -> Callable[..., RealNamespace]:
    """Return a function that creates an environment in the namespace."""
    return lambda **settings: RealNamespace(connect("", "", namespace), images, **settings)


class TestRolling(TargetContract, LogTargetContract):
    """The rolling update of a Deployment meets the contract."""

    patience = 3.0

    @pytest.fixture
    def place(self, make: Callable[..., RealNamespace]) -> Place:
        return make()


class TestBlueGreen(StandbyContract):
    """Two Deployments keep the old replicas; unit tests cover the rest of the contract."""

    @pytest.fixture
    def place(self, make: Callable[..., RealNamespace]) -> Place:
        return make(strategy="blue-green")


class TestVariables(VariablesContract):
    """The rules of variables, as the processes of pods have them."""

    @pytest.fixture
    def place(self, make: Callable[..., RealNamespace]) -> GivingPlace:
        return make()


class TestSupportingObjects(SupportingObjectsContract):
    """Supporting objects change and are undone with the replicas."""

    @pytest.fixture
    def place(self, make: Callable[..., RealNamespace]) -> Place:
        return make()
