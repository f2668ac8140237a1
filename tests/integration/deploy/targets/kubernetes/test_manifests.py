"""A real API server accepts the object templates and all rendered objects in a dry run."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import config
from kubernetes.client import ApiClient, ApiException
from kubernetes.config import ConfigException
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import (
    BadRequestError,
    DynamicApiError,
    ResourceNotFoundError,
    UnprocessibleEntityError,
)
from urllib3.exceptions import HTTPError

from deploy.clients.kubernetes.protocol import FIELD_MANAGER, Object
from deploy.targets.kubernetes import templates
from deploy.targets.kubernetes.compatibility import fit, parse_version
from deploy.targets.kubernetes.yaml_text import to_yaml
from tests.fakes.releases import attempt, release
from tests.fakes.renderings import ALL_SETTINGS, all_objects, edit_templates, rendering
from tests.missing import lacking

pytestmark = pytest.mark.integration

FILES = sorted(templates.DEFAULT_FOLDER.glob("*.yaml"))
A = release("a")


def documents(text: str) -> list[Object]:
    """Return the objects of a stream of YAML."""
    return list(yaml.safe_load_all(text))


def render_all() -> list[Object]:
    """Return all objects of an environment."""
    return all_objects(rendering(**ALL_SETTINGS), A, attempt(1, A))


@pytest.fixture(scope="module")
def server() -> DynamicClient:
    """Return the API server that KUBECONFIG names."""
    cure = "set KUBECONFIG to the path of a kubeconfig for a cluster that tests may use"
    if not os.environ.get("KUBECONFIG"):
        lacking("no cluster is named", cure)
    try:
        api: ApiClient = config.new_client_from_config()  # type: ignore[no-untyped-call]  # the library has no types
        return DynamicClient(api)  # type: ignore[no-untyped-call]  # the library has no types
    except (ConfigException, HTTPError, ApiException, DynamicApiError) as error:
        lacking(f"no cluster answers: {error}", cure)


@pytest.fixture(scope="module")
def kubectl() -> str:
    """Return the command line of Kubernetes."""
    found = shutil.which("kubectl")
    if found is None:
        lacking("kubectl is not installed", "install it: Debian's package is kubernetes-client")
    return found


@pytest.fixture(scope="module")
def namespace(server: DynamicClient) -> Iterator[str]:
    """Create a namespace that stays empty."""
    name = f"test-manifests-{secrets.token_hex(4)}"
    namespaces = server.resources.get(api_version="v1", kind="Namespace")
    namespaces.create(body={"metadata": {"name": name}})
    yield name
    namespaces.delete(name=name)


def dry_run_apply(server: DynamicClient, namespace: str, item: Object) -> Object:
    """Return what an object would be after a server-side apply, which is not carried out."""
    resource = server.resources.get(api_version=item["apiVersion"], kind=item["kind"])
    name = item["metadata"]["name"]
    body = _in_namespace(item, namespace)
    answer = resource.server_side_apply(
        body=body, name=name, namespace=namespace, field_manager=FIELD_MANAGER, dry_run="All"
    )
    found: Object = answer.to_dict()
    return found


def _in_namespace(item: Object, namespace: str) -> Object:
    return item | {"metadata": item["metadata"] | {"namespace": namespace}}


def is_served(server: DynamicClient, item: Object) -> bool:
    """Return whether this cluster knows objects of that kind in that version."""
    try:
        server.resources.get(api_version=item["apiVersion"], kind=item["kind"])
    except ResourceNotFoundError:
        return False
    return True


def require_served(server: DynamicClient, item: Object) -> None:
    """Skip on a cluster older than a kind; unit tests check the schemas of current ones."""
    if not is_served(server, item):
        pytest.skip(
            f"this cluster does not serve {item['kind']} in {item['apiVersion']}; a newer one does"
        )


def fitted(server: DynamicClient, item: Object) -> Object:
    """Return an object as a release applies it to this cluster."""
    return fit(item, parse_version(server.version["kubernetes"]["gitVersion"]))


def contains(part: Any, whole: Any) -> bool:
    """Return whether the cluster's object has all that was sent; it adds defaults."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            key in whole and contains(value, whole[key]) for key, value in part.items()
        )
    if isinstance(part, list):
        return (
            isinstance(whole, list) and len(part) == len(whole) and all(map(contains, part, whole))
        )
    return bool(part == whole)


@pytest.mark.parametrize(
    "item",
    [item for file in FILES for item in documents(file.read_text(encoding="utf-8"))],
    ids=lambda item: item["kind"],
)
def test_a_template_is_accepted(server: DynamicClient, namespace: str, item: Object) -> None:
    """No key of it is dropped."""
    require_served(server, item)
    known = fitted(server, item)
    assert contains(_in_namespace(known, namespace), dry_run_apply(server, namespace, known))


@pytest.mark.parametrize("item", render_all(), ids=lambda item: item["kind"])
def test_a_rendered_object_is_accepted(server: DynamicClient, namespace: str, item: Object) -> None:
    """Names, labels, annotations and quantities are valid."""
    require_served(server, item)
    known = fitted(server, item)
    assert contains(_in_namespace(known, namespace), dry_run_apply(server, namespace, known))


@pytest.mark.parametrize("app", ["a" * 43, "3d", "my_app.v2"])
def test_the_longest_and_most_unusual_names_are_accepted(
    server: DynamicClient, namespace: str, app: str
) -> None:
    """All names that the settings allow are within the limits of the cluster."""
    settings = rendering().app.model_copy(update={"name": app})
    made = rendering(app=settings, name="b.c_d9")
    for item in all_objects(made, A):
        if is_served(server, item):
            known = fitted(server, item)
            assert contains(
                _in_namespace(known, namespace), dry_run_apply(server, namespace, known)
            )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec__template__spec__containers__0__livenesProbe", {}),
        ("spec__template__spec__containers__0__ports__0__containerPort", 70000),
        ("spec__template__spec__containers__0__imagePullPolicy", "Sometimes"),
        ("spec__progressDeadlineSeconds", 0),
    ],
)
def test_an_invalid_template_is_refused(
    server: DynamicClient, namespace: str, tmp_path: Path, path: str, value: Any
) -> None:
    """The server validates in a dry run too."""
    folder = edit_templates(tmp_path, "deployment.yaml", **{path: value})
    text = (folder / "deployment.yaml").read_text(encoding="utf-8")
    item = fitted(server, yaml.safe_load(text))
    with pytest.raises((UnprocessibleEntityError, BadRequestError, DynamicApiError)) as caught:
        dry_run_apply(server, namespace, item)
    assert caught.value.status in (400, 422, 500)


def test_kubectl_accepts_the_folder(server: DynamicClient, namespace: str, kubectl: str) -> None:
    """That is `kubectl apply -f deploy/manifests/`, without what is unknown to the cluster."""
    items_by_file = {file: documents(file.read_text(encoding="utf-8")) for file in FILES}
    files = [
        str(file)
        for file, items in items_by_file.items()
        if all(is_served(server, item) and fitted(server, item) == item for item in items)
    ]
    assert _dry_run(kubectl, namespace, *(word for file in files for word in ("-f", file))) == len(
        [item for file in files for item in items_by_file[Path(file)]]
    )


def test_kubectl_accepts_the_rendered_objects(
    server: DynamicClient, namespace: str, kubectl: str
) -> None:
    """That is `invoke render | kubectl apply -f -`."""
    objects = [
        _in_namespace(fitted(server, item), namespace)
        for item in render_all()
        if is_served(server, item)
    ]
    assert _dry_run(kubectl, namespace, "-f", "-", stdin=to_yaml(objects)) == len(objects)


def test_kubectl_reads_every_text_as_text(server: DynamicClient, kubectl: str) -> None:
    """Some YAML parsers would read it as a number, a date or a boolean."""
    words = [
        "1e3",
        "12e45678",
        "0o14",
        "0x1f",
        "y",
        "N",
        "yes",
        "off",
        "null",
        "~",
        "",
        ".5",
        "+1",
        "1_000",
        "12:30",
        "2026-01-01",
        "é\u2028\x85",
    ]
    item = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "words"},
        "data": {f"k{n}": word for n, word in enumerate(words)},
    }
    command = [kubectl, "create", "--dry-run=client", "--validate=false", "-o", "json", "-f", "-"]
    done = subprocess.run(
        command, input=to_yaml([item]), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["data"] == item["data"]


def _dry_run(kubectl: str, namespace: str, *words: str, stdin: str = "") -> int:
    """Return how many objects kubectl would apply."""
    command = [kubectl, "apply", "--dry-run=server", "--namespace", namespace, *words]
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return len(done.stdout.splitlines())
