"""The target on a real cluster: its contracts, with replicas that are proxies answering by themselves."""

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
from deploy.image import join as image
from deploy.image.export import export_image
from deploy.records import Commit, Image, Release
from deploy.rollout.apply import Target
from deploy.settings.environments import Kubernetes
from deploy.settings.reading import App
from deploy.targets.kubernetes.render import Rendering
from tests.contracts.kubernetes_target import AroundContract, Deployer, environment
from tests.contracts.target import Place, TargetContract, WarmContract
from tests.fakes.engine import Script
from tests.fakes.releases import release as recorded
from tests.integration.conftest import lacking
from tests.integration.deploy.responder import built

pytestmark = pytest.mark.integration

TRIES = 12


class Images:
    """Makes images of replicas, and has a registry hold them."""

    def __init__(self, engine: DockerEngine, parts: str, host: str, cache: Cache) -> None:
        self._engine = engine
        self._parts = parts
        self._registry = HttpRegistry(host)
        self._cache = cache
        self._made: dict[str, Release] = {}

    def release(self, code: str, script: Script) -> Release:
        """A release whose replicas answer with that text, and behave like that script."""
        key = f"{code} {script}"
        if key not in self._made:
            self._made[key] = self._pushed(code, script)
        return self._made[key]

    def _pushed(self, code: str, script: Script) -> Release:
        tag = f"test-cluster:{secrets.token_hex(4)}"
        built(self._engine, self._parts, tag, code, script, check=0.5)
        config, layers = export_image(self._engine.save(tag), self._cache, tag)
        self._engine._api.remove_image(tag, force=True)
        app = image.create_app_image(
            "replica", code, Commit(revision="0" * 40, dirty=False), config, layers, self._cache
        )
        for item in (config, *layers):
            if not self._registry.has("test-cluster", item.digest):
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


class RealPlace:
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
        env = Kubernetes(**environment(replicas=replicas, **{**self._settings, **changed}))
        return Deployer(
            self.cluster,
            Rendering.read(App(name="replica"), "local", env, Path()),
            lambda _: 100_000_000,
        )

    def release(self, code: str, script: Script | None = None) -> Release:
        return self._images.release(code, script or Script())

    def answers(self, **changed: object) -> set[str]:
        url = self.target().url
        return {self._asked(url) for _ in range(TRIES)}

    def _asked(self, url: str) -> str:
        try:
            answer = requests.get(url, timeout=5)
        except requests.RequestException as error:
            return type(error).__name__
        return answer.text if answer.ok else str(answer.status_code)

    def lose(self, replica: str) -> None:
        self.cluster.delete("Pod", replica)


@pytest.fixture(scope="module")
def images(
    engine: DockerEngine, registry_host: str, tmp_path_factory: pytest.TempPathFactory
) -> Images:
    """Makes what replicas run."""
    from deploy.machine import services
    from deploy.settings.reading import Settings

    made = services.ensure_services_image(
        engine, Settings.read(Path(__file__).parents[5], {}).image
    )
    return Images(engine, made, registry_host, Cache(tmp_path_factory.mktemp("blobs")))


@pytest.fixture
def namespace() -> Iterator[str]:
    """An empty namespace of a real cluster."""
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
def make(namespace: str, images: Images) -> Callable[..., RealPlace]:
    """Makes an environment there."""
    return lambda **settings: RealPlace(connect("", "", namespace), images, **settings)


class TestRolling(TargetContract):
    """A Deployment's own rolling update keeps the contract."""

    patience = 3.0

    @pytest.fixture
    def place(self, make: Callable[..., RealPlace]) -> Place:
        return make()


class TestBlueGreen(WarmContract):
    """Two Deployments keep the old replicas warm; the rest of the contract is kept by the same moves on a cluster in memory."""

    @pytest.fixture
    def place(self, make: Callable[..., RealPlace]) -> Place:
        return make(strategy="blue-green")


class TestAround(AroundContract):
    """What stands around replicas goes forth and back with them."""

    @pytest.fixture
    def place(self, make: Callable[..., RealPlace]) -> Place:
        return make()
