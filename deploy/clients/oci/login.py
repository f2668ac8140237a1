"""The logins of `docker login` and its credential helpers, read through the docker SDK."""

from __future__ import annotations

from deploy.clients.oci.http import Login
from deploy.errors import RegistryDenied


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
