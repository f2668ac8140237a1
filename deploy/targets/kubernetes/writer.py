"""What a deployer changes on a cluster: nothing without the lease, and nothing that somebody else owns is taken from them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable

from deploy import progress
from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.clock import REAL, Clock
from deploy.errors import FieldConflict, RolloutFailed
from deploy.records import Attempt, Release
from deploy.targets.kubernetes.lock import Lock
from deploy.targets.kubernetes.pods import TEMPLATE_ANNOTATION, Pod
from deploy.targets.kubernetes.readiness import ExpectedPods, ReadinessWait
from deploy.targets.kubernetes.render import CHANGE_CAUSE, TRACKS, Rendering, Track
from deploy.targets.kubernetes.snapshot import Snapshot
from deploy.targets.kubernetes.state import (
    REPLICAS_ANNOTATION,
    SETTINGS_ANNOTATION,
    ClusterState,
    DeploymentState,
    TrafficSplit,
)
from deploy.targets.kubernetes.supporting_objects import SupportingObjects
from deploy.targets.kubernetes.templates import ensure_mapping

log = logging.getLogger(__name__)

_POLL = 0.25
_SCHEDULING = 30.0
_REACHED_WITHIN = 30.0
# Nodes rewrite their routes at most once a second, and cannot be asked whether they have.
_ROUTES = 2.0
_REPLICAS = "spec.replicas"


class Writer:
    """Writes the objects of one environment.

    Args:
        cluster: where they are.
        rendering: makes them.
        sides: reads them.
        lease: must be held.
        size: tells the bytes of a release's image.
        clock: tells the time.

    Attributes:
        around: all that is not a replica.
        attempt: what the next changes are part of, for the cluster's memory.
        times: of the present attempt: for each pod, how many seconds after its rollout began it was first seen in each stage.
    """

    def __init__(
        self,
        cluster: Cluster,
        rendering: Rendering,
        sides: ClusterState,
        lease: Lock,
        size: Callable[[Release], int],
        clock: Clock = REAL,
    ) -> None:
        self._cluster = cluster
        self._rendering = rendering
        self._env = rendering.env
        self._sides = sides
        self._lease = lease
        self._size = size
        self._clock = clock
        self.supporting_objects = SupportingObjects(cluster, rendering, lease)
        self.attempt: Attempt | None = None
        self.times: dict[str, dict[str, float]] = {}

    # --- what shall serve

    def replica_count(self) -> int:
        """How many replicas shall serve: as the settings say, unless an autoscaler or a person decides."""
        now = self._sides.deployment(self._sides.traffic().track)
        if now is None or not now.replicas:
            return self._env.replicas
        if self._env.autoscale:
            return max(self._env.replicas, min(now.replicas, self._env.autoscale.at_most))
        return self._env.replicas if now.replicas_are_ours else now.replicas

    def log_replica_count(self) -> None:
        """Tells whoever changed the settings that somebody else has chosen another number of replicas."""
        count = self.replica_count()
        if not self._env.autoscale and count != self._env.replicas:
            log.info(
                "replicas stay at %d, as somebody chose; the settings say %d",
                count,
                self._env.replicas,
            )

    def settings_hash(self, release: Release) -> str:
        """What a release is rendered to, in short, whoever asked for it and whichever side it is on."""
        rendering = self._rendering
        first = TRACKS[0]
        made = [
            rendering.deployment(release, first, self._env.replicas, None, 0),
            rendering.service(first, both=False),
            rendering.ingress(),
            rendering.autoscaler(first),
            rendering.disruption_budget(),
            rendering.service_account(),
        ]
        return _short(made)

    def render(self, name: Track, release: Release, attempt: Attempt | None) -> list[Object]:
        """All objects of an environment that serves a release from a side, in the order in which they are applied.

        The number of replicas is that of the settings, whoever has chosen another one: so it can be taken back from them.
        """
        rendering = self._rendering
        service = self._rendering.service(name, both=False)
        rest = (rendering.ingress(), rendering.disruption_budget(), rendering.autoscaler(name))
        count = self.replica_count() if self._env.autoscale else self._env.replicas
        made = (
            rendering.service_account(),
            service,
            *rest,
            self._deployment(name, release, count, attempt),
        )
        return [item for item in made if item]

    def take_snapshot(self, serving: TrafficSplit) -> Snapshot | None:
        """What serves now, as it was applied; None if nothing does."""
        side = self._sides.deployment(serving.track)
        if side is None or not side.replicas:
            return None
        return Snapshot(
            track=side.track,
            objects={"Deployment": side.applied, **self.supporting_objects.snapshot()},
        )

    def replica_seconds(self, release: Release) -> float:
        """Seconds that one replica may take: to find a node, to pull its image, to become ready."""
        return _SCHEDULING + self._size(release) / self._env.pull_rate + self._env.ready_within

    # --- replicas

    def roll_out(self, name: Track, release: Release, count: int) -> list[Pod]:
        """Brings a side to that many replicas of a release, and waits until all are ready.

        Raises:
            RolloutFailed: one cannot become ready, or did not in time.
            FieldConflict: somebody else owns what a manifest sets.
        """
        item = self._deployment(name, release, count, self.attempt)
        self._put(name, item)
        return self._ready(name, item, release)

    def restore_replicas(self, before: Snapshot, release: Release) -> list[Pod]:
        """Brings a side back to what it was, whatever settings and manifests say by now, and waits until all replicas are ready.

        Raises:
            RolloutFailed: one cannot become ready any more, or did not in time.
            FieldConflict: somebody else owns what was set.
        """
        now = self._sides.deployment(before.track)
        if now is None or now.applied != before.deployment:
            # What admission would not have again may well be what nobody has touched.
            self._put(before.track, before.deployment)
        return self._ready(before.track, before.deployment, release)

    def _ready(self, name: Track, item: Object, release: Release) -> list[Pod]:
        wanted = ExpectedPods(
            deployment=self._rendering.deployment_name(name),
            labels=self._sides.labels(name),
            pod_template=item["spec"]["template"]["metadata"]
            .get("annotations", {})
            .get(TEMPLATE_ANNOTATION, ""),
            size=self._size(release),
            ready_within=self._env.ready_within,
            replica_seconds=self.replica_seconds(release),
        )
        watch = ReadinessWait(self._cluster, wanted, self._clock)
        try:
            return watch.until_ready(self._lease.require)
        finally:
            # A replica that was seen by an earlier watch has its times from there.
            self.times = watch.times | self.times

    def _apply(self, item: Object) -> None:
        self._cluster.apply(item, require=self._lease.require)

    def _put(self, name: Track, item: Object) -> None:
        """Applies a Deployment, but for a number of replicas that others have chosen since.

        Which release it is, is ours to say: what `kubectl rollout undo` or a patched image has changed of that is taken back.
        """
        try:
            self._apply(item)
        except FieldConflict as conflict:
            if not all(path == _REPLICAS or _says_which_release(path) for path in conflict.owners):
                raise
            taken = sorted({owner for path, owner in conflict.owners.items() if path != _REPLICAS})
            if taken:
                log.info("taken back from %s: which release runs", " and ".join(taken))
            if _REPLICAS in conflict.owners:
                item = self._left_to(conflict.owners[_REPLICAS], name, item)
            self._cluster.apply(item, force=bool(taken), require=self._lease.require)

    def _left_to(self, owner: str, name: Track, item: Object) -> Object:
        """A Deployment to be applied where somebody else owns the number of its replicas."""
        if self._sides.traffic().sends_to(name):
            log.info("the number of replicas is left to %s", owner)
            return {
                **item,
                "spec": {key: value for key, value in item["spec"].items() if key != "replicas"},
            }
        # An autoscaler that has gone over to the other side. Its last number is nobody's wish any more.
        self._delete(name)
        return item

    def switch_traffic(self, name: Track, release: Release) -> None:
        """Has the Service send requests to a side alone, with all around it as the settings say, and waits until every node does.

        Raises:
            RolloutFailed: the Service does not lead to the side's replicas.
        """
        self.supporting_objects.update(name)
        self._until_reached(name, release)

    def restore_traffic(self, before: Snapshot, release: Release) -> None:
        """The same, with all around it as it was before.

        Raises:
            RolloutFailed: the Service does not lead to the side's replicas.
        """
        self.supporting_objects.restore(before.objects, before.track)
        self._until_reached(before.track, release)

    def _until_reached(self, name: Track, release: Release) -> None:
        if not self._wait(
            lambda: self._reached(name, release),
            _REACHED_WITHIN,
            "waiting for the Service to see its replicas",
        ):
            raise RolloutFailed(
                f"the Service did not lead to all replicas of the release, and to them alone, within {progress.format_seconds(_REACHED_WITHIN)}",
                on=f"Service {self._rendering.name}",
                next="`kubectl describe` on it shows where it leads; its selector and port are in the manifests",
            )
        self._clock.sleep(_ROUTES)

    def _reached(self, name: Track, release: Release) -> bool:
        ready = {
            pod.name
            for pod in self._sides.pods(name)
            if pod.ready and pod.image == release.image.digest
        }
        return bool(ready) and self._sides.routed_pods() == ready

    def remove_replicas(self, side: DeploymentState) -> None:
        """Takes a side's replicas away; its Deployment stays with its revisions, unless somebody else owns their number."""
        made = side.applied
        try:
            self._apply({**made, "spec": made.get("spec", {}) | {"replicas": 0}})
        except FieldConflict:
            self._delete(side.track)
        self._wait(
            lambda: not self._sides.pods(side.track),
            self._env.drain_within,
            "waiting for the old replicas to take their leave",
        )

    def _delete(self, name: Track) -> None:
        self._cluster.delete(
            "Deployment", self._rendering.deployment_name(name), require=self._lease.require
        )

    def _deployment(
        self, name: Track, release: Release, count: int, attempt: Attempt | None
    ) -> Object:
        item = self._rendering.deployment(
            release, name, count, attempt, int(self.replica_seconds(release))
        )
        ensure_mapping(item, "metadata", "annotations").update(
            {
                SETTINGS_ANNOTATION: self.settings_hash(release),
                REPLICAS_ANNOTATION: str(self._env.replicas),
            }
        )
        template = item["spec"]["template"]
        ensure_mapping(template, "metadata", "annotations")[TEMPLATE_ANNOTATION] = _short(template)
        return item

    def _wait(self, done: Callable[[], bool], within: float, note: str) -> bool:
        deadline = self._clock.now() + within
        while not done():
            if self._clock.now() >= deadline:
                return False
            progress.report(note)
            self._clock.sleep(_POLL)
        return True


def _says_which_release(path: str) -> bool:
    return path.endswith("].image") or "twinship.dev/" in path or CHANGE_CAUSE in path


def _short(made: object) -> str:
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
