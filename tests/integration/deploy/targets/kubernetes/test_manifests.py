"""A real API server takes the manifests as they are, and all that is rendered of them; nothing is left behind."""

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

from deploy.clients.kubernetes.protocol import MANAGER, Object
from deploy.targets.kubernetes import templates
from deploy.targets.kubernetes.render import as_yaml
from tests.fakes.releases import attempt, release
from tests.fakes.renderings import ALL_SETTINGS, all_objects, edit_templates, rendering
from tests.integration.conftest import lacking

pytestmark = pytest.mark.integration

FILES = sorted(templates.DEFAULT_FOLDER.glob("*.yaml"))
A = release("a")


def documents(text: str) -> list[Object]:
    """The objects of a stream of YAML."""
    return list(yaml.safe_load_all(text))


def rendered() -> list[Object]:
    """All that an environment can consist of."""
    return all_objects(rendering(**ALL_SETTINGS), A, attempt(1, A))


@pytest.fixture(scope="module")
def server() -> DynamicClient:
    """The API server that KUBECONFIG leads to."""
    cure = "set KUBECONFIG to the path of a kubeconfig for a cluster that tests may use"
    if not os.environ.get("KUBECONFIG"):
        lacking("no cluster is named", cure)
    try:
        api: ApiClient = config.new_client_from_config()  # type: ignore[no-untyped-call]  # the library's own omission
        return DynamicClient(api)  # type: ignore[no-untyped-call]  # the same
    except (ConfigException, HTTPError, ApiException, DynamicApiError) as error:
        lacking(f"no cluster answers: {error}", cure)


@pytest.fixture(scope="module")
def kubectl() -> str:
    """Kubernetes' own command line."""
    found = shutil.which("kubectl")
    if found is None:
        lacking("kubectl is not installed", "install it: Debian's package is kubernetes-client")
    return found


@pytest.fixture(scope="module")
def namespace(server: DynamicClient) -> Iterator[str]:
    """A namespace of the tests' own; it stays empty."""
    name = f"test-manifests-{secrets.token_hex(4)}"
    namespaces = server.resources.get(api_version="v1", kind="Namespace")
    namespaces.create(body={"metadata": {"name": name}})
    yield name
    namespaces.delete(name=name)


def applied(server: DynamicClient, namespace: str, item: Object) -> Object:
    """What an object would be on the cluster after a server-side apply that is not carried out."""
    resource = server.resources.get(api_version=item["apiVersion"], kind=item["kind"])
    name = item["metadata"]["name"]
    body = _here(item, namespace)
    answer = resource.server_side_apply(
        body=body, name=name, namespace=namespace, field_manager=MANAGER, dry_run="All"
    )
    found: Object = answer.to_dict()
    return found


def _here(item: Object, namespace: str) -> Object:
    return item | {"metadata": item["metadata"] | {"namespace": namespace}}


def served(server: DynamicClient, item: Object) -> bool:
    """Whether this cluster knows objects of that kind in that version."""
    try:
        server.resources.get(api_version=item["apiVersion"], kind=item["kind"])
    except ResourceNotFoundError:
        return False
    return True


def require_served(server: DynamicClient, item: Object) -> None:
    """Skips on a cluster that is older than a kind; the schemas of current ones are checked without a cluster."""
    if not served(server, item):
        pytest.skip(
            f"this cluster does not serve {item['kind']} in {item['apiVersion']}; a newer one does"
        )


def sent(part: Any, whole: Any) -> bool:
    """Whether everything that was sent is in what the cluster would have; it adds defaults, and items are in their order."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            key in whole and sent(value, whole[key]) for key, value in part.items()
        )
    if isinstance(part, list):
        return isinstance(whole, list) and len(part) == len(whole) and all(map(sent, part, whole))
    return bool(part == whole)


@pytest.mark.parametrize(
    "item",
    [item for file in FILES for item in documents(file.read_text(encoding="utf-8"))],
    ids=lambda item: item["kind"],
)
def test_a_manifest_is_taken_as_it_is(server: DynamicClient, namespace: str, item: Object) -> None:
    """Nothing of it is dropped on the way."""
    require_served(server, item)
    assert sent(_here(item, namespace), applied(server, namespace, item))


@pytest.mark.parametrize("item", rendered(), ids=lambda item: item["kind"])
def test_a_rendering_is_taken(server: DynamicClient, namespace: str, item: Object) -> None:
    """Names, labels, annotations and quantities are of the forms that the server asks for."""
    require_served(server, item)
    assert sent(_here(item, namespace), applied(server, namespace, item))


@pytest.mark.parametrize("app", ["a" * 43, "3d", "my_app.v2"])
def test_the_longest_and_the_oddest_names_are_taken(
    server: DynamicClient, namespace: str, app: str
) -> None:
    """Whatever the settings let pass fits the cluster's own limits."""
    settings = rendering().app.model_copy(update={"name": app})
    made = rendering(app=settings, name="b.c_d9")
    for item in all_objects(made, A):
        if served(server, item):
            assert sent(_here(item, namespace), applied(server, namespace, item))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("spec__template__spec__containers__0__livenesProbe", {}),
        ("spec__template__spec__containers__0__ports__0__containerPort", 70000),
        ("spec__template__spec__containers__0__imagePullPolicy", "Sometimes"),
        ("spec__progressDeadlineSeconds", 0),
    ],
)
def test_a_wrong_manifest_is_refused(
    server: DynamicClient, namespace: str, tmp_path: Path, place: str, value: Any
) -> None:
    """The server does check what is only tried."""
    folder = edit_templates(tmp_path, "deployment.yaml", **{place: value})
    item = yaml.safe_load((folder / "deployment.yaml").read_text(encoding="utf-8"))
    with pytest.raises((UnprocessibleEntityError, BadRequestError, DynamicApiError)) as caught:
        applied(server, namespace, item)
    assert caught.value.status in (400, 422, 500)


def test_kubectl_takes_the_folder(server: DynamicClient, namespace: str, kubectl: str) -> None:
    """`kubectl apply -f deploy/manifests/`, but for kinds that are younger than the cluster."""
    taken = {file: documents(file.read_text(encoding="utf-8")) for file in FILES}
    files = [
        str(file) for file, items in taken.items() if all(served(server, item) for item in items)
    ]
    assert _dry_run(kubectl, namespace, *(word for file in files for word in ("-f", file))) == len(
        [item for file in files for item in taken[Path(file)]]
    )


def test_kubectl_takes_what_is_rendered(
    server: DynamicClient, namespace: str, kubectl: str
) -> None:
    """`invoke render | kubectl apply -f -`."""
    objects = [_here(item, namespace) for item in rendered() if served(server, item)]
    assert _dry_run(kubectl, namespace, "-f", "-", stdin=as_yaml(objects)) == len(objects)


def test_kubectl_reads_every_text_as_text(server: DynamicClient, kubectl: str) -> None:
    """Also what looks like a number, a date or a truth to one reader of YAML and not to another."""
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
        command, input=as_yaml([item]), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["data"] == item["data"]


def _dry_run(kubectl: str, namespace: str, *words: str, stdin: str = "") -> int:
    """How many objects kubectl would apply."""
    command = [kubectl, "apply", "--dry-run=server", "--namespace", namespace, *words]
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return len(done.stdout.splitlines())
