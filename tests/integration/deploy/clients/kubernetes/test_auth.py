"""Ways to API servers, real ones and others: who asks, and what is told where nobody may or answers."""

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
from tests.fakes.kubeconfig import (
    TOKEN,
    credential_lines,
    exec_user,
    kubeconfig,
    write_login_program,
    write_yaml,
)
from tests.integration.conftest import lacking
from tests.integration.deploy.clients.conftest import Kubectl
from tests.integration.deploy.clients.kubernetes.test_client import as_user, token
from tests.integration.deploy.clients.oci.forwarder import forwarded

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[5]


def refused(
    kubeconfig: str, context: str = "", patience: RetryPolicy | None = None
) -> ClusterError:
    """Why an API server cannot be asked."""
    with pytest.raises(ClusterError) as caught:
        KubeCluster(
            ApiServerAccess(kubeconfig, context), "default", patience or RetryPolicy()
        ).version()
    return caught.value


# --- a real cluster


def test_a_context_that_is_not_there(access: ApiServerAccess) -> None:
    """Is told before anything is asked, with those that are."""
    error = refused("", "test-absent")
    assert isinstance(error, ClusterUnknown)
    assert access.name.partition(" at ")[0] in error.detail


def test_a_server_of_unknown_certificate_is_not_trusted(
    administrator: dict[str, Any], tmp_path: Path
) -> None:
    """The CA of the kubeconfig is what counts."""
    content = copy.deepcopy(administrator)
    del content["clusters"][0]["cluster"]["certificate-authority-data"]
    error = refused(write_yaml(tmp_path / "config", content))
    assert isinstance(error, ClusterUnreachable)
    assert "certificate is not trusted" in error.what


def test_a_server_of_another_name_is_trusted_by_the_name_that_is_meant(
    administrator: dict[str, Any], tmp_path: Path
) -> None:
    """Behind a tunnel the URL is not in its certificate; requests through it go by the same name."""
    content = copy.deepcopy(administrator)
    cluster = content["clusters"][0]["cluster"]
    parts = urlsplit(cluster["server"])
    assert parts.hostname
    with forwarded((parts.hostname, parts.port or 443), "127.0.0.2") as way:
        cluster["server"] = way.url
        assert (
            "certificate is not trusted" in refused(write_yaml(tmp_path / "without", content)).what
        )
        cluster["tls-server-name"] = parts.hostname
        made = connect(write_yaml(tmp_path / "with", content), "", "default")
        assert made.version()
        endpoint = made.endpoint("Service", "absent", 80)
        with endpoint.session() as session:
            assert session.get(endpoint.url).status_code == 404
        del cluster["tls-server-name"]
        del cluster["certificate-authority-data"]
        cluster["insecure-skip-tls-verify"] = True
        with pytest.warns(InsecureRequestWarning):
            assert connect(write_yaml(tmp_path / "blind", content), "", "default").version()


def test_a_token_that_nobody_knows_is_a_login(
    administrator: dict[str, Any], tmp_path: Path
) -> None:
    """It may have expired; it is not shown."""
    error = refused(as_user(administrator, tmp_path, token=TOKEN))
    assert isinstance(error, ClusterLogin)
    assert TOKEN not in f"{error}{error.next}{error.__cause__}"


IN_A_POD = """
mount -t tmpfs none /run && mkdir -p /run/secrets/kubernetes.io/serviceaccount && cd /run/secrets/kubernetes.io/serviceaccount &&
cp "$1" token && cp "$2" ca.crt && cd "$3" && exec "$4" -c "
from deploy.clients.kubernetes.client import connect
cluster = connect('', '', 'default')
print(cluster.name, cluster.version())
"
"""


def test_in_a_pod_its_own_account_is_used(
    administrator: dict[str, Any], kubectl: Kubectl, namespace: str, tmp_path: Path
) -> None:
    """As every pod finds it: address in the environment, token and CA in files."""
    import base64

    if shutil.which("unshare") is None:
        lacking("a pod's files cannot be laid out here", "install util-linux, for `unshare`")
    cluster = administrator["clusters"][0]["cluster"]
    parts = urlsplit(cluster["server"])
    (tmp_path / "token").write_text(token(kubectl, namespace, "default"), encoding="utf-8")
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
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"in-cluster at https://{parts.hostname}:{parts.port} v")


# --- something else at that address

Handler = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def answering(handler: Handler, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server on the loopback address that answers so; its port."""

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


def said(request: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    """Answers a request."""
    request.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


def asked(
    tmp_path: Path,
    server: str,
    call: ApiRequest | None = None,
    within: tuple[float, float] = (2.0, 2.0),
    **user: Any,
) -> Any:
    """What such a server answers, asked once."""
    content = kubeconfig("red", current="red", server=server, **user)
    return ApiServerAccess(write_yaml(tmp_path / "config", content), "").send(
        call or ApiRequest("GET", "/version"), within
    )


def lost(tmp_path: Path, server: str, **options: Any) -> NoApiResponse:
    """Why such a server gives no answer."""
    with pytest.raises(NoApiResponse) as caught:
        asked(tmp_path, server, **options)
    return caught.value


def test_a_request_says_who_asks_and_what(tmp_path: Path) -> None:
    """JSON in the form that was named, with the token."""
    seen: list[Any] = []

    def handler(request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        seen.append((request.command, request.path, dict(request.headers), json.loads(body)))
        said(request, 201, b'{"kind": "ConfigMap"}', Retry_After="7")

    with answering(handler) as port:
        call = ApiRequest(
            "PATCH",
            "/api/v1/x",
            (("labelSelector", "a=b,c=d/e"),),
            {"a": [1, None]},
            "application/apply-patch+yaml",
        )
        answer = asked(tmp_path, f"http://127.0.0.1:{port}", call)
    ((method, path, headers, body),) = seen
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
def test_whatever_is_answered_is_asked_once(tmp_path: Path, status: int) -> None:
    """No status is an error here; redirects are not followed, and nothing is tried again behind one's back."""
    seen: list[str] = []

    def handler(request: BaseHTTPRequestHandler) -> None:
        seen.append(request.path)
        said(request, status, b"words", Location="/elsewhere", Retry_After="0")

    with answering(handler) as port:
        answer = asked(tmp_path, f"http://127.0.0.1:{port}")
    assert (answer.status, answer.text, seen) == (status, "words", ["/version"])


def test_a_login_program_is_run_again_when_its_credentials_have_expired(tmp_path: Path) -> None:
    """In the middle of a rollout, too; where it gives none any more, that is told."""
    path = tmp_path / "token"
    accepted = "first"

    def handler(request: BaseHTTPRequestHandler) -> None:
        known = request.headers["Authorization"] == f"Bearer {accepted}"
        said(request, 200 if known else 401, b'{"gitVersion": "v1.33.1"}')

    command = write_login_program(
        tmp_path / "kubelogin",
        f"cat {path} >&2 || exit 1",
        *credential_lines(token=f"$(cat {path})"),
    )
    path.write_text("first", encoding="utf-8")
    with answering(handler) as port:
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


def test_where_nobody_listens(tmp_path: Path) -> None:
    """It is told within the patience that strangers get."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        server = f"https://127.0.0.1:{unused.getsockname()[1]}"
        error = refused(
            write_yaml(tmp_path / "config", kubeconfig("red", current="red", server=server)),
            patience=RetryPolicy(first_contact=0.3),
        )
    assert isinstance(error, ClusterUnreachable)
    assert "Connection refused" in error.what
    assert error.on == f"red at {server}"


def test_a_server_without_an_address(tmp_path: Path) -> None:
    """No such name, or no URL at all."""
    assert lost(tmp_path, "https://absent.invalid").transient
    for server in ("not a url", "https://", "ftp://absent.invalid", "https://[::1"):
        try:
            found = lost(tmp_path, server)
        except ClusterUnknown:
            continue
        assert isinstance(found.error, ClusterUnreachable)


def test_a_server_that_breaks_off(tmp_path: Path) -> None:
    """Before its answer, or in the middle of it: it may be going down."""

    def before(request: BaseHTTPRequestHandler) -> None:
        request.connection.shutdown(socket.SHUT_RDWR)

    def amid(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100")
        request.end_headers()
        request.wfile.write(b'{"kind":')
        request.close_connection = True

    for handler in (before, amid):
        with answering(handler) as port:
            found = lost(tmp_path, f"http://127.0.0.1:{port}")
        assert isinstance(found.error, ClusterUnreachable)
        assert found.transient


def test_a_server_that_says_nothing(tmp_path: Path) -> None:
    """Is not waited for without end."""
    done = threading.Event()

    def silent(_: BaseHTTPRequestHandler) -> None:
        done.wait(10)

    with answering(silent) as port:
        found = lost(tmp_path, f"http://127.0.0.1:{port}", within=(1.0, 0.05))
        done.set()
    assert "timed out" in found.error.what
    assert found.transient


def test_a_server_that_speaks_no_tls(tmp_path: Path) -> None:
    """Will not learn it by waiting."""
    with answering(lambda request: said(request, 200)) as port:
        found = lost(tmp_path, f"https://127.0.0.1:{port}")
    assert "no secure connection" in found.error.what
    assert not found.transient


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    folder = tmp_path_factory.mktemp("authority")
    if shutil.which("openssl") is None:
        lacking("certificates cannot be made", "install openssl")
    names = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-keyout",
        "key",
        "-out",
        "crt",
        *names,
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return str(folder / "crt"), str(folder / "key")


def test_a_client_certificate_that_is_turned_down_in_the_handshake_is_a_login(
    tmp_path: Path, authority: tuple[str, str]
) -> None:
    """The server says in its own words that it does not know who signed it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority)
    context.load_verify_locations(authority[0])
    context.verify_mode = ssl.CERT_REQUIRED
    # Later ones may close before their alert is read: then it is told at another attempt.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    other = tmp_path / "other"
    other.mkdir()
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "key",
        "-out",
        "crt",
        "-subj",
        "/CN=other",
    ]
    subprocess.run(command, cwd=other, check=True, capture_output=True)
    with answering(lambda request: said(request, 200, b"{}"), context) as port:
        user = {"client-certificate": str(other / "crt"), "client-key": str(other / "key")}
        content = kubeconfig("red", current="red", server=f"https://127.0.0.1:{port}", **user)
        content["clusters"][0]["cluster"]["certificate-authority"] = authority[0]
        assert isinstance(refused(write_yaml(tmp_path / "config", content)), ClusterLogin)
