"""Access to real API servers and to other servers: credentials, TLS, and failures."""

from __future__ import annotations

import copy
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from urllib3.exceptions import InsecureRequestWarning

from deploy.clients.kubernetes.auth import ApiServerAccess
from deploy.clients.kubernetes.client import KubeCluster, connect
from deploy.clients.kubernetes.retry import RetryPolicy
from deploy.clients.kubernetes.transport import ApiRequest, NoApiResponse
from deploy.errors import ClusterError, ClusterLogin, ClusterUnknown, ClusterUnreachable
from tests.e2e.rights import root
from tests.fakes.certificates import write_certificate
from tests.fakes.kubeconfig import (
    TOKEN,
    credential_lines,
    exec_user,
    kubeconfig,
    write_login_program,
    write_yaml,
)
from tests.integration.deploy.clients.conftest import Kubectl
from tests.integration.deploy.clients.kubernetes.accounts import ACCOUNT, as_user, token
from tests.integration.deploy.clients.oci.forwarder import run_forwarder
from tests.missing import lacking

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[5]


def error_of(
    kubeconfig: str, context: str = "", retry_policy: RetryPolicy | None = None
) -> ClusterError:
    """Return the error of a request to an API server."""
    with pytest.raises(ClusterError) as caught:
        KubeCluster(
            ApiServerAccess(kubeconfig, context), "default", retry_policy or RetryPolicy()
        ).version()
    return caught.value


# --- a real cluster


def test_a_missing_context_is_an_error_with_the_existing_ones(access: ApiServerAccess) -> None:
    """No request is sent."""
    error = error_of("", "test-absent")
    assert isinstance(error, ClusterUnknown)
    assert access.name.partition(" at ")[0] in error.detail


def test_a_server_with_an_unknown_certificate_is_not_trusted(
    administrator: dict[str, Any], tmp_path: Path
) -> None:
    """The CA of the kubeconfig decides."""
    content = copy.deepcopy(administrator)
    del content["clusters"][0]["cluster"]["certificate-authority-data"]
    error = error_of(write_yaml(tmp_path / "config", content))
    assert isinstance(error, ClusterUnreachable)
    assert "certificate is not trusted" in error.what


def test_a_server_behind_a_tunnel_is_trusted_by_its_server_name(
    administrator: dict[str, Any], tmp_path: Path
) -> None:
    """The tunnel's URL is not in the certificate; requests to the endpoint use the same name."""
    content = copy.deepcopy(administrator)
    cluster = content["clusters"][0]["cluster"]
    parts = urlsplit(cluster["server"])
    assert parts.hostname
    with run_forwarder((parts.hostname, parts.port or 443), "127.0.0.2") as forwarder:
        cluster["server"] = forwarder.url
        assert (
            "certificate is not trusted" in error_of(write_yaml(tmp_path / "without", content)).what
        )
        cluster["tls-server-name"] = parts.hostname
        cluster_client = connect(write_yaml(tmp_path / "with", content), "", "default")
        assert cluster_client.version()
        endpoint = cluster_client.endpoint("Service", "absent", 80)
        with endpoint.open_session() as session:
            assert session.get(endpoint.url).status_code == 404
        del cluster["tls-server-name"]
        del cluster["certificate-authority-data"]
        cluster["insecure-skip-tls-verify"] = True
        with pytest.warns(InsecureRequestWarning):
            assert connect(write_yaml(tmp_path / "blind", content), "", "default").version()


def test_an_unknown_token_is_a_login_error(administrator: dict[str, Any], tmp_path: Path) -> None:
    """It may have expired; it is not shown."""
    error = error_of(as_user(administrator, tmp_path, token=TOKEN))
    assert isinstance(error, ClusterLogin)
    assert TOKEN not in f"{error}{error.next}{error.__cause__}"


IN_A_POD = """
account=/run/secrets/kubernetes.io/serviceaccount
mount -t tmpfs none /run && mkdir -p $account && cd $account &&
cp "$1" token && cp "$2" ca.crt && cd "$3" && exec "$4" -c "
from deploy.clients.kubernetes.client import connect
cluster = connect('', '', 'default')
print(cluster.name, cluster.version())
"
"""


def test_in_a_pod_its_own_account_is_used(
    administrator: dict[str, Any], kubectl: Kubectl, namespace: str, tmp_path: Path
) -> None:
    """The address is in the environment, token and CA are in files."""
    import base64

    if shutil.which("unshare") is None:
        lacking("the files of a pod cannot be mounted here", "install util-linux, for `unshare`")
    cluster = administrator["clusters"][0]["cluster"]
    parts = urlsplit(cluster["server"])
    kubectl("create", "serviceaccount", ACCOUNT, "-n", namespace)
    (tmp_path / "token").write_text(token(kubectl, namespace), encoding="utf-8")
    (tmp_path / "ca").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "KUBERNETES_SERVICE_HOST": str(parts.hostname),
        "KUBERNETES_SERVICE_PORT": str(parts.port),
    }
    files = (str(tmp_path / "token"), str(tmp_path / "ca"))
    command = root(
        "unshare", "--mount", "sh", "-ec", IN_A_POD, "sh", *files, str(ROOT), sys.executable
    )
    completed = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.startswith(f"in-cluster at https://{parts.hostname}:{parts.port} v")


# --- other servers

Handler = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(handler: Handler, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Yield the port of a server on the loopback address with this handler."""

    class Handling(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's signature
            pass

        def do_GET(self) -> None:
            handler(self)

        do_PATCH = do_GET  # noqa: N815 - so the base class calls it

    class Serving(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    server = Serving(("127.0.0.1", 0), Handling)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


def respond(
    request: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str
) -> None:
    """Send a response."""
    request.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


def send(
    tmp_path: Path,
    server: str,
    request_sent: ApiRequest | None = None,
    timeout: tuple[float, float] = (2.0, 2.0),
    **user: Any,
) -> Any:
    """Send one request to such a server and return the response."""
    content = kubeconfig("red", current="red", server=server, **user)
    return ApiServerAccess(write_yaml(tmp_path / "config", content), "").send(
        request_sent or ApiRequest("GET", "/version"), timeout
    )


def failure_of(tmp_path: Path, server: str, **options: Any) -> NoApiResponse:
    """Return the failure of a request to such a server."""
    with pytest.raises(NoApiResponse) as caught:
        send(tmp_path, server, **options)
    return caught.value


def test_a_request_has_credentials_and_a_content_type(tmp_path: Path) -> None:
    """The body is JSON, sent with the given media type."""
    received: list[Any] = []

    def handler(request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        received.append((request.command, request.path, dict(request.headers), json.loads(body)))
        respond(request, 201, b'{"kind": "ConfigMap"}', Retry_After="7")

    with serving(handler) as port:
        request_sent = ApiRequest(
            "PATCH",
            "/api/v1/x",
            (("labelSelector", "a=b,c=d/e"),),
            {"a": [1, None]},
            "application/apply-patch+yaml",
        )
        answer = send(tmp_path, f"http://127.0.0.1:{port}", request_sent)
    ((method, path, headers, body),) = received
    assert (method, path, body) == (
        "PATCH",
        "/api/v1/x?labelSelector=a%3Db%2Cc%3Dd/e",
        {"a": [1, None]},
    )
    assert headers["Authorization"] == f"Bearer {TOKEN}-red"
    assert headers["Content-Type"] == "application/apply-patch+yaml"
    assert headers["User-Agent"] == "twinship"
    assert (answer.status, answer.body["kind"], answer.retry_after) == (201, "ConfigMap", "7")


@pytest.mark.parametrize("status", [302, 401, 403, 404, 409, 429, 500, 503])
def test_each_request_is_sent_once(tmp_path: Path, status: int) -> None:
    """No status is an error here, and redirects are not followed."""
    received: list[str] = []

    def handler(request: BaseHTTPRequestHandler) -> None:
        received.append(request.path)
        respond(request, status, b"words", Location="/other", Retry_After="0")

    with serving(handler) as port:
        answer = send(tmp_path, f"http://127.0.0.1:{port}")
    assert (answer.status, answer.text, received) == (status, "words", ["/version"])


def test_a_login_program_runs_again_when_its_credentials_expire(tmp_path: Path) -> None:
    """This may happen during a rollout; if it gives none any more, that is the error."""
    path = tmp_path / "token"
    accepted = "first"

    def handler(request: BaseHTTPRequestHandler) -> None:
        known = request.headers["Authorization"] == f"Bearer {accepted}"
        respond(request, 200 if known else 401, b'{"gitVersion": "v1.33.1"}')

    command = write_login_program(
        tmp_path / "kubelogin",
        f"cat {path} >&2 || exit 1",
        *credential_lines(token=f"$(cat {path})"),
    )
    path.write_text("first", encoding="utf-8")
    with serving(handler) as port:
        content = kubeconfig(
            "red", current="red", server=f"http://127.0.0.1:{port}", **exec_user(command)
        )
        cluster = KubeCluster(
            ApiServerAccess(write_yaml(tmp_path / "config", content), ""),
            "default",
            RetryPolicy(wait=lambda _: None),
        )
        assert cluster.version()
        path.write_text("second", encoding="utf-8")
        assert cluster.version()
        accepted = "second"
        assert cluster.version()
        accepted = "third"
        path.unlink()
        with pytest.raises(ClusterLogin) as caught:
            cluster.version()
    assert command in caught.value.what


def test_a_closed_port_is_unreachable(tmp_path: Path) -> None:
    """The error comes after the time for a server that never answered."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        server = f"https://127.0.0.1:{unused.getsockname()[1]}"
        error = error_of(
            write_yaml(tmp_path / "config", kubeconfig("red", current="red", server=server)),
            retry_policy=RetryPolicy(before_first_response=0.3),
        )
    assert isinstance(error, ClusterUnreachable)
    assert "Connection refused" in error.what
    assert error.on == f"red at {server}"


def test_an_unknown_host_is_unreachable(tmp_path: Path) -> None:
    """So is a URL that is none."""
    assert failure_of(tmp_path, "https://absent.invalid").transient
    for server in ("not a url", "https://", "ftp://absent.invalid", "https://[::1"):
        try:
            failure = failure_of(tmp_path, server)
        except ClusterUnknown:
            continue
        assert isinstance(failure.error, ClusterUnreachable)


def test_a_closed_connection_is_transient(tmp_path: Path) -> None:
    """The server may be shutting down, before its response or during it."""

    def before_response(request: BaseHTTPRequestHandler) -> None:
        request.connection.shutdown(socket.SHUT_RDWR)

    def amid_response(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100")
        request.end_headers()
        request.wfile.write(b'{"kind":')
        request.close_connection = True

    for handler in (before_response, amid_response):
        with serving(handler) as port:
            failure = failure_of(tmp_path, f"http://127.0.0.1:{port}")
        assert isinstance(failure.error, ClusterUnreachable)
        assert failure.transient


def test_a_silent_server_times_out(tmp_path: Path) -> None:
    """The request does not wait without end."""
    completed = threading.Event()

    def silent(_: BaseHTTPRequestHandler) -> None:
        completed.wait(10)

    with serving(silent) as port:
        failure = failure_of(tmp_path, f"http://127.0.0.1:{port}", timeout=(1.0, 0.05))
        completed.set()
    assert "timed out" in failure.error.what
    assert failure.transient


def test_a_server_without_tls_is_a_permanent_failure(tmp_path: Path) -> None:
    """Another attempt does not help."""
    with serving(lambda request: respond(request, 200)) as port:
        failure = failure_of(tmp_path, f"https://127.0.0.1:{port}")
    assert "no secure connection" in failure.error.what
    assert not failure.transient


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return a self-signed certificate for 127.0.0.1, and its key."""
    if shutil.which("openssl") is None:
        lacking("certificates cannot be made", "install openssl")
    certificate, key = write_certificate(tmp_path_factory.mktemp("authority"), "IP:127.0.0.1")
    return str(certificate), str(key)


def test_a_client_certificate_refused_in_the_handshake_is_a_login_error(
    tmp_path: Path, authority: tuple[str, str]
) -> None:
    """The alert of the server says that it does not know the signer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority)
    context.load_verify_locations(authority[0])
    context.verify_mode = ssl.CERT_REQUIRED
    # With later versions the server may close before its alert is read.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    certificate, key = write_certificate(tmp_path)
    with serving(lambda request: respond(request, 200, b"{}"), context) as port:
        user = {"client-certificate": str(certificate), "client-key": str(key)}
        content = kubeconfig("red", current="red", server=f"https://127.0.0.1:{port}", **user)
        content["clusters"][0]["cluster"]["certificate-authority"] = authority[0]
        assert isinstance(error_of(write_yaml(tmp_path / "config", content)), ClusterLogin)
