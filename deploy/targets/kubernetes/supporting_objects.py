"""What stands around the replicas of an environment: their account, the Service, and all that the settings ask for beside them.

What there is already answers requests. So it changes with the switch and not before, and what has to go goes when all is proven.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType

from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.errors import ClusterRefused
from deploy.targets.kubernetes.lock import Lock
from deploy.targets.kubernetes.ownership import applied_fields
from deploy.targets.kubernetes.render import MANAGED_BY_LABEL, TRACK_LABEL, TRACKS, Rendering, Track
from deploy.targets.kubernetes.state import TrafficSplit

log = logging.getLogger(__name__)

_OPTIONAL = ("Ingress", "HorizontalPodAutoscaler")
_KEPT = ("Service", *_OPTIONAL)


class SupportingObjects:
    """Writes the objects of one environment that are not its replicas.

    Args:
        cluster: where they are.
        rendering: makes them.
        lease: must be held.
    """

    def __init__(self, cluster: Cluster, rendering: Rendering, lease: Lock) -> None:
        self._cluster = cluster
        self._rendering = rendering
        self._name = rendering.name
        self._lease = lease
        self._left_out: set[str] = set()

    def require_ownership(self) -> None:
        """Nothing is taken from `a-b` in `c` by `a` in `b-c`: to the API server both are the same owner of the same fields.

        Raises:
            ClusterRefused: another application, or another environment of this one, has objects of the same names.
        """
        deployments = (("Deployment", self._rendering.deployment_name(name)) for name in TRACKS)
        for kind, name in (("Service", self._name), *deployments):
            found = self._cluster.find(kind, name)
            labels = (found or {}).get("metadata", {}).get("labels") or {}
            if _is_ours(found) and not self._rendering.labels.items() <= labels.items():
                app, environment = (labels.get(key, "?") for key in self._rendering.labels)
                raise ClusterRefused(
                    f"this name is taken by environment {environment} of application {app}",
                    on=f"{kind} {name}",
                    next="rename the application or the environment, or give the environment another namespace; nothing was changed",
                )

    def remove_prepull(self) -> None:
        """Removes the warm-up of a deployer that was killed meanwhile."""
        self._remove("DaemonSet", self._rendering.prepull_name)

    # --- forward

    def create_missing(self, serving: TrafficSplit) -> None:
        """Makes sure of the account, which new replicas need, and makes what is not there yet."""
        self._apply(self._rendering.service_account())
        for kind, item in self._wanted(serving.track).items():
            if item and not self._cluster.find(kind, self._name):
                self._ensure(item)

    def point_service(
        self, serving: TrafficSplit, towards: Mapping[str, Object] = MappingProxyType({})
    ) -> None:
        """Has the Service send requests there, and changes nothing else of it.

        Replicas are found by the labels that it has in common with the Service that there shall be in the end:
        while the one takes over from the other, there are replicas that carry no more than these.

        Args:
            serving: a side, or both.
            towards: what is about to be put back, if that is where this leads.
        """
        now = self._applied("Service")
        wanted = self._service_as(towards, serving.track)
        item = (
            _led(now, serving, wanted)
            if "spec" in now
            else self._rendering.service(serving.track, both=serving.both)
        )
        if item != now:
            self._apply(item)

    def update(self, name: Track) -> None:
        """Makes them all as the settings and manifests say, with a side that serves alone."""
        for item in (*self._wanted(name).values(), self._rendering.disruption_budget()):
            if item:
                self._ensure(item)

    def remove_unused(self) -> None:
        """Removes what the settings no longer ask for."""
        for kind, item in self._wanted(TRACKS[0]).items():
            if item is None:
                self._remove(kind, self._name)

    # --- back

    def snapshot(self) -> dict[str, Object]:
        """What we applied of those that a release may change or remove, by kind; nothing for one that is not there."""
        return {kind: item for kind in _KEPT if (item := self._applied(kind))}

    def restore(self, kept: Mapping[str, Object], name: Track) -> None:
        """Makes them what they were, with a side that serves alone; what was not there goes."""
        back = {**kept, "Service": self._service_as(kept, name)}
        for kind in _KEPT:
            if kind not in back:
                self._remove(kind, self._name)
            elif back[kind] != self._applied(kind):
                # What admission would not have again may well be what nobody has touched.
                self._apply(back[kind])

    def _service_as(self, kept: Mapping[str, Object], name: Track) -> Object:
        was = kept.get("Service", {})
        return (
            _led(was, TrafficSplit(name), was)
            if "spec" in was
            else self._rendering.service(name, both=False)
        )

    # --- one of them

    def _wanted(self, name: Track) -> dict[str, Object | None]:
        """What the settings ask for, by kind, of those that a release may change or remove."""
        rendering = self._rendering
        return dict(
            zip(
                _KEPT,
                (
                    rendering.service(name, both=False),
                    rendering.ingress(),
                    rendering.autoscaler(name),
                ),
                strict=True,
            )
        )

    def _applied(self, kind: str) -> Object:
        """What we applied of one; empty if it is not there."""
        found = self._cluster.find(kind, self._name)
        return applied_fields(found) if found else {}

    def _ensure(self, item: Object) -> None:
        kind = item["kind"]
        if self._cluster.serves(kind):
            self._apply(item)
        elif kind not in self._left_out:
            log.info(
                "left out: %s, which this cluster does not serve in the version of the manifest",
                kind,
            )
            self._left_out.add(kind)

    def _apply(self, item: Object) -> None:
        self._cluster.apply(item, require=self._lease.require)

    def _remove(self, kind: str, name: str) -> None:
        if _is_ours(self._cluster.find(kind, name)):
            self._cluster.delete(kind, name, require=self._lease.require)


def _led(item: Object, serving: TrafficSplit, wanted: Object) -> Object:
    """A Service that leads to a side, or to both, by the labels that it has in common with the one that there shall be."""
    shall = wanted["spec"].get("selector", {})
    selector = {
        key: value
        for key, value in item["spec"].get("selector", shall).items()
        if shall.get(key) == value and key != TRACK_LABEL
    }
    selector |= {} if serving.both else {TRACK_LABEL: serving.track}
    notes = {**item["metadata"].get("annotations", {}), TRACK_LABEL: serving.track}
    return {
        **item,
        "metadata": {**item["metadata"], "annotations": notes},
        "spec": {**item["spec"], "selector": selector},
    }


def _is_ours(found: Object | None) -> bool:
    """Whether a release made an object; one of the same name that a person made stays."""
    return (
        found is not None
        and (found["metadata"].get("labels") or {}).get(MANAGED_BY_LABEL) == "twinship"
    )
