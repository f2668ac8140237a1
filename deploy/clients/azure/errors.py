"""The failures of a login to Azure, with what to do about them.

Source: Microsoft's list of the error codes of Entra ID, "AADSTS error codes".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from deploy.clients.causes import causes
from deploy.errors import ReleaseError

Kind = TypeVar("Kind", bound=ReleaseError)

_LOG_IN = "log in again: `az login --tenant {tenant} --scope {scope}`"
_SECRET = "make a new secret or certificate for the client {client}, and set it where it is read"  # noqa: S105 - a sentence
_CLIENT = "check the tenant and the client id in [azure], or AZURE_TENANT_ID and AZURE_CLIENT_ID"
_FEDERATION = (
    "give the identity a federated credential with exactly these: "
    "`az ad app federated-credential create --id {client} --parameters '{credential}'`, "
    "or `az identity federated-credential create` for a managed identity"
)
_CASE = f"the subject differs in upper and lower case only; {_FEDERATION}"
_ASSERTION = (
    "see whether the clock of this machine is right, then run again; an assertion that was given "
    "to `az login` cannot be renewed: let the job log in by itself, see docs/11-azure.md"
)
# By the number in a message's code, AADSTS7000215.
_ADVICE: Mapping[int, str] = {
    700213: _FEDERATION,
    70021: _FEDERATION,
    7002138: _CASE,
    700024: _ASSERTION,
    700016: _CLIENT,
    90002: _CLIENT,
    7000215: _SECRET,
    7000222: _SECRET,
    700027: _SECRET,
    700082: _LOG_IN,
    50173: _LOG_IN,
    50076: _LOG_IN,
    50079: _LOG_IN,
}


class AzureError(Exception):
    """A failure of Azure; the part that needed Azure makes it an error of its own.

    Args:
        what: What happened, as a sentence without its full stop.
        on: To what it happened.
        next: What the user can do.
        detail: Lines that show the failure, without any secret.
    """

    def __init__(self, what: str, *, on: str, next: str, detail: str = "") -> None:  # noqa: A002 - as in deploy.errors
        super().__init__(what)
        self.what = what
        self.on = on
        self.next = next
        self.detail = detail

    def of_kind(self, kind: type[Kind]) -> Kind:
        """Return this failure as an error of a part of a release."""
        return kind(self.what, on=self.on, next=self.next, detail=self.detail)


class NoLogin(AzureError):
    """There is no login to Azure here at all."""


@contextmanager
def as_error_of(kind: type[ReleaseError]) -> Iterator[None]:
    """Raise a failure of Azure as an error of a part of a release."""
    try:
        yield
    except AzureError as error:
        raise error.of_kind(kind) from None


def no_answer_error(url: str, error: BaseException) -> AzureError:
    """Return the failure of a request that got no answer.

    Args:
        url: The address, which is shown without its query.
        error: The error of the library.
    """
    names = [type(cause).__name__ for cause in causes(error)]
    place = url.partition("?")[0]
    if any("SSL" in name or "Certificate" in name for name in names):
        return AzureError(
            "the certificate of a service of Azure is not trusted",
            on=place,
            next="name your CA bundle in REQUESTS_CA_BUNDLE or SSL_CERT_FILE",
        )
    return AzureError(
        f"a service of Azure gave no answer ({names[0]})",
        on=place,
        next="check the network, and HTTPS_PROXY and NO_PROXY if there is a proxy",
    )


def refused_login_error(
    refusal: Mapping[str, Any],
    on: str,
    known: Mapping[str, str],
    assertion: Mapping[str, Any],
    usual: str = "",
) -> AzureError:
    """Return the failure of a token request that the authority refused.

    Args:
        refusal: The authority's answer.
        on: The login, for people.
        known: The tenant, the client and the scope of the request.
        assertion: The claims of the assertion of a federated login; empty for other logins.
        usual: What to do about a refusal that is not known; empty for a look at the client.
    """
    codes = [int(code) for code in refusal.get("error_codes") or () if str(code).isdecimal()]
    advice = next((_ADVICE[code] for code in codes if code in _ADVICE), usual or _CLIENT)
    names = {"issuer": "iss", "subject": "sub", "audience": "aud"}
    shown = {name: str(assertion[key]) for name, key in names.items() if key in assertion}
    lines = [_message(refusal), *(f"{name}: {value}" for name, value in shown.items())]
    return AzureError(
        "the login to Azure was refused",
        on=on,
        next=advice.format(**known, credential=_federated_credential(shown)),
        detail="\n".join(f"  {line}" for line in lines if line),
    )


def _message(refusal: Mapping[str, Any]) -> str:
    """Return the first line of the authority's message; the others are identifiers."""
    text = str(refusal.get("error_description") or refusal.get("error") or "")
    return re.split(r"\s*(?:Trace ID:|\n)", text, maxsplit=1)[0][:400]


def _federated_credential(shown: Mapping[str, str]) -> str:
    return json.dumps(
        {
            "name": "twinship",
            "issuer": shown.get("issuer", "ISSUER"),
            "subject": shown.get("subject", "SUBJECT"),
            "audiences": [shown.get("audience", "api://AzureADTokenExchange")],
        }
    )
