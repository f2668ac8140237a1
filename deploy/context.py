"""The settings of an application and one of its environments, and the clients that they name.

An attribute is only looked up. What starts or installs something is a function whose name says so.
Stages are not given the context, but what they need of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cache import Cache
from deploy.clients.azure.names import is_blob_location, may_be_registry
from deploy.clients.docker.protocol import Engine, own_platform
from deploy.clients.docker.throwaway_container import StartContainer, throwaway_container
from deploy.clients.oci.client import HttpRegistry
from deploy.clients.oci.credentials import Login, find_first_login, find_login, read_login
from deploy.clients.oci.protocol import Registry
from deploy.clients.secrets import NamedSecrets, read_secret, read_variables
from deploy.clients.stores.protocol import Store, open_store
from deploy.clock import REAL, Clock
from deploy.image import tags
from deploy.image.repository import Repository
from deploy.machine import setup
from deploy.machine.host import (
    THIS_MACHINE,
    Host,
    engine_platform,
    ensure_cache_folder,
    is_loopback,
)
from deploy.model import golden_cases
from deploy.records import Release
from deploy.rollout.target import CanaryTarget, Target
from deploy.settings.reading import Settings
from deploy.targets import opening
from deploy.targets.opening import TARGETS, Kinds, RenderedTarget, TargetInputs
from deploy.variables import Variables

if TYPE_CHECKING:
    from deploy.clients.azure.blob import BlobStore
    from deploy.clients.azure.http import AzureHttp
    from deploy.clients.azure.identity import Identity
    from deploy.clients.azure.key_vault import KeyVault
    from deploy.machine.azure_doctor import AzureDoctor


@dataclass(frozen=True)
class Clients:
    """How a release reaches what is outside of this process; a test gives others.

    Args:
        host: this machine: its engine, its network, and the clusters that it knows.
        open_store: returns the model store at a location, which may be relative to a folder.
        open_registry: returns the registry at a host, which calls a function for its login.
        start_container: runs an image as a throwaway container.
        play: sends the requests of golden cases.
        clock: tells the time.
        targets: the kinds of targets.
        azure_http: sends requests to the services of Azure; None for the usual way.
    """

    host: Host = THIS_MACHINE
    open_store: Callable[[str, Path], Store] = open_store
    open_registry: Callable[[str, Callable[[], Login | None]], Registry] = HttpRegistry
    start_container: StartContainer = throwaway_container
    play: golden_cases.Play = golden_cases.play
    clock: Clock = REAL
    targets: Kinds = field(default_factory=lambda: TARGETS)
    azure_http: AzureHttp | None = None


class ReleaseContext:
    """An application in a folder, and an environment that it is released to.

    Args:
        directory: holds pipeline.toml.
        environment: the name of an environment, or empty for the default one.
        clients: reach what is outside of this process.

    Attributes:
        settings: the settings of the application.
        env: the settings of the environment.

    Raises:
        SettingsInvalid: the configuration has problems, or there is no such environment.
    """

    def __init__(
        self, directory: Path, environment: str = "", clients: Clients | None = None
    ) -> None:
        self.directory = directory
        self.clients = clients or Clients()
        kinds = {name: kind.settings for name, kind in self.clients.targets.items()}
        self.settings = Settings.read(directory, os.environ, kinds)
        self.environment = environment or self.settings.default_environment
        self.env = self.settings.environment(self.environment)
        self._engine: Engine | None = None

    @cached_property
    def cache(self) -> Cache:
        """The cache of this machine."""
        return Cache(ensure_cache_folder())

    @cached_property
    def platform(self) -> str:
        """The platform of app images: that of the settings, or else the engine's own."""
        if self.settings.image.platform:
            return self.settings.image.platform
        return own_platform(self._engine) if self._engine else engine_platform(self.clients.host)

    @cached_property
    def store(self) -> Store:
        """The model store."""
        model = self.settings.model
        if is_blob_location(model.store):
            return self._open_blob_store()
        return self.clients.open_store(model.store, self.directory)

    def _open_blob_store(self) -> BlobStore:
        from deploy.clients.azure.blob import open_blob_store

        location = self.settings.model.store
        return open_blob_store(location, self.azure, os.environ, self._read_store_key())

    def _read_store_key(self) -> dict[str, str]:
        """Return the key of a store in Azure Blob, by the library's name for it; empty for none."""
        model = self.settings.model
        named = (("access_key", "account_key", model.account_key), ("sas_token", "sas", model.sas))
        return {
            kind: read_secret(
                key, name, self.secrets, on="the model store", example=f"STORE_{key.upper()}"
            )
            for kind, key, name in named
            if name
        }

    @cached_property
    def repository(self) -> Repository:
        """Where the images of the environment are."""
        host = self.env.registry
        answers = self.clients.host.registry_answers
        return Repository(
            registry=self.clients.open_registry(host, self.find_login),
            path=self.settings.repository(self.environment),
            cache=self.cache,
            mount=self.settings.model.mount,
            mount_sources=self.settings.mount_sources(self.environment),
            # A registry on another machine is expected to run; its errors say more than this would.
            is_up=lambda: not is_loopback(host) or answers(host),
        )

    @cached_property
    def host(self) -> Host:
        """This machine, with the identity on Azure."""
        return self.clients.host.with_identity(lambda: self.azure)

    @cached_property
    def azure(self) -> Identity:
        """The identity on Azure; it logs in when it is used."""
        from deploy.clients.azure.identity import Identity

        return Identity(self.settings.azure.account, os.environ, self.clients.azure_http)

    @cached_property
    def secrets(self) -> Mapping[str, str]:
        """The secrets that settings name: environment variables, and secrets in key vaults."""
        return NamedSecrets(os.environ, self._read_vault)

    def _read_vault(self, name: str) -> str:
        return self._key_vault.read(name)

    @cached_property
    def _key_vault(self) -> KeyVault:
        from deploy.clients.azure.key_vault import KeyVault

        return KeyVault(self.azure)

    @cached_property
    def variables(self) -> Variables:
        """The variables that replicas of the next release get.

        Raises:
            SettingsInvalid: a named variable is not set, or a key vault refuses a secret.
        """
        table = f"[environments.{self.environment}.secrets]"
        secrets = read_variables(self.env.secrets, self.secrets, on=table)
        return Variables(self.env.env, secrets)

    def find_login(self) -> Login | None:
        """Return the registry's login: from named variables, else from Azure, else from Docker.

        Raises:
            SettingsInvalid: a named variable is not set.
            RegistryDenied: the Docker configuration cannot be read, or Azure refuses the login.
        """
        return self.read_login() or find_first_login(self._azure_login, self._docker_login)

    @cached_property
    def _azure_login(self) -> Callable[[], Login | None]:
        """The login of the identity, if the registry is one of Azure; it is renewed."""
        host = self.env.registry
        cloud = self.settings.azure.cloud or os.environ.get("AZURE_CLOUD_NAME")
        if not may_be_registry(host, names_cloud=bool(cloud)):
            return lambda: None
        from deploy.clients.azure.registry import RegistryLogin, is_registry

        return RegistryLogin(host, self.azure) if is_registry(host, self.azure) else lambda: None

    @cached_property
    def _docker_login(self) -> Callable[[], Login | None]:
        return cache(lambda: find_login(self.env.registry))

    def find_release_login(self, release: Release) -> Login | None:
        """Return the login with which an engine pulls a release from the environment's registry.

        Raises:
            ReleaseUnknown: the release is in another repository.
            SettingsInvalid, RegistryDenied: as for any login.
        """
        self.repository.require_own(release)
        return self.find_login()

    def read_login(self) -> Login | None:
        """Return the registry's login from the variables that the settings name.

        Raises:
            SettingsInvalid: a named variable is not set.
        """
        return read_login(self.env.username, self.env.password, self.secrets)

    def azure_doctor(self) -> AzureDoctor:
        """Return the doctor for what the environment uses on Azure."""
        from deploy.machine.azure_doctor import AzureDoctor

        return AzureDoctor(
            self.settings,
            self.environment,
            self.azure,
            self.secrets,
            self._open_blob_store,
            self.host,
        )

    def prepare_engine(self) -> Engine:
        """Return the container engine; install and start it, and what it needs for a release.

        Raises:
            ReleaseError: something is missing and cannot be had; the text says how to get it.
        """
        if self._engine is None:
            self._engine = setup.up(
                self.settings, self.environment, self.clients.host, self._started_engine
            )
        return self._engine

    @cached_property
    def _started_engine(self) -> Engine:
        """The container engine alone, installed and started."""
        return setup.ensure_engine(self.clients.host)

    def prepare_registry(self) -> None:
        """Start the registry if it is a local one that does not answer."""
        if not self.repository.is_up():
            self.prepare_engine()

    def prepare_target(self) -> Target:
        """Return the target for a release; start the engine if replicas run on it.

        Raises:
            SettingsInvalid: a variable that is named for the registry's login is not set.
            ReleaseError: something that a release needs is missing.
        """
        self.read_login()
        # An engine that cannot be a target is refused before anything is made for it.
        inputs = self._target_inputs(lambda: self._started_engine)
        target = opening.open_target(inputs, self.clients.targets)
        if self.env.needs_proxy:
            self.prepare_engine()
        return target

    def inspect_target(self) -> Target:
        """Return the target for a look at it; install and start nothing.

        Raises:
            PlatformError: the engine does not answer.
            ClusterError: the cluster does not answer, denies access, or has no such namespace.
        """
        return opening.open_target(self._inspection(), self.clients.targets)

    def inspect_canary_target(self) -> CanaryTarget:
        """Return the target if it can have canaries; install and start nothing.

        Raises:
            SettingsInvalid: it cannot have canaries.
            ClusterError: the cluster does not answer, denies access, or has no such namespace.
        """
        return opening.open_canary_target(self._inspection(), self.clients.targets)

    def inspect_rendered_target(self) -> RenderedTarget:
        """Return the target if its objects can be printed; install and start nothing.

        Raises:
            SettingsInvalid: it has no objects.
            ClusterError: the cluster does not answer, denies access, or has no such namespace.
        """
        return opening.open_rendered_target(self._inspection(), self.clients.targets)

    def _inspection(self) -> TargetInputs:
        return self._target_inputs(self.clients.host.connect_engine)

    def _target_inputs(self, engine: Callable[[], Engine]) -> TargetInputs:
        return TargetInputs(
            settings=self.settings,
            environment=self.environment,
            directory=self.directory,
            host=self.host,
            clock=self.clients.clock,
            engine=engine,
            find_login=self.find_release_login,
            variables=lambda: self.variables,
            image_size=cache(
                lambda item: tags.pull_size(item, self.repository.registry, self.cache)
            ),
            image_platform=lambda item: tags.find_platform(
                item, self.repository.registry, self.cache
            ),
        )
