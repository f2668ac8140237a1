"""What a deployer changes on a cluster: nothing without the lease, and nothing that somebody else owns is taken from them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable

from deploy import progress
from deploy.clients.cluster import Cluster, Object
from deploy.errors import ClusterRefused, FieldConflict, RolloutFailed
from deploy.records import Attempt, Release
from deploy.render import CAUSE, MANAGED_BY, SIDES, Rendering
from deploy.render import Side as Name
from deploy.targets.clock import REAL, Clock
from deploy.targets.lease import Lease
from deploy.targets.pods import TEMPLATE, Pod
from deploy.targets.sides import SETTINGS, WANTED, Serving, Side, Sides
from deploy.targets.watch import Wanted, Watch
from deploy.templates import at

log = logging.getLogger(__name__)

_POLL = 0.25
_SCHEDULING = 30.0
_REACHED_WITHIN = 30.0
# Nodes rewrite their routes at most once a second, and cannot be asked whether they have.
_ROUTES = 2.0
_REPLICAS = "spec.replicas"


class Changes:
    """Writes the objects of one environment.

    Args:
        cluster: where they are.
        rendering: makes them.
        sides: reads them.
        lease: must be held.
        size: tells the bytes of a release's image.
        clock: tells the time.

    Attributes:
        attempt: what the next changes are part of, for the cluster's memory.
        times: of the present attempt: for each pod, how many seconds after its rollout began it was first seen in each stage.
    """

    def __init__(
        self,
        cluster: Cluster,
        rendering: Rendering,
        sides: Sides,
        lease: Lease,
        size: Callable[[Release], int],
        clock: Clock = REAL,
    ) -> None:
        self._cluster, self._rendering, self._env, self._sides, self._lease = cluster, rendering, rendering.env, sides, lease
        self._size, self._clock = size, clock
        self._left_out: set[str] = set()
        self.attempt: Attempt | None = None
        self.times: dict[str, dict[str, float]] = {}

    # --- all that is not a replica

    def surround(self, serving: Serving) -> None:
        """Makes sure of the account, the Service and all that the settings ask for beside them; what they no longer do goes.

        Raises:
            ClusterRefused: another application, or another environment of this one, has objects of the same names.
        """
        self._require_own()
        self._apply(self._rendering.account())
        self.point(serving)
        self._ensure("Ingress", self._rendering.name, self._rendering.ingress())
        self._ensure("PodDisruptionBudget", self._rendering.name, self._rendering.disruption())
        self._ensure("HorizontalPodAutoscaler", self._rendering.name, self._rendering.autoscaler(serving.side))
        # What a deployer left that was killed while it warmed up.
        self._ensure("DaemonSet", self._rendering.warm_up_name, None)
        count = self.count()
        if not self._env.autoscale and count != self._env.replicas:
            log.info("replicas stay at %d, as somebody chose; the settings say %d", count, self._env.replicas)

    def _require_own(self) -> None:
        """Nothing is taken from `a-b` in `c` by `a` in `b-c`: to the API server both are the same owner of the same fields."""
        deployments = (("Deployment", self._rendering.named(name)) for name in SIDES)
        for kind, name in (("Service", self._rendering.name), *deployments):
            found = self._cluster.find(kind, name)
            labels = (found or {}).get("metadata", {}).get("labels") or {}
            if _is_ours(found) and not self._rendering.labels.items() <= labels.items():
                app, environment = (labels.get(key, "?") for key in self._rendering.labels)
                raise ClusterRefused(
                    f"this name is taken by environment {environment} of application {app}",
                    on=f"{kind} {name}",
                    next="rename the application or the environment, or give the environment another namespace; nothing was changed",
                )

    def point(self, serving: Serving) -> None:
        """Has the Service send requests there."""
        self._apply(self._rendering.service(serving.side, both=serving.both))

    def _ensure(self, kind: str, name: str, item: Object | None) -> None:
        if not self._cluster.serves(kind):
            if item and kind not in self._left_out:
                log.info("left out: %s, which this cluster does not serve in the version of the manifest", kind)
            self._left_out.add(kind)
        elif item:
            self._apply(item)
        elif _is_ours(self._cluster.find(kind, name)):
            self._lease.require()
            self._cluster.delete(kind, name)

    def _apply(self, item: Object) -> None:
        self._lease.require()
        self._cluster.apply(item)

    # --- replicas

    def count(self) -> int:
        """How many replicas shall serve: as the settings say, unless an autoscaler or a person decides."""
        now = self._sides.side(self._sides.serving().side)
        if now is None or not now.replicas:
            return self._env.replicas
        if self._env.autoscale:
            return max(self._env.replicas, min(now.replicas, self._env.autoscale.at_most))
        return self._env.replicas if now.replicas_are_ours else now.replicas

    def settings(self, release: Release) -> str:
        """What a release is rendered to, in short, whoever asked for it and whichever side it is on."""
        rendering, first = self._rendering, SIDES[0]
        made = [
            rendering.deployment(release, first, self._env.replicas, None, 0),
            rendering.service(first, both=False),
            rendering.ingress(),
            rendering.autoscaler(first),
            rendering.disruption(),
            rendering.account(),
        ]
        return _short(made)

    def rendered(self, name: Name, release: Release, attempt: Attempt | None) -> list[Object]:
        """All objects of an environment that serves a release from a side, in the order in which they are applied.

        The number of replicas is that of the settings, whoever has chosen another one: so it can be taken back from them.
        """
        rendering, service = self._rendering, self._rendering.service(name, both=False)
        rest = (rendering.ingress(), rendering.disruption(), rendering.autoscaler(name))
        count = self.count() if self._env.autoscale else self._env.replicas
        made = (rendering.account(), service, *rest, self._deployment(name, release, count, attempt))
        return [item for item in made if item]

    def within(self, release: Release) -> float:
        """Seconds that one replica may take: to find a node, to pull its image, to become ready."""
        return _SCHEDULING + self._size(release) / self._env.pull_rate + self._env.ready_within

    def roll(self, name: Name, release: Release, count: int) -> list[Pod]:
        """Brings a side to that many replicas of a release, and waits until all are ready.

        Raises:
            RolloutFailed: one cannot become ready, or did not in time.
            FieldConflict: somebody else owns what a manifest sets.
        """
        return self._brought(name, self._deployment(name, release, count, self.attempt), release)

    def restore(self, side: Side, release: Release) -> list[Pod]:
        """Brings a side back to what it was, whatever settings and manifests say by now, and waits until all replicas are ready.

        Raises:
            RolloutFailed: one cannot become ready any more, or did not in time.
            FieldConflict: somebody else owns what was set.
        """
        return self._brought(side.name, side.applied, release)

    def _brought(self, name: Name, item: Object, release: Release) -> list[Pod]:
        self._put(name, item)
        wanted = Wanted(
            deployment=self._rendering.named(name),
            labels=self._sides.labels(name),
            template=item["spec"]["template"]["metadata"].get("annotations", {}).get(TEMPLATE, ""),
            size=self._size(release),
            ready_within=self._env.ready_within,
            within=self.within(release),
        )
        watch = Watch(self._cluster, wanted, self._clock)
        try:
            return watch.until_ready(self._lease.require)
        finally:
            # A replica that was seen by an earlier watch has its times from there.
            self.times = watch.times | self.times

    def _put(self, name: Name, item: Object) -> None:
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
            self._lease.require()
            self._cluster.apply(item, force=bool(taken))

    def _left_to(self, owner: str, name: Name, item: Object) -> Object:
        """A Deployment to be applied where somebody else owns the number of its replicas."""
        if self._sides.serving().sends_to(name):
            log.info("the number of replicas is left to %s", owner)
            return {**item, "spec": {key: value for key, value in item["spec"].items() if key != "replicas"}}
        # An autoscaler that has gone over to the other side. Its last number is nobody's wish any more.
        self._delete(name)
        return item

    def switch(self, name: Name, release: Release) -> None:
        """Has the Service send requests to a side alone, and waits until every node does.

        Raises:
            RolloutFailed: the Service does not lead to the side's replicas.
        """
        self.point(Serving(name))
        self._ensure("HorizontalPodAutoscaler", self._rendering.name, self._rendering.autoscaler(name))
        if not self._wait(lambda: self._reached(name, release), _REACHED_WITHIN, "waiting for the Service to see its replicas"):
            raise RolloutFailed(
                f"the Service did not lead to all replicas of the release, and to them alone, within {progress.seconds(_REACHED_WITHIN)}",
                on=f"Service {self._rendering.name}",
                next="`kubectl describe` on it shows where it leads; its selector and port are in the manifests",
            )
        self._clock.sleep(_ROUTES)

    def _reached(self, name: Name, release: Release) -> bool:
        ready = {pod.name for pod in self._sides.pods(name) if pod.ready and pod.image == release.image.digest}
        return bool(ready) and self._sides.reached() == ready

    def empty(self, side: Side) -> None:
        """Takes a side's replicas away; its Deployment stays with its revisions, unless somebody else owns their number."""
        made = side.applied
        try:
            self._apply({**made, "spec": made.get("spec", {}) | {"replicas": 0}})
        except FieldConflict:
            self._delete(side.name)
        self._wait(lambda: not self._sides.pods(side.name), self._env.drain_within, "waiting for the old replicas to take their leave")

    def _delete(self, name: Name) -> None:
        self._lease.require()
        self._cluster.delete("Deployment", self._rendering.named(name))

    def _deployment(self, name: Name, release: Release, count: int, attempt: Attempt | None) -> Object:
        item = self._rendering.deployment(release, name, count, attempt, int(self.within(release)))
        at(item, "metadata", "annotations").update({SETTINGS: self.settings(release), WANTED: str(self._env.replicas)})
        template = item["spec"]["template"]
        at(template, "metadata", "annotations")[TEMPLATE] = _short(template)
        return item

    def _wait(self, done: Callable[[], bool], within: float, note: str) -> bool:
        deadline = self._clock.now() + within
        while not done():
            if self._clock.now() >= deadline:
                return False
            progress.note(note)
            self._clock.sleep(_POLL)
        return True


def _says_which_release(path: str) -> bool:
    return path.endswith("].image") or "twinship.dev/" in path or CAUSE in path


def _short(made: object) -> str:
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]


def _is_ours(found: Object | None) -> bool:
    """Whether a release made an object; one of the same name that a person made stays."""
    return found is not None and (found["metadata"].get("labels") or {}).get(MANAGED_BY) == "twinship"
