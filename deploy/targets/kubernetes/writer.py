"""The writes of a deployer to a cluster.

Each write requires the lock, and no field is taken from another manager, except for the fields
that say which release runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from deploy import progress
from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.clock import REAL, Clock
from deploy.errors import FieldConflict, RolloutFailed
from deploy.records import Attempt, Release
from deploy.targets.kubernetes.compatibility import Compatibility
from deploy.targets.kubernetes.desired import DesiredObjects
from deploy.targets.kubernetes.lock import Lock
from deploy.targets.kubernetes.pod_progress import ExpectedPods, Times
from deploy.targets.kubernetes.pod_variables import NO_POD_VARIABLES, PodVariables
from deploy.targets.kubernetes.pods import Pod
from deploy.targets.kubernetes.readiness import ReadinessWait
from deploy.targets.kubernetes.render import CHANGE_CAUSE, Rendering, Track
from deploy.targets.kubernetes.snapshot import Snapshot
from deploy.targets.kubernetes.state import (
    ClusterState,
    DeploymentState,
    TrafficSplit,
)
from deploy.targets.kubernetes.supporting_objects import SupportingObjects

log = logging.getLogger(__name__)

_POLL = 0.25
_ROUTING_SECONDS = 30.0
# Nodes update their routes at most once a second, and do not report when they have.
_ROUTE_UPDATE_SECONDS = 2.0
_REPLICAS = "spec.replicas"


class Writer:
    """A writer of the objects of one environment.

    Args:
        cluster: the namespace of the environment.
        rendering: what renders the objects.
        state: what reads the objects.
        lock: the lock that each write requires.
        image_bytes: returns the size of a release's image.
        clock: the clock by which it waits.

    Attributes:
        desired: the objects that the settings ask for.
        supporting_objects: the writer of all objects that are not replicas.
        times: for each pod of the last attempt, how many seconds after the start of its rollout it
            was first seen in each stage.
    """

    def __init__(
        self,
        cluster: Cluster,
        rendering: Rendering,
        state: ClusterState,
        lock: Lock,
        image_bytes: Callable[[Release], int],
        clock: Clock = REAL,
    ) -> None:
        self._cluster = cluster
        self._rendering = rendering
        self._env = rendering.env
        self._state = state
        self._lock = lock
        self._image_bytes = image_bytes
        self._clock = clock
        compatibility = Compatibility(cluster)
        self.desired = DesiredObjects(rendering, state, compatibility, image_bytes)
        self.supporting_objects = SupportingObjects(cluster, rendering, compatibility, lock)
        self.times: Times = {}

    def take_snapshot(self, traffic: TrafficSplit) -> Snapshot | None:
        """Return what serves now, as it was applied; None if nothing does."""
        serving = self._state.deployment(traffic.track)
        if serving is None or not serving.replicas:
            return None
        objects = {"Deployment": serving.applied, **self.supporting_objects.snapshot()}
        return Snapshot(track=serving.track, objects=objects)

    # --- replicas

    def roll_out(
        self,
        track: Track,
        release: Release,
        count: int,
        attempt: Attempt | None = None,
        variables: PodVariables = NO_POD_VARIABLES,
    ) -> list[Pod]:
        """Bring up replicas of a release on a track; return them when all are ready.

        Args:
            track: the track.
            release: the release.
            count: the number of replicas.
            attempt: the attempt that is recorded on the Deployment.
            variables: the variables of the replicas.

        Raises:
            RolloutFailed: a replica cannot become ready, or did not in time.
            FieldConflict: another manager owns a field that an object template sets.
        """
        item = self.desired.render_deployment(track, release, count, attempt, variables)
        self._apply_deployment(track, item)
        return self._wait_until_ready(track, item, release)

    def restore_replicas(self, snapshot: Snapshot, release: Release) -> list[Pod]:
        """Restore the Deployment of a snapshot; return its replicas when all are ready.

        The present settings and object templates do not count.

        Raises:
            RolloutFailed: a replica cannot become ready any more, or did not in time.
            FieldConflict: another manager owns a field that had been set.
        """
        now = self._state.deployment(snapshot.track)
        if now is None or now.applied != snapshot.deployment:
            # An unchanged object is not written: admission may refuse now what it took before.
            self._apply_deployment(snapshot.track, snapshot.deployment)
        return self._wait_until_ready(snapshot.track, snapshot.deployment, release)

    def _wait_until_ready(self, track: Track, item: Object, release: Release) -> list[Pod]:
        expected = ExpectedPods(
            deployment=self._rendering.deployment_name(track),
            labels=self._rendering.track_labels(track),
            pod_template=DeploymentState(track, item).pod_template,
            image_bytes=self._image_bytes(release),
            ready_within=self._env.ready_within,
            replica_seconds=self.desired.replica_seconds(release),
        )
        times: Times = {}
        wait = ReadinessWait(self._cluster, expected, self._clock)
        try:
            return wait.until_ready(times, self._lock.require)
        finally:
            # The times of a replica that an earlier wait has seen are those of that wait.
            self.times = times | self.times

    def remove_unused(self, release: Release) -> None:
        """Remove the objects that the settings no longer need, after a release was proven.

        With an autoscaler goes the number of replicas that it has set. The settings' number comes
        first: if this process is killed in between, the next one still finds the autoscaler.

        Args:
            release: the release that serves.

        Raises:
            RolloutFailed: a replica cannot become ready, or did not in time.
        """
        if not self.supporting_objects.has_unused_autoscaler():
            self.supporting_objects.remove_unused()
            return
        track = self._state.traffic().track
        scaled = self._take_back_replica_count(track)
        self.supporting_objects.remove_unused()
        if scaled:
            self._wait_until_ready(track, scaled, release)

    def _take_back_replica_count(self, track: Track) -> Object | None:
        """Set the number of replicas in the settings; return the Deployment if that changes it."""
        deployment = self._state.deployment(track)
        if deployment is None or deployment.replicas_are_ours:
            return None
        count = self._env.replicas
        log.info("replicas: %d as in the settings, without the autoscaler", count)
        applied = deployment.applied
        item = {**applied, "spec": applied.get("spec", {}) | {"replicas": count}}
        # All other fields keep their values, so that nothing else is taken over.
        self._cluster.apply(item, force=True, require=self._lock.require)
        return item

    def _apply(self, item: Object) -> None:
        self._cluster.apply(item, require=self._lock.require)

    def _apply_deployment(self, track: Track, item: Object) -> None:
        """Apply a Deployment, without a number of replicas that another manager has set.

        The fields that say which release runs are taken back from `kubectl rollout undo`, or from
        a person who has changed the image.
        """
        try:
            self._apply(item)
        except FieldConflict as conflict:
            paths = conflict.owners
            if not all(path == _REPLICAS or _identifies_release(path) for path in paths):
                raise
            others = sorted({owner for path, owner in paths.items() if path != _REPLICAS})
            if others:
                log.info("taken back from %s: which release runs", " and ".join(others))
            if _REPLICAS in paths:
                item = self._without_replicas(paths[_REPLICAS], track, item)
            self._cluster.apply(item, force=bool(others), require=self._lock.require)

    def _without_replicas(self, owner: str, track: Track, item: Object) -> Object:
        """Return the Deployment to apply where another manager owns the number of replicas."""
        if self._state.traffic().sends_to(track):
            log.info("the number of replicas is left to %s", owner)
            spec = {key: value for key, value in item["spec"].items() if key != "replicas"}
            return {**item, "spec": spec}
        # An autoscaler now scales the other track, so its last number here has no meaning.
        self._delete(track)
        return item

    # --- traffic

    def switch_traffic(self, track: Track, release: Release) -> None:
        """Send all requests to a track, update the supporting objects, and wait for the nodes.

        Raises:
            RolloutFailed: the Service does not select the track's replicas.
        """
        self.supporting_objects.update(track)
        self._wait_for_routes(track, release)

    def restore_traffic(self, snapshot: Snapshot, release: Release) -> None:
        """Send all requests to the track of a snapshot, and restore the supporting objects.

        Raises:
            RolloutFailed: the Service does not select the track's replicas.
        """
        self.supporting_objects.restore(snapshot.objects, snapshot.track)
        self._wait_for_routes(snapshot.track, release)

    def _wait_for_routes(self, track: Track, release: Release) -> None:
        if not self._wait(
            lambda: self.is_routed(track, release),
            _ROUTING_SECONDS,
            "waiting for the Service to select its replicas",
        ):
            limit = progress.format_seconds(_ROUTING_SECONDS)
            raise RolloutFailed(
                f"the Service did not select all replicas of the release, and only those, "
                f"within {limit}",
                on=f"Service {self._rendering.name}",
                next="`kubectl describe` on it shows which pods it selects; its selector and port "
                "are in the object templates",
            )
        self._clock.sleep(_ROUTE_UPDATE_SECONDS)

    def is_routed(self, track: Track, release: Release) -> bool:
        """Return whether the Service selects the ready replicas of a release, and only those."""
        ready = {
            pod.name
            for pod in self._state.pods(track)
            if pod.ready and pod.image == release.image.digest
        }
        return bool(ready) and self._state.routed_pods() == ready

    # --- removing replicas

    def remove_replicas(self, deployment: DeploymentState) -> None:
        """Remove the replicas of a Deployment, and wait until they have stopped.

        The Deployment stays with its revisions, unless another manager owns the number of replicas.
        """
        applied = deployment.applied
        try:
            self._apply({**applied, "spec": applied.get("spec", {}) | {"replicas": 0}})
        except FieldConflict:
            self._delete(deployment.track)
        self._wait(
            lambda: not self._state.pods(deployment.track),
            self._env.drain_within,
            "waiting for the old replicas to stop",
        )

    def _delete(self, track: Track) -> None:
        name = self._rendering.deployment_name(track)
        self._cluster.delete("Deployment", name, require=self._lock.require)

    def _wait(self, is_done: Callable[[], bool], seconds: float, message: str) -> bool:
        """Wait until a condition is met; return whether it was in time."""
        deadline = self._clock.now() + seconds
        while not is_done():
            if self._clock.now() >= deadline:
                return False
            progress.report(message)
            self._clock.sleep(_POLL)
        return True


def _identifies_release(path: str) -> bool:
    return path.endswith("].image") or "twinship.dev/" in path or CHANGE_CAUSE in path
