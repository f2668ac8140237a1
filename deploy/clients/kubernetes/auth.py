"""Access to a real API server: its address, TLS and credentials, by the kubernetes library.

Credentials are sent, and never shown: neither in errors nor in the causes of errors.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from deploy.clients.azure.aks import (
    ClusterToken,
    configuration_of,
    find_aks_login,
    is_private_cluster,
    server_of,
)
from deploy.clients.azure.cluster_account import ClusterAccount
from deploy.clients.azure.identity import Identity, Principal
from deploy.clients.azure.roles import cluster_scope
from deploy.clients.http import Endpoint
from deploy.clients.kubernetes.errors import LOG_IN, no_response_error
from deploy.clients.kubernetes.kubeconfig import KubeconfigContext, choose_context, malformed_error
from deploy.clients.kubernetes.protocol import IN_CLUSTER
from deploy.clients.kubernetes.transport import ApiRequest, ApiResponse, NoApiResponse
from deploy.errors import ClusterError, ClusterLogin, ClusterUnknown

if TYPE_CHECKING:
    from kubernetes.client import Configuration

log = logging.getLogger(__name__)


class ApiServerAccess:
    """An API server and the credentials for it; implements `Transport`.

    Args:
        kubeconfig: path of a kubeconfig, `in-cluster` for the account of the pod that this runs in,
            `aks:group/name` for a cluster on AKS, or empty for the files that kubectl would read.
        context: name of a context in the kubeconfig; empty for the current one.
        identity: logs in to clusters on AKS.

    Raises:
        ClusterUnknown: there is no kubeconfig or context, or it cannot be used.
        ClusterLogin: the context's login program is missing or gave no credentials.
    """

    def __init__(self, kubeconfig: str, context: str, identity: Identity | None = None) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._identity = identity
        self._token: ClusterToken | None = None
        self._aks = find_aks_login(kubeconfig, identity)
        self.renew()

    def renew(self) -> None:
        from kubernetes.client import ApiClient

        name, self._configuration = self._aks.load() if self._aks else self._load()
        self.name = f"{name} at {_without_login(self._configuration.host)}"
        self._client = ApiClient(self._configuration)
        self._client.user_agent = "twinship"

    def _load(self) -> tuple[str, Configuration]:
        """Return the name of the context, and the library's configuration for it."""
        context = choose_context(self._kubeconfig, self._context)
        token = self._token_of(context) if context else None
        if context and token:
            with _translate_load_errors(context):
                configuration = configuration_of(context.alone(), token)
            _set_proxy(configuration, context)
            return context.name, configuration
        return context.name if context else IN_CLUSTER, _configuration(context)

    def _token_of(self, context: KubeconfigContext) -> ClusterToken | None:
        """Return the token in place of a `kubelogin` that is not installed; None otherwise."""
        with _translate_load_errors(context):
            server = server_of(context.user)
        program = context.login_program
        if server is None or self._identity is None or (program and shutil.which(program)):
            return None
        if self._token is None:
            log.info("%s is not installed: the identity logs in to %s", program, context.name)
            self._token = ClusterToken(self._identity, server)
        else:
            self._token.replace()
        return self._token

    def account(self) -> ClusterAccount | None:
        if self._aks:
            return self._aks.account()
        cluster = cluster_scope(self._host)
        if self._token:
            return self._token.account(cluster)
        # That of `kubelogin`, or of another login program.
        token = self._authorization().get("Authorization", "").removeprefix("Bearer ")
        principal = Principal.of(token)
        return (
            ClusterAccount(principal, cluster, is_identity=False) if principal.object_id else None
        )

    @property
    def _host(self) -> str:
        return urlsplit(self._configuration.host).hostname or ""

    def send(self, request: ApiRequest, timeout: tuple[float, float]) -> ApiResponse:
        import urllib3
        from kubernetes.client.exceptions import ApiException

        headers = {
            "Accept": "application/json, */*",
            "Content-Type": request.content_type,
            **self._authorization(),
        }
        arguments = self._client.param_serialize(
            request.method,
            request.path,
            query_params=list(request.query),
            header_params=headers,
            body=request.body,
        )
        try:
            response = self._client.call_api(*arguments, _request_timeout=timeout)
            data = response.read()  # type: ignore[no-untyped-call]  # the library has no types here
        except ValueError as error:
            # Without a cause: the value that cannot be sent may be the token.
            raise self._no_response(error) from None
        except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            raise self._no_response(error) from error
        return ApiResponse(
            response.status,
            (data or b"").decode("utf-8", "replace"),
            response.headers.get("Retry-After", ""),
        )

    def _no_response(self, error: BaseException) -> NoApiResponse:
        is_private = is_private_cluster(self._host)
        return NoApiResponse(*no_response_error(error, self.name, is_private=is_private))

    def endpoint(self, path: str) -> Endpoint:
        from kubernetes.client.rest import should_bypass_proxies

        settings: Any = self._configuration
        direct = not settings.proxy or should_bypass_proxies(settings.host, settings.no_proxy or "")
        return Endpoint(
            f"{_without_login(settings.host)}{path}",
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
        """Return the Authorization header, with a new token from the library when it is due."""
        with _collect_messages():
            setting: dict[str, Any] = dict(
                self._configuration.auth_settings().get("BearerToken", {})
            )
        return {"Authorization": str(setting["value"])} if setting.get("value") else {}


def _configuration(context: KubeconfigContext | None) -> Configuration:
    from kubernetes.client import Configuration

    # Not the library's default configuration: the whole process shares that one.
    configuration = Configuration()
    # The library retries requests whatever they do.
    configuration.retries = False
    if context is None:
        _load_pod_account(configuration)
    else:
        _load_context(configuration, context)
    return configuration


def _load_pod_account(configuration: Configuration) -> None:
    from kubernetes import config

    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # the library has no types here
    except (config.ConfigException, OSError) as error:
        raise ClusterUnknown(
            "this does not run in a pod with an account",
            on=IN_CLUSTER,
            next="name a kubeconfig, or give the pod the token of its ServiceAccount",
        ) from error


def _load_context(configuration: Configuration, context: KubeconfigContext) -> None:
    from kubernetes import config

    with _collect_messages() as messages, _translate_load_errors(context):
        config.load_kube_config(context.files, context.name, configuration)  # type: ignore[no-untyped-call]  # the library has no types here
    program = context.login_program
    if program is not None and not configuration.api_key and not configuration.cert_file:
        raise _login_error(context, program, messages)
    _set_proxy(configuration, context)


def _set_proxy(configuration: Configuration, context: KubeconfigContext) -> None:
    if _is_loopback(configuration.host) and "proxy-url" not in context.cluster:
        # A company proxy cannot reach this machine's own addresses.
        configuration.no_proxy = "*"


@contextmanager
def _translate_load_errors(context: KubeconfigContext) -> Iterator[None]:
    """Translate what reading a context's entries raises."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - each login of the library raises errors of its own
        # Without a cause: the library's messages quote whole entries, with keys and tokens.
        raise _load_error(context, type(error).__name__) from None


def _load_error(context: KubeconfigContext, why: str) -> ClusterError:
    if "auth-provider" in context.user:
        return ClusterLogin(
            f"the login of the context could not be renewed ({why})",
            on=f"context {context.name}",
            next=LOG_IN,
        )
    return malformed_error(
        context.files, f"the entries of its context {context.name} cannot be loaded ({why})"
    )


def _login_error(context: KubeconfigContext, program: str, messages: list[str]) -> ClusterLogin:
    if shutil.which(program) is None:
        what = f"the login program {program} is not installed"
        cure = f"install {program}, and make sure that it is on the PATH"
    else:
        what = f"the login program {program} gave no credentials"
        cure = LOG_IN
    # Only the program's own output is shown: other messages of the library quote the kubeconfig.
    lines = [
        line
        for message in messages
        if message.startswith("exec: process returned ")
        for line in message.splitlines()
    ]
    return ClusterLogin(
        what,
        on=f"context {context.name}",
        next=cure,
        detail="\n".join(f"  {line}" for line in lines[-10:]),
    )


@contextmanager
def _collect_messages() -> Iterator[list[str]]:
    """Collect what the library logs.

    When a login program fails, the library logs its output and continues without credentials.
    """
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    collector = Collector()
    root = logging.getLogger()
    root.addHandler(collector)
    try:
        yield messages
    finally:
        root.removeHandler(collector)


def _is_loopback(host: str) -> bool:
    name = urlsplit(host).hostname or ""
    return name in ("localhost", "::1") or name.startswith("127.")


def _without_login(host: str) -> str:
    """Return a server's URL without the credentials that it may contain."""
    parts = urlsplit(host)
    netloc = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, netloc, parts.path, "", "")).rstrip("/")
