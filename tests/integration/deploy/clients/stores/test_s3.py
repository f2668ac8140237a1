"""A model store in S3: the real library, on a server over TLS with its own authority."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.clients.stores.protocol import Store, open_store
from deploy.errors import StoreUnreachable
from tests.contracts.store import StoreContract
from tests.integration.connect_proxy import run_proxy
from tests.integration.deploy.clients.oci.forwarder import run_forwarder
from tests.moto import MotoServer, run_moto

pytestmark = pytest.mark.integration

READ = ("s3:ListBucket", "s3:GetObject")


@pytest.fixture(autouse=True)
def _login(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log in to the server, by the variables that a user sets."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    set_all(monkeypatch, moto.environ())


def set_all(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    """Set variables of the environment."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def bucket(moto: MotoServer) -> str:
    """Return the name of an empty bucket."""
    return moto.create_bucket()


def open_bucket(name: str) -> Store:
    """Open a store in a bucket."""
    return open_store(f"s3://{name}/prefix", Path())


class TestS3(StoreContract):
    """It keeps the contract of every store."""

    @pytest.fixture
    def store(self, bucket: str) -> Store:
        """Return an empty store."""
        return open_bucket(bucket)


def refusal_of(act: Callable[[], object]) -> StoreUnreachable:
    """Return the error of a request."""
    with pytest.raises(StoreUnreachable) as caught:
        act()
    return caught.value


def test_a_missing_bucket_is_no_missing_model() -> None:
    """Whatever the request is."""
    store = open_bucket("no-such-bucket")
    for act in (
        lambda: store.folders("models"),
        lambda: store.read("a", 10),
        lambda: store.create("a", b""),
        lambda: store.upload("a", io.BytesIO(bytes(12 << 20))),
    ):
        assert refusal_of(act).what == "the model store has no such container or bucket"


def test_a_right_that_is_missing_is_told(
    moto: MotoServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who may read cannot publish."""
    set_all(monkeypatch, moto.create_user(*READ))
    store = open_bucket(bucket)
    with moto.checking_logins():
        assert store.read("a", 10) is None
        assert store.folders("models") == []
        error = refusal_of(lambda: store.create("a", b""))
    assert error.what == "the model store refused the login or the permission"
    assert "s3:PutObject to publish" in error.next


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_wrong_key_is_told(
    moto: MotoServer, bucket: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Each of the two; neither is shown."""
    set_all(monkeypatch, {**moto.create_user(*READ), name: "planted"})
    store = open_bucket(bucket)
    with moto.checking_logins():
        for act in (lambda: store.folders("models"), lambda: store.create("a", b"")):
            error = refusal_of(act)
            assert error.what == "the model store refused the login or the permission"
            assert f"correct {name}" in error.next
            assert "planted" not in f"{error}{error.next}{error.detail}"


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_the_authority_of_a_certificate_is_named_by_a_variable(
    moto: MotoServer, bucket: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Either that requests reads or that of OpenSSL."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    monkeypatch.setenv(variable, str(moto.authority))
    assert open_bucket(bucket).create("a", b"1")


def test_a_folder_of_certificates_is_read(
    moto: MotoServer, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By the names that OpenSSL gives them."""
    assert moto.authority is not None
    (tmp_path / "0a1b2c3d.0").write_bytes(moto.authority.read_bytes())
    (tmp_path / "notes.txt").write_text("nothing of interest", encoding="utf-8")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    assert open_bucket(bucket).create("a", b"1")


def test_an_unknown_authority_is_told(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not a matter of the network."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    store = open_bucket(bucket)
    error = refusal_of(lambda: store.read("a", 1))
    assert "signed by an authority that is not trusted here" in error.what
    assert "REQUESTS_CA_BUNDLE" in error.next


def test_an_endpoint_without_tls_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: str
) -> None:
    """Its URL says so; no other variable is needed."""
    with run_moto(tmp_path, tls=False) as plain:
        set_all(monkeypatch, plain.environ())
        assert open_bucket(plain.create_bucket()).create("a", b"1")


@pytest.mark.parametrize("size", [(40 << 20) + 17, 12 << 20, 300_000])
def test_a_download_that_is_cut_goes_on(
    moto: MotoServer, bucket: str, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """In several ranges at the same time, in one stream, or in one response."""
    data = random.Random(1).randbytes(size)
    open_bucket(bucket).upload("big", io.BytesIO(data))
    host, port = moto.url.removeprefix("https://").split(":")
    with run_forwarder((host, int(port))) as forwarder:
        monkeypatch.setenv("AWS_ENDPOINT_URL", forwarder.url)
        store = open_bucket(bucket)
        forwarder.cut_after(size // 3)
        chunks = store.stream("big")
        assert chunks is not None
        assert b"".join(chunks) == data
        assert forwarder.has_cut


@pytest.mark.parametrize(("excluded", "asked"), [("elsewhere.example", True), ("127.0.0.1", False)])
def test_a_proxy_is_used(
    moto: MotoServer, bucket: str, monkeypatch: pytest.MonkeyPatch, excluded: str, asked: bool
) -> None:
    """That of the environment, unless the environment excludes the host."""
    with run_proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", excluded)
        store = open_bucket(bucket)
        assert store.create("a", b"1")
        del store
    assert proxy.asked == ([moto.url.removeprefix("https://")] if asked else [])
