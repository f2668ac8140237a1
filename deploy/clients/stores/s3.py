"""S3, and services that speak its protocol: their login, and what a refusal means.

The library reads the variables AWS_* itself: keys, region and endpoint. Without keys it asks for
the identity of the workload, the container or the instance; it reads no profiles.
Sources: obstore's documentation, "S3Store"; "List of error codes" of Amazon S3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from deploy.clients.stores import refusals
from deploy.clients.stores.connections import is_url
from deploy.clients.stores.refusals import DENIED, Explanation, code_of, is_denial
from deploy.errors import SettingsInvalid

_SCHEMES = frozenset({"s3", "s3a"})
_HOSTS = (".amazonaws.com", ".r2.cloudflarestorage.com")
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_OTHERS = ("AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION")
_SENDABLE = re.compile(r"[!-~]+")
_IDENTITIES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
# The first that is set counts.
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_SET_KEYS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, for example by "
    '`eval "$(aws configure export-credentials --profile {} --format env)"`'
)

_INSTANCE = re.compile(r"/latest/(api/token|meta-data)")
_REDIRECTED = re.compile(r"redirect without LOCATION")
_ROLE = re.compile(r"AssumeRoleWithWebIdentity")
_NO_LOGIN = Explanation("there is no login to the model store", _SET_KEYS.format("NAME"))
_OTHER_REGION = Explanation(
    "the model store is in another region", "set AWS_REGION to the region of the bucket"
)
_NO_ROLE = Explanation(
    DENIED.what, "let the role that AWS_ROLE_ARN names trust the identity of this workload"
)
_MISSING_RIGHT = (
    "allow the login s3:ListBucket on the bucket, s3:GetObject on what is in it, "
    "and s3:PutObject to publish"
)
_LOG_IN_AGAIN = "log in again: AWS_SESSION_TOKEN has expired, or does not belong to the keys"
_CURES: Mapping[str, str] = {
    "AccessDenied": _MISSING_RIGHT,
    "ExpiredToken": _LOG_IN_AGAIN,
    "InvalidAccessKeyId": "correct AWS_ACCESS_KEY_ID, which the service does not know; "
    "for another service than Amazon's, set AWS_ENDPOINT_URL",
    "InvalidToken": _LOG_IN_AGAIN,
    "RequestTimeTooSkewed": "correct the clock of this machine",
    "SignatureDoesNotMatch": "correct AWS_SECRET_ACCESS_KEY, which does not belong to "
    "AWS_ACCESS_KEY_ID",
}
_REGION_CODES = frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect"})


def is_s3_location(location: str) -> bool:
    """Return whether a location is in S3, or in a service that speaks its protocol."""
    parts = urlsplit(location)
    return parts.scheme in _SCHEMES or (parts.hostname or "").endswith(_HOSTS)


def require_usable(location: str, environ: Mapping[str, str]) -> None:
    """Refuse variables with which no request can succeed; with some, the library would abort.

    Args:
        location: The store.
        environ: The environment of the process.

    Raises:
        SettingsInvalid: A variable is empty or malformed, a key is missing, or only a profile is
            named.
    """
    for name in (*_KEYS, *_OTHERS, *_ENDPOINTS):
        value = environ.get(name)
        if value is not None and not _SENDABLE.fullmatch(value):
            reason = (
                "has a space, a line break or a letter of another alphabet" if value else "is empty"
            )
            raise _unusable(name, reason, location, f"set {name} again, or unset it")
    for name in _ENDPOINTS:
        if name in environ and not is_url(environ[name], "http", "https"):
            raise _unusable(name, "is no URL", location, "write it as https://HOST:PORT")
    missing = [name for name in _KEYS if name not in environ]
    if len(missing) == 1:
        cure = f"set {missing[0]}, or unset both keys to log in by an identity"
        raise _unusable(missing[0], "is not set", location, cure)
    profile = environ.get("AWS_PROFILE")
    if missing and profile and not any(environ.get(name) for name in _IDENTITIES):
        raise SettingsInvalid(
            "the profile that AWS_PROFILE names is not read",
            on=location,
            next=_SET_KEYS.format(profile),
        )


def _unusable(name: str, reason: str, location: str, cure: str) -> SettingsInvalid:
    return SettingsInvalid(f"the environment variable {name} {reason}", on=location, next=cure)


def is_plain(environ: Mapping[str, str]) -> bool:
    """Return whether the endpoint that the environment names is one without TLS."""
    endpoint = next(filter(None, map(environ.get, _ENDPOINTS)), "")
    return endpoint.lower().startswith("http://")


def explain(error: BaseException) -> Explanation | None:
    """Return what an error of the service means; None if it is not known."""
    text, code = str(error), code_of(error)
    if _INSTANCE.search(text):
        return _NO_LOGIN
    if _REDIRECTED.search(text) or code in _REGION_CODES:
        return _OTHER_REGION
    if _ROLE.search(text):
        return _NO_ROLE
    cure = _CURES.get(code) or (_MISSING_RIGHT if is_denial(error) else "")
    return Explanation(DENIED.what, cure) if cure else refusals.explain(error)
