"""A namespace of a cluster, in which a release is rolled out by one of three strategies.

Everything is read from the cluster, its history and its lock too, so that any machine with access
sees the same and can continue where another one stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deploy.clients.http import Endpoint
from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.clock import REAL, Clock
from deploy.records import Attempt, Ending, Release, Rollout
from deploy.rollout.logs import LogSource
from deploy.rollout.target import CanaryVerb, Prove, Replica, ReplicaState
from deploy.targets.kubernetes.endpoint import EndpointFinder
from deploy.targets.kubernetes.history import Decision, History
from deploy.targets.kubernetes.lock import Lock
from deploy.targets.kubernetes.logs import find_log_sources
from deploy.targets.kubernetes.node_platforms import require_node_platform
from deploy.targets.kubernetes.pod_variables import NO_POD_VARIABLES, PodVariables
from deploy.targets.kubernetes.pods import Pod
from deploy.targets.kubernetes.release_variables import ReleaseVariables
from deploy.targets.kubernetes.render import Rendering
from deploy.targets.kubernetes.response_counts import ReadMetrics, read_metrics
from deploy.targets.kubernetes.state import ClusterState, TrafficSplit
from deploy.targets.kubernetes.strategy import Strategy
from deploy.targets.kubernetes.templates import pod_spec
from deploy.targets.kubernetes.writer import Writer
from deploy.variables import NO_VARIABLES, Variables


class KubernetesTarget:
    """An environment in a namespace of a cluster.

    Args:
        cluster: the namespace.
        rendering: renders the environment's objects.
        size: returns the bytes of a release's image.
        platform: returns the platform of a release's image; empty if it is not known.
        endpoint_finder: finds the address at which clients reach the release.
        clock: measures time and lets it pass.
        read_metrics: returns a replica's metrics.
        variables: returns the variables of the settings, or raises SettingsInvalid.
    """

    def __init__(
        self,
        cluster: Cluster,
        rendering: Rendering,
        size: Callable[[Release], int],
        endpoint_finder: EndpointFinder | None = None,
        clock: Clock = REAL,
        read_metrics: ReadMetrics = read_metrics,
        platform: Callable[[Release], str] = lambda _: "",
        variables: Callable[[], Variables] = lambda: NO_VARIABLES,
    ) -> None:
        self._cluster = cluster
        self._rendering = rendering
        self._platform = platform
        self._env = rendering.env
        self._clock = clock
        self.environment = rendering.environment
        name = rendering.name
        labels = rendering.object_labels
        self._state = ClusterState(cluster, rendering)
        self._history = History(cluster, f"{name}-history", labels)
        self._lock = Lock(cluster, f"{name}-deployer", labels, self.environment, clock)
        self._writer = Writer(cluster, rendering, self._state, self._lock, size, clock)
        self._variables = ReleaseVariables(
            cluster, rendering, self._state, self._history, self._lock, variables
        )
        self._strategy = Strategy(
            cluster,
            rendering,
            self._state,
            self._writer,
            self._history,
            self._lock,
            clock,
            read_metrics,
        )
        self._endpoint_finder = endpoint_finder or EndpointFinder(cluster, rendering)

    @property
    def url(self) -> str:
        """The address at which clients reach the release, for people."""
        return self.endpoint.url

    @property
    def endpoint(self) -> Endpoint:
        """The best address for requests from this machine."""
        return self._endpoint_finder.find(self._node_addresses)

    @property
    def times(self) -> dict[str, dict[str, float]]:
        """The seconds after which each pod of the last rollout was first seen in each stage."""
        return self._writer.times

    def _node_addresses(self) -> list[str]:
        """Return the addresses of the nodes that have replicas which get requests."""
        traffic = self._state.traffic()
        return sorted(
            {
                pod.node_address
                for pod in self._state.pods()
                if pod.ready and pod.node_address and traffic.sends_to(pod.track)
            }
        )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the environment's Lease; nothing that serves changes, whatever the settings say."""
        with self._lock.acquire(self._env.lock_wait):
            self._writer.supporting_objects.require_ownership()
            self._writer.supporting_objects.remove_prepull()
            yield

    # --- history

    def history(self) -> tuple[Rollout, ...]:
        """Return all attempts; one that is lost is read from the Deployment that serves by it."""
        known, damaged = self._history.read_and_check()
        lost = self._lost_attempt() if damaged else ()
        return tuple(sorted((*known, *lost), key=lambda item: item.attempt.id))

    def _lost_attempt(self) -> tuple[Rollout, ...]:
        """Return the attempt by which a Deployment serves, if the history does not have it."""
        # Read before the history: whatever is rolled out from now on is recorded there first.
        deployment = self._state.deployment(self._state.traffic().track)
        attempt = deployment.attempt if deployment else None
        known = {item.attempt.id for item in self._history.read()}
        if (
            deployment is None
            or attempt is None
            or attempt.id in known
            or attempt.release.image.digest != deployment.image
            or not self._strategy.is_complete(deployment)
        ):
            return ()
        return (Rollout(attempt=attempt, ending=Ending(outcome="succeeded", at=attempt.at)),)

    def begin(self, attempt: Attempt, variables: Variables | None = None) -> None:
        """Record that an attempt begins, with its variables and a snapshot of what serves."""
        self._lock.require()
        self._require_node_platform(attempt.release)
        traffic = self._state.traffic()
        # What serves after an attempt that has not ended can be half of it.
        snapshot = self._history.snapshot() or self._writer.take_snapshot(traffic)
        # Fails before anything is recorded if another manager owns the Service's selector.
        self._writer.supporting_objects.point_service(traffic)
        given = {attempt.id: self._variables.assign(attempt.id, variables)}
        lost = self._lost_attempt()
        for item in lost:
            given[item.attempt.id] = self._serving_variables()
        self._history.begin(attempt, *lost, snapshot=snapshot, variables=given)

    def _serving_variables(self) -> PodVariables:
        deployment = self._state.deployment(self._state.traffic().track)
        return deployment.variables if deployment else NO_POD_VARIABLES

    def _require_node_platform(self, release: Release) -> None:
        pod = pod_spec(self._rendering.object_templates["Deployment"])
        require_node_platform(self._cluster, pod, self._platform(release))

    def end(self, attempt: Attempt, ending: Ending) -> None:
        """Record how an attempt ended; after a success, remove what the settings no longer name."""
        self._lock.require()
        if ending.outcome == "succeeded":
            self._writer.remove_unused(attempt.release)
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
        traffic = self._state.traffic()
        return tuple(
            Replica(
                name=pod.name,
                image=pod.image,
                state=self._replica_state(pod, traffic),
                restarts=pod.restarts,
                started=pod.started,
                last_exit=pod.last_exit,
            )
            for pod in self._state.pods()
        )

    def _replica_state(self, pod: Pod, traffic: TrafficSplit) -> ReplicaState:
        if not pod.ready:
            return ReplicaState.UNHEALTHY if pod.problem else ReplicaState.STARTING
        if not traffic.sends_to(pod.track):
            return ReplicaState.STANDBY
        is_crash_looping = pod.is_crash_looping(self._clock.utc())
        return ReplicaState.UNHEALTHY if is_crash_looping else ReplicaState.SERVING

    def replica_count(self) -> int:
        """Return how many replicas the settings name, or an autoscaler or a person has set."""
        return self._writer.desired.replica_count()

    def serves(self, release: Release) -> bool:
        """Return whether that release alone gets requests, as the settings and templates say.

        It does not while a replica crashes again and again, even if all are ready now.
        """
        traffic = self._state.traffic()
        if traffic.both or not self._strategy.is_up_to_date(traffic.track, release):
            return False
        other = self._state.deployment(traffic.other_track)
        alone = other is None or not other.replicas or self._strategy.may_be_standby(other)
        if not alone or not self._state.routes_to(traffic.track):
            return False
        now = self._clock.utc()
        return not any(pod.is_crash_looping(now) for pod in self._state.pods(traffic.track))

    def variables(self) -> Variables:
        """Return the variables of what serves, from its Deployment and its Secret."""
        return self._variables.of_serving()

    def variables_for(self, returns_to: int | None) -> Variables:
        """Return those of the settings, or of an attempt that the history still has."""
        return self._variables.for_attempt(returns_to)

    def find_endpoint_problem(self) -> str:
        """Return "": the cluster watches its Services and Ingresses; `verify` asks through them."""
        return ""

    def log_sources(self) -> tuple[LogSource, ...]:
        """Return all pods; what stands before the Service is not of this environment."""
        return find_log_sources(self._cluster, self._rendering)

    # --- rollout

    def serve(self, release: Release, prove: Prove) -> None:
        """Bring a release into service by the environment's strategy."""
        self._writer.times = {}
        attempt = self._find_attempt(release)
        self._strategy.serve(release, attempt, self._variables.ensure(attempt), prove)

    def restore(self, release: Release) -> None:
        """Bring a release back into service: from the snapshot, or by the present settings."""
        traffic = self._state.traffic()
        snapshot = self._history.snapshot()
        if snapshot is None and traffic.both:
            snapshot = self._writer.take_snapshot(traffic)
        if snapshot and snapshot.is_running(release):
            self._strategy.restore(snapshot, traffic, release)
        else:
            self._serve_without_proof(release)

    def _serve_without_proof(self, release: Release) -> None:
        attempt = self._find_attempt(release)
        self._strategy.serve_without_proof(release, attempt, self._variables.ensure(attempt))

    def settle(self, *keep: Release) -> None:
        """Remove the replicas of a track that is not kept.

        The track that serves stays as long as any release is kept.
        """
        unfinished = self._unfinished()
        self._strategy.settle(keep, unfinished)
        if unfinished is None:
            self._variables.collect()

    # --- objects for people

    def rendered(self, release: Release, attempt: Attempt | None) -> list[Object]:
        """Return the objects of a release on the track that serves, as they are applied.

        Kinds that the cluster lacks are among them.
        """
        variables = self._variables.describe(attempt)
        return self._writer.desired.render(self._state.traffic().track, release, attempt, variables)

    # --- canaries

    def canary(self) -> str:
        """Return the digest of the image that is on hold as a canary; empty if there is none."""
        traffic = self._state.traffic()
        return self._state.image(traffic.other_track) if traffic.both else ""

    def may_take_over(self, release: Release) -> bool:
        """Return whether the canary was made from the present settings and object templates."""
        deployment = self._state.deployment(self._state.traffic().other_track)
        return (
            deployment is not None
            and deployment.settings == self._writer.desired.settings_hash(release)
            and self._variables.match_settings(deployment)
        )

    def take_over(self, release: Release) -> None:
        """Give the canary all requests, with as many replicas as serve now."""
        self._writer.times = {}
        self._serve_without_proof(release)

    def decide(self, verb: CanaryVerb, by: str) -> None:
        """Leave a decision in the history, where the deployer that holds the canary reads it."""
        self._history.decide(Decision(image=self.canary(), verb=verb, by=by))
