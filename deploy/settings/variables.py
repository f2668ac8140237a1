"""The tables [smoke], and `env` and `secrets`: the variables that an application gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from deploy.settings.table import Table
from deploy.variables import NAME, RESERVED


def _check_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(
            "a variable's name has letters, digits and underscores, and begins with no digit"
        )
    if name.startswith(RESERVED):
        raise ValueError(f"names that begin with {RESERVED} are this suite's own")
    return name


def _require_text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("a variable is text: put it in quotes")  # noqa: TRY004 - pydantic takes no TypeError
    return value


def _check_value(value: str) -> str:
    if "\0" in value:
        raise ValueError("a variable cannot have the character NUL")
    return value


VariableName = Annotated[str, AfterValidator(_check_name)]
Values = Mapping[
    VariableName, Annotated[str, BeforeValidator(_require_text), AfterValidator(_check_value)]
]
"""The values of variables, by name."""
SecretNames = Mapping[VariableName, Annotated[str, BeforeValidator(_require_text)]]
"""The names of the secrets that variables get, by the name of the variable."""


class Smoke(Table):
    """The smoke test: `env` has the values of its container's variables."""

    env: Values = Field(default={})
