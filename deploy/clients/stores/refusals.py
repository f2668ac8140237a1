"""What a service of objects says when it refuses a request, as the library's errors have it.

The library takes every conflict for a taken name, a missing container for a missing name, and has
the status of a refused listing in its text alone.
Source: "Blob service error codes" of Azure Storage; "List of error codes" of Amazon S3.
"""

from __future__ import annotations

import re

from deploy.errors import StoreUnreachable

_CODE = re.compile(r"<Code>(\w+)</Code>")
_DENIED = re.compile(r"status code: 40[13]\b")
_LOGIN_REFUSED = re.compile(r"status code: 401\b")
_NO_CONTAINER = frozenset({"ContainerNotFound", "NoSuchBucket", "FilesystemNotFound"})
_TAKEN = frozenset({"", "BlobAlreadyExists", "PathAlreadyExists"})


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
