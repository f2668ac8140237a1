"""A namespace of a cluster: a release rolled out by one of three strategies, with its history, its lock and its way back there.

Everything is read from the cluster, so any machine with access sees the same and can go on where another one stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from deploy.clients.http import Endpoint
from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.clock import REAL, Clock
from deploy.errors import RolloutFailed
from deploy.records import Attempt, Ending, Release, Rollout
from deploy.rollout.apply import Prove, Replica
from deploy.targets.kubernetes.canary import CanaryHold
from deploy.targets.kubernetes.canary_metrics import ReadMetrics, read_metrics
from deploy.targets.kubernetes.endpoint import EndpointFinder
from deploy.targets.kubernetes.history import CanaryVerb, Decision, History
from deploy.targets.kubernetes.lock import Lock
from deploy.targets.kubernetes.pods import Pod, log_tail
from deploy.targets.kubernetes.prepull import prepull
from deploy.targets.kubernetes.render import MANAGED_BY_LABEL, TRACKS, Rendering, Track
from deploy.targets.kubernetes.snapshot import Snapshot
from deploy.targets.kubernetes.state import ClusterState, DeploymentState, TrafficSplit
from deploy.targets.kubernetes.writer import Writer


class KubernetesTarget:
    """An environment on a cluster.

    Args:
        cluster: its namespace.
        rendering: makes the objects that it consists of.
        size: tells the bytes of a release's image.
        front: finds the front door.
        clock: tells the time.
        read: gives a replica's metrics.
    """

    def __init__(
        self,
        cluster: Cluster,
        rendering: Rendering,
        size: Callable[[Release], int],
        front: EndpointFinder | None = None,
        clock: Clock = REAL,
        read: ReadMetrics = read_metrics,
    ) -> None:
        self._cluster = cluster
        self._rendering = rendering
        self._env = rendering.env
        self._clock = clock
        self._read = read
        self.environment = rendering.environment
        name = rendering.name
        labels = rendering.labels | {MANAGED_BY_LABEL: "twinship"}
        self._sides = ClusterState(cluster, rendering)
        self._journal = History(cluster, f"{name}-history", labels)
        self._lease = Lock(cluster, f"{name}-deployer", labels, self.environment, clock)
        self._changes = Writer(cluster, rendering, self._sides, self._lease, size, clock)
        self._front = front or EndpointFinder(cluster, rendering)
        self._begun: Attempt | None = None
        self._attempt: Attempt | None = None
        self._before: Snapshot | None = None

    @property
    def url(self) -> str:
        """The front door, for people."""
        return self.endpoint.url

    @property
    def endpoint(self) -> Endpoint:
        """The best way in from here."""
        return self._front.find(self._hosts)

    @property
    def times(self) -> dict[str, dict[str, float]]:
        """Of the last rollout: for each pod, after how many seconds it was first seen in each stage."""
        return self._changes.times

    def _hosts(self) -> list[str]:
        """The addresses of the nodes on which the Service finds replicas."""
        serving = self._sides.traffic()
        return sorted(
            {
                pod.node_address
                for pod in self._sides.pods()
                if pod.ready and pod.node_address and serving.sends_to(pod.track)
            }
        )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the environment's lease; nothing that serves is touched yet, whatever settings and manifests say."""
        with self._lease.acquire(self._env.lock_wait):
            self._changes.supporting_objects.require_ownership()
            self._begun = None
            self._before = self._journal.snapshot()
            self._changes.supporting_objects.remove_prepull()
            yield

    # --- memory

    def history(self) -> tuple[Rollout, ...]:
        """Reads the journal; what serves and is missing there is told by its Deployment."""
        noted, damaged = self._journal.read_and_check()
        lost = self._forgotten() if damaged else ()
        return tuple(sorted((*noted, *lost), key=lambda item: item.attempt.id))

    def _forgotten(self) -> tuple[Rollout, ...]:
        """The attempt by which a side serves, if the journal does not have it any more."""
        # Looked at before the journal is read: whatever is rolled out from now on is written there first.
        side = self._sides.deployment(self._sides.traffic().track)
        attempt = side.attempt if side else None
        known = {item.attempt.id for item in self._journal.read()}
        if (
            side is None
            or attempt is None
            or attempt.id in known
            or attempt.release.image.digest != side.image
        ):
            return ()
        return (
            (Rollout(attempt=attempt, ending=Ending(outcome="succeeded", at=attempt.at)),)
            if self._is_whole(side)
            else ()
        )

    def begin(self, attempt: Attempt) -> None:
        """Writes the beginning; what is rolled out from now on is marked with this attempt, and what serves is kept in mind."""
        self._lease.require()
        serving = self._sides.traffic()
        # After an attempt that has not ended the way back is still its own: what is there now may be half of it.
        self._begun = attempt
        self._before = self._before or self._changes.take_snapshot(serving)
        # A Service that somebody else leads by now is told before anything is written.
        self._changes.supporting_objects.point_service(serving)
        self._changes.times = {}
        self._journal.begin(attempt, *self._forgotten(), snapshot=self._before)

    def end(self, attempt: Attempt, ending: Ending) -> None:
        """Writes the end; what the settings no longer ask for goes with a success."""
        self._lease.require()
        if ending.outcome == "succeeded":
            self._changes.supporting_objects.remove_unused()
        self._journal.end(attempt, ending)
        self._before = None

    # --- what runs

    def replicas(self) -> tuple[Replica, ...]:
        """Every pod that was not asked to go."""
        serving = self._sides.traffic()

        def state(pod: Pod) -> str:
            if not pod.ready:
                return "failing" if pod.problem else "starting"
            return "serving" if serving.sends_to(pod.track) else "standing by"

        return tuple(
            Replica(name=pod.name, image=pod.image, state=state(pod)) for pod in self._sides.pods()
        )

    def serves(self, release: Release) -> bool:
        """Whether the Service sends requests to that release alone, and it is as the settings and manifests say."""
        serving = self._sides.traffic()
        if serving.both or not self._stands(serving.track, release):
            return False
        beside = self._sides.deployment(serving.other_track)
        alone = beside is None or not beside.replicas or self._may_stand_by(beside)
        return alone and self._sides.routes_to(serving.track)

    def _stands(self, name: Track, release: Release) -> bool:
        """Whether a side has as many replicas as shall serve, all ready, of that release and of the present settings."""
        side = self._sides.deployment(name)
        if (
            side is None
            or side.image != release.image.digest
            or side.settings != self._changes.desired.settings_hash(release)
        ):
            return False
        return self._is_whole(side) and side.replicas == self._changes.desired.replica_count()

    def _is_whole(self, side: DeploymentState) -> bool:
        """Whether a side has all its replicas, ready, and none that were made of something else."""
        pods = self._sides.pods(side.track)
        return len(pods) == side.replicas > 0 and all(
            pod.ready and pod.pod_template == side.pod_template for pod in pods
        )

    # --- moving

    def shift(self, release: Release, prove: Prove | None = None) -> None:
        """Brings a release up by the environment's strategy and has the Service send requests to it."""
        self._attempt = self._attempt_of(release)
        serving = self._sides.traffic()
        before = None if prove else self._as_it_was(serving, release)
        if before:
            self._go_back(before, serving, release)
            return
        self._changes.desired.log_replica_count()
        self._changes.supporting_objects.create_missing(serving)
        standing = self._proven(serving, release, prove)
        if standing:
            if prove:
                # Nothing of it changes but the marks of the attempt.
                self._changes.roll_out(
                    standing, release, self._changes.desired.replica_count(), self._attempt
                )
            self._changes.switch_traffic(standing, release)
        else:
            self._bring(serving, release, prove)

    def _attempt_of(self, release: Release) -> Attempt | None:
        """The attempt that is under way, or that by which a release served before, if it is put back."""
        if self._begun and self._begun.release == release:
            return self._begun
        known = [item for item in self.history() if item.attempt.release == release]
        return next(
            (item.attempt for item in sorted(known, key=lambda item: item.succeeded)[-1:]), None
        )

    def _as_it_was(self, serving: TrafficSplit, release: Release) -> Snapshot | None:
        """The way back to a release, with all that it was made of: it served when the attempt began, or is stable beside a canary."""
        before = self._before or (self._changes.take_snapshot(serving) if serving.both else None)
        return before if before and before.is_running(release) else None

    def _go_back(self, before: Snapshot, serving: TrafficSplit, release: Release) -> None:
        """Puts back what served; if it never went, it has the requests at once."""
        back = TrafficSplit(before.track)
        old = (pod for pod in self._sides.pods(before.track) if pod.image == release.image.digest)
        if serving == back or any(pod.ready for pod in old):
            self._changes.supporting_objects.point_service(back, before.objects)
        self._changes.restore_replicas(before, release)
        self._changes.restore_traffic(before, release)

    def _proven(self, serving: TrafficSplit, release: Release, prove: Prove | None) -> Track | None:
        """The side that has the release up already and needs no more proof than what the front door asks for."""
        if self._stands(serving.track, release):
            return serving.track
        beside = self._sides.deployment(serving.other_track)
        known = beside is not None and (
            prove is None or (self._may_stand_by(beside) and not serving.both)
        )
        return serving.other_track if known and self._stands(serving.other_track, release) else None

    def _bring(self, serving: TrafficSplit, release: Release, prove: Prove | None) -> None:
        """Brings a release up: in the place of what serves, or beside it."""
        if prove and self._env.warm_up:
            within = self._changes.desired.replica_seconds(release)
            require = self._lease.require
            prepull(self._cluster, self._rendering.prepull(release), within, self._clock, require)
        if self._env.strategy == "rolling" or self._sides.image(serving.track) in (
            "",
            release.image.digest,
        ):
            self._changes.roll_out(
                serving.track, release, self._changes.desired.replica_count(), self._attempt
            )
            self._changes.switch_traffic(serving.track, release)
        else:
            self._beside(serving, release, prove)

    def _beside(self, serving: TrafficSplit, release: Release, prove: Prove | None) -> None:
        """Brings a release up on the other side, proves it there, holds it as a canary if that is the strategy, and switches."""
        held = self._env.strategy == "canary" and prove is not None
        pods = self._changes.roll_out(
            serving.other_track,
            release,
            self._canaries() if held else self._changes.desired.replica_count(),
            self._attempt,
        )
        if prove:
            for pod in pods:
                prove(self._to(pod))
        if held and prove:
            self._changes.supporting_objects.point_service(TrafficSplit(serving.track, both=True))
            self._hold(serving, release, prove)
            self._changes.roll_out(
                serving.other_track, release, self._changes.desired.replica_count(), self._attempt
            )
        self._changes.switch_traffic(serving.other_track, release)

    def settle(self, *keep: Release) -> None:
        """Takes away the replicas of a side that shall not stay; the one that serves stays as long as anything shall."""
        serving = self._sides.traffic()
        for name in TRACKS:
            side = self._sides.deployment(name)
            stays = (
                bool(keep)
                if name == serving.track
                else bool(side and self._stays_beside(side, serving, keep))
            )
            if side and side.replicas and not stays:
                self._changes.remove_replicas(side)

    def _stays_beside(
        self, side: DeploymentState, serving: TrafficSplit, keep: Collection[Release]
    ) -> bool:
        """Whether a side that does not serve stays: for what it runs, or because it may stand by and was not given up just now."""
        begun = self._begun.release.image.digest if self._begun else ""
        if side.image in {release.image.digest for release in keep}:
            return side.image != self._sides.image(serving.track) or self._may_stand_by(side)
        return bool(keep) and side.image != begun and self._may_stand_by(side)

    def _may_stand_by(self, side: DeploymentState) -> bool:
        """Whether a side that gets no requests is kept for an instant way back: what it runs has served, and proven itself."""
        if self._env.strategy != "blue-green" or not self._env.standby:
            return False
        return any(
            item.succeeded and item.attempt.release.image.digest == side.image
            for item in self._journal.read()
        )

    # --- for people

    def rendered(self, release: Release, attempt: Attempt | None) -> list[Object]:
        """The objects of a release on the side that serves, as they are applied; kinds that the cluster lacks are among them."""
        return self._changes.desired.render(self._sides.traffic().track, release, attempt)

    # --- canaries

    def canary(self) -> str:
        """The digest of the image that is held as a canary; empty if none is."""
        serving = self._sides.traffic()
        return self._sides.image(serving.other_track) if serving.both else ""

    def may_take_over(self, release: Release) -> bool:
        """Whether the canary of a release was made of the present settings and manifests: what takes over is what was tried out."""
        side = self._sides.deployment(self._sides.traffic().other_track)
        return side is not None and side.settings == self._changes.desired.settings_hash(release)

    def decide(self, verb: CanaryVerb, by: str) -> None:
        """Leaves word for the deployer that holds the canary: `promote` or `abort`."""
        self._journal.decide(Decision(image=self.canary(), verb=verb, by=by))

    def _hold(self, serving: TrafficSplit, release: Release, prove: Prove) -> None:
        CanaryHold(
            self._env.canary,
            canary_endpoints=lambda: self._living(serving, release),
            stable_endpoints=lambda: {
                pod.name: self._to(pod) for pod in self._sides.pods(serving.track) if pod.ready
            },
            prove=prove,
            read_decision=lambda: self._journal.decision(release.image.digest),
            read_metrics=self._read,
            clock=self._clock,
        ).run()

    def _living(self, serving: TrafficSplit, release: Release) -> dict[str, Endpoint]:
        """The ways to the canary's replicas, none of which may have died; where none is ready any more, they are waited for."""
        self._lease.require()
        pods = self._sides.pods(serving.other_track)
        dead = next((pod for pod in pods if pod.problem or pod.restarts), None)
        if dead:
            raise RolloutFailed(
                "a replica of the canary died",
                on=f"pod {dead.name}",
                next="the log shows why",
                detail=log_tail(self._cluster, dead),
            )
        ready = [pod for pod in pods if pod.ready]
        return {
            pod.name: self._to(pod)
            for pod in ready
            or self._changes.roll_out(serving.other_track, release, self._canaries(), self._attempt)
        }

    def _canaries(self) -> int:
        """How many replicas a canary has."""
        return min(self._env.canary.replicas, self._changes.desired.replica_count())

    def _to(self, pod: Pod) -> Endpoint:
        return self._cluster.endpoint("Pod", pod.name, self._rendering.app.port)
