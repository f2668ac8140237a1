"""The lock of an environment on a cluster: only one deployer at a time may change it.

The lock is a Lease object of the cluster. The deployer renews it while it lives; one that was not
renewed expires. Whether it has expired is decided by how long it was seen unchanged, never by the
times in it, because the clocks of two machines differ.

Source: the Kubernetes API reference, "Lease v1 coordination.k8s.io", and the rules of client-go's
leader election.
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
RENEW_INTERVAL = LEASE_SECONDS / 3
# After so long without a renewal the lock is checked before each change. No other deployer can
# have taken it earlier.
_CHECK_AFTER = LEASE_SECONDS * 2 / 3
_POLL = 0.5
_MACHINE_ANNOTATION = "twinship.dev/machine"


@dataclass(frozen=True)
class _Observation:
    """Another deployer's Lease: its first and its current version, and since when it has that."""

    first: str
    version: str
    since: float


class Lock:
    """The lock of one environment.

    Args:
        cluster: the namespace of the environment.
        name: the name of the Lease.
        labels: the labels of a Lease that is created.
        environment: the name of the environment, for messages.
        clock: the clock by which the lock waits and expires.
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
        """Acquire the lock for the duration of a `with` block, and renew it meanwhile.

        Args:
            wait: seconds to wait for another deployer. One on another machine that shows no sign
                of life may be dead, so it is waited for until its Lease expires.

        Raises:
            RolloutLocked: another deployer keeps the lock for longer.
        """
        self.take(wait)
        done = threading.Event()
        renewer = threading.Thread(target=self._renew_until, args=(done,), daemon=True)
        renewer.start()
        try:
            yield
        finally:
            done.set()
            renewer.join()
            self.release()

    def require(self) -> None:
        """Check that no other deployer has taken the lock.

        Raises:
            RolloutLocked: this process does not have the lock any more.
        """
        if self._needs_check() and not self._lost:
            # If the API server was unreachable, no other deployer could take the lock either.
            self.renew()
        if self._needs_check() or self._lost:
            raise RolloutLocked(
                "the lock was lost: it was not renewed in time, or another deployer took it",
                on=f"environment {self._environment}, Lease {self._name}",
                next="run the same command again: it continues where this one stopped",
            )

    def _needs_check(self) -> bool:
        return self._clock.now_with_suspend() - self._renewed > _CHECK_AFTER

    # --- taking it

    def take(self, wait: float) -> None:
        """Take the lock, without renewing it later.

        Raises:
            RolloutLocked: another deployer keeps the lock for longer than the wait.
        """
        started = self._clock.now()
        observation = None
        while True:
            requested = self._clock.now_with_suspend()
            if self._cluster.create(self._object()):
                break
            found = self._cluster.find("Lease", self._name)
            observation = self._observe(found, observation)
            is_free = found and self._is_free(found, observation)
            if is_free and self._cluster.replace(self._object(found)):
                break
            self._wait(found or {}, observation, started + wait)
        self._renewed = requested
        self._lost = False

    def _observe(self, found: Object | None, earlier: _Observation | None) -> _Observation:
        version = str(found["metadata"]["resourceVersion"]) if found else ""
        now = self._clock.now()
        if earlier and earlier.version == version:
            return earlier
        return _Observation(first=earlier.first if earlier else version, version=version, since=now)

    def _is_free(self, found: Object, observation: _Observation) -> bool:
        """Return whether no deployer has the lock, or the one that has it is dead."""
        if not _holder(found):
            return True
        died = self._is_on_this_machine(found) and not ProcessId.parse(_holder(found)).is_alive
        return died or self._clock.now() - observation.since >= LEASE_SECONDS

    def _is_on_this_machine(self, found: Object) -> bool:
        """Return whether the holder is a process of this machine; host names are not unique."""
        annotations = found["metadata"].get("annotations") or {}
        return bool(self._machine) and annotations.get(_MACHINE_ANNOTATION) == self._machine

    def _wait(self, found: Object, observation: _Observation, deadline: float) -> None:
        was_renewed = observation.version != observation.first
        is_alive = not found or self._is_on_this_machine(found) or was_renewed
        if is_alive and self._clock.now() >= deadline:
            raise RolloutLocked(
                f"another deployer is at work: {_description(found)}",
                on=f"environment {self._environment}, Lease {self._name}",
                next="wait until it is done, then run again; nothing was changed",
            )
        progress.report(f"waiting for {_description(found)}")
        self._clock.sleep(_POLL)

    # --- keeping and releasing it

    def _renew_until(self, done: threading.Event) -> None:
        while not done.wait(RENEW_INTERVAL):
            try:
                self.renew()
            except ClusterError as error:
                log.debug("the lock could not be renewed: %s", error)

    def renew(self) -> None:
        """Renew the lock, or note that another deployer has taken it."""
        with self._renewing:
            # The time before the request: others may see the renewal before its response arrives.
            requested = self._clock.now_with_suspend()
            found = self._cluster.find("Lease", self._name)
            if found is None or _holder(found) != self._me:
                self._lost = True
            elif self._cluster.replace(self._object(found)):
                self._renewed = requested

    def release(self) -> None:
        """Release the lock, if this process still has it."""
        try:
            found = self._cluster.find("Lease", self._name)
            if found and _holder(found) == self._me:
                self._cluster.replace(self._object(found, holder=""))
        except ClusterError as error:
            log.warning(
                "the lock could not be released, it expires in %d s: %s", LEASE_SECONDS, error.what
            )

    def _object(self, found: Object | None = None, holder: str | None = None) -> Object:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        is_mine = found is not None and _holder(found) == self._me
        spec = {
            "holderIdentity": self._me if holder is None else holder,
            "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": (found["spec"].get("acquireTime") if found and is_mine else None) or now,
            "renewTime": now,
        }
        metadata: Object = (
            found["metadata"] if found else {"name": self._name, "labels": dict(self._labels)}
        )
        annotations: Object = metadata.get("annotations") or {}
        return {
            "apiVersion": KINDS["Lease"].api_version,
            "kind": "Lease",
            "metadata": metadata
            | {"annotations": annotations | {_MACHINE_ANNOTATION: self._machine}},
            "spec": spec,
        }


def _holder(item: Object) -> str:
    return str((item.get("spec") or {}).get("holderIdentity") or "")


def _description(item: Object) -> str:
    """Return who has the lock and since when; a holder that is no deployer by its own name."""
    identity = _holder(item)
    process = ProcessId.parse(identity)
    name = process.display if str(process) == identity else identity or "an unknown holder"
    try:
        since = datetime.fromisoformat(str((item.get("spec") or {}).get("acquireTime")))
    except ValueError:
        return name
    return f"{name}, since {since.astimezone():%H:%M:%S}"
