"""The clouds of Azure: their addresses, by azure-cli-core's list."""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from deploy.errors import SettingsInvalid


@dataclass(frozen=True)
class Cloud:
    """The addresses of a cloud.

    Attributes:
        name: As `az cloud list` shows it.
        authority: The URL of its login service.
        resource_manager: The URL of its management API, without a slash at its end.
        management: The resource by which tokens for the management API are requested.
        registry_suffix: The end of the names of its registries, such as `.azurecr.io`.
        vault_suffix: The end of the names of its key vaults, such as `.vault.azure.net`.
        storage_suffix: The end of the names of its stores, such as `core.windows.net`.
    """

    name: str
    authority: str
    resource_manager: str
    management: str
    registry_suffix: str = ""
    vault_suffix: str = ""
    storage_suffix: str = ""

    def require_suffix(self, suffix: str, option: str) -> str:
        """Return one of the suffixes, unless it is empty.

        Args:
            suffix: The suffix.
            option: The end of the option of `az cloud update` that sets it.

        Raises:
            SettingsInvalid: The cloud has none.
        """
        if suffix:
            return suffix
        raise SettingsInvalid(
            f"the cloud {self.name} has no suffix for {option}",
            on="[azure] cloud",
            next=f"`az cloud update --name {self.name} --suffix-{option} SUFFIX` sets it",
        )


def config_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of `az`."""
    named = environ.get("AZURE_CONFIG_DIR")
    return Path(named or os.path.expanduser("~/.azure"))  # noqa: PTH111 - Path's raises for a user without a home folder


def find_cloud(wanted: str, environ: Mapping[str, str]) -> Cloud:
    """Return a cloud of azure-cli-core, or one that `az cloud register` added to it.

    Args:
        wanted: The cloud's name; empty for the one that the environment or `az` has chosen.
        environ: The environment of the process.

    Raises:
        SettingsInvalid: There is no such cloud, or an address of it is not set.
    """
    from azure.cli.core import cloud as clouds

    chosen = wanted or environ.get("AZURE_CLOUD_NAME") or _active_name(config_folder(environ))
    name = chosen or clouds.get_default_cloud_name()
    # azure-cli-core removes a file that it cannot read.
    _read_config(Path(clouds.CLOUD_CONFIG_FILE))
    # Its only use of the configuration is to look up which cloud is active.
    context = SimpleNamespace(config=SimpleNamespace(get=lambda _section, _option: name))
    known = clouds.get_clouds(context)
    found = next((one for one in known if one.name.lower() == name.lower()), None)
    if found is None:
        raise SettingsInvalid(
            f"there is no cloud {name} on Azure",
            on="[azure] cloud",
            next=f"choose one of: {', '.join(one.name for one in known)}; "
            "or add it with `az cloud register`",
        )
    return _cloud_of(found)


def _cloud_of(found: Any) -> Cloud:  # noqa: ANN401 - the library has no types
    return Cloud(
        found.name,
        authority=_require(found, "active_directory"),
        resource_manager=_require(found, "resource_manager").rstrip("/"),
        management=_require(found, "active_directory_resource_id"),
        registry_suffix=_suffix(found, "acr_login_server_endpoint"),
        vault_suffix=_suffix(found, "keyvault_dns"),
        storage_suffix=_suffix(found, "storage_endpoint").removeprefix("."),
    )


def _suffix(found: Any, name: str) -> str:  # noqa: ANN401 - as above
    """Return a suffix with its dot, which a registered cloud may lack; empty if there is none."""
    value = _value(found.suffixes, name)
    return f".{value.removeprefix('.')}" if value else ""


def _require(found: Any, name: str) -> str:  # noqa: ANN401 - as above
    value = _value(found.endpoints, name)
    if value:
        return value
    raise SettingsInvalid(
        f"the cloud {found.name} has no address for {name}",
        on="[azure] cloud",
        next=f"`az cloud update --name {found.name}` sets it",
    )


def _value(part: Any, name: str) -> str:  # noqa: ANN401 - as above
    from knack.util import CLIError

    try:
        return str(getattr(part, name))
    except CLIError:
        return ""


def _active_name(folder: Path) -> str:
    return _read_config(folder / "config").get("cloud", "name", fallback="")


def _read_config(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where a folder is not readable
        return parser
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError) as error:
        raise SettingsInvalid(
            f"the configuration of `az` cannot be read ({type(error).__name__})",
            on=str(path),
            next="fix the file, or name another folder in AZURE_CONFIG_DIR",
        ) from error
    return parser
