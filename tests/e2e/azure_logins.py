"""All logins to Azure that a job, a person or a machine can have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.azure_parts import CLOUD, Azure, register_cloud
from tests.fakes.azure.certificates import make_certificate, write_pem
from tests.fakes.azure.logins import (
    GITHUB_JOB,
    PIPELINES_JOB,
    PRINCIPAL,
    SERVICE_PRINCIPAL,
    write_az_login,
    write_az_principal,
)
from tests.fakes.azure.stand_in import CLIENT, CONNECTION, PIPELINES, SECRET, USER
from tests.fakes.azure.tokens import Signer

KEY = "client.pem"


@dataclass(frozen=True)
class LoginSource:
    """Where a login comes from.

    Attributes:
        name: its name, as tasks print it.
        prepare: returns its environment; it gets Azure and an empty folder for its files.
        principal: who logs in.
    """

    name: str
    prepare: Callable[[Azure, Path], dict[str, str]]
    principal: str = CLIENT

    def __str__(self) -> str:
        return f"{self.name}, as {self.principal} of tenant "


def _token_file(azure: Azure, folder: Path) -> dict[str, str]:
    path = folder / "token"
    path.write_text(azure.stand_in.assertion(PIPELINES, CONNECTION), encoding="utf-8")
    return {**PRINCIPAL, "AZURE_FEDERATED_TOKEN_FILE": str(path)}


def _certificate(azure: Azure, folder: Path) -> dict[str, str]:
    key, certificate = make_certificate("client")
    azure.stand_in.client_key = Signer(key)
    write_pem(folder / KEY, key, certificate)
    return {**PRINCIPAL, "AZURE_CLIENT_CERTIFICATE_PATH": str(folder / KEY)}


def _machine(azure: Azure, _: Path) -> dict[str, str]:
    return {
        "TWINSHIP_AZURE__MANAGED_IDENTITY": "true",
        "AZURE_POD_IDENTITY_AUTHORITY_HOST": azure.machine,
    }


GITHUB = LoginSource("GitHub Actions (OpenID Connect)", lambda *_: GITHUB_JOB)
AZ_USER = LoginSource(
    "`az login`", lambda _, folder: write_az_login(register_cloud(folder), cloud=CLOUD), USER
)
SOURCES = {
    "variable": LoginSource(
        "the variable of [azure] client_secret",
        lambda *_: {**PRINCIPAL, "TWINSHIP_AZURE__CLIENT_SECRET": "SHOP", "SHOP": SECRET},
    ),
    "github": GITHUB,
    "pipelines": LoginSource("Azure Pipelines (service connection)", lambda *_: PIPELINES_JOB),
    "file": LoginSource("workload identity (AZURE_FEDERATED_TOKEN_FILE)", _token_file),
    "secret": LoginSource(
        "a service principal (AZURE_CLIENT_SECRET)", lambda *_: SERVICE_PRINCIPAL
    ),
    "certificate": LoginSource("a service principal (AZURE_CLIENT_CERTIFICATE_PATH)", _certificate),
    "user": AZ_USER,
    "principal": LoginSource(
        "`az login`",
        lambda _, folder: write_az_principal(register_cloud(folder), cloud=CLOUD),
    ),
    "machine": LoginSource("managed identity", _machine),
}
