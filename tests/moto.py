"""A server of S3: moto, in an environment of its own, which shares no package with the project's.

`locks/moto.txt` has its packages, which Nox installs.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import requests

from tests.fakes.azure.certificates import make_certificate, write_pem

PYTHON = Path(__file__).parents[1] / ".nox" / "moto" / "bin" / "python"
REGION = "eu-central-1"
_SIGNED = "AWS4-HMAC-SHA256 Credential=test/20260101/{}/{}/aws4_request, SignedHeaders=, Signature="
_POLICY = (
    '{{"Version": "2012-10-17", '
    '"Statement": [{{"Effect": "Allow", "Action": [{}], "Resource": "*"}}]}}'
)


@dataclass(frozen=True)
class MotoServer:
    """A server of S3 on this machine.

    Attributes:
        url: Its address.
        authority: The certificate of its authority; None without TLS.
    """

    url: str
    authority: Path | None

    def environ(self) -> dict[str, str]:
        """Return the variables by which a store of `s3://` is opened on it."""
        trusted = {"REQUESTS_CA_BUNDLE": str(self.authority)} if self.authority else {}
        return {
            **trusted,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "NO_PROXY": "127.0.0.1",
        }

    def write_bundle(self, folder: Path, others: str) -> Path:
        """Write a CA bundle of a file's certificates and the server's authority."""
        assert self.authority is not None
        bundle = folder / "bundle.pem"
        bundle.write_bytes(Path(others).read_bytes() + self.authority.read_bytes())
        return bundle

    def create_bucket(self) -> str:
        """Create an empty bucket; return its name."""
        name = f"models-{uuid4().hex[:8]}"
        body = (
            "<CreateBucketConfiguration><LocationConstraint>"
            f"{REGION}</LocationConstraint></CreateBucketConfiguration>"
        )
        self._send("PUT", f"/{name}", "s3", body)
        return name

    def create_user(self, *actions: str) -> dict[str, str]:
        """Create a user who may do these actions only; return the variables of its login."""
        name = f"user-{uuid4().hex[:8]}"
        self._ask_iam("CreateUser", UserName=name)
        allowed = ", ".join(f'"{action}"' for action in actions)
        self._ask_iam(
            "PutUserPolicy",
            UserName=name,
            PolicyName="allowed",
            PolicyDocument=_POLICY.format(allowed),
        )
        keys = self._ask_iam("CreateAccessKey", UserName=name)
        return {
            variable: re.findall(rf"<{tag}>(.*?)</{tag}>", keys)[0]
            for variable, tag in (
                ("AWS_ACCESS_KEY_ID", "AccessKeyId"),
                ("AWS_SECRET_ACCESS_KEY", "SecretAccessKey"),
            )
        }

    @contextmanager
    def checking_logins(self) -> Iterator[None]:
        """Check signatures and rights while a `with` block lasts."""
        self._send("POST", "/moto-api/reset-auth", "s3", "0")
        try:
            yield
        finally:
            self._send("POST", "/moto-api/reset-auth", "s3", "inf")

    def _ask_iam(self, action: str, **fields: str) -> str:
        return self._send("POST", "/", "iam", {"Action": action, "Version": "2010-05-08", **fields})

    def _send(self, method: str, path: str, service: str, data: str | dict[str, str]) -> str:
        with requests.Session() as session:
            session.trust_env = False
            response = session.request(
                method,
                f"{self.url}{path}",
                data=data,
                headers={"Authorization": _SIGNED.format(REGION, service)},
                verify=str(self.authority) if self.authority else True,
                timeout=30,
            )
        response.raise_for_status()
        return response.text


@contextmanager
def run_moto(folder: Path, *, tls: bool = True) -> Iterator[MotoServer]:
    """Run a server of S3 during a `with` block; it accepts every login until it is told to check.

    Args:
        folder: Gets its certificates.
        tls: Whether it speaks HTTPS, with a certificate of an authority that is trusted nowhere.
    """
    authority = _write_certificates(folder) if tls else None
    pair = ("-c", str(folder / "server.pem"), "-k", str(folder / "server.pem")) if tls else ()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with subprocess.Popen(
        [PYTHON, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0", *pair],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environ,
        text=True,
    ) as process:
        assert process.stderr is not None
        drain = threading.Thread(target=deque, args=(process.stderr, 0))
        try:
            url = _find_url(process.stderr)
            drain.start()
            yield MotoServer(url, authority)
        finally:
            process.terminate()
            if drain.is_alive():
                drain.join()


def _find_url(log: Iterable[str]) -> str:
    """Return the address that the server writes into its log once it listens."""
    lines = []
    for line in log:
        lines.append(line)
        if found := re.search(r"Running on (\S+)", line):
            return found[1]
    raise AssertionError("".join(lines))


def _write_certificates(folder: Path) -> Path:
    """Write a certificate for this machine, and that of its authority; return the latter's path."""
    authority = make_certificate("authority of moto")
    write_pem(folder / "server.pem", *make_certificate("moto", ["127.0.0.1"], authority))
    write_pem(folder / "authority.pem", authority[1])
    return folder / "authority.pem"
