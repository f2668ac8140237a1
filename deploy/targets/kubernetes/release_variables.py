"""The variables that the releases of an environment have on a cluster.

Values are in the Deployment. Secrets are in a Secret that never changes, which has the number of
the attempt that created it: another secret is another object. The history says which attempt has
which variables, so that a rollback finds those of its release. A Secret stays as long as an attempt
in the history, or a Deployment with replicas, names it.

Source: the Kubernetes documentation, "Secrets" and "Define Dependent Environment Variables".
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterable

from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.errors import ClusterRefused
from deploy.records import Attempt
from deploy.targets.kubernetes.history import History
from deploy.targets.kubernetes.lock import Lock
from deploy.targets.kubernetes.pod_variables import PodVariables, read_secrets
from deploy.targets.kubernetes.render import TRACKS, Rendering
from deploy.targets.kubernetes.state import ClusterState, DeploymentState
from deploy.variables import NO_VARIABLES, Variables

log = logging.getLogger(__name__)


class ReleaseVariables:
    """The variables of the releases of one environment.

    Args:
        cluster: the namespace of the environment.
        rendering: names and labels of its objects.
        state: reads its Deployments.
        history: says which attempt has which variables.
        lock: the lock that each write requires.
        settings: returns the variables of the settings, or raises SettingsInvalid.
    """

    def __init__(
        self,
        cluster: Cluster,
        rendering: Rendering,
        state: ClusterState,
        history: History,
        lock: Lock,
        settings: Callable[[], Variables],
    ) -> None:
        self._cluster = cluster
        self._rendering = rendering
        self._state = state
        self._history = history
        self._lock = lock
        self._settings = settings

    # --- reading

    def of_serving(self) -> Variables:
        """Return the variables of what serves; none if nothing does."""
        deployment = self._state.deployment(self._state.traffic().track)
        if deployment is None or not deployment.replicas:
            return NO_VARIABLES
        found = deployment.variables
        return self._read(found) or Variables(found.values)

    def for_attempt(self, returns_to: int | None) -> Variables:
        """Return the variables of an attempt, if they are there; else those of the settings."""
        recorded = None if returns_to is None else self._history.variables(returns_to)
        return (self._read(recorded) if recorded else None) or self._settings()

    def match_settings(self, deployment: DeploymentState) -> bool:
        """Return whether a Deployment has the variables of the settings."""
        found = self._read(deployment.variables)
        return found is not None and not self._settings().differences(found)

    def describe(self, attempt: Attempt | None) -> PodVariables:
        """Return the variables with which an attempt is rendered; no secret is read for that."""
        recorded = self._history.variables(attempt.id) if attempt else None
        env = self._rendering.env
        source = next((item.variables.source for item in self._deployments()), "")
        return recorded or PodVariables(
            values=env.env,
            secrets=tuple(sorted(env.secrets)),
            source=(source or self._source(0)) if env.secrets else "",
        )

    # --- an attempt

    def assign(self, number: int, variables: Variables | None = None) -> PodVariables:
        """Return the variables of an attempt with a Secret that has them, or may be created.

        Args:
            number: the number of the attempt.
            variables: its variables; None for those of the settings.

        Raises:
            ClusterRefused: the name of its Secret is taken.
            ClusterForbidden: this account may not read Secrets.
        """
        wanted = self._settings() if variables is None else variables
        names = tuple(sorted(wanted.secrets))
        source = self._find_source(wanted) if names else ""
        if names and not source:
            source = self._source(number)
            # An attempt of that number, of a history that was lost, may have left one.
            self._remove(source)
        return PodVariables(values=wanted.values, secrets=names, source=source)

    def ensure(self, attempt: Attempt | None) -> PodVariables:
        """Return the variables that an attempt has, after creating its Secret if it is missing.

        Args:
            attempt: the attempt; None if none was recorded.
        """
        recorded = self._history.variables(attempt.id) if attempt else None
        if recorded is None:
            recorded = self.assign(attempt.id if attempt else 0)
        if self._read(recorded) is None:
            recorded = self._create(recorded)
        return recorded

    def collect(self) -> None:
        """Remove the Secrets of attempts that the history no longer has."""
        recorded = self._history.all_variables()
        known = {item.attempt.id for item in self._history.read()}
        gone = {number: item for number, item in recorded.items() if number not in known}
        if not gone:
            return
        kept = [item for number, item in recorded.items() if number in known]
        running = [item.variables for item in self._deployments() if item.replicas]
        used = _sources([*kept, *running])
        for source in sorted(_sources(gone.values()) - used):
            self._remove(source)
        self._history.forget_variables(gone)

    def _find_source(self, wanted: Variables) -> str:
        """Return a Secret that has these secrets: equal pods are not replaced; empty for none."""
        newest_first = sorted(self._history.all_variables().items(), reverse=True)
        known = [item.variables for item in self._deployments()]
        known += [variables for _, variables in newest_first]
        for source, variables in {item.source: item for item in known if item.source}.items():
            found = self._read(variables)
            if found and found.secrets == wanted.secrets:
                return source
        return ""

    def _deployments(self) -> list[DeploymentState]:
        return [found for track in TRACKS if (found := self._state.deployment(track))]

    # --- the Secrets

    def _source(self, number: int) -> str:
        return f"{self._rendering.name}-env-{number}"

    def _read(self, variables: PodVariables) -> Variables | None:
        """Return variables with their secrets; None if these are gone."""
        if not variables.secrets:
            return Variables(variables.values)
        secrets = read_secrets(self._cluster, variables.source)
        is_whole = tuple(sorted(secrets)) == variables.secrets
        return Variables(variables.values, secrets) if is_whole else None

    def _create(self, variables: PodVariables) -> PodVariables:
        """Create the Secret of variables from the settings; return them as they are then."""
        wanted = self._settings()
        names = tuple(sorted(wanted.secrets))
        if names != variables.secrets:
            log.warning(
                "the Secret %s is gone: variables are those of the settings", variables.source
            )
            variables = PodVariables(
                values=wanted.values, secrets=names, source=variables.source if names else ""
            )
        if names:
            self._remove(variables.source)
            self._cluster.create(self._secret(variables.source, wanted))
        return variables

    def _secret(self, name: str, variables: Variables) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "labels": self._rendering.object_labels},
            "type": "Opaque",
            "immutable": True,
            "data": {
                key: base64.b64encode(value.encode()).decode()
                for key, value in variables.secrets.items()
            },
        }

    def _remove(self, name: str) -> None:
        """Remove a Secret of this environment, if there is one.

        Raises:
            ClusterRefused: it is not one of this environment.
        """
        found = self._cluster.find("Secret", name)
        if found is None:
            return
        labels = found["metadata"].get("labels") or {}
        if not self._rendering.object_labels.items() <= labels.items():
            raise ClusterRefused(
                "a Secret that no release of this environment created has the name that one needs",
                on=f"Secret {name}",
                next="rename or remove it; nothing was changed",
            )
        self._cluster.delete("Secret", name, require=self._lock.require)


def _sources(items: Iterable[PodVariables]) -> set[str]:
    return {item.source for item in items if item.source}
