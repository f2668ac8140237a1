"""The credentials for registries: those that settings name, and those of `docker login`.

The Docker configuration and its credential helpers are read through the docker SDK.
"""

from __future__ import annotations

import base64
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from deploy.clients.secrets import read_secret
from deploy.errors import RegistryDenied

log = logging.getLogger(__name__)

TOKEN_USER = "<token>"  # noqa: S105 - the name of a user
"""The user of an identity token, as the credential helpers of Docker name it."""


@dataclass(frozen=True)
class Login:
    """A user and a password; its text has neither.

    The user `<token>` means that the password is an identity token, which only a login service
    accepts.

    Attributes:
        user: The user.
        password: The password.
        advise: Returns what to do when the registry refuses a request with this login, from the
            HTTP method and the registry's own messages; None for the usual advice.
        renew: Returns another login in place of this one, which was refused before its end, or
            None; None if there is no other.
    """

    user: str
    password: str
    advise: Callable[[str, str], str] | None = field(default=None, compare=False)
    renew: Callable[[], Login | None] | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        return "Login(…)"

    @property
    def is_identity_token(self) -> bool:
        """Whether it has an identity token in place of a user and a password."""
        return self.user == TOKEN_USER

    @property
    def authorization(self) -> str:
        """The header that logs in by user and password."""
        pair = f"{self.user}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


def read_login(username: str, password: str, environ: Mapping[str, str]) -> Login | None:
    """Return the login in two environment variables; None if the settings name no variables.

    Args:
        username: the name of the variable that holds the user's name.
        password: the name of the variable that holds the password.
        environ: the environment of the process.

    Raises:
        SettingsInvalid: a named variable is not set.
    """
    if not (username and password):
        return None
    return Login(
        _read_part("username", username, environ),
        _read_part("password", password, environ),
    )


def _read_part(key: str, name: str, environ: Mapping[str, str]) -> str:
    example = f"REGISTRY_{key.upper()}"
    return read_secret(key, name, environ, on="the registry's login", example=example)


def find_first_login(
    first: Callable[[], Login | None], second: Callable[[], Login | None]
) -> Login | None:
    """Return a login, or that of another place if the first has none or was refused.

    Raises:
        RegistryDenied: The first was refused, and the second has none; or the second was refused.
    """
    try:
        found = first()
    except RegistryDenied as refusal:
        other = second()
        if other is None:
            raise
        log.warning("%s: %s; the login of Docker is used", refusal.on, refusal.what)
        return other
    return found or second()


def find_login(host: str) -> Login | None:
    """Return the login for a registry, or None if the Docker configuration has none.

    Raises:
        RegistryDenied: The configuration or its credential helper cannot be read.
    """
    import docker.auth
    import docker.errors
    import docker.utils.config

    place = str(docker.utils.config.find_config_file() or "the Docker configuration")
    try:
        config = docker.auth.load_config()
        _require_helper(config.get_credential_store(host), place)
        found = config.resolve_authconfig(host) or {}
    except (
        docker.errors.DockerException,
        # The SDK trusts that file, and what a credential helper prints, to have the right form.
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        raise RegistryDenied(
            f"the login for {host} in the Docker configuration cannot be read",
            on=place,
            next="run `docker login` again",
        ) from error
    return _parse_login(found)


def _require_helper(name: str | None, place: str) -> None:
    """Refuse a configuration whose credential helper is missing; the SDK would only warn."""
    program = f"docker-credential-{name}"
    if name and shutil.which(program) is None:
        raise RegistryDenied(
            f"the credential helper {program} is not installed",
            on=place,
            next="install it, or remove it from that file and run `docker login`; or name the "
            "variables that hold user and password in the environment's settings",
        )


def _parse_login(found: Mapping[str, str]) -> Login | None:
    """Return the login in an entry, whose keys differ between the file and credential helpers."""
    if found.get("IdentityToken"):
        return Login(TOKEN_USER, found["IdentityToken"])
    user = found.get("username") or found.get("Username")
    password = found.get("password") or found.get("Password")
    return Login(user, password) if user and password else None
