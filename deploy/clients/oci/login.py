"""The logins of `docker login` and its credential helpers, read through the docker SDK."""

from __future__ import annotations

from collections.abc import Mapping

from deploy.clients.oci.http import Login
from deploy.errors import RegistryDenied, SettingsInvalid


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
    return Login(_read_variable(username, environ), _read_variable(password, environ))


def _read_variable(name: str, environ: Mapping[str, str]) -> str:
    try:
        return environ[name]
    except KeyError:
        raise SettingsInvalid(
            f"the environment variable {name} is not set",
            on="the registry's login",
            next=f"set {name}",
        ) from None


def find_login(host: str) -> Login | None:
    """Return the login for a registry, or None if the Docker configuration has none.

    Raises:
        RegistryDenied: The configuration or its credential helper cannot be read.
    """
    import docker.auth
    import docker.errors

    try:
        found = docker.auth.load_config().resolve_authconfig(host)
    except docker.errors.DockerException as error:
        raise RegistryDenied(
            "the Docker configuration's login cannot be read",
            on=host,
            next="run `docker login` again",
        ) from error
    if not found:
        return None
    user = found.get("username") or found.get("Username")
    password = found.get("password") or found.get("Password")
    return Login(user, password) if user and password else None
