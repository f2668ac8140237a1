"""A release whose model store is in S3, with logins that may do only what they need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest

from bench.application import Application
from deploy.clients.network import ca_bundle
from tests.moto import MotoServer

READ = ("s3:ListBucket", "s3:GetObject")


@pytest.fixture(scope="module", name="digits")
def _digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """Return an application that was never released; remove it afterwards."""
    application = Application.create(tmp_path_factory.mktemp("digits"), "examples/digits")
    yield application
    application.invoke("down", "--purge")


def test_a_model_goes_from_s3_into_a_release(
    moto: MotoServer, digits: Application, tmp_path: Path
) -> None:
    """One login publishes, another may only read and releases; no key is printed."""
    environ = {
        **moto.environ(),
        "REQUESTS_CA_BUNDLE": str(moto.write_bundle(tmp_path, ca_bundle() or certifi.where())),
        "TWINSHIP_MODEL__STORE": f"s3://{moto.create_bucket()}/team",
    }
    publisher = environ | moto.create_user(*READ, "s3:PutObject")
    reader = environ | moto.create_user(*READ)
    with moto.checking_logins():
        refused = digits.invoke("model.publish", "--directory", "model", **reader)
        published = digits.ok("model.publish", "--directory", "model", **publisher)
        listed = digits.ok("model.list", **reader)
        released = digits.ok("release", **reader)
        status = digits.ok("status", "--json", **reader)

    assert refused.code == 25
    assert "s3:PutObject to publish" in refused.err
    assert listed.out.splitlines()[-1].split()[:3] == ["digits", "1", "latest"]
    assert status.json["serving"]["model"] == "digits@1"
    assert digits.get("/about")["model"]["version"] == "1"
    printed = "".join(
        done.out + done.err for done in (refused, published, listed, released, status)
    )
    assert publisher["AWS_SECRET_ACCESS_KEY"] not in printed
    assert reader["AWS_SECRET_ACCESS_KEY"] not in printed
