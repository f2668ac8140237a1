"""The images of one environment, in its registry and in the cache of this machine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from deploy.cache import Cache
from deploy.clients.oci.protocol import Registry
from deploy.errors import ReleaseUnknown
from deploy.image import tags
from deploy.image.build import find_built_app, remember_app
from deploy.image.manifest import parse_image_manifest, parse_platform
from deploy.image.pull import fetch_checked_layer, read_golden_set, read_model_manifest
from deploy.model.fetch import find_cached_layer, remember_layer
from deploy.model.golden_cases import GoldenSet
from deploy.model.manifest import ModelManifest
from deploy.platforms import is_platform
from deploy.records import AppImage, Descriptor, Image, Model, ModelLayer, Release
from deploy.source.inputs import Inputs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Repository:
    """The images of an application in the registry of an environment, and the cache of them here.

    Args:
        registry: the environment's registry.
        path: the path of the images below the registry's host.
        cache: the cache of this machine.
        mount: the folder in a container that the model is put into.
        mount_sources: other repositories of the registry, which may hold the same blobs.
        is_up: returns whether the registry runs; a local one may not be started yet.
    """

    registry: Registry
    path: str
    cache: Cache
    mount: str
    mount_sources: tuple[str, ...] = ()
    is_up: Callable[[], bool] = lambda: True

    @property
    def name(self) -> str:
        """The name of the repository: the registry's host and the path."""
        return f"{self.registry.host}/{self.path}"

    def require_own(self, release: Release) -> None:
        """Refuse a release of another repository: its host must not get the login of this one.

        Raises:
            ReleaseUnknown: a record or the history of the environment has such a release.
        """
        if release.repository != self.name:
            raise ReleaseUnknown(
                "the release is in another repository than that of this environment",
                on=release.reference,
                next="choose a release of this repository, or release that commit again; "
                "or set `registry` and `repository` of the environment to the other one",
                detail=f"  expected {self.name}\n  actual   {release.repository}",
            )

    def find_layer(self, wanted: Model) -> ModelLayer | None:
        """Return a model's layer if its bytes are in the cache or in the registry."""
        cached = find_cached_layer(wanted, self.cache, self.mount)
        if cached and self.cache.has(cached.digest, cached.size):
            return cached
        if not self.is_up():
            return None
        found = tags.find_layer(wanted, self.mount, self.path, self.registry)
        if found:
            remember_layer(found, self.cache, self.mount)
        return found

    def fetch_checked_layer(self, layer: ModelLayer) -> None:
        """Make sure that the cache has a model's layer, and that it has nothing but the model."""
        fetch_checked_layer(layer, self.mount, self.path, self.registry, self.cache)

    def find_app(self, name: str, inputs: Inputs) -> AppImage | None:
        """Return the app image of those inputs if all of it is in the cache or in the registry."""
        cached = find_built_app(name, inputs, self.cache)
        if cached:
            config, layers, _ = parse_image_manifest(self.cache.read(cached.manifest.digest))
            if all(
                self.cache.has(item.digest, item.size) for item in (config, *layers)
            ) and self._has_platform(cached, inputs.platform, "the cache"):
                return cached
        if not self.is_up():
            return None
        found = tags.find_app(name, inputs.key, self.path, self.registry, self.cache)
        if found is None or not self._has_platform(found, inputs.platform, self.name):
            return None
        remember_app(found, inputs, self.cache)
        return found

    def _has_platform(self, app: AppImage, wanted: str, place: str) -> bool:
        """Return whether an app image is for a platform; its manifest and config are cached."""
        config = parse_image_manifest(self.cache.read(app.manifest.digest)).config
        platform = parse_platform(self.cache.read(config.digest))
        if is_platform(platform, wanted):
            return True
        log.warning(
            "the app image of these files in %s is for %s, not for %s: it is not used",
            place,
            platform,
            wanted,
        )
        return False

    def read_layers(self, release: Release) -> tuple[Descriptor, ...]:
        """Return the layers of a release of this repository; none if the registry has none.

        Raises:
            ReleaseUnknown: the release is in another repository.
        """
        self.require_own(release)
        return tags.read_layers(release, self.registry, self.cache)

    def read_model_manifest(self, release: Release) -> ModelManifest:
        """Return the manifest of a release's model.

        Raises:
            ReleaseUnknown: the release is in another repository.
        """
        self.require_own(release)
        layer = release.image.layer
        return read_model_manifest(layer, self.path, self.registry, self.cache)

    def read_golden_set(self, joined: Image) -> GoldenSet:
        """Return the golden cases of an image's model."""
        return read_golden_set(joined.layer, self.path, self.registry, self.cache)
