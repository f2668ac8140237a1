"""What served when an attempt began, as it was applied: the way back from it, for whoever takes the attempt back."""

from __future__ import annotations

from collections.abc import Mapping

from deploy.clients.kubernetes.protocol import Object
from deploy.records import Record, Release
from deploy.targets.kubernetes.pods import image_digest
from deploy.targets.kubernetes.render import Track


class Snapshot(Record):
    """The side that had the requests, and what we applied of its Deployment and of each object around it that there was, by kind."""

    track: Track
    objects: Mapping[str, Object]

    @property
    def deployment(self) -> Object:
        """What was applied of the side's Deployment."""
        return self.objects["Deployment"]

    def is_running(self, release: Release) -> bool:
        """Whether that is a release; somebody else may have taken over what its pods run, or cleared the account of who applied it."""
        pod = self.deployment.get("spec", {}).get("template", {}).get("spec", {})
        return release.image.digest in map(image_digest, pod.get("containers", []))
