"""No secret of Azure is in a log, an error, an output or a file, whatever succeeds or fails."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from deploy.clients.azure.aks import AksCluster, AksLogin
from deploy.clients.azure.errors import AzureError
from deploy.clients.azure.identity import Identity
from deploy.clients.azure.key_vault import KeyVault
from deploy.clients.azure.registry import RegistryLogin
from deploy.clients.azure.sources import Account
from deploy.errors import ReleaseError
from tests.fakes.azure.exchange import Answer
from tests.fakes.azure.logins import (
    GITHUB_JOB,
    PIPELINES_JOB,
    SERVICE_PRINCIPAL,
    identity_on,
    write_az_login,
    write_az_principal,
)
from tests.fakes.azure.stand_in import REGISTRY, SUBSCRIPTION, VAULT, Cut, Fault, StandIn
from tests.fakes.kubeconfig import kubeconfig

PLANTED = "planted"
"""Part of each secret that a test sets; those that the stand-in makes are in its list."""

MANAGEMENT = "management.azure.com"
LOGIN = "login.microsoftonline.com"
Act = Callable[[Identity], object]


def log_in(identity: Identity) -> object:
    """Request a token, and replace it."""
    return identity.token("r", identity.token("r").value)


def open_registry(identity: Identity) -> object:
    """Exchange a token for a login."""
    return RegistryLogin(REGISTRY, identity)()


def read_secret(identity: Identity) -> object:
    """Read a secret of a key vault."""
    KeyVault(identity).read("keyvault://safe/password")
    return identity


def open_cluster(identity: Identity) -> object:
    """Request a kubeconfig."""
    return AksLogin(AksCluster.parse("pictures/shop"), identity).load()[0]


ACTS: tuple[Act, ...] = (log_in, open_registry, read_secret, open_cluster)


def echo(azure: StandIn) -> Answer:
    """Return a refusal that repeats the request, as careless servers do."""
    last = azure.asked[-1]
    text = f"{last.form} {last.token}"
    return Answer(400, {"error": {"code": "Bad", "message": text}, "error_description": text})


class Echo(deque[Fault]):
    """Refusals without end that repeat their requests."""

    def __init__(self, azure: StandIn) -> None:
        super().__init__()
        self._azure = azure

    def __bool__(self) -> bool:
        return True

    def popleft(self) -> Answer:
        return echo(self._azure)


def outcome(act: Act, identity: Identity) -> str:
    """Return all that can be shown of what an act gives or raises."""
    try:
        return repr(act(identity))
    except (AzureError, ReleaseError) as error:
        shown = traceback.format_exception(error)
        return "".join((*shown, repr(error), error.what, error.on, error.next, error.detail))


def assert_hidden(azure: StandIn, text: str) -> None:
    """Assert that a text has neither a planted secret nor a token."""
    assert PLANTED not in text
    assert azure.signer.signed
    for token in azure.signer.signed:
        assert token not in text
        # The signature alone would be enough to recognize it.
        assert token.rpartition(".")[2] not in text


def environments(folder: Path) -> list[Mapping[str, str]]:
    """Return the environments of some logins."""
    return [
        SERVICE_PRINCIPAL,
        GITHUB_JOB,
        PIPELINES_JOB,
        write_az_login(folder / "user"),
        write_az_principal(folder / "principal"),
    ]


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("fault", ["none", "roles", "echo", "revoked", "cut"])
def test_secrets_stay_hidden(
    azure: StandIn,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    act: Act,
    fault: str,
) -> None:
    """At the level of debugging, in all logs, errors, outputs and files."""
    caplog.set_level("DEBUG")
    content = kubeconfig("shop", current="shop", token=f"{PLANTED}-admin")
    azure.kubeconfig = yaml.safe_dump(content)
    shown = []
    for environ in environments(tmp_path):
        azure.faults.clear()
        azure.revoked.clear()
        identity = identity_on(azure, environ, Account(subscription=SUBSCRIPTION))
        shown.append(outcome(log_in, identity))
        if fault == "roles":
            azure.roles.clear()
        if fault == "echo":
            azure.faults |= {host: Echo(azure) for host in (REGISTRY, VAULT, MANAGEMENT, LOGIN)}
        if fault == "cut":
            azure.faults |= {host: deque([Cut] * 99) for host in (REGISTRY, VAULT, MANAGEMENT)}
        if fault == "revoked":
            azure.revoked |= set(azure.signer.signed)
        shown.append(outcome(act, identity))
        shown.append(repr((identity, identity.source, vars(identity).keys())))
    output = capfd.readouterr()
    assert_hidden(azure, "".join((*shown, caplog.text, output.out, output.err)))
    written = [path for path in Path.home().rglob("*") if path.is_file()]
    assert written == []
