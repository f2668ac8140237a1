"""The objects and the number of replicas that the settings of an environment ask for."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable

from deploy.clients.kubernetes.protocol import Object
from deploy.records import Attempt, Release
from deploy.targets.kubernetes.compatibility import Compatibility
from deploy.targets.kubernetes.pod_variables import NO_POD_VARIABLES, PodVariables
from deploy.targets.kubernetes.pods import TEMPLATE_ANNOTATION
from deploy.targets.kubernetes.render import TRACKS, Rendering, Track
from deploy.targets.kubernetes.state import (
    REPLICAS_ANNOTATION,
    SETTINGS_ANNOTATION,
    ClusterState,
)
from deploy.targets.kubernetes.templates import ensure_mapping

log = logging.getLogger(__name__)

_SCHEDULING_SECONDS = 30.0


class DesiredObjects:
    """The desired objects of one environment.

    Args:
        rendering: what renders the objects.
        state: what reads the present objects.
        compatibility: what the cluster knows of an object.
        image_bytes: returns the size of a release's image.
    """

    def __init__(
        self,
        rendering: Rendering,
        state: ClusterState,
        compatibility: Compatibility,
        image_bytes: Callable[[Release], int],
    ) -> None:
        self._rendering = rendering
        self._env = rendering.env
        self._state = state
        self._compatibility = compatibility
        self._image_bytes = image_bytes

    def replica_count(self) -> int:
        """Return how many replicas are to serve.

        That is the number in the settings, unless an autoscaler or a person has set another one.
        The number of an autoscaler that the settings no longer name stays until it is removed.
        """
        now = self._state.deployment(self._state.traffic().track)
        if now is None or not now.replicas:
            return self._env.replicas
        if self._env.autoscale:
            return max(self._env.replicas, min(now.replicas, self._env.autoscale.at_most))
        return self._env.replicas if now.replicas_are_ours else now.replicas

    def log_replica_count(self) -> None:
        """Log that the number of replicas is not the one in the settings, if so."""
        count = self.replica_count()
        if not self._env.autoscale and count != self._env.replicas:
            log.info(
                "replicas stay at %d, which was set on the cluster; the settings say %d",
                count,
                self._env.replicas,
            )

    def settings_hash(self, release: Release) -> str:
        """Return a hash of what a release is rendered to.

        It does not depend on attempt and track, nor on the cluster's version: an upgrade of the
        cluster is no reason for a rollout. Variables are compared by themselves, as a rollback may
        return to older ones.
        """
        rendering = self._rendering
        track = TRACKS[0]
        objects = [
            rendering.deployment(release, track, self._env.replicas, None, 0),
            rendering.service(track, both=False),
            rendering.ingress(),
            rendering.autoscaler(track),
            rendering.disruption_budget(),
            rendering.service_account(),
        ]
        return _hash(objects)

    def render(
        self,
        track: Track,
        release: Release,
        attempt: Attempt | None,
        variables: PodVariables = NO_POD_VARIABLES,
    ) -> list[Object]:
        """Return all objects of an environment that serves a release, in the order of writing.

        The number of replicas is the one in the settings, so that applying the objects undoes the
        scaling by other managers.
        """
        rendering = self._rendering
        count = self.replica_count() if self._env.autoscale else self._env.replicas
        supporting = (
            rendering.service_account(),
            rendering.service(track, both=False),
            rendering.ingress(),
            rendering.disruption_budget(),
            rendering.autoscaler(track),
        )
        fitted = [self._compatibility.fit(item) for item in supporting if item]
        return [*fitted, self.render_deployment(track, release, count, attempt, variables)]

    def replica_seconds(self, release: Release) -> float:
        """Return the seconds that one replica may take: for a node, the pull and the start."""
        pull_seconds = self._image_bytes(release) / self._env.pull_rate
        start_seconds = self._env.ready_within + self._rendering.min_ready_seconds
        return _SCHEDULING_SECONDS + pull_seconds + start_seconds

    def render_deployment(
        self,
        track: Track,
        release: Release,
        count: int,
        attempt: Attempt | None,
        variables: PodVariables = NO_POD_VARIABLES,
    ) -> Object:
        """Return the Deployment of a track, with the hashes of its settings and its template."""
        seconds = int(self.replica_seconds(release))
        item = self._compatibility.fit(
            self._rendering.deployment(release, track, count, attempt, seconds, variables)
        )
        ensure_mapping(item, "metadata", "annotations").update(
            {
                SETTINGS_ANNOTATION: self.settings_hash(release),
                REPLICAS_ANNOTATION: str(self._env.replicas),
            }
        )
        template = item["spec"]["template"]
        ensure_mapping(template, "metadata", "annotations")[TEMPLATE_ANNOTATION] = _hash(template)
        return item


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
