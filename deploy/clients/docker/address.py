"""Which container engine is used: found once, as Docker's own command line finds it.

The same address is handed to the SDK, to the command line with its builders, and to testcontainers.
Source: Docker CLI, "docker context": DOCKER_HOST, DOCKER_CONTEXT, then `currentContext`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from deploy.clients import environment
from deploy.clients.docker.configuration import DockerConfiguration
from deploy.errors import SettingsInvalid

_DEFAULT_CONTEXT = "default"
_CERTIFICATES = ("ca.pem", "cert.pem", "key.pem")
# Whatever decides which engine is found.
_VARIABLES = (
    "DOCKER_HOST",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "HOME",
)


@dataclass(frozen=True)
class EngineAddress:
    """The address of a container engine.

    Attributes:
        url: with its scheme.
        named_by: what names it, for people; empty for the default socket, which nothing names.
        certificates: the folder of its TLS files; empty for an engine without TLS.
        is_verified: whether the engine's certificate is verified.
    """

    url: str = "unix:///var/run/docker.sock"
    named_by: str = ""
    certificates: str = ""
    is_verified: bool = False

    @property
    def is_named(self) -> bool:
        """Whether the user chose this engine, so that no other can replace it."""
        return bool(self.named_by)

    @property
    def variables(self) -> dict[str, str]:
        """The variables by which Docker's programs and libraries find the engine."""
        tls = {
            "DOCKER_CERT_PATH": self.certificates,
            "DOCKER_TLS_VERIFY" if self.is_verified else "DOCKER_TLS": "1",
        }
        return {"DOCKER_HOST": self.url} | (tls if self.certificates else {})

    def __str__(self) -> str:
        return f"{self.url}, named by {self.named_by}" if self.named_by else self.url


def find_engine_address() -> EngineAddress:
    """Return the address of the engine; it stays the same as long as this process runs.

    Raises:
        SettingsInvalid: what names the engine names none, or one that cannot be used.
    """
    return _find(*(os.environ.get(name, "") for name in _VARIABLES))


@cache
def _find(host: str, verify: str, certificates: str, named: str, *_: str) -> EngineAddress:
    if host:
        folder = certificates or (str(DockerConfiguration.read().folder) if verify else "")
        return _require_usable(EngineAddress(host, "DOCKER_HOST", folder, bool(verify)))
    configuration = DockerConfiguration.read()
    name = named or configuration.current_context
    if name in ("", _DEFAULT_CONTEXT):
        return EngineAddress()
    by = "DOCKER_CONTEXT" if named else str(configuration.file)
    return _require_usable(_read_context(name, by, configuration.folder / "contexts"))


def _read_context(name: str, by: str, folder: Path) -> EngineAddress:
    """Return the engine of a context."""
    identity = hashlib.sha256(name.encode()).hexdigest()
    file = folder / "meta" / identity / "meta.json"
    try:
        endpoint = json.loads(file.read_text(encoding="utf-8"))["Endpoints"]["docker"]
        host = endpoint["Host"]
    except FileNotFoundError as error:
        raise SettingsInvalid(
            f"there is no Docker context {name!r}",
            on=by,
            next="`docker context ls` lists the contexts; name one of them, or unset it",
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unusable(name, by, f"{file} cannot be read") from error
    certificates = folder / "tls" / identity / "docker"
    return EngineAddress(
        str(host),
        f"the Docker context {name!r} ({by})",
        str(certificates) if certificates.is_dir() else "",
        not endpoint.get("SkipTLSVerify", False),
    )


def _unusable(name: str, by: str, why: str) -> SettingsInvalid:
    return SettingsInvalid(
        f"the Docker context {name!r} cannot be used: {why}",
        on=by,
        next="create the context again (`docker context create`), or name another",
    )


def _require_usable(address: EngineAddress) -> EngineAddress:
    """Return an address, if its engine can be used.

    Raises:
        SettingsInvalid: its URL is none, or is of a kind that cannot be used; or TLS files miss.
    """
    import docker.errors
    from docker.utils import parse_host

    if address.url.startswith("ssh://"):
        raise SettingsInvalid(
            "an engine at ssh:// cannot be used: the ports that it publishes are on that machine",
            on=str(address),
            next="run this on that machine, or choose an engine of this one",
        )
    try:
        parse_host(address.url)
    except (docker.errors.DockerException, ValueError) as error:
        raise SettingsInvalid(
            "this is no address of a container engine",
            on=str(address),
            next="give one like unix:///var/run/docker.sock or tcp://HOST:PORT",
        ) from error
    if address.certificates:
        _require_certificates(address)
    return address


def _require_certificates(address: EngineAddress) -> None:
    folder = Path(address.certificates)
    missing = [name for name in _CERTIFICATES if not (folder / name).is_file()]
    if missing:
        raise SettingsInvalid(
            f"TLS files of the container engine are missing: {', '.join(missing)}",
            on=f"{folder}, for {address}",
            next="put them there, or name an engine without TLS",
        )


@contextmanager
def program_variables(address: EngineAddress) -> Iterator[dict[str, str]]:
    """Yield the variables by which Docker's programs use that engine, and no other or builder."""
    with DockerConfiguration.read().as_folder() as folder:
        yield environment.engine_variables(_named(address, folder))


@contextmanager
def library_variables(address: EngineAddress) -> Iterator[None]:
    """Let a library that is opened here find that engine, and no settings of the user."""
    with DockerConfiguration.read().as_folder() as folder:
        wanted = environment.library_variables(_named(address, folder), folder)
        with environment.replaced_variables(wanted):
            yield


def _named(address: EngineAddress, configuration: Path) -> Mapping[str, str]:
    return {**address.variables, "DOCKER_CONFIG": str(configuration)}
