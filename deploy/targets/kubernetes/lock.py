"""One deployer at a time: a Lease of the cluster, renewed while its holder lives, free for others once it is not.

Whether a lease has expired is told from how long it was seen unchanged, never from its times: clocks of two machines differ.

Source: the Kubernetes API reference, "Lease v1 coordination.k8s.io", and the rules of client-go's leader election.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from deploy import progress
from deploy.clients.kubernetes.protocol import KINDS, Cluster, Object
from deploy.clock import REAL, Clock
from deploy.errors import ClusterError, RolloutLocked
from deploy.machine.process import ProcessId, machine_id

log = logging.getLogger(__name__)

LEASE_SECONDS = 30
# A holder that could not renew for so long makes sure before it changes anything; others may not have taken it yet.
_DOUBTFUL = LEASE_SECONDS * 2 / 3
_RENEWED_EVERY = LEASE_SECONDS / 3
_POLL = 0.5
_MACHINE = "twinship.dev/machine"


@dataclass(frozen=True)
class _Seen:
    """A lease of somebody else as it was first seen, and since when it has not changed."""

    first: str
    version: str
    since: float


class Lock:
    """The right to change one environment.

    Args:
        cluster: where the environment is.
        name: the lease's.
        labels: put on it when it is made.
        environment: for people.
        clock: tells the time.
    """

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        labels: Mapping[str, str],
        environment: str,
        clock: Clock = REAL,
    ) -> None:
        self._cluster = cluster
        self._name = name
        self._labels = labels
        self._environment = environment
        self._clock = clock
        self._me = str(ProcessId.current())
        self._machine = machine_id()
        self._renewing = threading.Lock()
        self._renewed = float("-inf")
        self._lost = False

    @contextmanager
    def acquire(self, wait: float) -> Iterator[None]:
        """Holds the lease for the time of a `with` block.

        Args:
            wait: seconds to wait for another holder. One on another machine of whom nothing is seen may be dead, and is waited for
                until its lease has expired.

        Raises:
            RolloutLocked: somebody else holds it for longer than that.
        """
        self._take(wait)
        done = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(done,), daemon=True)
        keeper.start()
        try:
            yield
        finally:
            done.set()
            keeper.join()
            self._give_back()

    def require(self) -> None:
        """Makes sure that nobody else has taken the lease since.

        Raises:
            RolloutLocked: it is not held any more; whoever has it now must not be disturbed.
        """
        if self._is_doubtful() and not self._lost:
            # The API server was away, perhaps: what could not be renewed could not be taken either.
            self._renew()
        if self._is_doubtful() or self._lost:
            raise RolloutLocked(
                "the lease was lost: it could not be renewed in time, or somebody took it",
                on=f"environment {self._environment}, Lease {self._name}",
                next="run the same command again: it goes on from where this one stopped",
            )

    def _is_doubtful(self) -> bool:
        return self._clock.elsewhere() - self._renewed > _DOUBTFUL

    # --- taking it

    def _take(self, wait: float) -> None:
        began = self._clock.now()
        seen = None
        while True:
            asked = self._clock.elsewhere()
            if self._cluster.create(self._object()):
                break
            found = self._cluster.find("Lease", self._name)
            seen = self._looked(found, seen)
            if found and self._is_free(found, seen) and self._cluster.replace(self._object(found)):
                break
            self._wait(found or {}, seen, began + wait)
        self._renewed = asked
        self._lost = False

    def _looked(self, found: Object | None, seen: _Seen | None) -> _Seen:
        version = str(found["metadata"]["resourceVersion"]) if found else ""
        now = self._clock.now()
        if seen and seen.version == version:
            return seen
        return _Seen(first=seen.first if seen else version, version=version, since=now)

    def _is_free(self, found: Object, seen: _Seen) -> bool:
        """Whether nobody has it, or its holder has died."""
        died = self._is_near(found) and not ProcessId.parse(_identity(found)).alive
        return not _identity(found) or died or self._clock.now() - seen.since >= LEASE_SECONDS

    def _is_near(self, found: Object) -> bool:
        """Whether the processes of its holder's machine are those of this one; a name may be that of several machines."""
        return (
            bool(self._machine)
            and (found["metadata"].get("annotations") or {}).get(_MACHINE) == self._machine
        )

    def _wait(self, found: Object, seen: _Seen, deadline: float) -> None:
        works = not found or self._is_near(found) or seen.version != seen.first
        if works and self._clock.now() >= deadline:
            raise RolloutLocked(
                f"another deployer is at work: {_shown(found)}",
                on=f"environment {self._environment}, Lease {self._name}",
                next="wait until it is done, then run again; nothing was changed",
            )
        progress.report(f"waiting for {_shown(found)}")
        self._clock.sleep(_POLL)

    # --- keeping it

    def _keep(self, done: threading.Event) -> None:
        while not done.wait(_RENEWED_EVERY):
            try:
                self._renew()
            except ClusterError as error:
                log.debug("the lease could not be renewed: %s", error)

    def _renew(self) -> None:
        with self._renewing:
            # From before the question on: others count from when they saw the answer's effect, which may be sooner than we do.
            asked = self._clock.elsewhere()
            found = self._cluster.find("Lease", self._name)
            if found is None or _identity(found) != self._me:
                self._lost = True
            elif self._cluster.replace(self._object(found)):
                self._renewed = asked

    def _give_back(self) -> None:
        try:
            found = self._cluster.find("Lease", self._name)
            if found and _identity(found) == self._me:
                self._cluster.replace(self._object(found, holder=""))
        except ClusterError as error:
            log.warning(
                "the lease could not be given back, it expires in %d s: %s",
                LEASE_SECONDS,
                error.what,
            )

    def _object(self, found: Object | None = None, holder: str | None = None) -> Object:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = found is not None and _identity(found) == self._me
        spec = {
            "holderIdentity": self._me if holder is None else holder,
            "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": (found["spec"].get("acquireTime") if found and mine else None) or now,
            "renewTime": now,
        }
        metadata: Object = (
            found["metadata"] if found else {"name": self._name, "labels": dict(self._labels)}
        )
        notes: Object = metadata.get("annotations") or {}
        return {
            "apiVersion": KINDS["Lease"].api_version,
            "kind": "Lease",
            "metadata": metadata | {"annotations": notes | {_MACHINE: self._machine}},
            "spec": spec,
        }


def _identity(lease: Object) -> str:
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def _shown(lease: Object) -> str:
    """The holder and since when, for people; whoever else than a deployer of ours took it is named as they named themselves."""
    identity = _identity(lease)
    owner = ProcessId.parse(identity)
    name = owner.display if str(owner) == identity else identity or "somebody"
    try:
        since = datetime.fromisoformat(str((lease.get("spec") or {}).get("acquireTime")))
    except ValueError:
        return name
    return f"{name}, since {since.astimezone():%H:%M:%S}"
