"""TLS certificates of a server, on real connections."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from deploy.clients.http import Endpoint
from deploy.clients.network import tls_problem
from deploy.model import golden_cases
from deploy.model.manifest import ExpectedResponse, GoldenCase, GoldenRequest
from tests.missing import lacking

pytestmark = pytest.mark.integration

HOST = "shop.example"
ADDRESS = "127.0.0.1"


@pytest.fixture(autouse=True)
def without_ca_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables that name a CA bundle."""
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a company's authority and the certificate that it issued to the host."""
    if shutil.which("openssl") is None:
        lacking("certificates cannot be made", "install openssl")
    folder = tmp_path_factory.mktemp("company")
    (folder / "of-host").write_text(
        f"subjectAltName=DNS:{HOST}\nbasicConstraints=critical,CA:FALSE\n", encoding="ascii"
    )
    key = ["-newkey", "rsa:2048", "-nodes", "-subj"]
    usage = [
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "keyUsage=critical,keyCertSign",
    ]
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "of-host"]
    for command in (
        [
            "req",
            "-x509",
            "-days",
            "2",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            *key,
            "/CN=company",
            *usage,
        ],
        ["req", "-keyout", "host.key", "-out", "host.csr", *key, "/CN=host"],
        ["x509", "-req", "-days", "2", "-in", "host.csr", "-out", "host.pem", *signed],
    ):
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
    return folder


@contextmanager
def run_server(answer: Callable[[socket.socket], object]) -> Iterator[int]:
    """Run a server on the loopback address that handles each connection; yield its port."""
    with socket.create_server((ADDRESS, 0)) as listener:

        def run() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connection.settimeout(5)
                    with suppress(OSError), closing(connection):
                        answer(connection)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture
def request_heads() -> list[bytes]:
    """Return the list of requests that the controller received."""
    return []


@pytest.fixture
def controller(company: Path, request_heads: list[bytes]) -> Iterator[int]:
    """Run a server with the host's certificate that answers 3; yield its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(company / "host.pem", company / "host.key")
    unknown = ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    context.sni_callback = lambda _socket, name, _context: None if name == HOST else unknown

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            if head := secure.recv(65536):
                request_heads.append(head)
                secure.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n3"
                )

    with run_server(answer) as port:
        yield port


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_companys_certificate_is_valid_if_the_environment_names_its_authority(
    controller: int, company: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without that the authority is unknown."""
    assert "certificate" in tls_problem(HOST, ADDRESS, controller)
    monkeypatch.setenv(variable, str(company / "ca.pem"))
    assert tls_problem(HOST, ADDRESS, controller) == ""


def test_the_ca_bundle_may_be_a_folder(
    controller: int, company: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each certificate is a file with the name that OpenSSL expects."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    assert tls_problem(HOST, ADDRESS, controller) != ""
    command = ["openssl", "x509", "-hash", "-noout", "-in", str(company / "ca.pem")]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    shutil.copy(company / "ca.pem", tmp_path / f"{name}.0")
    assert tls_problem(HOST, ADDRESS, controller) == ""


def test_a_certificate_of_another_host_is_not_valid(
    company: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An Ingress controller shows such a certificate until it has the one of the host."""
    monkeypatch.setenv("SSL_CERT_FILE", str(company / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(company / "host.pem", company / "host.key")
    with run_server(
        lambda connection: context.wrap_socket(connection, server_side=True).close()
    ) as port:
        assert "other.example" in tls_problem("other.example", ADDRESS, port)


@pytest.mark.parametrize(
    "answer",
    [lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), lambda _: None],
)
def test_a_server_without_tls_is_reported(answer: Callable[[socket.socket], object]) -> None:
    """It answers in plain text, or closes the connection."""
    with run_server(answer) as port:
        assert tls_problem(HOST, ADDRESS, port) != ""


def test_an_unreadable_ca_bundle_is_reported(
    controller: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the file, because the server is not the cause."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    assert (
        tls_problem(HOST, ADDRESS, controller)
        == f"{tmp_path}/absent.pem cannot be used (No such file or directory)"
    )
    (tmp_path / "absent.pem").write_text("nothing", encoding="ascii")
    assert "absent.pem cannot be used" in tls_problem(HOST, ADDRESS, controller)


def test_golden_cases_are_played_at_an_address_for_a_host_without_dns(
    controller: int, company: Path, request_heads: list[bytes]
) -> None:
    """The handshake and the request name the host, and its certificate is checked."""
    proof = golden_cases.GoldenSet(
        (
            GoldenCase(
                name="one",
                request=GoldenRequest(path="/score"),
                expect=ExpectedResponse(contains="3"),
            ),
        ),
        {},
    )
    url = f"https://{ADDRESS}:{controller}"
    authority = str(company / "ca.pem")
    assert golden_cases.play(
        proof, Endpoint(url, {"Host": HOST}, authority, server_name=HOST)
    ).passed
    assert request_heads[0].startswith(b"GET /score HTTP/1.1\r\n")
    assert b"\r\nHost: shop.example\r\n" in request_heads[0]
    for wrong in (
        Endpoint(url, {"Host": HOST}, server_name=HOST),
        Endpoint(url, {"Host": HOST}, authority, server_name="other.example"),
    ):
        (case,) = golden_cases.play(proof, wrong).cases
        assert case.problem == "no response: SSLError"
