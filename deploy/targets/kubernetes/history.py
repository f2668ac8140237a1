"""An environment's memory on its cluster: a ConfigMap with one entry for each attempt, read by whoever has access.

An entry is a whole rollout, so a write cannot leave half of one. Old entries go when there are too many, or when the object nears
the size that the API server takes (1 MiB); the last one that succeeded never does, for that is what serves.
Beside the entries is the way back from an attempt that has not ended.

Source: the Kubernetes documentation, "ConfigMaps".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.errors import ClusterRefused
from deploy.records import Attempt, Ending, Record, Rollout
from deploy.targets.kubernetes.snapshot import Snapshot

CanaryVerb = Literal["promote", "abort"]
MAX_ENTRIES = 200
MAX_BYTES = 800_000
_TRIES = 10
_DECISION = "decision"
_BEFORE = "before"


class Decision(Record):
    """What somebody wants to become of the canary of an image."""

    image: str
    verb: CanaryVerb
    by: str


class History:
    """The attempts of one environment.

    Args:
        cluster: where it is.
        name: the ConfigMap's.
        labels: put on it when it is made.
    """

    def __init__(self, cluster: Cluster, name: str, labels: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._name = name
        self._labels = labels

    def read(self) -> tuple[Rollout, ...]:
        """All attempts, oldest first; an entry that somebody spoilt is passed over."""
        return self.read_and_check()[0]

    def read_and_check(self) -> tuple[tuple[Rollout, ...], bool]:
        """The same, and whether something is missing: the whole journal, or an entry that cannot be read."""
        data = self._data()
        entries = [Rollout.from_cache(data[key]) for key in _keys(data)]
        return tuple(found for found in entries if found), not entries or None in entries

    def begin(self, attempt: Attempt, *lost: Rollout, before: Snapshot | None = None) -> None:
        """Writes down that an attempt begins; what was decided of an earlier one no longer counts.

        Args:
            attempt: what begins.
            lost: earlier attempts that are known from elsewhere, to be remembered again.
            before: what served until then, to be remembered until the attempt ends; None if nothing did.
        """

        def change(data: dict[str, str]) -> None:
            data.pop(_DECISION, None)
            data.pop(_BEFORE, None)
            data.update({_BEFORE: before.model_dump_json()} if before else {})
            for item in (*lost, Rollout(attempt=attempt, ending=None)):
                data[_key(item.attempt)] = item.model_dump_json()
            _forget(data)

        self._change(change)

    def end(self, attempt: Attempt, ending: Ending) -> None:
        """Writes down how an attempt ended."""

        def change(data: dict[str, str]) -> None:
            data.pop(_BEFORE, None)
            data[_key(attempt)] = Rollout(attempt=attempt, ending=ending).model_dump_json()

        self._change(change)

    def snapshot(self) -> Snapshot | None:
        """What served before the attempt that has not ended; None if there is none, or nothing did."""
        return Snapshot.from_cache(self._data().get(_BEFORE))

    def decide(self, decision: Decision) -> None:
        """Leaves word for the deployer that holds a canary."""
        self._change(lambda data: data.update({_DECISION: decision.model_dump_json()}))

    def decision(self, image: str) -> Decision | None:
        """The word that was left about the canary of an image."""
        found = Decision.from_cache(self._data().get(_DECISION))
        return found if found and found.image == image else None

    def _data(self) -> dict[str, str]:
        return dict((self._cluster.find("ConfigMap", self._name) or {}).get("data") or {})

    def _change(self, change: Callable[[dict[str, str]], None]) -> None:
        for _ in range(_TRIES):
            found = self._cluster.find("ConfigMap", self._name)
            data = dict((found or {}).get("data") or {})
            change(data)
            if (
                self._cluster.replace(self._object(found["metadata"], data))
                if found
                else self._cluster.create(self._object(None, data))
            ):
                return
        raise ClusterRefused(
            "the history could not be written: somebody else keeps changing it",
            on=f"ConfigMap {self._name}",
            next="find out who writes it, then run again",
        )

    def _object(self, metadata: Object | None, data: dict[str, str]) -> Object:
        made = {"name": self._name, "labels": dict(self._labels)}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata or made, "data": data}


def _key(attempt: Attempt) -> str:
    return f"{attempt.id:06}"


def _keys(data: Iterable[str]) -> list[str]:
    """The keys of entries, oldest first."""
    return sorted((key for key in data if key.isdecimal()), key=int)


def _forget(data: dict[str, str]) -> None:
    """Removes the oldest entries, as many as there are too many."""
    *old, _ = _keys(data)
    serving = next(
        (
            key
            for key in reversed(old)
            if (found := Rollout.from_cache(data[key])) and found.succeeded
        ),
        "",
    )
    for key in old:
        few = len(_keys(data)) <= MAX_ENTRIES
        small = sum(len(text.encode()) for text in data.values()) <= MAX_BYTES
        if key != serving and not (few and small):
            del data[key]
