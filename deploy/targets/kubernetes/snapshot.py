"""The snapshot of an environment when an attempt begins: what undo applies again."""

from __future__ import annotations

from collections.abc import Mapping

from deploy.clients.kubernetes.protocol import Object
from deploy.records import Record, Release
from deploy.targets.kubernetes.pods import image_digest
from deploy.targets.kubernetes.render import Track

SNAPSHOT_KINDS = ("Service", "Ingress", "HorizontalPodAutoscaler")


class Snapshot(Record):
    """The track that served, and the fields that we had applied.

    Attributes:
        track: the track that got the requests.
        objects: the applied fields of its Deployment and of each supporting object that existed,
            by kind.
    """

    track: Track
    objects: Mapping[str, Object]

    @property
    def deployment(self) -> Object:
        """The applied fields of the Deployment."""
        return self.objects["Deployment"]

    def is_running(self, release: Release) -> bool:
        """Return whether the applied fields make pods run a release.

        They do not if another manager has taken over the image, or has cleared the field owners.
        """
        pod = self.deployment.get("spec", {}).get("template", {}).get("spec", {})
        return release.image.digest in map(image_digest, pod.get("containers", []))
