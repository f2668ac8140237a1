"""The secrets that an application's variables get."""

from __future__ import annotations

import os

import pytest

from deploy.clients.secrets import read_variables
from deploy.errors import SettingsInvalid

TABLE = "[environments.local.secrets]"


def read(names: dict[str, str], environ: dict[str, str]) -> dict[str, str]:
    """Return the secrets of variables."""
    return read_variables(names, environ, on=TABLE)


def test_a_variable_gets_the_secret_that_its_name_names() -> None:
    """The two names may differ; other secrets are not read."""
    environ = {"STAGING_KEY": "one", "OTHER": "two"}
    assert read({"API_KEY": "STAGING_KEY"}, environ) == {"API_KEY": "one"}


def test_a_secret_that_is_not_set_is_named() -> None:
    """So is the table."""
    with pytest.raises(SettingsInvalid) as caught:
        read({"API_KEY": "STAGING_KEY"}, {})
    assert (caught.value.what, caught.value.on) == (
        "the environment variable STAGING_KEY is not set",
        TABLE,
    )


@pytest.mark.parametrize("secret", ["sk-planted-1234", "planted", "p l"])
def test_a_secret_in_place_of_its_name_is_not_shown(secret: str) -> None:
    """The error says what belongs there."""
    with pytest.raises(SettingsInvalid) as caught:
        read({"API_KEY": secret}, {})
    assert secret not in f"{caught.value} {caught.value.next}"
    assert "API_KEY" in caught.value.what


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        ("", "is empty"),
        ("planted\0", "has the character NUL"),
        (os.fsdecode(b"planted\xff"), "is not UTF-8"),
        ("planted" + chr(0xD800), "is not UTF-8"),
    ],
)
def test_a_secret_that_no_process_can_get_is_refused(secret: str, problem: str) -> None:
    """A CI system sets an empty variable for a secret that it does not have."""
    with pytest.raises(SettingsInvalid) as caught:
        read({"API_KEY": "KEY"}, {"KEY": secret})
    assert caught.value.what == f"the secret KEY {problem}"
    assert caught.value.__cause__ is None
    assert "planted" not in f"{caught.value} {caught.value.next}"
