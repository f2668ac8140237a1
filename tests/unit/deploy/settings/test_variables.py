"""The tables that give an application its variables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from deploy.errors import SettingsInvalid
from deploy.settings.image import DEBIAN
from deploy.settings.reading import Settings

HEAD = f"""
[app]
name = "classifier"
[model]
name = "imagenet"
[image]
base = "{DEBIAN}"
"""


def read(
    folder: Path, keys: str, environ: Mapping[str, str] | None = None, target: str = "docker"
) -> Settings:
    """Return settings with those tables of the environment `local`, or of others."""
    text = f'{HEAD}[environments.local]\ntarget = "{target}"\n{keys}'
    (folder / "pipeline.toml").write_text(text, encoding="utf-8")
    return Settings.read(folder, environ or {})


def read_problems(folder: Path, keys: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the problems of those tables."""
    with pytest.raises(SettingsInvalid) as caught:
        read(folder, keys, environ)
    return [line.strip() for line in caught.value.detail.splitlines()]


@pytest.mark.parametrize("target", ["docker", "kubernetes"])
def test_each_kind_of_environment_has_values_and_names_of_secrets(
    tmp_path: Path, target: str
) -> None:
    """Names keep their case; without the tables there are none."""
    keys = (
        '[environments.local.env]\nMODE = "fast"\nhttp_proxy = ""\n'
        '[environments.local.secrets]\nAPI_KEY = "keyvault://safe/key"\n'
        '[smoke.env]\nAPI_KEY = "stand-in"\n'
    )
    found = read(tmp_path, keys, target=target)
    env = found.environment("local")
    assert (env.env, env.secrets, found.smoke.env) == (
        {"MODE": "fast", "http_proxy": ""},
        {"API_KEY": "keyvault://safe/key"},
        {"API_KEY": "stand-in"},
    )
    bare = read(tmp_path, "", target=target)
    assert (bare.environment("local").env, bare.environment("local").secrets) == ({}, {})


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("WORKERS = 2", "WORKERS: a variable is text: put it in quotes, not 2"),
        ("DEBUG = true", "DEBUG: a variable is text: put it in quotes, not True"),
        ('"1ST" = "a"', "1ST: a variable's name has letters, digits and underscores, and "),
        ('"API-KEY" = "a"', "API-KEY: a variable's name has letters, digits and underscores, and "),
        ('"" = "a"', ": a variable's name has letters, digits and underscores, and "),
        ('"A\\n" = "a"', "A\n: a variable's name has letters"),
        ('TWINSHIP_COMMIT = "a"', "TWINSHIP_COMMIT: names that begin with TWINSHIP_ are this "),
        ('A = "b\\u0000"', "A: a variable cannot have the character NUL"),
    ],
)
@pytest.mark.parametrize("table", ["environments.local.env", "smoke.env"])
def test_what_is_no_variable_is_refused(
    tmp_path: Path, line: str, problem: str, table: str
) -> None:
    """The problem says what to write instead."""
    found = "\n".join(read_problems(tmp_path, f"[{table}]\n{line}\n"))
    assert found.startswith(f"{table}.{problem}")


def test_a_name_in_both_tables_is_refused(tmp_path: Path) -> None:
    """Every one of them is named."""
    keys = 'env = { A = "1", B = "1", C = "1" }\nsecrets = { C = "X", A = "X" }\n'
    assert read_problems(tmp_path, keys) == [
        "environments.local: A, C: in env and in secrets; remove it from one of them"
    ]


@pytest.mark.parametrize(
    "line",
    ['secrets = "planted"', 'secrets = { API_KEY = ["planted"] }', 'secrets.A-B = "planted"'],
)
def test_a_secret_in_a_wrong_place_is_not_shown(tmp_path: Path, line: str) -> None:
    """What stands where the name of a secret belongs may be the secret."""
    (problem,) = read_problems(tmp_path, line)
    assert problem.startswith("environments.local.secrets")
    assert "planted" not in problem


def test_overrides_keep_the_case_of_a_variable(tmp_path: Path) -> None:
    """Also underscores that separate keys elsewhere."""
    environ = {
        "TWINSHIP_ENVIRONMENTS__LOCAL__ENV__API__Url": "http://b",
        "TWINSHIP_ENVIRONMENTS__LOCAL__SECRETS__API_KEY": "OTHER",
        "TWINSHIP_SMOKE__ENV__API_KEY": "stand-in",
        "TWINSHIP_ENVIRONMENTS__LOCAL__REPLICAS": "3",
    }
    keys = 'env = { API__Url = "http://a" }\nsecrets = { API_KEY = "KEY" }\n'
    found = read(tmp_path, keys, environ)
    env = found.environment("local")
    assert (env.env, env.secrets, found.smoke.env, env.replicas) == (
        {"API__Url": "http://b"},
        {"API_KEY": "OTHER"},
        {"API_KEY": "stand-in"},
        3,
    )


def test_a_wrong_override_names_the_variable_that_set_it(tmp_path: Path) -> None:
    """A name is checked there too."""
    environ = {"TWINSHIP_SMOKE__ENV__TWINSHIP_X": "a"}
    (problem,) = read_problems(tmp_path, "", environ)
    assert problem.startswith("smoke.env.TWINSHIP_X: names that begin with TWINSHIP_")
    assert problem.endswith("(set by TWINSHIP_SMOKE__ENV__TWINSHIP_X)")
