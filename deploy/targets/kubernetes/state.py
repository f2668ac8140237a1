"""The present state of an environment on a cluster: its two tracks and the traffic between them.

Each track is a Deployment. The strategy `rolling` stays on the one that serves. `blue-green` and
`canary` bring the new release up on the other one and then switch the Service to it. While a
canary is on hold, the Service sends requests to both.
"""

from __future__ import annotations

from dataclasses import dataclass

from deploy.clients.kubernetes.protocol import FIELD_MANAGER, Cluster, Object
from deploy.records import Attempt
from deploy.targets.kubernetes import templates
from deploy.targets.kubernetes.ownership import applied_fields, owners
from deploy.targets.kubernetes.pod_variables import NO_POD_VARIABLES, PodVariables
from deploy.targets.kubernetes.pods import TEMPLATE_ANNOTATION, Pod, image_digest
from deploy.targets.kubernetes.render import (
    RELEASE_ANNOTATION,
    TRACK_LABEL,
    TRACKS,
    VARIABLES_ANNOTATION,
    Rendering,
    Track,
)
from deploy.targets.kubernetes.routed_pods import RoutedPods

SETTINGS_ANNOTATION = "twinship.dev/settings"
REPLICAS_ANNOTATION = "twinship.dev/replicas"
"""On a Deployment: the number of replicas in the settings, because the field managers of old API
servers do not show that another client has scaled it."""


@dataclass(frozen=True)
class TrafficSplit:
    """The tracks to which the Service sends requests.

    Attributes:
        track: the stable track.
        both: whether the other track gets requests too, because a canary is on hold.
    """

    track: Track
    both: bool = False

    @property
    def other_track(self) -> Track:
        """The track that is not the stable one."""
        return TRACKS[1 - TRACKS.index(self.track)]

    def sends_to(self, track: str) -> bool:
        """Return whether a track gets requests."""
        return self.both or track == self.track


@dataclass(frozen=True)
class DeploymentState:
    """A Deployment as it is now."""

    track: Track
    item: Object

    @property
    def image(self) -> str:
        """The digest of the image in its pod template."""
        return image_digest(templates.app_container(templates.pod_spec(self.item)))

    @property
    def pod_template(self) -> str:
        """The hash of its pod template."""
        metadata = self.item["spec"]["template"]["metadata"]
        return str((metadata.get("annotations") or {}).get(TEMPLATE_ANNOTATION, ""))

    @property
    def replicas(self) -> int:
        """The wanted number of pods."""
        return int(self.item["spec"].get("replicas", 1))

    @property
    def replicas_are_ours(self) -> bool:
        """Whether that number is from the settings, and no autoscaler or person has set it too."""
        is_from_settings = self._annotations.get(REPLICAS_ANNOTATION) == str(self.replicas)
        return owners(self.item, "spec", "replicas") == [FIELD_MANAGER] and is_from_settings

    @property
    def settings(self) -> str:
        """The hash of the settings that it was rendered from."""
        return str(self._annotations.get(SETTINGS_ANNOTATION, ""))

    @property
    def attempt(self) -> Attempt | None:
        """The attempt that rolled it out last; None if its annotation is missing or damaged."""
        return Attempt.from_cache(self._annotations.get(RELEASE_ANNOTATION))

    @property
    def variables(self) -> PodVariables:
        """The variables of its pods; none if its annotation is missing or damaged."""
        return PodVariables.from_cache(self._annotations.get(VARIABLES_ANNOTATION)) or (
            NO_POD_VARIABLES
        )

    @property
    def applied(self) -> Object:
        """The fields that we applied."""
        return applied_fields(self.item)

    @property
    def _annotations(self) -> dict[str, str]:
        return dict(self.item["metadata"].get("annotations") or {})


class ClusterState:
    """A reader of one environment's state.

    Args:
        cluster: the namespace of the environment.
        rendering: the names and labels of its objects.
    """

    def __init__(self, cluster: Cluster, rendering: Rendering) -> None:
        self._cluster = cluster
        self._rendering = rendering
        self._routed_pods = RoutedPods(cluster, rendering.name)

    def traffic(self) -> TrafficSplit:
        """Return where the Service sends requests; without one, where a new Service would."""
        service = self._cluster.find("Service", self._rendering.name)
        if service is None:
            return TrafficSplit(next((track for track in TRACKS if self.image(track)), TRACKS[0]))
        selected = (service["spec"].get("selector") or {}).get(TRACK_LABEL)
        # The annotation counts only while a canary is on hold; otherwise the selector decides.
        annotated = (service["metadata"].get("annotations") or {}).get(TRACK_LABEL)
        candidates = (track for name in (selected, annotated) for track in TRACKS if track == name)
        return TrafficSplit(next(candidates, TRACKS[0]), both=selected is None)

    def deployment(self, track: Track) -> DeploymentState | None:
        """Return the Deployment of a track, if it has ever been used."""
        found = self._cluster.find("Deployment", self._rendering.deployment_name(track))
        return DeploymentState(track, found) if found else None

    def image(self, track: Track) -> str:
        """Return the image digest of a track's pods; empty for a track without pods."""
        found = self.deployment(track)
        return found.image if found and found.replicas else ""

    def pods(self, track: Track | None = None) -> list[Pod]:
        """Return the active pods of a track, or of both."""
        labels = self._rendering.track_labels(track) if track else self._rendering.labels
        return [pod for pod in map(Pod, self._cluster.list("Pod", labels)) if pod.is_active]

    def routes_to(self, track: Track) -> bool:
        """Return whether the Service sends requests to all pods of a track."""
        return {pod.name for pod in self.pods(track)} <= self.routed_pods()

    def routed_pods(self) -> set[str]:
        """Return the names of the pods to which the Service sends requests."""
        return self._routed_pods.names()
