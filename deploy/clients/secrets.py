"""The secrets that settings name, and the error of one that is not there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from deploy.clients.azure.names import SECRET
from deploy.errors import SettingsInvalid

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


class NamedSecrets(Mapping[str, str]):
    """The secrets that settings name: environment variables, and secrets in key vaults.

    Args:
        environ: the environment of the process.
        read_vault: returns the secret of a name that begins with `keyvault://`.
    """

    def __init__(self, environ: Mapping[str, str], read_vault: Callable[[str], str]) -> None:
        self._environ = environ
        self._read_vault = read_vault

    def __getitem__(self, name: str) -> str:
        return self._read_vault(name) if name.startswith(SECRET) else self._environ[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)


def read_secret(key: str, name: str, secrets: Mapping[str, str], *, on: str, example: str) -> str:
    """Return a secret that a key of the settings names.

    Args:
        key: the key.
        name: its value.
        secrets: the secrets by name.
        on: what needs the secret.
        example: the name of a variable that could hold it.

    Raises:
        SettingsInvalid: there is no secret of that name.
    """
    try:
        return secrets[name]
    except KeyError:
        raise _missing_variable_error(key, name, on, example) from None


def read_variables(
    names: Mapping[str, str], secrets: Mapping[str, str], *, on: str
) -> dict[str, str]:
    """Return the secrets that variables of an application get, by the name of the variable.

    Args:
        names: the secrets' names by the name of the variable.
        secrets: the secrets by name.
        on: the table that has the names.

    Raises:
        SettingsInvalid: there is no secret of a name, or it cannot be a variable's value.
    """
    return {key: _read_variable(key, name, secrets, on) for key, name in names.items()}


def _read_variable(key: str, name: str, secrets: Mapping[str, str], on: str) -> str:
    value = read_secret(key, name, secrets, on=on, example=key)
    problem = _find_problem(value)
    if problem:
        raise SettingsInvalid(f"the secret {name} {problem}", on=f"{on} {key}", next=f"set {name}")
    return value


def _find_problem(value: str) -> str:
    """Return why a secret cannot be a variable's value; empty if it can."""
    if not value:
        # A CI system gives an empty variable in place of a secret that it does not have.
        return "is empty"
    if "\0" in value:
        return "has the character NUL"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    return ""


def _missing_variable_error(key: str, name: str, on: str, example: str) -> SettingsInvalid:
    """Return the error of a variable that is not set.

    A value that does not look like the name of a variable may be the secret, and is not shown.
    """
    if _VARIABLE.fullmatch(name):
        what = f"the environment variable {name} is not set"
        return SettingsInvalid(what, on=on, next=f"set {name}")
    return SettingsInvalid(
        f"no environment variable is named like the value of `{key}`",
        on=on,
        next=f"name a variable, such as {example}, and not the {key} itself",
    )
