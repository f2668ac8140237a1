"""One application and one of its environments, with the clients they need, each made when it is first asked for.

This is where settings and the process's environment become objects; stages are handed what they need from here.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from deploy.cache import Cache
from deploy.clients.docker.container import StartContainer, throwaway_container
from deploy.clients.docker.protocol import Engine
from deploy.clients.kubernetes.protocol import Cluster
from deploy.clients.oci.client import HttpRegistry, Registry
from deploy.clients.oci.http import Login
from deploy.clients.stores import object_store as store
from deploy.clock import REAL, Clock
from deploy.errors import ModelUnknown, SampleUnavailable, SettingsInvalid
from deploy.image import registry
from deploy.machine import services, setup
from deploy.machine.host import THIS_MACHINE, Host, is_loopback
from deploy.model import fetch as model
from deploy.model import golden
from deploy.records import Model
from deploy.settings.environments import Docker, Kubernetes
from deploy.settings.reading import Settings

if TYPE_CHECKING:
    from deploy.rollout.target import Target
    from deploy.targets.kubernetes.target import KubernetesTarget

log = logging.getLogger(__name__)


class ReleaseContext:
    """An application as it stands in a folder, and an environment that it is released to.

    Args:
        directory: holds pipeline.toml.
        environment: a name of the settings' environments, or empty for the default one.
        here: the machine that this runs on.

    Raises:
        SettingsInvalid: the configuration has problems, or no such environment.
    """

    def __init__(self, directory: Path, environment: str, here: Host = THIS_MACHINE) -> None:
        self.directory = directory
        self.settings = Settings.read(directory, os.environ)
        self.environment = environment or self.settings.default_environment
        self.env = self.settings.environment(self.environment)
        self.here = here
        self.trials: StartContainer = throwaway_container
        self.play: golden.Play = golden.play
        self.clock: Clock = REAL

    @cached_property
    def cache(self) -> Cache:
        """This machine's cache."""
        return Cache(setup.cache_folder())

    @cached_property
    def store(self) -> store.Store:
        """The model store."""
        return store.open_store(self.settings.model.store, self.directory)

    @cached_property
    def engine(self) -> Engine:
        """The container engine, with all that a release needs beside it."""
        return setup.up(self.settings, self.environment, self.here)

    @property
    def repository(self) -> str:
        """The path of this environment's images below the registry's host."""
        return self.env.repository or self.settings.app.name

    @property
    def images(self) -> str:
        """Where this environment's images are: the registry's host, then the repository."""
        return f"{self.env.registry}/{self.repository}"

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """Other repositories of the same registry, which may hold the same blobs."""
        others = (
            env for env in self.settings.environments.values() if env.registry == self.env.registry
        )
        return tuple(
            sorted({env.repository or self.settings.app.name for env in others} - {self.repository})
        )

    @cached_property
    def login(self) -> Login | None:
        """The registry's credentials: from the variables that the settings name, else from the Docker configuration.

        Raises:
            SettingsInvalid: a named variable is not set.
            RegistryDenied: the Docker configuration cannot be read.
        """
        from deploy.clients.oci.login import find_login

        return self._named_login() or find_login(self.env.registry)

    def _named_login(self) -> Login | None:
        named = self.env.username and self.env.password
        return Login(_variable(self.env.username), _variable(self.env.password)) if named else None

    @cached_property
    def registry(self) -> Registry:
        """The environment's image registry, which is logged in to when it asks for that."""
        return HttpRegistry(self.env.registry, lambda: self.login)

    @property
    def registry_is_up(self) -> bool:
        """Whether the registry can be asked; only one of this machine may be not yet started, and that is seen at once."""
        return not is_loopback(self.env.registry) or self.here.registry_answers(self.env.registry)

    def start_registry(self) -> None:
        """Makes sure that a registry of this machine answers; the others are somebody else's to start."""
        if not self.registry_is_up:
            self.engine  # noqa: B018 - making it ready starts the registry

    @cached_property
    def target(self) -> Target:
        """Where releases serve, made ready for one: the engine is started, or the cluster is seen to take one.

        Raises:
            SettingsInvalid: a variable that is named for the registry's login is not set.
            ReleaseError: what a release needs is missing, as its kinds say.
        """
        self._named_login()
        return (
            self._docker(self.engine, self.env) if isinstance(self.env, Docker) else self.on_cluster
        )

    @cached_property
    def view(self) -> Target:
        """Where releases serve, to be looked at; nothing is installed or started for it."""
        return (
            self._docker(self.here.connect(), self.env)
            if isinstance(self.env, Docker)
            else self.on_cluster
        )

    def _docker(self, engine: Engine, env: Docker) -> Target:
        from deploy.targets.docker.target import DockerTarget

        return DockerTarget(
            engine,
            self.settings.app,
            self.environment,
            env,
            services_image=lambda: services.ensure_services_image(
                engine, self.settings.image, self.here
            ),
            login=lambda: (self.login.user, self.login.password) if self.login else None,
            require_free_port=self.here.require_free
            if engine.local
            else lambda _address, _port: None,
            clock=self.clock,
        )

    @cached_property
    def on_cluster(self) -> KubernetesTarget:
        """Where releases serve, if that is a cluster; it was asked once, and has the namespace.

        Raises:
            SettingsInvalid: it is not.
            ClusterError: it does not answer, does not let this account in, or has no such namespace.
        """
        if not isinstance(self.env, Kubernetes):
            raise SettingsInvalid(
                "this needs an environment on a cluster",
                on=f"[environments.{self.environment}] target",
                next='choose one with target = "kubernetes"',
            )
        from deploy.targets.kubernetes.render import Rendering
        from deploy.targets.kubernetes.target import KubernetesTarget

        rendering = Rendering.read(self.settings.app, self.environment, self.env, self.directory)
        self.cluster.require()
        size = cache(lambda item: registry.pull_size(item, self.registry, self.cache))
        return KubernetesTarget(self.cluster, rendering, size, clock=self.clock)

    @cached_property
    def cluster(self) -> Cluster:
        """The environment's namespace."""
        env = self.env
        assert isinstance(env, Kubernetes)  # noqa: S101 - asked only of an environment on a cluster
        return self.here.cluster(env.kubeconfig_from(self.directory), env.context, env.namespace)

    def resolve(self, version: str) -> Model:
        """The model to release; an empty store gets the sample's first version, if the settings name a sample.

        Raises:
            ModelUnknown: the store has no such version.
        """
        name = self.settings.model.name
        try:
            return model.resolve(name, version, self.store)
        except ModelUnknown:
            if not self.samples(version):
                raise
        log.info("the store is empty: publishing the sample model")
        return self.publish_sample("1")

    def samples(self, version: str) -> bool:
        """Whether asking for that version of an empty store gives the sample."""
        empty = model.latest(self.settings.model.name, self.store) is None
        return bool(self.settings.model.sample) and version in (model.LATEST, "1") and empty

    def publish_sample(self, version: str) -> Model:
        """Makes a version of the sample model and publishes it.

        Raises:
            SampleUnavailable: the settings name none, or it could not be made.
            VersionExists: the store has another model of that version.
        """
        with TemporaryDirectory() as folder:
            self._sample()(version, Path(folder))
            return model.publish(Path(folder), self.store)

    def _sample(self) -> Callable[[str, Path], None]:
        named = self.settings.model.sample
        module, _, function = named.partition(":")
        if not named:
            raise SampleUnavailable(
                "this application has no sample model",
                on="[model] sample",
                next="publish a model: `invoke model.publish --directory DIR`",
            )
        if str(self.directory) not in sys.path:
            sys.path.append(str(self.directory))
        try:
            write = getattr(import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise SettingsInvalid(
                f"the sample cannot be imported: {error}",
                on="[model] sample",
                next="name it as module:function",
            ) from error

        def made(version: str, folder: Path) -> None:
            try:
                write(version, folder)
            except (RuntimeError, ValueError) as error:
                raise SampleUnavailable(
                    "the sample model could not be made",
                    on=f"{named}, version {version}",
                    next="see the message, then run again",
                    detail=f"  {error}",
                ) from error

        return made


def _variable(name: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise SettingsInvalid(
            f"the environment variable {name} is not set",
            on="the registry's login",
            next=f"set {name}",
        ) from None
