"""The way to a real API server: its address, TLS and credentials, as the kubernetes library knows them.

Credentials are sent, and never shown: neither in errors nor in the causes they are chained to.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from deploy.clients.http import Endpoint
from deploy.clients.kubernetes.errors import LOG_IN, no_response_error
from deploy.clients.kubernetes.kubeconfig import KubeconfigContext, choose_context, malformed_error
from deploy.clients.kubernetes.protocol import IN_CLUSTER
from deploy.clients.kubernetes.transport import ApiRequest, ApiResponse, NoApiResponse
from deploy.errors import ClusterError, ClusterLogin, ClusterUnknown

if TYPE_CHECKING:
    from kubernetes.client import Configuration


class ApiServerAccess:
    """An API server and the credentials for it.

    Args:
        kubeconfig: path of a kubeconfig, `in-cluster` for the account of the pod that this runs in, or empty for what kubectl would take.
        context: name of a context of it; empty for the current one.

    Raises:
        ClusterUnknown: there is no kubeconfig or context, or it cannot be used.
        ClusterLogin: the context's login program is missing or gave no credentials.
    """

    def __init__(self, kubeconfig: str, context: str) -> None:
        self._wanted = kubeconfig, context
        self.renew()

    def renew(self) -> None:
        from kubernetes.client import ApiClient

        context = choose_context(*self._wanted)
        self._configuration = _configuration(context)
        self.name = (
            f"{context.name if context else IN_CLUSTER} at {_shown(self._configuration.host)}"
        )
        self._client = ApiClient(self._configuration)
        self._client.user_agent = "twinship"

    def send(self, call: ApiRequest, within: tuple[float, float]) -> ApiResponse:
        import urllib3
        from kubernetes.client.exceptions import ApiException

        headers = {
            "Accept": "application/json, */*",
            "Content-Type": call.content_type,
            **self._authorization(),
        }
        request = self._client.param_serialize(
            call.method,
            call.path,
            query_params=list(call.query),
            header_params=headers,
            body=call.body,
        )
        try:
            response = self._client.call_api(*request, _request_timeout=within)
            data = response.read()  # type: ignore[no-untyped-call]  # the library has no types here
        except ValueError as error:
            # Without a cause: what cannot be sent may be the token.
            raise NoApiResponse(*no_response_error(error, self.name)) from None
        except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            raise NoApiResponse(*no_response_error(error, self.name)) from error
        return ApiResponse(
            response.status,
            (data or b"").decode("utf-8", "replace"),
            response.headers.get("Retry-After", ""),
        )

    def endpoint(self, path: str) -> Endpoint:
        from kubernetes.client.rest import should_bypass_proxies

        settings: Any = self._configuration
        direct = not settings.proxy or should_bypass_proxies(settings.host, settings.no_proxy or "")
        return Endpoint(
            f"{_shown(settings.host)}{path}",
            self._authorization(),
            settings.ssl_ca_cert or "",
            (settings.cert_file, settings.key_file)
            if settings.cert_file and settings.key_file
            else None,
            proxy="" if direct else settings.proxy,
            server_name=settings.tls_server_name or "",
            unverified=not settings.verify_ssl,
        )

    def _authorization(self) -> dict[str, str]:
        """The header that says who asks; the library has it renewed when it is due."""
        with _heard():
            setting: dict[str, Any] = dict(
                self._configuration.auth_settings().get("BearerToken", {})
            )
        return {"Authorization": str(setting["value"])} if setting.get("value") else {}


def _configuration(context: KubeconfigContext | None) -> Configuration:
    from kubernetes.client import Configuration

    # Not the library's default one: that belongs to the process.
    made = Configuration()
    # The library's retries do not know what a request means.
    made.retries = False
    if context is None:
        _take_pod(made)
    else:
        _take(made, context)
    return made


def _take_pod(made: Configuration) -> None:
    from kubernetes import config

    try:
        config.load_incluster_config(client_configuration=made)  # type: ignore[no-untyped-call]  # the library has no types here
    except (config.ConfigException, OSError) as error:
        cure = "name a kubeconfig, or give the pod the token of its ServiceAccount"
        raise ClusterUnknown(
            "this does not run in a pod with an account", on=IN_CLUSTER, next=cure
        ) from error


def _take(made: Configuration, context: KubeconfigContext) -> None:
    from kubernetes import config

    with _heard() as said:
        try:
            config.load_kube_config(context.files, context.name, made)  # type: ignore[no-untyped-call]  # the library has no types here
        except Exception as error:  # noqa: BLE001 - each of its ways to log in fails in a way of its own
            # Without a cause: its messages quote entries whole, keys and tokens with them.
            raise _unusable(context, type(error).__name__) from None
    if context.login_program is not None and not made.api_key and not made.cert_file:
        raise _no_login(context, context.login_program, said)
    if _is_here(made.host) and "proxy-url" not in context.cluster:
        # A company proxy cannot reach this machine's own addresses.
        made.no_proxy = "*"


def _unusable(context: KubeconfigContext, why: str) -> ClusterError:
    if "auth-provider" in context.user:
        return ClusterLogin(
            f"the login of the context could not be renewed ({why})",
            on=f"context {context.name}",
            next=LOG_IN,
        )
    return malformed_error(
        context.files, f"the entries of its context {context.name} cannot be loaded ({why})"
    )


def _no_login(context: KubeconfigContext, program: str, said: list[str]) -> ClusterLogin:
    if shutil.which(program) is None:
        what = f"the login program {program} is not installed"
        cure = f"install {program}, and see that it is on the PATH"
    else:
        what = f"the login program {program} gave no credentials"
        cure = LOG_IN
    # Only what the program wrote is shown: other messages of the library quote entries of the kubeconfig.
    lines = [
        line
        for text in said
        if text.startswith("exec: process returned ")
        for line in text.splitlines()
    ]
    return ClusterLogin(
        what,
        on=f"context {context.name}",
        next=cure,
        detail="\n".join(f"  {line}" for line in lines[-10:]),
    )


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Collects what the library prints of a login program that failed, before it goes on without credentials."""
    said: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    ear = Ear()
    root = logging.getLogger()
    root.addHandler(ear)
    try:
        yield said
    finally:
        root.removeHandler(ear)


def _is_here(host: str) -> bool:
    name = urlsplit(host).hostname or ""
    return name in ("localhost", "::1") or name.startswith("127.")


def _shown(host: str) -> str:
    """A server's URL without the credentials that it may hold."""
    parts = urlsplit(host)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")).rstrip(
        "/"
    )
