"""The objects of a Kubernetes environment, made of manifests and settings: the same input gives the same objects, and nothing is asked.

The manifests are YAML that a user may edit. What the settings name is set, what refers to another object of the folder follows its
name, and everything else stays as it is written there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Literal, Self

from deploy.clients.kubernetes.protocol import Object
from deploy.errors import SettingsInvalid
from deploy.records import Attempt, Release
from deploy.settings.environments import Kubernetes
from deploy.settings.reading import App
from deploy.targets.kubernetes import templates
from deploy.targets.kubernetes.templates import ensure_mapping

Track = Literal["main", "twin"]
TRACKS: tuple[Track, Track] = ("main", "twin")
"""The two Deployments of an environment: beside the one that serves, the other tries out a release, or keeps the last one warm."""

TRACK_LABEL = "twinship.dev/side"
IMAGE_LABEL = "twinship.dev/image"
RELEASE_ANNOTATION = "twinship.dev/release"
PREPULL_LABEL = "twinship.dev/warm-up"
CHANGE_CAUSE = "kubernetes.io/change-cause"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
_DNS_LABEL = "service.beta.kubernetes.io/azure-dns-label-name"
_LONGEST = 50


@dataclass(frozen=True)
class Rendering:
    """One environment's objects.

    Attributes:
        app: what serves.
        environment: its name.
        env: its settings.
        manifests: the objects of the folder, by kind; `DaemonSet` is the warm-up.

    Raises:
        SettingsInvalid: the names of application and environment are too long together.
    """

    app: App
    environment: str
    env: Kubernetes
    object_templates: Mapping[str, Object] = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.name) > _LONGEST:
            raise SettingsInvalid(
                f"application and environment have names that are too long together: {len(self.name)} characters, at most {_LONGEST}",
                on=self.name,
                next="choose a shorter name for the environment",
            )

    @classmethod
    def read(cls, app: App, environment: str, env: Kubernetes, directory: Path) -> Self:
        """Reads the suite's manifests, or those that the environment names, relative to the folder of pipeline.toml.

        Raises:
            SettingsInvalid: a manifest is missing or broken, or the names are too long.
        """
        return cls(
            app,
            environment,
            env,
            templates.read_templates(
                directory / env.manifests if env.manifests else templates.DEFAULT_FOLDER
            ),
        )

    # --- names

    @property
    def name(self) -> str:
        """What the objects are called: a DNS label (RFC 1035) of the application and the environment."""
        name = re.sub(r"[._]", "-", f"{self.app.name}-{self.environment}")
        return name if name[0].isalpha() else f"app-{name}"

    def deployment_name(self, side: Track) -> str:
        """What the Deployment of a side is called."""
        return self.name if side == "main" else f"{self.name}-twin"

    @property
    def prepull_name(self) -> str:
        """What the DaemonSet of the warm-up is called."""
        return f"{self.name}-warm-up"

    @property
    def labels(self) -> dict[str, str]:
        """What the objects and the replicas of both sides are found by."""
        return {
            "app.kubernetes.io/name": self.app.name,
            "app.kubernetes.io/instance": self.environment,
        }

    @property
    def port(self) -> int:
        """The port of the service: the one named `http`, else the first."""
        ports: list[Object] = self.object_templates["Service"]["spec"]["ports"]
        found: int = next((port for port in ports if port.get("name") == "http"), ports[0])["port"]
        return found

    # --- objects

    def deployment(
        self,
        release: Release,
        side: Track,
        replicas: int | None,
        attempt: Attempt | None,
        deadline: int,
    ) -> Object:
        """The replicas of a side.

        Args:
            release: what they run.
            side: which of the two.
            replicas: how many; None leaves that to an autoscaler.
            attempt: the rollout that this is part of, for the cluster's memory; the pods do not depend on it.
            deadline: seconds after which the cluster calls the rollout failed.
        """
        item = self._made("Deployment", self.deployment_name(side))
        found_by = self.labels | {TRACK_LABEL: side}
        ensure_mapping(item, "metadata", "labels").update(found_by)
        if attempt:
            ensure_mapping(item, "metadata", "annotations").update(
                {RELEASE_ANNOTATION: attempt.model_dump_json(), CHANGE_CAUSE: _cause(attempt)}
            )
        item["spec"] |= {"replicas": replicas, "progressDeadlineSeconds": deadline}
        if replicas is None:
            del item["spec"]["replicas"]
        ensure_mapping(item, "spec", "selector", "matchLabels").update(found_by)
        names = ensure_mapping(item, "spec", "template", "metadata")
        ensure_mapping(names, "labels").update(
            found_by | {IMAGE_LABEL: release.image.digest.removeprefix("sha256:")[:32]}
        )
        ensure_mapping(names, "annotations").update({IMAGE_LABEL: release.image.digest})
        self._fill_pod(templates.pod_spec(item), found_by)
        self._fill_container(templates.app_container(templates.pod_spec(item)), release)
        return item

    def service(self, side: Track, *, both: bool) -> Object:
        """The front door.

        Args:
            side: the stable one.
            both: let the other side have its share of the requests, too.
        """
        item = self._made("Service", self.name)
        ensure_mapping(item, "metadata", "annotations").update(
            {TRACK_LABEL: side} | ({_DNS_LABEL: self.env.dns_label} if self.env.dns_label else {})
        )
        item["spec"]["type"] = self.env.service
        ensure_mapping(item, "spec", "selector").update(self.labels | {TRACK_LABEL: side})
        if both:
            del item["spec"]["selector"][TRACK_LABEL]
        return item

    def ingress(self) -> Object | None:
        """The way in from outside by a host's name; None where the environment has no host."""
        if not self.env.host:
            return None
        item = self._made("Ingress", self.name)
        spec = item["spec"]
        spec["rules"][0]["host"] = self.env.host
        for backend in _backends(spec):
            if backend.get("name") == self._placeholder("Service"):
                backend["name"] = self.name
        if self.env.ingress_class:
            spec["ingressClassName"] = self.env.ingress_class
        if self.env.tls_secret:
            spec["tls"] = [{"hosts": [self.env.host], "secretName": self.env.tls_secret}]
        return item

    def autoscaler(self, side: Track) -> Object | None:
        """What chooses the number of replicas of the stable side; None where the environment fixes it."""
        if not self.env.autoscale:
            return None
        item = self._made("HorizontalPodAutoscaler", self.name)
        ensure_mapping(item, "spec").update(
            {"minReplicas": self.env.replicas, "maxReplicas": self.env.autoscale.at_most}
        )
        ensure_mapping(item, "spec", "scaleTargetRef").update(
            {"apiVersion": "apps/v1", "kind": "Deployment", "name": self.deployment_name(side)}
        )
        for metric in item["spec"].get("metrics", []):
            if metric.get("resource", {}).get("name") == "cpu":
                metric["resource"]["target"] = {
                    "type": "Utilization",
                    "averageUtilization": self.env.autoscale.cpu,
                }
        return item

    def disruption_budget(self) -> Object:
        """How many replicas of both sides may be taken away at once when nodes are drained."""
        item = self._made("PodDisruptionBudget", self.name)
        ensure_mapping(item, "spec", "selector", "matchLabels").update(self.labels)
        return item

    def service_account(self) -> Object:
        """Who the replicas are on the cluster."""
        return self._made("ServiceAccount", self.name)

    def prepull(self, release: Release) -> Object:
        """What makes nodes pull an image: those that replicas may run on."""
        item = self._made("DaemonSet", self.prepull_name)
        replica = templates.pod_spec(self._copy("Deployment"))
        found_by = {"app.kubernetes.io/name": self.app.name, PREPULL_LABEL: self.environment}
        ensure_mapping(item, "spec", "selector", "matchLabels").update(found_by)
        ensure_mapping(item, "spec", "template", "metadata", "labels").update(found_by)
        pod = templates.pod_spec(item)
        pod.update(
            {
                key: replica[key]
                for key in ("nodeSelector", "tolerations", "imagePullSecrets")
                if key in replica
            }
        )
        # Which pods a replica keeps away from says nothing about where its image is needed.
        nodes = replica.get("affinity", {}).get("nodeAffinity")
        pod.update({"affinity": {"nodeAffinity": nodes}} if nodes else {})
        self._fill_secret(pod)
        templates.app_container(pod)["image"] = release.reference
        return item

    # --- parts of objects

    def _copy(self, kind: str) -> Object:
        return deepcopy(self.object_templates[kind])

    def _made(self, kind: str, name: str) -> Object:
        item = self._copy(kind)
        ours = {"name": name, "namespace": self.env.namespace}
        item["metadata"] = ours | item.get("metadata", {}) | ours
        ensure_mapping(item, "metadata", "labels").update(
            self.labels | {MANAGED_BY_LABEL: "twinship"}
        )
        return item

    def _placeholder(self, kind: str) -> object:
        """What the folder calls its own object of a kind, so that references to it are known."""
        return self.object_templates[kind].get("metadata", {}).get("name")

    def _fill_pod(self, pod: Object, found_by: Mapping[str, str]) -> None:
        if pod.get("serviceAccountName") in (None, self._placeholder("ServiceAccount")):
            pod["serviceAccountName"] = self.name
        pod["terminationGracePeriodSeconds"] = ceil(self.env.drain_within) + _pause(
            templates.app_container(pod)
        )
        for spread in pod.get("topologySpreadConstraints", []):
            ensure_mapping(spread, "labelSelector", "matchLabels").update(found_by)
        self._fill_secret(pod)

    def _fill_secret(self, pod: Object) -> None:
        secret = {"name": self.env.pull_secret}
        named = pod.get("imagePullSecrets", [])
        if self.env.pull_secret and secret not in named:
            pod["imagePullSecrets"] = [*named, secret]

    def _fill_container(self, container: Object, release: Release) -> None:
        container["image"] = release.reference
        _port(container)["containerPort"] = self.app.port
        given = self.env.resources
        ensure_mapping(container, "resources", "requests").update(
            {"cpu": given.cpu, "memory": given.memory}
        )
        ensure_mapping(container, "resources", "limits").update(
            {"cpu": given.cpu_limit, "memory": given.memory}
        )
        for probe in (container.get("startupProbe", {}), container.get("readinessProbe", {})):
            if "httpGet" in probe:
                probe["httpGet"]["path"] = self.app.ready
        if startup := container.get("startupProbe"):
            # The rollout gives up first and says why; a kubelet that did would only start the container anew.
            startup["failureThreshold"] = (
                ceil(2 * self.env.ready_within / (startup.get("periodSeconds") or 10)) + 5
            )


def _port(container: Object) -> Object:
    """The container's port that the service leads to, made if there is none."""
    ports: list[Object] = container.setdefault("ports", [])
    for port in ports:
        if port.get("name") == "http":
            return port
    ports.append({"name": "http", "protocol": "TCP"})
    return ports[-1]


def _pause(container: Object) -> int:
    """For how many seconds the container goes on before it is told to stop."""
    hook = container.get("lifecycle", {}).get("preStop", {})
    found: int = hook.get("sleep", {}).get("seconds", 0)
    command = hook.get("exec", {}).get("command", [])
    slept = command[1] if command[:1] == ["sleep"] and len(command) == 2 else ""
    return int(slept) if slept.isdecimal() else found


def _backends(spec: Object) -> Iterator[Object]:
    """The services that an Ingress leads to."""
    paths = [path for rule in spec["rules"] for path in rule.get("http", {}).get("paths", [])]
    for holder in (spec.get("defaultBackend", {}), *(path.get("backend", {}) for path in paths)):
        yield holder.get("service", {})


def _cause(attempt: Attempt) -> str:
    """One line that `kubectl rollout history` shows."""
    image = attempt.release.image
    run = f", {attempt.run}" if attempt.run else ""
    return f"{attempt.trigger} {attempt.id}: commit {image.app.commit} with {image.layer.model}, by {attempt.by}{run}"


def as_yaml(objects: Sequence[Object]) -> str:
    """The objects as one stream of YAML documents, keys in the order in which they are written in the manifests."""
    return templates.to_yaml(objects)
