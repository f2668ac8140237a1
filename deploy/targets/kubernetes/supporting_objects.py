"""The objects of an environment that are not its replicas: account, Service, Ingress and so on.

Objects that exist already answer requests. So they change with the switch of the traffic and not
before, and those that the settings no longer need are removed when the release is proven.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType

from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.errors import ClusterRefused
from deploy.targets.kubernetes.compatibility import Compatibility
from deploy.targets.kubernetes.lock import Lock
from deploy.targets.kubernetes.ownership import applied_fields
from deploy.targets.kubernetes.render import (
    MANAGED_BY_LABEL,
    MANAGER,
    TRACK_LABEL,
    TRACKS,
    Rendering,
    Track,
)
from deploy.targets.kubernetes.snapshot import SNAPSHOT_KINDS
from deploy.targets.kubernetes.state import TrafficSplit

log = logging.getLogger(__name__)


class SupportingObjects:
    """A writer of the objects of one environment that are not its replicas.

    Args:
        cluster: the namespace of the environment.
        rendering: what renders the objects.
        compatibility: what the cluster knows of an object.
        lock: the lock that each write requires.
    """

    def __init__(
        self, cluster: Cluster, rendering: Rendering, compatibility: Compatibility, lock: Lock
    ) -> None:
        self._cluster = cluster
        self._rendering = rendering
        self._compatibility = compatibility
        self._name = rendering.name
        self._lock = lock
        self._unserved_kinds: set[str] = set()

    def require_ownership(self) -> None:
        """Check that no other environment has objects of the same names.

        The API server cannot tell the environments `a-b` in `c` and `a` in `b-c` apart: both apply
        the same objects as the same manager.

        Raises:
            ClusterRefused: another application, or another environment of this one, has them.
        """
        deployments = (("Deployment", self._rendering.deployment_name(track)) for track in TRACKS)
        for kind, name in (("Service", self._name), *deployments):
            found = self._cluster.find(kind, name)
            labels = (found or {}).get("metadata", {}).get("labels") or {}
            if _is_ours(found) and not self._rendering.labels.items() <= labels.items():
                app, environment = (labels.get(key, "?") for key in self._rendering.labels)
                raise ClusterRefused(
                    f"this name is taken by environment {environment} of application {app}",
                    on=f"{kind} {name}",
                    next="rename the application or the environment, or give the environment "
                    "another namespace; nothing was changed",
                )

    def remove_prepull(self) -> None:
        """Remove the pre-pull of a deployer that was killed."""
        self._remove("DaemonSet", self._rendering.prepull_name)

    # --- forward

    def create_missing(self, traffic: TrafficSplit) -> None:
        """Apply the account, which new replicas need, and create the objects that do not exist."""
        self._apply(self._rendering.service_account())
        for kind, item in self._wanted(traffic.track).items():
            if item and not self._cluster.find(kind, self._name):
                self._apply_if_served(item)

    def point_service(
        self, traffic: TrafficSplit, restoring: Mapping[str, Object] = MappingProxyType({})
    ) -> None:
        """Let the Service send requests to a track or to both, and change nothing else of it.

        Its selector keeps only the labels that the present and the final Service have in common,
        because during the change some replicas carry no others.

        Args:
            traffic: the tracks that are to get requests.
            restoring: the objects of a snapshot that is about to be restored, if so.
        """
        now = self._applied("Service")
        final = self._restored_service(restoring, traffic.track)
        item = (
            _select_track(now, traffic, final)
            if "spec" in now
            else self._rendering.service(traffic.track, both=traffic.both)
        )
        if item != now:
            self._apply(item)

    def update(self, track: Track) -> None:
        """Apply all objects as settings and templates say, with a track that serves alone."""
        for item in (*self._wanted(track).values(), self._rendering.disruption_budget()):
            if item:
                self._apply_if_served(item)

    def has_unused_autoscaler(self) -> bool:
        """Return whether there is an autoscaler which the settings no longer need."""
        unused = self._rendering.env.autoscale is None
        return unused and _is_ours(self._cluster.find("HorizontalPodAutoscaler", self._name))

    def remove_unused(self) -> None:
        """Remove the objects that the settings no longer need."""
        for kind, item in self._wanted(TRACKS[0]).items():
            if item is None:
                self._remove(kind, self._name)

    # --- back

    def snapshot(self) -> dict[str, Object]:
        """Return the applied fields of each object that a release may change or remove, by kind."""
        return {kind: item for kind in SNAPSHOT_KINDS if (item := self._applied(kind))}

    def restore(self, snapshot: Mapping[str, Object], track: Track) -> None:
        """Restore the objects of a snapshot, with a track that serves alone; remove new ones."""
        objects = {**snapshot, "Service": self._restored_service(snapshot, track)}
        for kind in SNAPSHOT_KINDS:
            if kind not in objects:
                self._remove(kind, self._name)
            elif objects[kind] != self._applied(kind):
                # An unchanged object is not written: admission may refuse now what it took before.
                self._apply(objects[kind])

    def _restored_service(self, snapshot: Mapping[str, Object], track: Track) -> Object:
        service = snapshot.get("Service", {})
        return (
            _select_track(service, TrafficSplit(track), service)
            if "spec" in service
            else self._rendering.service(track, both=False)
        )

    # --- one object

    def _wanted(self, track: Track) -> dict[str, Object | None]:
        """Return the objects of the snapshot's kinds that the settings need; None if not needed."""
        return {
            "Service": self._rendering.service(track, both=False),
            "Ingress": self._rendering.ingress(),
            "HorizontalPodAutoscaler": self._rendering.autoscaler(track),
        }

    def _applied(self, kind: str) -> Object:
        """Return the fields that we applied of an object; empty if it does not exist."""
        found = self._cluster.find(kind, self._name)
        return applied_fields(found) if found else {}

    def _apply_if_served(self, item: Object) -> None:
        kind = item["kind"]
        if self._cluster.serves(kind):
            self._apply(self._compatibility.fit(item))
        elif kind not in self._unserved_kinds:
            log.info(
                "left out: %s, which this cluster does not serve in the version of the template",
                kind,
            )
            self._unserved_kinds.add(kind)

    def _apply(self, item: Object) -> None:
        self._cluster.apply(item, require=self._lock.require)

    def _remove(self, kind: str, name: str) -> None:
        if _is_ours(self._cluster.find(kind, name)):
            self._cluster.delete(kind, name, require=self._lock.require)


def _select_track(item: Object, traffic: TrafficSplit, final: Object) -> Object:
    """Return a Service that selects a track, or both, by the labels it shares with another."""
    wanted = final["spec"].get("selector", {})
    selector = {
        key: value
        for key, value in item["spec"].get("selector", wanted).items()
        if wanted.get(key) == value and key != TRACK_LABEL
    }
    if not traffic.both:
        selector[TRACK_LABEL] = traffic.track
    annotations = {**item["metadata"].get("annotations", {}), TRACK_LABEL: traffic.track}
    return {
        **item,
        "metadata": {**item["metadata"], "annotations": annotations},
        "spec": {**item["spec"], "selector": selector},
    }


def _is_ours(found: Object | None) -> bool:
    """Return whether a release created an object; one that a person created must stay."""
    if found is None:
        return False
    return (found["metadata"].get("labels") or {}).get(MANAGED_BY_LABEL) == MANAGER
