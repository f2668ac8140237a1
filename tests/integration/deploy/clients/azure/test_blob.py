"""A model store in Azure Blob: the real library, on a stand-in over TLS."""

from __future__ import annotations

import io
import random
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from deploy.clients.azure.blob import BlobStore, open_blob_store
from deploy.clients.stores.protocol import Store
from deploy.errors import StoreUnreachable
from tests.contracts.store import StoreContract
from tests.fakes.azure.blobs import blob_error
from tests.fakes.azure.logins import SERVICE_PRINCIPAL, identity_on
from tests.fakes.azure.server import Served, serve
from tests.fakes.azure.stand_in import OBJECT, StandIn

pytestmark = pytest.mark.integration

HOST = "127.0.0.1"


@pytest.fixture
def served(azure: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Serve the stand-in; a key in the environment is not to be used."""
    with serve(azure, tmp_path) as found:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(found.authority))
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "cGxhbnRlZA==")
        yield found


def open_at(
    served: Served,
    azure: StandIn,
    container: str = "models",
    secret: str = "",
    key: Mapping[str, str] | None = None,
) -> BlobStore:
    """Open a store on the stand-in, whose tokens come from it in memory."""
    environ = {
        "AZURE_STORAGE_ACCOUNT_NAME": "shop",
        "AZURE_STORAGE_ENDPOINT": f"https://{HOST}:{served.port}/shop",
    }
    login = {**SERVICE_PRINCIPAL, **({"AZURE_CLIENT_SECRET": secret} if secret else {})}
    identity = identity_on(azure, login)
    return open_blob_store(f"az://{container}/prefix", identity, environ, key or {})


class TestBlob(StoreContract):
    """It keeps the contract of every store."""

    @pytest.fixture
    def store(self, served: Served, azure: StandIn) -> Store:
        """Return an empty store."""
        return open_at(served, azure)


def refusals_of(store: Store) -> list[StoreUnreachable]:
    """Return the errors of a listing, of reading and of writing."""
    found = []
    for act in (
        lambda: store.folders("models"),
        lambda: store.read("a", 10),
        lambda: store.create("a", b""),
    ):
        with pytest.raises(StoreUnreachable) as caught:
            act()
        found.append(caught.value)
    return found


def test_a_missing_role_is_told(azure: StandIn, served: Served) -> None:
    """The advice is the command, filled in."""
    azure.roles.discard("blobs")
    for error in refusals_of(open_at(served, azure)):
        assert error.what == "the model store refused the login or the permission"
        assert f"--assignee-object-id {OBJECT}" in error.next
        assert '--role "Storage Blob Data Contributor"' in error.next
        assert "--scope $(az storage account show --name shop" in error.next


@pytest.mark.parametrize(
    ("status", "code", "cure"),
    [
        (403, "AuthorizationFailure", "firewall"),
        (403, "KeyBasedAuthenticationNotPermitted", "takes no keys"),
        (401, "InvalidAuthenticationInfo", "another tenant"),
        (409, "PublicAccessNotPermitted", "no anonymous access"),
        (409, "ContainerBeingDeleted", "was deleted a moment ago"),
    ],
)
def test_refusals_are_told_apart(
    azure: StandIn, served: Served, status: int, code: str, cure: str
) -> None:
    """Whatever the request is; a conflict of another kind is no taken name."""
    azure.faults[HOST] = deque([blob_error(status, code)] * 6)
    for error in refusals_of(open_at(served, azure)):
        assert cure in error.next
        assert code in error.next


def test_a_missing_container_is_no_missing_model(azure: StandIn, served: Served) -> None:
    """The advice is the command that creates it."""
    for error in refusals_of(open_at(served, azure, "other")):
        assert error.what == "the model store has no such container or bucket"
        assert "az storage container create --account-name shop --name other" in error.next


def test_a_refused_login_is_told_as_for_every_part(azure: StandIn, served: Served) -> None:
    """The library shows the text of the failure alone."""
    for error in refusals_of(open_at(served, azure, secret="wrong-one")):
        assert error.what == "the login to Azure was refused"
        assert "AADSTS7000215" in error.detail
        assert "wrong-one" not in f"{error}{error.next}"


def test_a_token_is_replaced_before_its_end(azure: StandIn, served: Served) -> None:
    """The library asks for another once the end that it was told has passed."""
    azure.lifetime = 2
    store = open_at(served, azure)
    assert store.create("a", b"1")
    while azure.tokens_issued("https://storage.azure.com") < 2:
        assert store.read("a", 1) == b"1"


@pytest.mark.parametrize(
    "key", [{"access_key": "cGxhbnRlZA=="}, {"sas_token": "sv=2026-01-01&sig=planted"}]
)
def test_a_named_key_opens_a_store(azure: StandIn, served: Served, key: Mapping[str, str]) -> None:
    """Where the account takes keys; no token is requested then."""
    azure.takes_keys = True
    store = open_at(served, azure, key=key)
    assert store.create("a", b"1")
    assert store.read("a", 1) == b"1"
    assert azure.tokens_issued("https://storage.azure.com") == 0
    azure.takes_keys = False
    for error in refusals_of(store):
        assert "remove `account_key`" in error.next
        assert "planted" not in f"{error}{error.next}"


def test_a_key_that_allows_too_little_is_no_missing_role(azure: StandIn, served: Served) -> None:
    """There may be no identity at all."""
    azure.faults[HOST] = deque([blob_error(403, "AuthorizationPermissionMismatch")] * 3)
    store = open_at(served, azure, secret="wrong-one", key={"sas_token": "sv=1&sig=planted"})
    for error in refusals_of(store):
        assert "does not allow this" in error.next


@pytest.mark.parametrize("size", [10, 12 << 20])
def test_a_revoked_token_is_replaced(azure: StandIn, served: Served, size: int) -> None:
    """The library would keep it until its end; a file is sent again from its start."""
    store = open_at(served, azure)
    assert store.create("a", b"1")
    azure.revoked |= set(azure.signer.signed)
    store.upload("b", io.BytesIO(bytes(size)))
    assert store.size("b") == size
    assert azure.tokens_issued("https://storage.azure.com") == 2


def test_a_login_that_was_revoked_for_good_is_told(azure: StandIn, served: Served) -> None:
    """There is no second token then."""
    store = open_at(served, azure)
    assert store.create("a", b"1")
    azure.revoked |= set(azure.signer.signed)
    azure.secret = "changed"
    with pytest.raises(StoreUnreachable, match="login to Azure was refused"):
        store.read("a", 1)


@pytest.mark.parametrize("cuts", [[], [0, 1000, 4 << 20]])
def test_a_large_file_is_read_in_ranges(azure: StandIn, served: Served, cuts: list[int]) -> None:
    """Several at the same time, in order; a cut one is read again."""
    # Each range, also the last one, is longer than where it may be cut.
    data = random.Random(1).randbytes((45 << 20) + 17)
    azure.blobs.blobs["prefix/big"] = data
    azure.blobs.cuts += cuts
    chunks = open_at(served, azure).stream("big")
    assert chunks is not None
    assert b"".join(chunks) == data
    assert azure.blobs.cuts == []
    assert sum("range" in one.headers for one in azure.asked) == 6 + len(cuts)


def test_reading_of_a_large_file_can_end_early(azure: StandIn, served: Served) -> None:
    """The rest is not read."""
    azure.blobs.blobs["prefix/big"] = bytes(200 << 20)
    chunks = open_at(served, azure).stream("big")
    assert chunks is not None
    assert len(next(chunks)) == 8 << 20
    chunks.close()  # type: ignore[attr-defined]  # a generator
    assert sum("range" in one.headers for one in azure.asked) < 20
