"""The problems of pipeline.toml: in this suite's words, with the nearest name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.errors import SettingsInvalid
from deploy.settings.environments import KINDS, Autoscale, Canary, Resources
from deploy.settings.reading import Settings
from deploy.settings.table import Table

BASE = f'"debian:trixie-slim@sha256:{"a" * 64}"'
# The keys that are needed, by table, each with its value in TOML.
NEEDED: dict[str, dict[str, str]] = {
    "app": {"name": '"classifier"'},
    "model": {"name": '"imagenet"'},
    "image": {"base": BASE},
    "image.wheels": {"requirements": '"r.txt"', "python": '"3.13"'},
    "environments.docker": {},
    "environments.kubernetes": {"target": '"kubernetes"'},
    "environments.kubernetes.canary": {},
    "environments.kubernetes.resources": {},
    "environments.kubernetes.autoscale": {"at_most": "3"},
}
NESTED: dict[str, type[Table]] = {
    **{f"environments.{name}": kind for name, kind in KINDS.items()},
    "environments.kubernetes.canary": Canary,
    "environments.kubernetes.resources": Resources,
    "environments.kubernetes.autoscale": Autoscale,
}
WRONG = (
    '""',
    '"?"',
    f'"{"x" * 300}"',
    "-1",
    "1.5",
    "99999999999999999999",
    "nan",
    "inf",
    "true",
    "[]",
    "[1]",
    "{}",
    "{ zzz = 1 }",
    "1979-05-27",
)
# How pydantic begins its own sentences.
FOREIGN = ("Input should", "String should", "Value error", "Field required", "Extra inputs", "List")


def _keys() -> Iterator[tuple[str, str]]:
    """Yield each key of each table."""
    for name in NEEDED:
        for key in _type_of(name).model_fields:
            yield name, key


def _type_of(name: str) -> type[Table]:
    found: Any = Settings
    if name in NESTED:
        return NESTED[name]
    for key in name.split("."):
        annotation = found.model_fields[key].annotation
        found = getattr(annotation, "__args__", (annotation,))[0]
    kind: type[Table] = found
    return kind


def _write(tmp_path: Path, tables: dict[str, dict[str, str]]) -> None:
    lines = [
        line
        for name, keys in tables.items()
        for line in (f"[{name}]", *(f"{key} = {value}" for key, value in keys.items()))
    ]
    (tmp_path / "pipeline.toml").write_text("\n".join(lines), encoding="utf-8")


def _problems(tmp_path: Path, tables: dict[str, dict[str, str]]) -> str:
    """Return the problems of a file with those tables; nothing if it has none."""
    _write(tmp_path, tables)
    try:
        Settings.read(tmp_path, {})
    except SettingsInvalid as error:
        return error.detail or error.what
    return ""


def test_the_needed_keys_are_enough(tmp_path: Path) -> None:
    """So each problem of the other tests has its own reason."""
    assert _problems(tmp_path, NEEDED) == ""


@pytest.mark.parametrize(("table", "key"), list(_keys()))
def test_every_problem_is_in_our_own_words(tmp_path: Path, table: str, key: str) -> None:
    """A library's sentences are for its programmers."""
    for value in WRONG:
        own = {name: keys for name, keys in NEEDED.items() if name != f"{table}.{key}"}
        found = _problems(tmp_path, {**own, table: {**NEEDED[table], key: value}})
        assert [phrase for phrase in FOREIGN if phrase in found] == [], (value, found)


@pytest.mark.parametrize(
    ("table", "key", "value", "problem"),
    [
        (
            "environments.kubernetes",
            "strategy",
            '"rollin"',
            "should be 'rolling', 'blue-green' or 'canary', not 'rollin'; did you mean 'rolling'?",
        ),
        ("environments.kubernetes", "target", '"kubernets"', "did you mean 'kubernetes'?"),
        ("environments.kubernetes", "service", '"nodeport"', "did you mean 'NodePort'?"),
        ("image", "builder", '"buildkitt"', "did you mean 'buildkit'?"),
        ("image", "platfrom", '"linux/arm64"', "image.platfrom: unknown key; "),
        ("image", "dockerfil", '"x"', "unknown key; did you mean 'dockerfile'?"),
        ("environments.kubernetes.canary", "secnods", "1", "did you mean 'seconds'?"),
    ],
)
def test_a_mistyped_key_or_value_has_the_nearest_one(
    tmp_path: Path, table: str, key: str, value: str, problem: str
) -> None:
    """It is easy to correct then."""
    assert problem in _problems(tmp_path, {**NEEDED, table: {**NEEDED[table], key: value}})


def test_a_wrong_name_of_an_environment_is_the_problem_itself(tmp_path: Path) -> None:
    """Not the table below it."""
    found = _problems(tmp_path, {**NEEDED, 'environments."My Laptop"': {}})
    assert found.startswith("  environments.My Laptop: should match the pattern ")
    assert found.endswith(", not 'My Laptop'")
