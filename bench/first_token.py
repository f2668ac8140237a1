"""The seconds until the identity on Azure has its first token; the network is left out.

Run as a program, it logs in twice to a login service in its own process, and prints what was
measured. Only the first login pays for the imports of azure-cli-core.
"""

from __future__ import annotations

import io
import json
import sys
import time

import requests
import urllib3
from requests.adapters import BaseAdapter

from bench import meters
from bench.application import ROOT
from bench.figures import FirstToken
from deploy.clients.azure.http import AzureHttp
from deploy.clients.azure.identity import Identity
from deploy.clients.azure.sources import Account

_RESOURCE = "https://storage.azure.com"
_LOGIN = {
    "AZURE_TENANT_ID": "11111111-1111-4111-8111-111111111111",
    "AZURE_CLIENT_ID": "22222222-2222-4222-8222-222222222222",
    "AZURE_CLIENT_SECRET": "any",
    # Nothing of the user's own settings is read.
    "AZURE_CONFIG_DIR": "/nonexistent",
}
# Three parts of no meaning: whose it is, is not read from it here.
_TOKEN = {"token_type": "Bearer", "expires_in": 3600, "access_token": "e30.e30.e30"}


class LoginService(BaseAdapter):
    """A login service in this process.

    Attributes:
        requests: how many requests it has answered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requests = 0

    def send(  # type: ignore[override]  # its other arguments are not used
        self, request: requests.PreparedRequest, **_: object
    ) -> requests.Response:
        """Return a token, or where tokens are requested."""
        self.requests += 1
        base = str(request.url).partition("/v2.0/")[0]
        described = {
            "issuer": f"{base}/v2.0",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
        }
        body = described if "openid-configuration" in str(request.url) else _TOKEN
        response = requests.Response()
        response.request = request
        response.url = str(request.url)
        response.status_code = 200
        content = io.BytesIO(json.dumps(body).encode())
        response.raw = urllib3.HTTPResponse(content, preload_content=False)
        return response

    def close(self) -> None:
        """Close nothing."""


def measure() -> FirstToken:
    """Measure the first token of a new process."""
    command = (sys.executable, "-m", "bench.first_token")
    result = meters.measure(command, ROOT, {})
    return FirstToken(process=result.cost.seconds, **json.loads(result.out))


def main() -> None:
    """Log in twice; print the seconds of both, and the requests of one."""
    cold, sent = log_in()
    warm, _ = log_in()
    print(json.dumps({"cold": cold, "warm": warm, "requests": sent}))  # noqa: T201 - the result


def log_in() -> tuple[float, int]:
    """Return the seconds until a new identity has a token, and the requests that it sent."""
    service = LoginService()
    started = time.monotonic()
    Identity(Account(), _LOGIN, AzureHttp(adapter=service)).token(_RESOURCE)
    return time.monotonic() - started, service.requests


if __name__ == "__main__":
    main()
