"""The certificate of a front door, on real connections."""

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
from deploy.model import golden
from deploy.model.manifest import ExpectedResponse, GoldenCase, GoldenRequest
from deploy.targets.kubernetes.endpoint import tls_problem
from tests.integration.conftest import lacking

pytestmark = pytest.mark.integration

HOST = "shop.example"
ADDRESS = "127.0.0.1"


@pytest.fixture(autouse=True)
def unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine names no authorities."""
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a company's authority, and the certificate that it gave to the host."""
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
def serving(answer: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server on the loopback address that does that with each connection; its port."""
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
def heads() -> list[bytes]:
    """What the controller was asked."""
    return []


@pytest.fixture
def controller(company: Path, heads: list[bytes]) -> Iterator[int]:
    """One that has the host's certificate, shows it to whoever asks for the host by name, and answers with 3; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(company / "host.pem", company / "host.key")
    unknown = ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    context.sni_callback = lambda _socket, name, _context: None if name == HOST else unknown

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            if head := secure.recv(65536):
                heads.append(head)
                secure.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n3"
                )

    with serving(answer) as port:
        yield port


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_the_certificate_of_a_company_is_good_where_the_machine_names_its_authority(
    controller: int, company: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a file; otherwise nobody knows it."""
    assert "certificate" in tls_problem(HOST, ADDRESS, controller)
    monkeypatch.setenv(variable, str(company / "ca.pem"))
    assert tls_problem(HOST, ADDRESS, controller) == ""


def test_authorities_may_be_in_a_folder(
    controller: int, company: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by its hash, as OpenSSL has it."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    assert tls_problem(HOST, ADDRESS, controller) != ""
    command = ["openssl", "x509", "-hash", "-noout", "-in", str(company / "ca.pem")]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    shutil.copy(company / "ca.pem", tmp_path / f"{name}.0")
    assert tls_problem(HOST, ADDRESS, controller) == ""


def test_a_certificate_of_another_host_is_not_good(
    company: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the one that a controller shows until the host's own is there."""
    monkeypatch.setenv("SSL_CERT_FILE", str(company / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(company / "host.pem", company / "host.key")
    with serving(
        lambda connection: context.wrap_socket(connection, server_side=True).close()
    ) as port:
        assert "other.example" in tls_problem("other.example", ADDRESS, port)


@pytest.mark.parametrize(
    "answer",
    [lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), lambda _: None],
)
def test_whoever_speaks_no_tls_is_not_secure(answer: Callable[[socket.socket], object]) -> None:
    """Or breaks off."""
    with serving(answer) as port:
        assert tls_problem(HOST, ADDRESS, port) != ""


def test_authorities_that_cannot_be_read_are_told(
    controller: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no fault of the front door's."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    assert (
        tls_problem(HOST, ADDRESS, controller)
        == f"{tmp_path}/absent.pem cannot be used (No such file or directory)"
    )
    (tmp_path / "absent.pem").write_text("nothing", encoding="ascii")
    assert "absent.pem cannot be used" in tls_problem(HOST, ADDRESS, controller)


def test_a_host_that_the_dns_does_not_know_proves_itself_at_its_address(
    controller: int, company: Path, heads: list[bytes]
) -> None:
    """It is asked for by name in the handshake and in the request, and its certificate is checked for that name."""
    proof = golden.GoldenSet(
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
    assert golden.play(proof, Endpoint(url, {"Host": HOST}, authority, server_name=HOST)).passed
    assert heads[0].startswith(b"GET /score HTTP/1.1\r\n")
    assert b"\r\nHost: shop.example\r\n" in heads[0]
    for wrong in (
        Endpoint(url, {"Host": HOST}, server_name=HOST),
        Endpoint(url, {"Host": HOST}, authority, server_name="other.example"),
    ):
        (case,) = golden.play(proof, wrong).cases
        assert case.problem == "no response: SSLError"
