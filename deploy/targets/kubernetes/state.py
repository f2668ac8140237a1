"""What an environment on a cluster looks like now: two sides, one of which the Service sends requests to.

Each side is a Deployment. `rolling` stays on the one that serves; `blue-green` and `canary` bring the new release up on the other
and then move the Service there. While a canary is held, the Service sends requests to both.
"""

from __future__ import annotations

from dataclasses import dataclass

from deploy.clients.kubernetes.protocol import MANAGER, Cluster, Object
from deploy.records import Attempt
from deploy.targets.kubernetes import templates
from deploy.targets.kubernetes.ownership import applied_fields, owners
from deploy.targets.kubernetes.pods import TEMPLATE_ANNOTATION, Pod, image_digest
from deploy.targets.kubernetes.render import (
    RELEASE_ANNOTATION,
    TRACK_LABEL,
    TRACKS,
    Rendering,
    Track,
)

SETTINGS_ANNOTATION = "twinship.dev/settings"
REPLICAS_ANNOTATION = "twinship.dev/replicas"
"""On a Deployment: the number of replicas that the settings say. Old API servers do not tell who scaled it to another one."""


@dataclass(frozen=True)
class TrafficSplit:
    """Where the Service sends requests: to one side, or while a canary is held to both, with that one stable."""

    track: Track
    both: bool = False

    @property
    def other_track(self) -> Track:
        """The side that is not the stable one."""
        return TRACKS[1 - TRACKS.index(self.track)]

    def sends_to(self, side: str) -> bool:
        """Whether that side gets requests."""
        return self.both or side == self.track


@dataclass(frozen=True)
class DeploymentState:
    """A Deployment as it is now."""

    track: Track
    item: Object

    @property
    def image(self) -> str:
        """The digest that its pods are made to run."""
        return image_digest(templates.app_container(templates.pod_spec(self.item)))

    @property
    def pod_template(self) -> str:
        """What its pods are made of, in short."""
        return str(
            (self.item["spec"]["template"]["metadata"].get("annotations") or {}).get(
                TEMPLATE_ANNOTATION, ""
            )
        )

    @property
    def replicas(self) -> int:
        """How many pods it shall have."""
        return int(self.item["spec"].get("replicas", 1))

    @property
    def replicas_are_ours(self) -> bool:
        """Whether that number is what the settings said, and no autoscaler or person has a say in it."""
        return owners(self.item, "spec", "replicas") == [MANAGER] and self._annotations.get(
            REPLICAS_ANNOTATION
        ) == str(self.replicas)

    @property
    def settings(self) -> str:
        """What it was rendered from, in short."""
        return str(self._annotations.get(SETTINGS_ANNOTATION, ""))

    @property
    def attempt(self) -> Attempt | None:
        """The attempt that it was last rolled out by; None for one that is missing or spoilt."""
        return Attempt.from_cache(self._annotations.get(RELEASE_ANNOTATION))

    @property
    def applied(self) -> Object:
        """What we applied of it."""
        return applied_fields(self.item)

    @property
    def _annotations(self) -> dict[str, str]:
        return dict(self.item["metadata"].get("annotations") or {})


class ClusterState:
    """Reads the two sides.

    Args:
        cluster: where they are.
        rendering: tells what they are called, and which labels they carry.
    """

    def __init__(self, cluster: Cluster, rendering: Rendering) -> None:
        self._cluster = cluster
        self._rendering = rendering

    def labels(self, side: Track) -> dict[str, str]:
        """The labels of a side's pods."""
        return self._rendering.labels | {TRACK_LABEL: side}

    def traffic(self) -> TrafficSplit:
        """Where the Service sends requests; where there is none it is to lead to the side that has replicas."""
        service = self._cluster.find("Service", self._rendering.name)
        if service is None:
            return TrafficSplit(next((name for name in TRACKS if self.image(name)), TRACKS[0]))
        led = (service["spec"].get("selector") or {}).get(TRACK_LABEL)
        # What is noted beside it counts only while a canary is held: requests go where the selector leads them.
        noted = (service["metadata"].get("annotations") or {}).get(TRACK_LABEL)
        return TrafficSplit(
            next((name for wanted in (led, noted) for name in TRACKS if name == wanted), TRACKS[0]),
            both=led is None,
        )

    def deployment(self, side: Track) -> DeploymentState | None:
        """A side, if it has ever been used."""
        found = self._cluster.find("Deployment", self._rendering.deployment_name(side))
        return DeploymentState(side, found) if found else None

    def image(self, side: Track) -> str:
        """The digest that a side's pods are made to run; empty for a side that has none."""
        found = self.deployment(side)
        return found.image if found and found.replicas else ""

    def pods(self, side: Track | None = None) -> list[Pod]:
        """The pods of a side, or of both, that were not asked to go."""
        labels = self.labels(side) if side else self._rendering.labels
        return [pod for pod in map(Pod, self._cluster.list("Pod", labels)) if not pod.ending]

    def routes_to(self, side: Track) -> bool:
        """Whether requests to the Service go to all pods of a side."""
        return {pod.name for pod in self.pods(side)} <= self.routed_pods()

    def routed_pods(self) -> set[str]:
        """The names of the pods that requests to the Service go to."""
        found = self._cluster.find("Endpoints", self._rendering.name) or {}
        addresses = [
            address
            for subset in found.get("subsets") or []
            for address in subset.get("addresses") or []
        ]
        return {(address.get("targetRef") or {}).get("name", "") for address in addresses}
