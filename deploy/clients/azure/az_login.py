"""What `az login` left on this machine: read, and never written.

Other processes write these files at any time, and truncate them first. So each is read once, again
after a moment if it is incomplete, and used as a copy in memory.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deploy.clients.azure.errors import AzureError

_READS = 20
_PAUSE = 0.05
_LOG_IN = "log in again: `az login`"


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
    path = folder / f"{name}.json"
    encrypted = folder / f"{name}.bin"
    if path.is_file() or not encrypted.is_file():
        return _read(path, is_complete)
    return _read(encrypted, is_complete, _decrypted)


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
    why = ""
    for attempt in range(_READS):
        if attempt:
            time.sleep(_PAUSE)
        try:
            content = json.loads(read_text(path))
            if is_complete(content):
                return content
            why = "the account is not in it"
        except Exception as error:  # noqa: BLE001 - each way of encryption raises errors of its own
            why = type(error).__name__
    raise AzureError(f"the login of `az` cannot be read ({why})", on=str(path), next=_LOG_IN)
