"""The clouds of Azure, by azure-cli-core's list."""

from __future__ import annotations

import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from deploy.clients.azure.blob import find_address
from deploy.clients.azure.cloud import find_cloud
from deploy.clients.azure.key_vault import KeyVault
from deploy.clients.azure.registry import RegistryLogin, is_registry
from deploy.clients.azure.resource_manager import ResourceManager
from deploy.clients.azure.sources import Account
from deploy.errors import SettingsInvalid
from tests.fakes.azure.logins import SERVICE_PRINCIPAL, identity_on, write_az_login
from tests.fakes.azure.stand_in import StandIn

CUSTOM = """
[Isolated]
endpoint_active_directory = https://login.isolated.test
endpoint_active_directory_resource_id = https://management.core.isolated.test/
endpoint_resource_manager = https://management.isolated.test/
suffix_acr_login_server_endpoint = azurecr.isolated.test
suffix_keyvault_dns = .vault.isolated.test
suffix_storage_endpoint = core.isolated.test

[One]
endpoint_active_directory = https://login.one.test
endpoint_active_directory_resource_id = https://management.core.one.test/
endpoint_resource_manager = https://management.one.test/
suffix_acr_login_server_endpoint = 127.0.0.1

[Small]
endpoint_active_directory = https://login.small.test
endpoint_active_directory_resource_id = https://management.core.small.test/
endpoint_resource_manager = https://management.small.test/
"""


@dataclass(frozen=True)
class Names:
    """The hosts of a cloud's services, and the resource of its management API."""

    login: str
    manager: str
    management: str
    registry: str
    vault: str
    store: str


CLOUDS = {
    "": Names(
        "login.microsoftonline.com",
        "management.azure.com",
        "https://management.core.windows.net/",
        "shop.azurecr.io",
        "safe.vault.azure.net",
        "shop.blob.core.windows.net",
    ),
    "AzureChinaCloud": Names(
        "login.chinacloudapi.cn",
        "management.chinacloudapi.cn",
        "https://management.core.chinacloudapi.cn/",
        "shop.azurecr.cn",
        "safe.vault.azure.cn",
        "shop.blob.core.chinacloudapi.cn",
    ),
    "azureusgovernment": Names(
        "login.microsoftonline.us",
        "management.usgovcloudapi.net",
        "https://management.core.usgovcloudapi.net/",
        "shop.azurecr.us",
        "safe.vault.usgovcloudapi.net",
        "shop.blob.core.usgovcloudapi.net",
    ),
    "Isolated": Names(
        "login.isolated.test",
        "management.isolated.test",
        "https://management.core.isolated.test/",
        "shop.azurecr.isolated.test",
        "safe.vault.isolated.test",
        "shop.blob.core.isolated.test",
    ),
}


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Register clouds of one's own, as `az cloud register` does."""
    (tmp_path / "clouds.config").write_text(CUSTOM)
    monkeypatch.setattr("azure.cli.core.cloud.CLOUD_CONFIG_FILE", tmp_path / "clouds.config")


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", list(CLOUDS))
@pytest.mark.parametrize("kind", ["principal", "user"])
def test_each_service_of_a_cloud_is_asked_under_its_own_name(
    azure: StandIn, tmp_path: Path, name: str, kind: str
) -> None:
    """Also its login service, and no host of another cloud; the public one is the default."""
    names = CLOUDS[name]
    user = write_az_login(tmp_path / "az", cloud=find_cloud(name, {}).name, host=names.login)
    login = user if kind == "user" else SERVICE_PRINCIPAL
    identity = identity_on(azure, login, Account(cloud=name, subscription="s"))
    azure.kubeconfig = "kubeconfig"

    found = ResourceManager(identity).send("POST", "/a/listClusterUserCredential", "2025-10-01")
    assert found["kubeconfigs"]
    assert KeyVault(identity).read("keyvault://safe/password") == "planted-vault-secret"
    assert is_registry(names.registry, identity)
    assert not is_registry(names.registry.replace(".", "-", 1), identity)
    registry = RegistryLogin(names.registry, identity)
    assert registry.granted_actions("shop") == {"pull", "push"}
    address = find_address(f"https://{names.store}/models", identity, {})
    assert address.endpoint == f"https://{names.store}"
    identity.token("https://storage.azure.com")

    assert set(azure.hosts()) == {names.login, names.manager, names.registry, names.vault}
    scopes = {one for asked in azure.asked for one in asked.value("scope").split()}
    assert {scope for scope in scopes if scope.endswith("/.default")} == {
        f"{names.management}/.default",
        f"https://{names.vault.partition('.')[2]}/.default",
        "https://containerregistry.azure.net/.default",
        "https://storage.azure.com/.default",
    }


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


@pytest.mark.usefixtures("registered")
def test_a_suffix_can_be_the_whole_name_of_a_registry(azure: StandIn) -> None:
    """For a cloud that has only one."""
    identity = identity_on(azure, SERVICE_PRINCIPAL, Account(cloud="One"))
    assert is_registry("127.0.0.1:5001", identity)
    assert not is_registry("1127.0.0.1:5001", identity)


@pytest.mark.usefixtures("registered")
def test_a_service_that_a_registered_cloud_lacks_is_told(azure: StandIn) -> None:
    """No token is sent to a name without the suffix."""
    identity = identity_on(azure, SERVICE_PRINCIPAL, Account(cloud="Small"))
    assert not is_registry("shop.azurecr.io", identity)
    with pytest.raises(SettingsInvalid, match="has no suffix for keyvault-dns") as caught:
        KeyVault(identity).read("keyvault://safe/password")
    assert caught.value.next.startswith("`az cloud update --name Small --suffix-keyvault-dns ")
    environ = {"AZURE_STORAGE_ACCOUNT_NAME": "shop"}
    with pytest.raises(SettingsInvalid, match="has no suffix for storage-endpoint"):
        find_address("az://models", identity, environ)
    assert azure.asked == []
    environ["AZURE_STORAGE_ENDPOINT"] = "https://store.small.test"
    assert find_address("az://models", identity, environ).endpoint == "https://store.small.test"


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
