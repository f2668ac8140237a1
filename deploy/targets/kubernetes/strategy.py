"""How a release comes into service on a cluster: in place, next to what serves, or as a canary.

There are two tracks, each with a Deployment; the Service sends requests to one of them, and to both
while a canary is on hold.
"""

from __future__ import annotations

from collections.abc import Collection

from deploy.clients.http import Endpoint
from deploy.clients.kubernetes.protocol import Cluster
from deploy.clock import Clock
from deploy.errors import RolloutFailed
from deploy.records import Attempt, Release
from deploy.rollout.target import Prove
from deploy.targets.kubernetes.canary import CanaryHold
from deploy.targets.kubernetes.history import History
from deploy.targets.kubernetes.lock import Lock
from deploy.targets.kubernetes.pod_variables import PodVariables
from deploy.targets.kubernetes.pods import Pod, log_tail
from deploy.targets.kubernetes.prepull import prepull
from deploy.targets.kubernetes.render import TRACKS, Rendering, Track
from deploy.targets.kubernetes.response_counts import ReadMetrics
from deploy.targets.kubernetes.snapshot import Snapshot
from deploy.targets.kubernetes.state import ClusterState, DeploymentState, TrafficSplit
from deploy.targets.kubernetes.writer import Writer


class Strategy:
    """The strategy of one environment: rolling, blue-green or canary.

    Args:
        cluster: the namespace.
        rendering: renders the environment's objects.
        state: reads the two tracks.
        writer: writes them.
        history: says which releases were proven, and what was decided about a canary.
        lock: must be held.
        clock: measures time and lets it pass.
        read_metrics: returns a replica's metrics.
    """

    def __init__(
        self,
        cluster: Cluster,
        rendering: Rendering,
        state: ClusterState,
        writer: Writer,
        history: History,
        lock: Lock,
        clock: Clock,
        read_metrics: ReadMetrics,
    ) -> None:
        self._cluster = cluster
        self._rendering = rendering
        self._env = rendering.env
        self._state = state
        self._writer = writer
        self._history = history
        self._lock = lock
        self._clock = clock
        self._read_metrics = read_metrics

    def serve(
        self, release: Release, attempt: Attempt | None, variables: PodVariables, prove: Prove
    ) -> None:
        """Bring a release into service: in place, or proven next to what serves.

        Args:
            release: the release to serve.
            attempt: the attempt with which its objects are marked.
            variables: the variables of its replicas.
            prove: raises if an endpoint of it gives a wrong response.
        """
        traffic = self._prepare()
        proven = self._proven_track(traffic, release, variables)
        if proven is None and self._env.warm_up:
            self._prepull(release)
        if proven is None and self._choose_track(traffic, release) == traffic.other_track:
            self._prove_on_other_track(traffic, release, attempt, variables, prove)
            return
        # On a track that is proven, nothing changes but the marks of the attempt.
        track = proven or traffic.track
        count = self._writer.desired.replica_count()
        self._writer.roll_out(track, release, count, attempt, variables)
        self._writer.switch_traffic(track, release)

    def serve_without_proof(
        self, release: Release, attempt: Attempt | None, variables: PodVariables
    ) -> None:
        """Bring a release into service by the present settings, without a proof or a hold."""
        traffic = self._prepare()
        both = (traffic.track, traffic.other_track)
        complete = next(
            (track for track in both if self._is_as_wanted(track, release, variables)), None
        )
        track = complete or self._choose_track(traffic, release)
        if complete is None:
            count = self._writer.desired.replica_count()
            self._writer.roll_out(track, release, count, attempt, variables)
        self._writer.switch_traffic(track, release)

    def restore(self, snapshot: Snapshot, traffic: TrafficSplit, release: Release) -> None:
        """Restore what served; replicas of it that are left get all requests at once."""
        back = TrafficSplit(snapshot.track)
        left = (pod for pod in self._state.pods(back.track) if pod.image == release.image.digest)
        if traffic == back or any(pod.ready for pod in left):
            self._writer.supporting_objects.point_service(back, snapshot.objects)
        self._writer.restore_replicas(snapshot, release)
        self._writer.restore_traffic(snapshot, release)

    def settle(self, keep: Collection[Release], unfinished: Attempt | None) -> None:
        """Remove the replicas of a track that is not kept.

        Args:
            keep: the releases to keep; the track that serves stays if there is any.
            unfinished: the attempt that has not ended, whose release is not kept as a standby.
        """
        traffic = self._state.traffic()
        for track in TRACKS:
            deployment = self._state.deployment(track)
            if deployment is None or not deployment.replicas:
                continue
            if track == traffic.track:
                is_kept = bool(keep)
            else:
                is_kept = self._is_kept(deployment, traffic, keep, unfinished)
            if not is_kept:
                self._writer.remove_replicas(deployment)

    # --- tracks

    def is_up_to_date(self, track: Track, release: Release) -> bool:
        """Return whether a track has all replicas of a release, as the settings say, and ready."""
        deployment = self._state.deployment(track)
        if (
            deployment is None
            or deployment.image != release.image.digest
            or deployment.settings != self._writer.desired.settings_hash(release)
        ):
            return False
        return (
            self.is_complete(deployment)
            and deployment.replicas == self._writer.desired.replica_count()
        )

    def _is_as_wanted(self, track: Track, release: Release, variables: PodVariables) -> bool:
        """Return whether a track is up to date, and its replicas have those variables."""
        deployment = self._state.deployment(track)
        return (
            deployment is not None
            and deployment.variables == variables
            and self.is_up_to_date(track, release)
        )

    def is_complete(self, deployment: DeploymentState) -> bool:
        """Return whether a Deployment has all its replicas, ready, and none of another template."""
        pods = self._state.pods(deployment.track)
        return len(pods) == deployment.replicas > 0 and all(
            pod.ready and pod.pod_template == deployment.pod_template for pod in pods
        )

    def may_be_standby(self, deployment: DeploymentState) -> bool:
        """Return whether a track is kept without requests for a fast undo: it was proven here."""
        if self._env.strategy != "blue-green" or not self._env.standby:
            return False
        return any(
            item.succeeded and item.attempt.release.image.digest == deployment.image
            for item in self._history.read()
        )

    def _is_kept(
        self,
        deployment: DeploymentState,
        traffic: TrafficSplit,
        keep: Collection[Release],
        unfinished: Attempt | None,
    ) -> bool:
        """Return whether a track without requests is kept: for its release, or as a standby."""
        if deployment.image in {release.image.digest for release in keep}:
            other_image = deployment.image != self._state.image(traffic.track)
            return other_image or self.may_be_standby(deployment)
        failed = unfinished is not None and unfinished.release.image.digest == deployment.image
        return bool(keep) and not failed and self.may_be_standby(deployment)

    def _proven_track(
        self, traffic: TrafficSplit, release: Release, variables: PodVariables
    ) -> Track | None:
        """Return the track that has all of a release up and proven; the endpoint proves it again.

        A canary that was left has not been proven, though its release may have served before.
        """
        if self._is_as_wanted(traffic.track, release, variables):
            return traffic.track
        other = self._state.deployment(traffic.other_track)
        standby = other is not None and self.may_be_standby(other) and not traffic.both
        if standby and self._is_as_wanted(traffic.other_track, release, variables):
            return traffic.other_track
        return None

    def _choose_track(self, traffic: TrafficSplit, release: Release) -> Track:
        """Return the track on which a release comes up: in place of what serves, or next to it."""
        in_place = self._env.strategy == "rolling" or self._state.image(traffic.track) in (
            "",
            release.image.digest,
        )
        return traffic.track if in_place else traffic.other_track

    # --- steps

    def _prepare(self) -> TrafficSplit:
        """Create the supporting objects that are missing; return where requests go now."""
        traffic = self._state.traffic()
        if not self._writer.supporting_objects.has_unused_autoscaler():
            self._writer.desired.log_replica_count()
        self._writer.supporting_objects.create_missing(traffic)
        return traffic

    def _prepull(self, release: Release) -> None:
        prepull(
            self._cluster,
            self._rendering.prepull(release),
            self._writer.desired.replica_seconds(release),
            self._clock,
            self._lock.require,
        )

    def _prove_on_other_track(
        self,
        traffic: TrafficSplit,
        release: Release,
        attempt: Attempt | None,
        variables: PodVariables,
        prove: Prove,
    ) -> None:
        """Bring a release up next to what serves, and switch when it is proven."""
        is_canary = self._env.strategy == "canary"
        track = traffic.other_track
        count = self._canary_count() if is_canary else self._writer.desired.replica_count()
        for pod in self._writer.roll_out(track, release, count, attempt, variables):
            prove(self._pod_endpoint(pod))
        if is_canary:
            self._writer.supporting_objects.point_service(TrafficSplit(traffic.track, both=True))
            self._hold_canary(traffic, release, attempt, variables, prove)
            count = self._writer.desired.replica_count()
            self._writer.roll_out(track, release, count, attempt, variables)
        self._writer.switch_traffic(track, release)

    def _hold_canary(
        self,
        traffic: TrafficSplit,
        release: Release,
        attempt: Attempt | None,
        variables: PodVariables,
        prove: Prove,
    ) -> None:
        CanaryHold(
            self._env.canary,
            canary_endpoints=lambda: self._canary_endpoints(traffic, release, attempt, variables),
            stable_endpoints=lambda: {
                pod.name: self._pod_endpoint(pod)
                for pod in self._state.pods(traffic.track)
                if pod.ready
            },
            prove=prove,
            read_decision=lambda: self._history.decision(release.image.digest),
            read_metrics=self._read_metrics,
            clock=self._clock,
        ).run()

    def _canary_endpoints(
        self,
        traffic: TrafficSplit,
        release: Release,
        attempt: Attempt | None,
        variables: PodVariables,
    ) -> dict[str, Endpoint]:
        """Return the endpoints of the canary's replicas; wait if none is ready.

        Raises:
            RolloutFailed: one of them died.
        """
        self._lock.require()
        pods = self._state.pods(traffic.other_track)
        dead = next((pod for pod in pods if pod.problem or pod.restarts), None)
        if dead:
            raise RolloutFailed(
                "a replica of the canary died",
                on=f"pod {dead.name}",
                next="the log shows why",
                detail=log_tail(self._cluster, dead),
            )
        ready = [pod for pod in pods if pod.ready] or self._writer.roll_out(
            traffic.other_track, release, self._canary_count(), attempt, variables
        )
        return {pod.name: self._pod_endpoint(pod) for pod in ready}

    def _canary_count(self) -> int:
        """Return how many replicas a canary has: never more than serve."""
        return min(self._env.canary.replicas, self._writer.desired.replica_count())

    def _pod_endpoint(self, pod: Pod) -> Endpoint:
        return self._cluster.endpoint("Pod", pod.name, self._rendering.app.port)
