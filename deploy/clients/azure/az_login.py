"""What `az login` left on this machine: read, and never written.

Other processes write these files at any time, and truncate them first. So each is read once, again
after a moment if it is incomplete, and used as a copy in memory. `az` encrypts them if it is told
to, and on Windows unless it is told not to: the system then opens them for the user who logged in.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deploy.clients.azure.errors import AzureError

_PAUSE = 0.05
# How often a file is read in a second.
_SECOND = 20
# A writer on a busy machine may be stopped for seconds after it has truncated a file.
_WRITING = 10 * _SECOND
_LOG_IN = "log in again: `az login`"
_DECRYPT = (
    "run this as the user who logged in, or let `az` write it without encryption: "
    "`az config set core.encrypt_token_cache=false`, then `az login`"
)


def read_subscription(
    folder: Path, cloud: str, subscription: str, tenant: str
) -> Mapping[str, Any] | None:
    """Return the subscription that `az` uses, with its user and tenant; None if it has none.

    Args:
        folder: The folder of `az`.
        cloud: The name of the cloud.
        subscription: The id or name of a subscription; empty for the default one.
        tenant: A tenant; empty for any.
    """
    path = folder / "azureProfile.json"
    if not path.is_file():
        return None
    found = [
        one
        for one in _read(path, lambda content: isinstance(content.get("subscriptions"), list))[
            "subscriptions"
        ]
        if one.get("environmentName") == cloud and tenant in ("", one.get("tenantId"))
    ]
    if subscription:
        found = [one for one in found if subscription in (one.get("id"), one.get("name"))] or found
    return next((one for one in found if one.get("isDefault")), found[0] if found else None)


def read_token_cache(folder: Path, user: str) -> str:
    """Return a copy of the token cache, which has the user.

    Raises:
        AzureError: It cannot be read, or does not have the user.
    """

    def has_user(content: Mapping[str, Any]) -> bool:
        accounts = content.get("Account") or {}
        return any(str(one.get("username")).lower() == user.lower() for one in accounts.values())

    return json.dumps(_read_login(folder, "msal_token_cache", has_user))


def read_principal(folder: Path, client: str, tenant: str) -> Mapping[str, Any]:
    """Return the entry of a service principal that is logged in.

    Raises:
        AzureError: There is none.
    """

    def entries(content: Any) -> list[Mapping[str, Any]]:  # noqa: ANN401 - JSON
        return [one for one in content if one.get("client_id") == client]

    content = _read_login(
        folder, "service_principal_entries", lambda content: bool(entries(content))
    )
    found = entries(content)
    return next((one for one in found if one.get("tenant") == tenant), found[0])


def _read_login(folder: Path, name: str, is_complete: Callable[[Any], bool]) -> Any:  # noqa: ANN401 - JSON
    """Return the content of a file of the login, which may be encrypted."""
    plain = folder / f"{name}.json"
    encrypted = folder / f"{name}.bin"
    # `az` leaves the other one behind when it is told to encrypt, or not to any more.
    written = [path for path in (plain, encrypted) if path.is_file()]
    last = max(written, key=lambda path: path.stat().st_mtime_ns, default=plain)
    return _read(last, is_complete, _decrypted if last == encrypted else _plain)


def _plain(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig")


def _decrypted(path: Path) -> str:
    from azure.cli.core.auth.persistence import build_persistence

    return str(build_persistence(str(path.with_suffix("")), encrypt=True).load())


def _read(
    path: Path,
    is_complete: Callable[[Any], bool],
    read_text: Callable[[Path], str] = _plain,
) -> Any:  # noqa: ANN401 - JSON
    """Return the content of a file, once it is complete."""
    attempt = 0
    while True:
        attempt += 1
        try:
            content = _parse(read_text(path))
            if is_complete(content):
                return content
            why, attempts = "the account is not in it", _SECOND
        except _HalfWritten as error:
            why, attempts = str(error), _WRITING
        except ImportError as error:
            why, attempts = type(error).__name__, 1
        except Exception as error:  # noqa: BLE001 - each way of encryption raises errors of its own
            why, attempts = type(error).__name__, _SECOND
        if attempt >= attempts:
            raise _unreadable_error(path, why, is_encrypted=read_text is _decrypted)
        time.sleep(_PAUSE)


class _HalfWritten(Exception):
    """A file that is empty, or ends early."""


def _parse(text: str) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(text)
    except ValueError as error:
        raise _HalfWritten(type(error).__name__) from error


def _unreadable_error(path: Path, why: str, *, is_encrypted: bool) -> AzureError:
    if is_encrypted:
        what = f"the encrypted login of `az` cannot be read here ({why})"
        return AzureError(what, on=str(path), next=_DECRYPT)
    return AzureError(f"the login of `az` cannot be read ({why})", on=str(path), next=_LOG_IN)
