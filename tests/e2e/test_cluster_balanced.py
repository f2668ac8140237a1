"""Releases that clients reach by a load balancer, or by an Ingress with TLS."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.application import Application
from tests.e2e.cluster import Namespace, until
from tests.fakes.certificates import write_certificate
from tests.missing import lacking

KEY = "TWINSHIP_ENVIRONMENTS__INSIDE__{}"
# A controller gives an address within seconds, or there is none.
_PATIENCE = 20.0
_SECRET = "door"


@pytest.fixture(scope="module", name="name")
def _name(served: Application) -> str:
    """Return the name of the environment's objects."""
    return f"{served.name}-inside"


def _require_address(address: Callable[[], str], kind: str) -> str:
    """Return the address that a controller gives to an object; skip the test if it gives none."""
    try:
        until(address, f"{kind} has an address", _PATIENCE)
    except AssertionError:
        pytest.skip(
            f"no controller gives {kind} an address that this machine can reach; "
            "run one beside the cluster, such as cloud-provider-kind"
        )
    return address()


def _release(application: Application, model: str, settings: dict[str, str]) -> str:
    """Release a model to the environment; return what the release printed."""
    return application.ok("release", "--env", "inside", "--model", model, **settings).err


def test_a_release_is_proven_at_its_load_balancer(
    served: Application, cluster: Namespace, name: str
) -> None:
    """The address may come after the first release, which is proven in another way."""
    settings = {KEY.format("SERVICE"): "LoadBalancer"}
    _release(served, "imagenet@1", settings)
    address = _require_address(
        lambda: _address(cluster.core.read_namespaced_service(name, cluster.name)), "the Service"
    )
    printed = _release(served, "imagenet@2", settings)
    assert f"· route  load balancer {address}" in printed
    assert f"· proven at http://{address}: " in printed
    verified = served.ok("verify", "--env", "inside", "--json", **settings).json
    assert (verified["url"], verified["passed"]) == (f"http://{address}", True)


def test_a_release_is_proven_at_its_ingress(
    served: Application, cluster: Namespace, name: str, tmp_path: Path
) -> None:
    """Its host is not in the DNS: the requests go to its address, with the host's certificate."""
    host = f"{name}.example"
    if shutil.which("openssl") is None:
        lacking("certificates cannot be made", "install openssl")
    certificate, key = write_certificate(tmp_path, f"DNS:{host}")
    cluster.create_certificate(_SECRET, certificate, key)
    settings = {
        KEY.format("HOST"): host,
        KEY.format("TLS_SECRET"): _SECRET,
        "REQUESTS_CA_BUNDLE": str(certificate),
    }
    _release(served, "imagenet@1", settings)
    address = _require_address(lambda: _address(cluster.ingress(name)), "the Ingress")

    def verify() -> Any:
        return served.ok("verify", "--env", "inside", "--json", **settings).json

    # The controller loads the certificate some time after it has given the address.
    until(lambda: verify()["url"] == f"https://{address}", "the certificate is used", every=1.0)
    printed = _release(served, "imagenet@2", settings)
    assert f"· route  Ingress {host} at {address}, to which DNS does not resolve" in printed
    assert re.search(rf"· proven at https://{re.escape(address)}: ", printed), printed
    assert verify()["passed"] is True


def _address(item: Any) -> str:
    """Return the address in the status of a Service or an Ingress; empty if it has none."""
    entries = item.status.load_balancer.ingress or []
    return str(entries[0].ip or entries[0].hostname) if entries else ""
