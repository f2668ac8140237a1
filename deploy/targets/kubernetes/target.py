"""A namespace of a cluster, in which a release is rolled out by one of three strategies.

Everything is read from the cluster, its history and its lock too, so that any machine with access
sees the same and can continue where another one stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from deploy.clients.http import Endpoint
from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.clock import REAL, Clock
from deploy.errors import RolloutFailed
from deploy.records import Attempt, Ending, Release, Rollout
from deploy.rollout.target import CanaryVerb, Prove, Replica, ReplicaState
from deploy.targets.kubernetes import canary
from deploy.targets.kubernetes.endpoint import EndpointFinder
from deploy.targets.kubernetes.history import Decision, History
from deploy.targets.kubernetes.lock import Lock
from deploy.targets.kubernetes.pods import Pod, log_tail
from deploy.targets.kubernetes.prepull import prepull
from deploy.targets.kubernetes.render import MANAGED_BY, TRACKS, Rendering, Track
from deploy.targets.kubernetes.snapshot import Snapshot
from deploy.targets.kubernetes.state import ClusterState, DeploymentState, TrafficSplit
from deploy.targets.kubernetes.writer import Writer


class KubernetesTarget:
    """An environment in a namespace of a cluster.

    Args:
        cluster: the namespace.
        rendering: renders the environment's objects.
        size: returns the bytes of a release's image.
        endpoint_finder: finds the address at which clients reach the release.
        clock: measures time and lets it pass.
        read_metrics: returns a replica's metrics.
    """

    def __init__(
        self,
        cluster: Cluster,
        rendering: Rendering,
        size: Callable[[Release], int],
        endpoint_finder: EndpointFinder | None = None,
        clock: Clock = REAL,
        read_metrics: canary.ReadMetrics = canary.read_metrics,
    ) -> None:
        self._cluster = cluster
        self._rendering = rendering
        self._env = rendering.env
        self._clock = clock
        self._read_metrics = read_metrics
        self.environment = rendering.environment
        name = rendering.name
        labels = rendering.labels | {MANAGED_BY: "twinship"}
        self._state = ClusterState(cluster, rendering)
        self._history = History(cluster, f"{name}-history", labels)
        self._lock = Lock(cluster, f"{name}-deployer", labels, self.environment, clock)
        self._writer = Writer(cluster, rendering, self._state, self._lock, size, clock)
        self._endpoint_finder = endpoint_finder or EndpointFinder(cluster, rendering)

    @property
    def url(self) -> str:
        """The address at which clients reach the release, for people."""
        return self.endpoint.url

    @property
    def endpoint(self) -> Endpoint:
        """The best address for requests from this machine."""
        return self._endpoint_finder.endpoint(self._node_addresses)

    @property
    def times(self) -> dict[str, dict[str, float]]:
        """The seconds after which each pod of the last rollout was first seen in each stage."""
        return self._writer.times

    def _node_addresses(self) -> list[str]:
        """Return the addresses of the nodes that have replicas which get requests."""
        traffic = self._state.serving()
        return sorted(
            {
                pod.host
                for pod in self._state.pods()
                if pod.ready and pod.host and traffic.sends_to(pod.track)
            }
        )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the environment's Lease; nothing that serves changes, whatever the settings say."""
        with self._lock.acquire(self._env.lock_wait):
            self._writer.around.require_own()
            self._writer.around.clear_warm_up()
            yield

    # --- history

    def history(self) -> tuple[Rollout, ...]:
        """Return all attempts; one that is lost is read from the Deployment that serves by it."""
        known, damaged = self._history.recall()
        lost = self._lost_attempt() if damaged else ()
        return tuple(sorted((*known, *lost), key=lambda item: item.attempt.id))

    def _lost_attempt(self) -> tuple[Rollout, ...]:
        """Return the attempt by which a Deployment serves, if the history does not have it."""
        # Read before the history: whatever is rolled out from now on is recorded there first.
        deployment = self._state.deployment(self._state.serving().track)
        attempt = deployment.attempt if deployment else None
        known = {item.attempt.id for item in self._history.read()}
        if (
            deployment is None
            or attempt is None
            or attempt.id in known
            or attempt.release.image.digest != deployment.image
            or not self._is_complete(deployment)
        ):
            return ()
        return (Rollout(attempt=attempt, ending=Ending(outcome="succeeded", at=attempt.at)),)

    def begin(self, attempt: Attempt) -> None:
        """Record that an attempt begins, with a snapshot of what serves."""
        self._lock.require()
        traffic = self._state.serving()
        # What serves after an attempt that has not ended can be half of it.
        snapshot = self._history.snapshot() or self._writer.before(traffic)
        # Fails before anything is recorded if another manager owns the Service's selector.
        self._writer.around.point(traffic)
        self._history.begin(attempt, *self._lost_attempt(), before=snapshot)

    def end(self, attempt: Attempt, ending: Ending) -> None:
        """Record how an attempt ended; after a success, remove what the settings no longer name."""
        self._lock.require()
        if ending.outcome == "succeeded":
            self._writer.around.finish()
        self._history.end(attempt, ending)

    def _unfinished(self) -> Attempt | None:
        """Return the attempt that has begun and not ended."""
        last = self._history.read()[-1:]
        return next((item.attempt for item in last if item.ending is None), None)

    def _find_attempt(self, release: Release) -> Attempt | None:
        """Return the unfinished attempt if it is at that release, or the one by which it served."""
        unfinished = self._unfinished()
        if unfinished and unfinished.release == release:
            return unfinished
        known = [item for item in self.history() if item.attempt.release == release]
        last = sorted(known, key=lambda item: item.succeeded)[-1:]
        return next((item.attempt for item in last), None)

    # --- state

    def replicas(self) -> tuple[Replica, ...]:
        """Return every pod that is not being deleted."""
        traffic = self._state.serving()
        return tuple(
            Replica(name=pod.name, image=pod.image, state=_replica_state(pod, traffic))
            for pod in self._state.pods()
        )

    def serves(self, release: Release) -> bool:
        """Return whether that release alone gets requests, as the settings and templates say."""
        traffic = self._state.serving()
        if traffic.both or not self._is_up_to_date(traffic.track, release):
            return False
        other = self._state.deployment(traffic.other_track)
        alone = other is None or not other.replicas or self._may_be_standby(other)
        return alone and self._state.leads_to(traffic.track)

    def _is_up_to_date(self, track: Track, release: Release) -> bool:
        """Return whether a track has all replicas of a release, as the settings say, and ready."""
        deployment = self._state.deployment(track)
        if (
            deployment is None
            or deployment.image != release.image.digest
            or deployment.settings != self._writer.settings(release)
        ):
            return False
        return self._is_complete(deployment) and deployment.replicas == self._writer.count()

    def _is_complete(self, deployment: DeploymentState) -> bool:
        """Return whether a Deployment has all its replicas, ready, and none of another template."""
        pods = self._state.pods(deployment.name)
        return len(pods) == deployment.replicas > 0 and all(
            pod.ready and pod.template == deployment.template for pod in pods
        )

    # --- rollout

    def serve(self, release: Release, prove: Prove) -> None:
        """Bring a release into service by the environment's strategy."""
        attempt = self._find_attempt(release)
        self._writer.times = {}
        traffic = self._prepare()
        proven = self._proven_track(traffic, release)
        if proven is None and self._env.warm_up:
            self._prepull(release)
        if proven is None and self._choose_track(traffic, release) == traffic.other_track:
            self._prove_on_other_track(traffic, release, attempt, prove)
            return
        # On a track that is proven, nothing changes but the marks of the attempt.
        track = proven or traffic.track
        self._writer.roll(track, release, self._writer.count(), attempt)
        self._writer.switch(track, release)

    def restore(self, release: Release) -> None:
        """Bring a release back into service: as the snapshot has it, or by the present settings."""
        traffic = self._state.serving()
        snapshot = self._history.snapshot()
        if snapshot is None and traffic.both:
            snapshot = self._writer.before(traffic)
        if snapshot and snapshot.is_running(release):
            self._restore_snapshot(snapshot, traffic, release)
        else:
            self._serve_without_proof(release)

    def take_over(self, release: Release) -> None:
        """Give the canary all requests, with as many replicas as serve now."""
        self._writer.times = {}
        self._serve_without_proof(release)

    def _serve_without_proof(self, release: Release) -> None:
        attempt = self._find_attempt(release)
        traffic = self._prepare()
        both = (traffic.track, traffic.other_track)
        complete = next((track for track in both if self._is_up_to_date(track, release)), None)
        track = complete or self._choose_track(traffic, release)
        if complete is None:
            self._writer.roll(track, release, self._writer.count(), attempt)
        self._writer.switch(track, release)

    def _restore_snapshot(
        self, snapshot: Snapshot, traffic: TrafficSplit, release: Release
    ) -> None:
        """Restore what served; replicas of it that are left get all requests at once."""
        back = TrafficSplit(snapshot.track)
        left = (pod for pod in self._state.pods(back.track) if pod.image == release.image.digest)
        if traffic == back or any(pod.ready for pod in left):
            self._writer.around.point(back, snapshot.objects)
        self._writer.restore(snapshot, release)
        self._writer.put_back(snapshot, release)

    def _prepare(self) -> TrafficSplit:
        """Create the supporting objects that are missing; return where requests go now."""
        traffic = self._state.serving()
        self._writer.say_count()
        self._writer.around.apply(traffic)
        return traffic

    def _proven_track(self, traffic: TrafficSplit, release: Release) -> Track | None:
        """Return the track that has all of a release up and proven; the endpoint proves it again.

        A canary that was left has not been proven, though its release may have served before.
        """
        if self._is_up_to_date(traffic.track, release):
            return traffic.track
        other = self._state.deployment(traffic.other_track)
        standby = other is not None and self._may_be_standby(other) and not traffic.both
        if standby and self._is_up_to_date(traffic.other_track, release):
            return traffic.other_track
        return None

    def _choose_track(self, traffic: TrafficSplit, release: Release) -> Track:
        """Return the track on which a release comes up: in place of what serves, or next to it."""
        in_place = self._env.strategy == "rolling" or self._state.image(traffic.track) in (
            "",
            release.image.digest,
        )
        return traffic.track if in_place else traffic.other_track

    def _prepull(self, release: Release) -> None:
        prepull(
            self._cluster,
            self._rendering.warm_up(release),
            self._writer.within(release),
            self._clock,
            self._lock.require,
        )

    def _prove_on_other_track(
        self, traffic: TrafficSplit, release: Release, attempt: Attempt | None, prove: Prove
    ) -> None:
        """Prove a release on the other track, hold it as a canary if that is the strategy, switch."""
        held = self._env.strategy == "canary"
        track = traffic.other_track
        count = self._canary_count() if held else self._writer.count()
        for pod in self._writer.roll(track, release, count, attempt):
            prove(self._pod_endpoint(pod))
        if held:
            self._writer.around.point(TrafficSplit(traffic.track, both=True))
            self._hold_canary(traffic, release, attempt, prove)
            self._writer.roll(track, release, self._writer.count(), attempt)
        self._writer.switch(track, release)

    def settle(self, *keep: Release) -> None:
        """Remove the replicas of a track that is not kept.

        The track that serves stays as long as any release is kept.
        """
        traffic = self._state.serving()
        for track in TRACKS:
            deployment = self._state.deployment(track)
            if deployment is None or not deployment.replicas:
                continue
            serving = track == traffic.track
            if not (bool(keep) if serving else self._is_kept(deployment, traffic, keep)):
                self._writer.empty(deployment)

    def _is_kept(
        self, deployment: DeploymentState, traffic: TrafficSplit, keep: Collection[Release]
    ) -> bool:
        """Return whether a track without requests is kept: for its release, or as a standby."""
        if deployment.image in {release.image.digest for release in keep}:
            other_image = deployment.image != self._state.image(traffic.track)
            return other_image or self._may_be_standby(deployment)
        unfinished = self._unfinished()
        failed = unfinished is not None and unfinished.release.image.digest == deployment.image
        return bool(keep) and not failed and self._may_be_standby(deployment)

    def _may_be_standby(self, deployment: DeploymentState) -> bool:
        """Return whether a track is kept without requests for a fast undo: it was proven here."""
        if self._env.strategy != "blue-green" or not self._env.standby:
            return False
        return any(
            item.succeeded and item.attempt.release.image.digest == deployment.image
            for item in self._history.read()
        )

    # --- objects for people

    def rendered(self, release: Release, attempt: Attempt | None) -> list[Object]:
        """Return the objects of a release on the track that serves, as they are applied.

        Kinds that the cluster lacks are among them.
        """
        return self._writer.rendered(self._state.serving().track, release, attempt)

    # --- canaries

    def canary(self) -> str:
        """Return the digest of the image that is on hold as a canary; empty if there is none."""
        traffic = self._state.serving()
        return self._state.image(traffic.other_track) if traffic.both else ""

    def may_take_over(self, release: Release) -> bool:
        """Return whether the canary was made from the present settings and object templates."""
        deployment = self._state.deployment(self._state.serving().other_track)
        return deployment is not None and deployment.settings == self._writer.settings(release)

    def decide(self, verb: CanaryVerb, by: str) -> None:
        """Leave a decision in the history, where the deployer that holds the canary reads it."""
        self._history.decide(Decision(image=self.canary(), verb=verb, by=by))

    def _hold_canary(
        self, traffic: TrafficSplit, release: Release, attempt: Attempt | None, prove: Prove
    ) -> None:
        canary.CanaryHold(
            self._env.canary,
            canaries=lambda: self._canary_endpoints(traffic, release, attempt),
            stables=lambda: {
                pod.name: self._pod_endpoint(pod)
                for pod in self._state.pods(traffic.track)
                if pod.ready
            },
            prove=prove,
            decided=lambda: self._history.decision(release.image.digest),
            read_metrics=self._read_metrics,
            clock=self._clock,
        ).run()

    def _canary_endpoints(
        self, traffic: TrafficSplit, release: Release, attempt: Attempt | None
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
        ready = [pod for pod in pods if pod.ready] or self._writer.roll(
            traffic.other_track, release, self._canary_count(), attempt
        )
        return {pod.name: self._pod_endpoint(pod) for pod in ready}

    def _canary_count(self) -> int:
        """Return how many replicas a canary has: never more than serve."""
        return min(self._env.canary.replicas, self._writer.count())

    def _pod_endpoint(self, pod: Pod) -> Endpoint:
        return self._cluster.endpoint("Pod", pod.name, self._rendering.app.port)


def _replica_state(pod: Pod, traffic: TrafficSplit) -> ReplicaState:
    if not pod.ready:
        return ReplicaState.UNHEALTHY if pod.problem else ReplicaState.STARTING
    return ReplicaState.SERVING if traffic.sends_to(pod.track) else ReplicaState.STANDBY
