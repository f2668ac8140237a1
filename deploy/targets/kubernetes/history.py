"""The history of an environment on its cluster: a ConfigMap with one entry for each attempt.

An entry is a whole rollout, so a write cannot leave half of one. When the object comes near the
size limit of the API server (1 MiB), the evidence of the oldest failures goes first, and then the
oldest entries; they also go when there are too many.
The last successful one is never removed, because it is what serves. The ConfigMap also has the
snapshot of an attempt that has not ended, and the variables of each attempt, without its secrets.

Source: the Kubernetes documentation, "ConfigMaps".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.errors import ClusterRefused
from deploy.records import Attempt, Ending, Record, Rollout
from deploy.rollout.target import CanaryVerb
from deploy.targets.kubernetes.pod_variables import PodVariables
from deploy.targets.kubernetes.snapshot import Snapshot

MAX_ENTRIES = 200
MAX_BYTES = 800_000
WRITE_TRIES = 10
_DECISION_KEY = "decision"
_SNAPSHOT_KEY = "before"
_VARIABLES = "env-"


class Decision(Record):
    """A person's decision about the canary of an image."""

    image: str
    verb: CanaryVerb
    by: str


class History:
    """The attempts of one environment.

    Args:
        cluster: the namespace of the environment.
        name: the name of the ConfigMap.
        labels: the labels of a ConfigMap that is created.
    """

    def __init__(self, cluster: Cluster, name: str, labels: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._name = name
        self._labels = labels

    def read(self) -> tuple[Rollout, ...]:
        """Return all attempts, oldest first; damaged entries are left out."""
        return self.read_and_check()[0]

    def read_and_check(self) -> tuple[tuple[Rollout, ...], bool]:
        """Return all attempts, and whether the whole history or an entry is missing or damaged."""
        data = self._data()
        entries = [Rollout.from_cache(data[key]) for key in _entry_keys(data)]
        return tuple(entry for entry in entries if entry), not entries or None in entries

    def begin(
        self,
        attempt: Attempt,
        *recovered: Rollout,
        snapshot: Snapshot | None = None,
        variables: Mapping[int, PodVariables] = MappingProxyType({}),
    ) -> None:
        """Record that an attempt begins, and remove the decision about an earlier canary.

        Args:
            attempt: the attempt that begins.
            recovered: earlier attempts that the history has lost, to be recorded again.
            snapshot: what served until then, kept until the attempt ends; None if nothing did.
            variables: the variables of these attempts, by their numbers.
        """

        def change(data: dict[str, str]) -> None:
            data.pop(_DECISION_KEY, None)
            data.pop(_SNAPSHOT_KEY, None)
            if snapshot:
                data[_SNAPSHOT_KEY] = snapshot.model_dump_json()
            for item in (*recovered, Rollout(attempt=attempt, ending=None)):
                data[_key(item.attempt)] = item.model_dump_json()
            for number, given in variables.items():
                data[_variables_key(number)] = given.model_dump_json(exclude_defaults=True)
            _remove_oldest(data)

        self._write(change)

    def end(self, attempt: Attempt, ending: Ending) -> None:
        """Record how an attempt ended."""

        def change(data: dict[str, str]) -> None:
            data.pop(_SNAPSHOT_KEY, None)
            data[_key(attempt)] = Rollout(attempt=attempt, ending=ending).model_dump_json()

        self._write(change)

    def snapshot(self) -> Snapshot | None:
        """Return the snapshot of the attempt that has not ended; None if there is none."""
        return Snapshot.from_cache(self._data().get(_SNAPSHOT_KEY))

    def variables(self, number: int) -> PodVariables | None:
        """Return the variables of an attempt; None if none were recorded."""
        return self.all_variables().get(number)

    def all_variables(self) -> dict[int, PodVariables]:
        """Return the variables of attempts by their numbers, also of those that were removed."""
        numbers = {
            int(key.removeprefix(_VARIABLES)): text
            for key, text in self._data().items()
            if key.startswith(_VARIABLES) and key.removeprefix(_VARIABLES).isdecimal()
        }
        found = {number: PodVariables.from_cache(text) for number, text in numbers.items()}
        return {number: item for number, item in found.items() if item is not None}

    def forget_variables(self, numbers: Iterable[int]) -> None:
        """Remove the variables of attempts."""

        def change(data: dict[str, str]) -> None:
            for number in numbers:
                data.pop(_variables_key(number), None)

        self._write(change)

    def decide(self, decision: Decision) -> None:
        """Record a decision for the deployer that holds the canary."""
        self._write(lambda data: data.update({_DECISION_KEY: decision.model_dump_json()}))

    def decision(self, image: str) -> Decision | None:
        """Return the decision about the canary of an image, if there is one."""
        decision = Decision.from_cache(self._data().get(_DECISION_KEY))
        return decision if decision and decision.image == image else None

    def _data(self) -> dict[str, str]:
        return dict((self._cluster.find("ConfigMap", self._name) or {}).get("data") or {})

    def _write(self, change: Callable[[dict[str, str]], None]) -> None:
        for _ in range(WRITE_TRIES):
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
            "the history could not be written: another client keeps changing it",
            on=f"ConfigMap {self._name}",
            next="find out who writes it, then run again",
        )

    def _object(self, metadata: Object | None, data: dict[str, str]) -> Object:
        created = {"name": self._name, "labels": dict(self._labels)}
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata or created,
            "data": data,
        }


def _key(attempt: Attempt) -> str:
    return f"{attempt.id:06}"


def _variables_key(number: int) -> str:
    return f"{_VARIABLES}{number:06}"


def _entry_keys(data: Iterable[str]) -> list[str]:
    """Return the keys of entries, oldest first."""
    return sorted((key for key in data if key.isdecimal()), key=int)


def _remove_oldest(data: dict[str, str]) -> None:
    """Remove what is oldest until number and size are within the limits."""
    *old, _ = _entry_keys(data)
    for key in old:
        if _is_small(data):
            break
        data[key] = _without_evidence(data[key])
    last_success = next((key for key in reversed(old) if _is_success(data[key])), "")
    for key in old:
        is_few = len(_entry_keys(data)) <= MAX_ENTRIES
        if key != last_success and not (is_few and _is_small(data)):
            del data[key]


def _is_small(data: Mapping[str, str]) -> bool:
    return _count_bytes(data) <= MAX_BYTES


def _count_bytes(data: Mapping[str, str]) -> int:
    """Return the bytes of the texts, without those of variables that are removed soon."""
    kept = {f"{_VARIABLES}{key}" for key in _entry_keys(data)}
    return sum(
        len(text.encode())
        for key, text in data.items()
        if key in kept or not key.startswith(_VARIABLES)
    )


def _without_evidence(text: str) -> str:
    entry = Rollout.from_cache(text)
    if entry is None or entry.ending is None:
        return text
    ending = entry.ending.model_copy(update={"evidence": None})
    return entry.model_copy(update={"ending": ending}).model_dump_json()


def _is_success(text: str) -> bool:
    entry = Rollout.from_cache(text)
    return entry is not None and entry.succeeded
