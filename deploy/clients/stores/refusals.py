"""What a service of objects says when it refuses a request, as the library's errors have it.

The library takes every conflict for a taken name, a missing container for a missing name, and has
the status of a refused listing in its text alone.
Source: "Blob service error codes" of Azure Storage; "List of error codes" of Amazon S3.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from deploy.errors import StoreUnreachable

_CODE = re.compile(r"<Code>(\w+)</Code>")
_DENIED = re.compile(r"status code: 40[13]\b")
_LOGIN_REFUSED = re.compile(r"status code: 401\b")
_CERTIFICATE = re.compile(r"InvalidCertificate\(\s*(\w+)")
_NO_CONTAINER = frozenset({"ContainerNotFound", "NoSuchBucket", "FilesystemNotFound"})
_TAKEN = frozenset({"", "BlobAlreadyExists", "PathAlreadyExists", "PreconditionFailed"})
_UNDECIDED = frozenset({"ConditionalRequestConflict"})


class Explanation(NamedTuple):
    """What an error of a service means.

    Attributes:
        what: What happened.
        next: What to do about it.
    """

    what: str
    next: str


DENIED = Explanation(
    "the model store refused the login or the permission", "check the account's rights"
)
_OTHER_AUTHORITY = Explanation(
    "the model store's certificate is signed by an authority that is not trusted here",
    "name a CA bundle that has that authority's certificate in REQUESTS_CA_BUNDLE",
)
_OTHER_CERTIFICATE = Explanation(
    "the model store's certificate cannot be used",
    "check the store's address, whether the certificate has expired, and this machine's clock",
)


def explain(error: BaseException) -> Explanation | None:
    """Return what an error means that every service can have; None if it is not known."""
    certificate = _CERTIFICATE.search(str(error))
    if certificate:
        return _OTHER_AUTHORITY if certificate[1] == "UnknownIssuer" else _OTHER_CERTIFICATE
    return DENIED if is_denial(error) else None


def code_of(error: BaseException) -> str:
    """Return the service's code of a refusal, such as `AuthorizationFailure`; empty without one."""
    found = _CODE.search(str(error))
    return found[1] if found else ""


def is_denial(error: BaseException) -> bool:
    """Return whether a request was refused for its login or its permission."""
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    is_typed = isinstance(error, (PermissionDeniedError, UnauthenticatedError))
    return is_typed or bool(_DENIED.search(str(error)))


def is_login_refused(error: BaseException) -> bool:
    """Return whether a request was refused for its login alone."""
    return bool(_LOGIN_REFUSED.search(str(error)))


def is_taken(error: BaseException) -> bool:
    """Return whether a conflict means that the name is taken, and nothing else."""
    return code_of(error) in _TAKEN


def is_undecided(error: BaseException) -> bool:
    """Return whether a conflict is with another writer who is not done yet."""
    return code_of(error) in _UNDECIDED


def require_container(error: BaseException, location: str) -> None:
    """Raise if what a service did not find is the container or bucket itself.

    Raises:
        StoreUnreachable: It is.
    """
    if code_of(error) in _NO_CONTAINER:
        raise StoreUnreachable(
            "the model store has no such container or bucket",
            on=location,
            next="create it, or correct `store` in [model]",
        ) from error
