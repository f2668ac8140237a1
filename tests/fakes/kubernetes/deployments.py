"""The Deployment controller of a cluster in memory, with a ReplicaSet for each template."""

from __future__ import annotations

import math

from deploy.clients.kubernetes.protocol import Object
from tests.fakes.kubernetes.controllers import template_hash
from tests.fakes.kubernetes.objects import Objects, deep_copy

HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MOST = "deployment.kubernetes.io/max-replicas"
NOT_COPIED = frozenset(
    {REVISION, HISTORY, DESIRED, MOST, "kubectl.kubernetes.io/last-applied-configuration"}
)


class Deployments:
    """A controller of Deployments."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    def step(self) -> None:
        """Scale the new ReplicaSet up or the old ones down, and update the status."""
        for item in self.objects.find_all("Deployment"):
            sets = self.objects.owned_by("ReplicaSet", item)
            if any(
                _annotations(one).get(DESIRED) != str(item["spec"]["replicas"])
                for one in sets
                if one["spec"]["replicas"]
            ):
                self._scale_proportionally(item, sets)
                self._update_status(item, _newest(item, sets), sets, fresh=False)
                continue
            found = _newest(item, sets)
            new = found or self._create(item, sets)
            old = [one for one in sets if one is not new]
            if found:
                self._update_revision(item, new, old)
            self._roll(item, new, old)
            self._update_status(item, new, [*old, new], fresh=not found)
            self._remove_old_sets(item, old)

    def _create(self, item: Object, sets: list[Object]) -> Object:
        """Create the ReplicaSet of a new template."""
        template = deep_copy(item["spec"]["template"])
        selector = deep_copy(item["spec"]["selector"])
        mark = template_hash(template)
        template["metadata"]["labels"][HASH] = selector.setdefault("matchLabels", {})[HASH] = mark
        spec = {
            "replicas": 0,
            "selector": selector,
            "template": template,
            "minReadySeconds": item["spec"].get("minReadySeconds", 0),
        }
        revision = str(1 + max(map(_revision, sets), default=0))
        notes = {REVISION: revision, **_copied(item), **_sizes(item)}
        body = {"spec": spec, "status": {"replicas": 0}}
        name = f"{item['metadata']['name']}-{mark}"
        labels = dict(template["metadata"]["labels"])
        self._annotate(item, {REVISION: revision})
        return self.objects.make("ReplicaSet", name, item, body, labels=labels, annotations=notes)

    def _update_revision(self, item: Object, new: Object, old: list[Object]) -> None:
        """Give the present ReplicaSet the highest revision and the Deployment's annotations."""
        revision = 1 + max(map(_revision, old), default=0)
        notes = _copied(item)
        if _revision(new) < revision:
            past = [
                *filter(None, _annotations(new).get(HISTORY, "").split(",")),
                _annotations(new)[REVISION],
            ]
            notes |= {REVISION: str(revision), HISTORY: ",".join(past)}
        self._annotate(new, notes)
        self._annotate(item, {REVISION: _annotations(new)[REVISION]})

    def _annotate(self, item: Object, notes: dict[str, str]) -> None:
        present = item["metadata"].setdefault("annotations", {})
        if not notes.items() <= present.items():
            present |= notes
            self.objects.touch(item)

    # --- from one to the next

    def _roll(self, item: Object, new: Object, old: list[Object]) -> None:
        count = item["spec"]["replicas"]
        surge, away = _bounds(item)
        if item["spec"]["strategy"]["type"] == "Recreate":
            for one in old:
                self._scale(item, one, 0)
            if not any(self.objects.owned_by("Pod", one) for one in old):
                self._scale(item, new, count)
        elif new["spec"]["replicas"] > count:
            self._scale(item, new, count)
        elif room := max(
            0, min(count + surge - _wanted([new, *old]), count - new["spec"]["replicas"])
        ):
            self._scale(item, new, new["spec"]["replicas"] + room)
        else:
            self._shrink(item, new, old, count - away)

    def _shrink(self, item: Object, new: Object, old: list[Object], least: int) -> None:
        """Remove old pods: first unavailable ones, then as many as the new ones replace."""
        spare = max(
            0,
            _wanted([new, *old])
            - least
            - (new["spec"]["replicas"] - _total([new], "availableReplicas")),
        )
        for one in old:
            broken = min(
                spare, max(0, one["spec"]["replicas"] - _total([one], "availableReplicas"))
            )
            self._scale(item, one, one["spec"]["replicas"] - broken)
            spare -= broken
        spare = max(0, _total([new, *old], "availableReplicas") - least)
        for one in old:
            fewer = min(spare, one["spec"]["replicas"])
            self._scale(item, one, one["spec"]["replicas"] - fewer)
            spare -= fewer

    def _scale_proportionally(self, item: Object, sets: list[Object]) -> None:
        """Scale the active ReplicaSets in proportion to another number of replicas."""
        active = [one for one in sets if one["spec"]["replicas"]]
        count = item["spec"]["replicas"]
        most = count + _bounds(item)[0] if count and len(active) > 1 else count
        left = most - _wanted(active)
        for one in sorted(active, key=lambda one: -int(one["spec"]["replicas"])):
            before = one["spec"]["replicas"]
            part = (
                round(before * most / int(_annotations(one)[MOST])) - before
                if len(active) > 1
                else left
            )
            part = max(min(part, left), 0) if left > 0 else min(max(part, left), 0)
            left -= part
            self._scale(item, one, max(0, before + part))
            self._annotate(one, _sizes(item))
        if active and left:
            self._scale(item, active[0], max(0, active[0]["spec"]["replicas"] + left))

    def _scale(self, item: Object, one: Object, count: int) -> None:
        direction = "up" if count > one["spec"]["replicas"] else "down"
        if self.objects.change(one, "spec", {**one["spec"], "replicas": count}):
            self._annotate(one, _sizes(item))
            self.objects.event(
                item,
                "ScalingReplicaSet",
                f"Scaled {direction} replica set {one['metadata']['name']} to {count}",
            )

    # --- the status

    def _update_status(
        self, item: Object, new: Object | None, sets: list[Object], *, fresh: bool
    ) -> None:
        counts = {
            name: _total(sets, name) for name in ("replicas", "readyReplicas", "availableReplicas")
        }
        counts["updatedReplicas"] = _total([new], "replicas") if new else 0
        counts["unavailableReplicas"] = max(
            0, max(_wanted(sets), counts["replicas"]) - counts["availableReplicas"]
        )
        known = {one["type"]: one for one in item.get("status", {}).get("conditions", ())}
        conditions = [self._available(item, counts, known.get("Available")), *_refused(sets)]
        progress = self._progress(item, new, counts, known.get("Progressing"), fresh=fresh)
        status = {
            "observedGeneration": item["metadata"]["generation"],
            **{key: value for key, value in counts.items() if value},
        }
        self.objects.change(
            item,
            "status",
            {**status, "conditions": [*conditions, *([progress] if progress else [])]},
        )

    def _available(self, item: Object, counts: dict[str, int], old: Object | None) -> Object:
        enough = counts["availableReplicas"] >= item["spec"]["replicas"] - _bounds(item)[1]
        message = f"Deployment {'has' if enough else 'does not have'} minimum availability."
        return self._said(
            "Available",
            old,
            f"MinimumReplicas{'Available' if enough else 'Unavailable'}",
            message,
            value=enough,
        )

    def _progress(
        self,
        item: Object,
        new: Object | None,
        counts: dict[str, int],
        old: Object | None,
        *,
        fresh: bool,
    ) -> Object | None:
        """Return the condition of progress: under way, complete, or past the deadline.

        The old condition stays until something moves, also after a return to an old template.
        """
        name = (new or item)["metadata"]["name"]
        if fresh:
            old = self._said(
                "Progressing", None, "NewReplicaSetCreated", f'Created new replica set "{name}"'
            )
        elif new and old is None:
            old = self._said(
                "Progressing", None, "FoundNewReplicaSet", f'Found new replica set "{name}"'
            )
        if old is None or (
            counts["replicas"] == counts["updatedReplicas"]
            and old["reason"] == "NewReplicaSetAvailable"
        ):
            return old
        if all(
            counts[name] == item["spec"]["replicas"]
            for name in ("updatedReplicas", "replicas", "availableReplicas")
        ):
            return self._said(
                "Progressing",
                old,
                "NewReplicaSetAvailable",
                f'ReplicaSet "{name}" has successfully progressed.',
            )
        if _has_progressed(item.get("status", {}), counts):
            said = self._said(
                "Progressing", old, "ReplicaSetUpdated", f'ReplicaSet "{name}" is progressing.'
            )
            return {**said, "lastUpdateTime": self.objects.time}
        late = self.objects.since(old["lastUpdateTime"]) > item["spec"]["progressDeadlineSeconds"]
        if late and old["reason"] != "NewReplicaSetAvailable":
            message = f'ReplicaSet "{name}" has timed out progressing.'
            return self._said("Progressing", old, "ProgressDeadlineExceeded", message, value=False)
        return old

    def _said(
        self, kind: str, old: Object | None, reason: str, message: str, *, value: bool = True
    ) -> Object:
        """Return a condition, with the times of the old one if it is unchanged."""
        now = self.objects.time
        condition = {"type": kind, "status": str(value), "reason": reason, "message": message}
        if old is None or old["status"] != condition["status"]:
            return {**condition, "lastUpdateTime": now, "lastTransitionTime": now}
        updated = old["lastUpdateTime"] if old["reason"] == reason else now
        return {
            **condition,
            "lastUpdateTime": updated,
            "lastTransitionTime": old["lastTransitionTime"],
        }

    def _remove_old_sets(self, item: Object, old: list[Object]) -> None:
        """Remove the oldest ReplicaSets after a rollout, except for the number to keep."""
        over = any(
            one["reason"] == "NewReplicaSetAvailable" for one in item["status"]["conditions"]
        )
        idle = [
            one
            for one in sorted(old, key=_revision)
            if not one["spec"]["replicas"] and not _total([one], "replicas")
        ]
        for one in idle[: max(0, len(idle) - item["spec"]["revisionHistoryLimit"])] if over else ():
            self.objects.remove(one)


def _total(sets: list[Object], field: str) -> int:
    return sum(item.get("status", {}).get(field, 0) for item in sets)


def _wanted(sets: list[Object]) -> int:
    return sum(item["spec"]["replicas"] for item in sets)


def _annotations(item: Object) -> dict[str, str]:
    found: dict[str, str] = item["metadata"].get("annotations", {})
    return found


def _revision(item: Object) -> int:
    return int(_annotations(item).get(REVISION, 0))


def _copied(item: Object) -> dict[str, str]:
    return {key: value for key, value in _annotations(item).items() if key not in NOT_COPIED}


def _newest(item: Object, sets: list[Object]) -> Object | None:
    """The ReplicaSet of the present template."""
    mark = template_hash(item["spec"]["template"])
    return next((one for one in sets if one["metadata"]["labels"][HASH] == mark), None)


def _bounds(item: Object) -> tuple[int, int]:
    """Return how many pods may be too many, and how many too few."""
    count = item["spec"]["replicas"]
    rolling = item["spec"]["strategy"].get("rollingUpdate", {})
    surge = _part(rolling.get("maxSurge", 0), count, up=True)
    away = _part(rolling.get("maxUnavailable", 0), count, up=False)
    return (surge, away) if surge or away else (0, 1)


def _part(value: int | str, of: int, *, up: bool) -> int:
    """Return a number that may be given in percent."""
    if isinstance(value, int):
        return value
    exact = of * int(value.removesuffix("%")) / 100
    return math.ceil(exact) if up else math.floor(exact)


def _sizes(item: Object) -> dict[str, str]:
    count = item["spec"]["replicas"]
    return {DESIRED: str(count), MOST: str(count + _bounds(item)[0])}


def _refused(sets: list[Object]) -> list[Object]:
    """Return the conditions of ReplicaSets that may not create pods."""
    found = [
        one
        for item in sets
        for one in item.get("status", {}).get("conditions", ())
        if one["type"] == "ReplicaFailure"
    ]
    return [{**one, "lastUpdateTime": one["lastTransitionTime"]} for one in found[:1]]


def _has_progressed(before: Object, now: dict[str, int]) -> bool:
    """Return whether there are more new pods, fewer old ones, or more available ones."""
    fewer_old = now["replicas"] - now["updatedReplicas"] < before.get("replicas", 0) - before.get(
        "updatedReplicas", 0
    )
    return fewer_old or any(
        now[name] > before.get(name, 0)
        for name in ("updatedReplicas", "readyReplicas", "availableReplicas")
    )
