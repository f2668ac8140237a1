"""A model store in Azure Blob: where it is, its login, and what a refusal means.

Source: obstore's documentation, "AzureStore"; "Blob service error codes" of Azure Storage.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from deploy.clients.azure import roles
from deploy.clients.azure.errors import AzureError
from deploy.clients.azure.identity import Identity
from deploy.clients.stores.connections import connection_options, is_url
from deploy.clients.stores.object_store import Chunk, ObjectStore
from deploy.clients.stores.refusals import code_of, is_denial, is_login_refused
from deploy.errors import SettingsInvalid, StoreUnreachable
from deploy.text import hide_queries

if TYPE_CHECKING:
    from obstore.store import AzureStore

log = logging.getLogger(__name__)

Result = TypeVar("Result")

RESOURCE = "https://storage.azure.com"
_ROLE = frozenset({"AuthorizationPermissionMismatch", "InsufficientAccountPermissions"})
_PROBE = "models/probe"
_LOCATION = (
    "write az://container/prefix with AZURE_STORAGE_ACCOUNT_NAME, "
    "or https://ACCOUNT.blob.core.windows.net/container/prefix"
)
_RENEW = (
    "the token is for another tenant or has expired: check `tenant` in [azure], or `az login` again"
)
_CURES: Mapping[str, str] = {
    "AuthorizationFailure": "the account's firewall refuses this address: add it in the account's "
    "networking, or run where the account can be reached",
    "KeyBasedAuthenticationNotPermitted": "the account takes no keys: remove `account_key` and "
    "`sas` from [model], so that the identity is used",
    "PublicAccessNotPermitted": "the account has no anonymous access: log in, for example by "
    "`az login`",
    "NoAuthenticationInformation": "log in, for example by `az login`",
    "InvalidAuthenticationInfo": _RENEW,
    "AuthenticationFailed": _RENEW,
    "ContainerBeingDeleted": "the container was deleted a moment ago: wait, or name another",
    "AccountIsDisabled": "the storage account is disabled: enable it",
}


@dataclass(frozen=True)
class BlobAddress:
    """A place in Azure Blob.

    Attributes:
        account: The storage account.
        container: The container.
        prefix: The path in it; may be empty.
        endpoint: The URL of the account.
    """

    account: str
    container: str
    prefix: str
    endpoint: str


def find_address(location: str, identity: Identity, environ: Mapping[str, str]) -> BlobAddress:
    """Return the place that a location of Azure Blob means.

    Args:
        location: The location.
        identity: Knows the cloud.
        environ: The environment of the process.

    Raises:
        SettingsInvalid: The location has no account or container, or is in another cloud.
    """
    parts = urlsplit(location)
    host = parts.hostname or ""
    if parts.scheme == "https":
        account = _account_in(host, identity)
        container, _, prefix = parts.path.strip("/").partition("/")
    else:
        # abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX, or az://CONTAINER/PREFIX
        usual = environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
        account = _account_in(host, identity) if parts.username else usual
        container = parts.username or host
        prefix = parts.path.strip("/")
    if not (account and container):
        lacking = "storage account" if container else "container"
        raise SettingsInvalid(
            f"the model store's URL has no {lacking}", on=hide_queries(location), next=_LOCATION
        )
    named = environ.get("AZURE_STORAGE_ENDPOINT")
    if named and not is_url(named, "https"):
        raise SettingsInvalid(
            "the environment variable AZURE_STORAGE_ENDPOINT is no URL with https",
            on=hide_queries(location),
            next="write it as https://HOST, or unset it",
        )
    endpoint = named or _endpoint_of(account, identity)
    return BlobAddress(account, container, prefix, endpoint)


def _endpoint_of(account: str, identity: Identity) -> str:
    cloud = identity.cloud
    suffix = cloud.require_suffix(cloud.storage_suffix, "storage-endpoint")
    return f"https://{account}.blob.{suffix}"


def _account_in(host: str, identity: Identity) -> str:
    """Return the account in a host's name, which has to be of the identity's cloud."""
    suffix = identity.cloud.storage_suffix
    account, _, rest = host.partition(".")
    if suffix and rest.removeprefix("privatelink.") in (f"blob.{suffix}", f"dfs.{suffix}"):
        return account
    raise SettingsInvalid(
        f"the model store is not in the cloud {identity.cloud.name}",
        on=host,
        next="set `cloud` in [azure], or correct `store` in [model]",
    )


def open_blob_store(
    location: str,
    identity: Identity,
    environ: Mapping[str, str],
    key: Mapping[str, str],
) -> BlobStore:
    """Open a model store in Azure Blob; no request is sent yet.

    Args:
        location: Its URL.
        identity: Logs in, unless there is a key.
        environ: The environment of the process.
        key: An account key as `access_key`, or a SAS as `sas_token`; empty for none.

    Raises:
        SettingsInvalid: The location cannot be used.
    """
    address = find_address(location, identity, environ)
    if key:
        log.warning("azure  a stored key opens the model store; an identity would need none")
    credentials = BlobCredentials(identity, key)
    return BlobStore(
        lambda: ObjectStore(lambda: connect(address, credentials), location),
        BlobRefusals(address, identity, credentials),
        credentials,
    )


class BlobCredentials:
    """The credentials of a store, which the library asks for when the last ones have ended.

    Args:
        identity: Gives tokens.
        key: An account key or a SAS, which takes the place of the identity; empty for none.

    Attributes:
        failure: Why the last request for a token failed; the library would show its text alone.
    """

    def __init__(self, identity: Identity, key: Mapping[str, str]) -> None:
        self._identity = identity
        self._key = key
        self._token = ""
        self.failure: AzureError | None = None

    @property
    def has_key(self) -> bool:
        """Whether a key or a SAS takes the place of the identity."""
        return bool(self._key)

    def replace(self) -> bool:
        """Replace a token that the service refused; return whether there is another."""
        if self._key or not self._token:
            return False
        try:
            self._token = self._identity.token(RESOURCE, self._token).value
        except AzureError as error:
            self.failure = error
            return False
        return True

    def __call__(self) -> Any:  # noqa: ANN401 - one of the library's dictionaries
        """Return the credentials; their end is five minutes early, as they are not asked before."""
        if self._key:
            return {**self._key, "expires_at": None}
        try:
            token = self._identity.token(RESOURCE)
        except AzureError as error:
            self.failure = error
            raise
        self.failure = None
        self._token = token.value
        return {"token": token.value, "expires_at": datetime.fromtimestamp(token.renew_at, UTC)}


def connect(address: BlobAddress, credentials: BlobCredentials) -> AzureStore:
    """Return the library's store at an address."""
    from obstore.store import AzureStore

    return AzureStore(
        address.container,
        prefix=address.prefix or None,
        account_name=address.account,
        endpoint=address.endpoint,
        credential_provider=credentials,
        client_options=connection_options(),
    )


class BlobRefusals:
    """What refusals of a store mean for its user.

    Args:
        address: Where the store is.
        identity: Its login.
        credentials: Tell why there was no token, and whether there is a key.
    """

    def __init__(
        self, address: BlobAddress, identity: Identity, credentials: BlobCredentials
    ) -> None:
        self._address = address
        self._identity = identity
        self._credentials = credentials

    @contextmanager
    def explain(self) -> Iterator[None]:
        """Say of a failure what to do about it, by the service's code."""
        try:
            yield
        except StoreUnreachable as error:
            failure = self._credentials.failure
            if failure is not None:
                raise failure.of_kind(StoreUnreachable) from None
            error.next = self._cure(error.__cause__ or error) or error.next
            raise

    def _cure(self, cause: BaseException) -> str:
        code = code_of(cause)
        address = self._address
        if code == "AuthenticationFailed" and self._credentials.has_key:
            return f"the key or the SAS that [model] names is wrong or has expired ({code})"
        if code in _CURES:
            return f"{_CURES[code]} ({code})"
        if code == "ContainerNotFound":
            return (
                f"`az storage container create --account-name {address.account} "
                f"--name {address.container} --auth-mode login`, or correct `store` in [model]"
            )
        if code in _ROLE:
            return self._role_advice()
        if is_denial(cause):
            return f"{self._role_advice()}; or a firewall: `invoke doctor` tells which"
        return ""

    def _role_advice(self) -> str:
        """Return the command that gives the identity its role, unless a key is used."""
        if self._credentials.has_key:
            return "the key or the SAS that [model] names does not allow this: name one that does"
        scope = roles.storage_scope(self._address.account)
        command = roles.assignment(self._identity.principal(), roles.WRITE_BLOBS, scope)
        return (
            f'{command}; "{roles.READ_BLOBS}" is enough to fetch, and Owner or Contributor are not'
        )


class BlobStore:
    """A store in Azure Blob, whose refusals say what to do, and whose token is replaced if refused.

    Args:
        open_store: Opens it; the library keeps a token until its end, so a new one needs that.
        refusals: Explain its refusals.
        credentials: Its login.
    """

    def __init__(
        self,
        open_store: Callable[[], ObjectStore],
        refusals: BlobRefusals,
        credentials: BlobCredentials,
    ) -> None:
        self._open_store = open_store
        self._refusals = refusals
        self._credentials = credentials
        self._store = open_store()
        self.location = self._store.location

    def size(self, name: str) -> int | None:
        return self._send(lambda store: store.size(name))

    def read(self, name: str, limit: int) -> bytes | None:
        return self._send(lambda store: store.read(name, limit))

    def stream(self, name: str) -> Iterator[Chunk] | None:
        chunks = self._send(lambda store: store.stream(name))
        return None if chunks is None else self._explained(chunks)

    def _explained(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        with self._refusals.explain():
            yield from chunks

    def create(self, name: str, data: bytes) -> bool:
        return self._send(lambda store: store.create(name, data))

    def replace(self, name: str, data: bytes) -> None:
        self._send(lambda store: store.replace(name, data))

    def upload(self, name: str, file: BinaryIO) -> None:
        start = file.tell()

        def send(store: ObjectStore) -> None:
            file.seek(start)
            store.upload(name, file)

        self._send(send)

    def folders(self, prefix: str) -> list[str]:
        return self._send(lambda store: store.folders(prefix))

    def publish_advice(self) -> str:
        """Return what to do if this login may not write; empty if it may. Nothing is written.

        Raises:
            StoreUnreachable: The store refused for another reason than a missing role.
        """
        try:
            self._send(lambda store: store.require_write(_PROBE))
        except StoreUnreachable as error:
            if code_of(error.__cause__ or error) in _ROLE:
                return error.next
            raise
        return ""

    def _send(self, act: Callable[[ObjectStore], Result]) -> Result:
        """Send a request, and repeat it once with another token if its token is refused."""
        with self._refusals.explain():
            try:
                return act(self._store)
            except StoreUnreachable as error:
                refused = is_login_refused(error.__cause__ or error)
                if not refused or not self._credentials.replace():
                    raise
            self._store = self._open_store()
            return act(self._store)
