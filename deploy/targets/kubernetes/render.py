"""The objects of a Kubernetes environment, rendered from object templates and settings.

The same input gives the same objects, and no cluster is asked. The object templates are YAML files
that a user may edit. The keys of the settings are filled in, references between the objects of the
folder follow their new names, and everything else stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from deploy.clients.kubernetes.protocol import Object
from deploy.errors import SettingsInvalid
from deploy.records import Attempt, Release
from deploy.settings.app import App
from deploy.settings.environments import Kubernetes
from deploy.targets.kubernetes import templates
from deploy.targets.kubernetes.pod_template import add_pull_secret, fill_container, fill_pod
from deploy.targets.kubernetes.pod_variables import (
    NO_POD_VARIABLES,
    PodVariables,
    fill_variables,
)
from deploy.targets.kubernetes.templates import ensure_mapping

Track = Literal["main", "twin"]
TRACKS: tuple[Track, Track] = ("main", "twin")
"""The two Deployments of an environment: one serves, the other has the next or the last release."""

TRACK_LABEL = "twinship.dev/side"
IMAGE_LABEL = "twinship.dev/image"
RELEASE_ANNOTATION = "twinship.dev/release"
VARIABLES_ANNOTATION = "twinship.dev/env"
PREPULL_LABEL = "twinship.dev/warm-up"
CHANGE_CAUSE = "kubernetes.io/change-cause"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
VERSION_LABEL = "app.kubernetes.io/version"
COMPONENT_LABEL = "app.kubernetes.io/component"
MANAGER = "twinship"
_DNS_LABEL = "service.beta.kubernetes.io/azure-dns-label-name"
_MAX_NAME = 50


@dataclass(frozen=True)
class Rendering:
    """The rendering of one environment's objects.

    Attributes:
        app: the settings of the application.
        environment: the name of the environment.
        env: the settings of the environment.
        object_templates: the object templates by kind; `DaemonSet` is that of the pre-pull.

    Raises:
        SettingsInvalid: the names of application and environment are too long together.
    """

    app: App
    environment: str
    env: Kubernetes
    object_templates: Mapping[str, Object] = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.name) > _MAX_NAME:
            raise SettingsInvalid(
                "application and environment have names that are too long together: "
                f"{len(self.name)} characters, at most {_MAX_NAME}",
                on=self.name,
                next="choose a shorter name for the environment",
            )

    @classmethod
    def read(cls, app: App, environment: str, env: Kubernetes, directory: Path) -> Self:
        """Return the rendering of an environment with its object templates.

        Args:
            app: the settings of the application.
            environment: the name of the environment.
            env: the settings of the environment.
            directory: the folder of pipeline.toml, to which the path of the templates is relative.

        Raises:
            SettingsInvalid: an object template is missing or broken, or the names are too long.
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
        """The name of the objects: a DNS label (RFC 1035) of application and environment."""
        name = re.sub(r"[._]", "-", f"{self.app.name}-{self.environment}")
        return name if name[0].isalpha() else f"app-{name}"

    def deployment_name(self, track: Track) -> str:
        """Return the name of a track's Deployment."""
        return self.name if track == "main" else f"{self.name}-twin"

    @property
    def prepull_name(self) -> str:
        """The name of the pre-pull's DaemonSet."""
        return f"{self.name}-warm-up"

    @property
    def labels(self) -> dict[str, str]:
        """The labels of all objects and of the replicas of both tracks."""
        return {
            "app.kubernetes.io/name": self.app.name,
            "app.kubernetes.io/instance": self.environment,
        }

    @property
    def object_labels(self) -> dict[str, str]:
        """The labels of objects that a release creates; by them it knows its own."""
        return self.labels | {MANAGED_BY_LABEL: MANAGER}

    def track_labels(self, track: Track) -> dict[str, str]:
        """Return the labels of a track's Deployment and pods."""
        return self.labels | {TRACK_LABEL: track}

    @property
    def port(self) -> int:
        """The port of the Service: the one named `http`, else the first."""
        ports: list[Object] = self.object_templates["Service"]["spec"]["ports"]
        found: int = next((port for port in ports if port.get("name") == "http"), ports[0])["port"]
        return found

    @property
    def min_ready_seconds(self) -> int:
        """The seconds for which a replica has to be ready before it counts as available."""
        of_template: int = self.object_templates["Deployment"]["spec"].get("minReadySeconds", 0)
        return self.env.min_ready_seconds or of_template

    # --- objects

    def deployment(
        self,
        release: Release,
        track: Track,
        replicas: int | None,
        attempt: Attempt | None,
        deadline: int,
        variables: PodVariables = NO_POD_VARIABLES,
    ) -> Object:
        """Return the Deployment of a track.

        Args:
            release: the release that its pods run.
            track: the track.
            replicas: the number of pods; None leaves it to an autoscaler.
            attempt: the attempt that is recorded on it; its pods do not depend on it.
            deadline: seconds after which the cluster reports the rollout as failed.
            variables: the variables of its pods.
        """
        item = self._new("Deployment", self.deployment_name(track))
        labels = self.track_labels(track)
        described = labels | {
            COMPONENT_LABEL: "server",
            VERSION_LABEL: str(release.image.app.commit),
        }
        ensure_mapping(item, "metadata", "labels").update(described)
        if attempt:
            ensure_mapping(item, "metadata", "annotations").update(
                {RELEASE_ANNOTATION: attempt.model_dump_json(), CHANGE_CAUSE: _cause(attempt)}
            )
        if given := variables.to_annotation():
            ensure_mapping(item, "metadata", "annotations")[VARIABLES_ANNOTATION] = given
        item["spec"] |= {"replicas": replicas, "progressDeadlineSeconds": deadline}
        if replicas is None:
            del item["spec"]["replicas"]
        if self.min_ready_seconds:
            item["spec"]["minReadySeconds"] = self.min_ready_seconds
        ensure_mapping(item, "spec", "selector", "matchLabels").update(labels)
        pod_metadata = ensure_mapping(item, "spec", "template", "metadata")
        ensure_mapping(pod_metadata, "labels").update(
            described | {IMAGE_LABEL: release.image.digest.removeprefix("sha256:")[:32]}
        )
        ensure_mapping(pod_metadata, "annotations").update({IMAGE_LABEL: release.image.digest})
        pod = templates.pod_spec(item)
        own_account = self._placeholder("ServiceAccount")
        if pod.get("serviceAccountName") in (None, own_account):
            pod["serviceAccountName"] = self.name
        fill_pod(pod, self.env, labels)
        fill_container(templates.app_container(pod), self.app, self.env, release)
        fill_variables(templates.app_container(pod), variables)
        return item

    def service(self, track: Track, *, both: bool) -> Object:
        """Return the Service.

        Args:
            track: the stable track.
            both: whether the other track gets requests too.
        """
        item = self._new("Service", self.name)
        ensure_mapping(item, "metadata", "annotations").update(
            {TRACK_LABEL: track} | ({_DNS_LABEL: self.env.dns_label} if self.env.dns_label else {})
        )
        item["spec"]["type"] = self.env.service
        ensure_mapping(item, "spec", "selector").update(self.track_labels(track))
        if both:
            del item["spec"]["selector"][TRACK_LABEL]
        return item

    def ingress(self) -> Object | None:
        """Return the Ingress; None if the environment has no host."""
        if not self.env.host:
            return None
        item = self._new("Ingress", self.name)
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

    def autoscaler(self, track: Track) -> Object | None:
        """Return the autoscaler of the stable track; None if the environment has none."""
        if not self.env.autoscale:
            return None
        item = self._new("HorizontalPodAutoscaler", self.name)
        ensure_mapping(item, "spec").update(
            {"minReplicas": self.env.replicas, "maxReplicas": self.env.autoscale.at_most}
        )
        ensure_mapping(item, "spec", "scaleTargetRef").update(
            {"apiVersion": "apps/v1", "kind": "Deployment", "name": self.deployment_name(track)}
        )
        for metric in item["spec"].get("metrics", []):
            if metric.get("resource", {}).get("name") == "cpu":
                metric["resource"]["target"] = {
                    "type": "Utilization",
                    "averageUtilization": self.env.autoscale.cpu,
                }
        return item

    def disruption_budget(self) -> Object:
        """Return the limit of how many replicas of both tracks may be evicted at once."""
        item = self._new("PodDisruptionBudget", self.name)
        ensure_mapping(item, "spec", "selector", "matchLabels").update(self.labels)
        return item

    def service_account(self) -> Object:
        """Return the account of the replicas."""
        return self._new("ServiceAccount", self.name)

    def prepull(self, release: Release) -> Object:
        """Return the DaemonSet that pulls an image to the nodes that replicas may run on."""
        item = self._new("DaemonSet", self.prepull_name)
        replica = templates.pod_spec(self._copy("Deployment"))
        labels = {"app.kubernetes.io/name": self.app.name, PREPULL_LABEL: self.environment}
        ensure_mapping(item, "spec", "selector", "matchLabels").update(labels)
        ensure_mapping(item, "spec", "template", "metadata", "labels").update(
            labels | {COMPONENT_LABEL: "pre-pull"}
        )
        pod = templates.pod_spec(item)
        pod.update(
            {
                key: replica[key]
                for key in ("nodeSelector", "tolerations", "imagePullSecrets")
                if key in replica
            }
        )
        # Only node affinity matters: the image is needed wherever a replica may run.
        nodes = replica.get("affinity", {}).get("nodeAffinity")
        pod.update({"affinity": {"nodeAffinity": nodes}} if nodes else {})
        add_pull_secret(pod, self.env)
        templates.app_container(pod)["image"] = release.reference
        return item

    # --- parts of objects

    def _copy(self, kind: str) -> Object:
        return deepcopy(self.object_templates[kind])

    def _new(self, kind: str, name: str) -> Object:
        item = self._copy(kind)
        identity = {"name": name, "namespace": self.env.namespace}
        # Once before, for the order of the keys, and once after, for the values.
        item["metadata"] = identity | item.get("metadata", {}) | identity
        ensure_mapping(item, "metadata", "labels").update(self.object_labels)
        return item

    def _placeholder(self, kind: str) -> object:
        """Return the name that the template of a kind has, by which references to it are found."""
        return self.object_templates[kind].get("metadata", {}).get("name")


def _backends(spec: Object) -> Iterator[Object]:
    """Yield the services to which an Ingress sends requests."""
    paths = [path for rule in spec["rules"] for path in rule.get("http", {}).get("paths", [])]
    for backend in (spec.get("defaultBackend", {}), *(path.get("backend", {}) for path in paths)):
        yield backend.get("service", {})


def _cause(attempt: Attempt) -> str:
    """Return the line that `kubectl rollout history` shows."""
    image = attempt.release.image
    run = f", {attempt.run}" if attempt.run else ""
    what = f"commit {image.app.commit} with {image.layer.model}"
    return f"{attempt.trigger} {attempt.id}: {what}, by {attempt.by}{run}"
