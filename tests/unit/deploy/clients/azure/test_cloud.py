"""The clouds of Azure, by azure-cli-core's list."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import NoReturn

import pytest

from deploy.clients.azure.cloud import find_cloud
from deploy.errors import SettingsInvalid

CUSTOM = """
[Isolated]
endpoint_active_directory = https://login.isolated.test
endpoint_active_directory_resource_id = https://management.isolated.test/
endpoint_resource_manager = https://management.isolated.test/
suffix_acr_login_server_endpoint = .azurecr.isolated.test
suffix_storage_endpoint = core.isolated.test
"""


@pytest.mark.parametrize(
    ("name", "authority", "registry", "storage"),
    [
        ("", "https://login.microsoftonline.com", ".azurecr.io", "core.windows.net"),
        (
            "AzureChinaCloud",
            "https://login.chinacloudapi.cn",
            ".azurecr.cn",
            "core.chinacloudapi.cn",
        ),
        (
            "azureusgovernment",
            "https://login.microsoftonline.us",
            ".azurecr.us",
            "core.usgovcloudapi.net",
        ),
    ],
)
def test_known_clouds(name: str, authority: str, registry: str, storage: str) -> None:
    """The public cloud is the default."""
    found = find_cloud(name, {})
    assert (found.authority, found.registry_suffix, found.storage_suffix) == (
        authority,
        registry,
        storage,
    )


def test_the_cloud_that_az_has_chosen(tmp_path: Path) -> None:
    """The variable of `az` comes before its configuration, and settings before both."""
    (tmp_path / "config").write_text("[cloud]\nname = AzureChinaCloud\n")
    environ = {"AZURE_CONFIG_DIR": str(tmp_path)}
    assert find_cloud("", environ).name == "AzureChinaCloud"
    environ["AZURE_CLOUD_NAME"] = "AzureUSGovernment"
    assert find_cloud("", environ).name == "AzureUSGovernment"
    assert find_cloud("AzureCloud", environ).name == "AzureCloud"


def test_a_user_without_a_home_folder_has_the_default_cloud(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The user database may not know the number of a user in a container."""

    def unknown(number: int) -> NoReturn:
        raise KeyError(number)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert find_cloud("", {}).name == "AzureCloud"


def test_a_registered_cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`az cloud register` writes it; what it does not have is empty."""
    (tmp_path / "clouds.config").write_text(CUSTOM)
    monkeypatch.setattr("azure.cli.core.cloud.CLOUD_CONFIG_FILE", tmp_path / "clouds.config")
    found = find_cloud("Isolated", {})
    assert found.resource_manager == "https://management.isolated.test"
    assert found.registry_suffix == ".azurecr.isolated.test"
    assert found.vault_suffix == ""


def test_an_unknown_cloud_is_an_error_with_the_known_ones() -> None:
    """The configuration is wrong then."""
    with pytest.raises(SettingsInvalid, match="no cloud Nowhere") as caught:
        find_cloud("Nowhere", {})
    assert "AzureCloud" in caught.value.next


def test_a_broken_file_of_az_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """azure-cli-core would remove it."""
    file = tmp_path / "clouds.config"
    file.write_text("no section\n")
    monkeypatch.setattr("azure.cli.core.cloud.CLOUD_CONFIG_FILE", file)
    with pytest.raises(SettingsInvalid, match="configuration of `az` cannot be read"):
        find_cloud("", {})
    assert file.read_text() == "no section\n"
