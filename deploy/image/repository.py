"""Where the images of one environment are kept, as one value that stages are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deploy.cache import Cache
from deploy.clients.oci.client import Registry


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
