"""The reading of pipeline.toml: one frozen value, or all problems at once, each with its key path.

Environment variables override the file: `TWINSHIP_<SECTION>__<KEY>`, with a double underscore for
each level of nesting, for example `TWINSHIP_ENVIRONMENTS__LOCAL__REPLICAS=3`. The names of the
application's variables keep their case. Nothing here reads a secret: settings name the variables
that hold secrets.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError, create_model, field_validator

from deploy.errors import SettingsInvalid
from deploy.nearest import ask
from deploy.progress import format_count
from deploy.records import Name
from deploy.settings.app import App
from deploy.settings.azure import Azure
from deploy.settings.environments import (
    KINDS,
    AnyEnvironment,
    Environment,
    Kinds,
    union_of,
)
from deploy.settings.image import ImageBuild
from deploy.settings.model import ModelSource
from deploy.settings.problems import Document
from deploy.settings.table import Table
from deploy.settings.variables import Smoke

PREFIX = "TWINSHIP_"
FILE = "pipeline.toml"
# The keys that hold lists, each with its outermost table.
_LISTS = {
    ("app", "files"),
    ("app", "idempotent"),
    ("environments", "private"),
    ("environments", "topology_keys"),
}


class Settings(Table):
    """The whole configuration of one application."""

    app: App
    model: ModelSource
    image: ImageBuild = ImageBuild()
    azure: Azure = Azure()
    smoke: Smoke = Smoke()
    environments: Mapping[Name, AnyEnvironment]

    @field_validator("environments")
    @classmethod
    def _has_one(cls, value: Mapping[str, Environment]) -> Mapping[str, Environment]:
        if not value:
            raise ValueError("at least one environment is needed, for example [environments.local]")
        return value

    @property
    def default_environment(self) -> str:
        """The environment that is used if none is named: `local`, else the first."""
        return "local" if "local" in self.environments else next(iter(self.environments))

    def environment(self, name: str) -> Environment:
        """Return the environment of that name.

        Raises:
            SettingsInvalid: there is none; the message lists the others.
        """
        if name not in self.environments:
            hint = ask(name, self.environments) or "or add it to the file"
            raise SettingsInvalid(
                f"no environment is named {name!r}",
                on=FILE,
                next=f"choose one of: {', '.join(self.environments)}; {hint}",
            )
        return self.environments[name]

    def repository(self, environment: str) -> str:
        """Return the path of an environment's images below its registry's host."""
        return self.environment(environment).repository or self.app.name

    def mount_sources(self, environment: str) -> tuple[str, ...]:
        """Return the other repositories of the registry, which may hold the same blobs."""
        registry = self.environment(environment).registry
        same = {
            self.repository(name)
            for name, env in self.environments.items()
            if env.registry == registry
        }
        return tuple(sorted(same - {self.repository(environment)}))

    @classmethod
    def read(
        cls,
        directory: Path,
        environ: Mapping[str, str],
        kinds: Kinds = KINDS,
    ) -> Settings:
        """Return the settings of the application in a directory.

        Args:
            directory: holds pipeline.toml.
            environ: the process environment; only names of the form `TWINSHIP_A__B` are used.
            kinds: the kinds of environments, by the name in `target`.

        Raises:
            SettingsInvalid: the file cannot be read or parsed, or has unknown keys or wrong values.
        """
        path = directory / FILE
        values = _parse(path)
        origins = _override(values, environ)
        try:
            return _type_for(frozenset(kinds.items())).model_validate(values)
        except ValidationError as error:
            problems = Document(values, origins, kinds, cls).problems(error)
            raise SettingsInvalid(
                f"the configuration has {format_count(len(problems), 'problem')}",
                on=str(path),
                next="correct them; docs/02-settings.md lists every key",
                detail="\n".join(f"  {line}" for line in problems),
            ) from None


@cache
def _type_for(kinds: frozenset[tuple[str, type[Environment]]]) -> type[Settings]:
    """Return the type of settings whose environments are of those kinds."""
    if kinds == frozenset(KINDS.items()):
        return Settings
    environments: Any = Mapping[Name, union_of(dict(kinds))]  # type: ignore[misc]  # made at run time
    return create_model("Settings", __base__=Settings, environments=(environments, ...))


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsInvalid(
            "there is no configuration",
            on=str(path),
            next="run in the folder of the application; `invoke init` writes a configuration",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsInvalid(
            f"the configuration cannot be read: {reason}",
            on=str(path),
            next="make the file readable",
        ) from error
    except (ValueError, RecursionError) as error:
        # Numbers of thousands of digits and very deep tables raise errors of other kinds.
        raise SettingsInvalid(
            f"the configuration is not TOML: {error}", on=str(path), next="correct that line"
        ) from error


def _override(values: dict[str, Any], environ: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Override values of the file by variables; return which variable set which key path."""
    origins: dict[tuple[str, ...], str] = {}
    for variable in sorted(environ):
        keys = _key_path(variable.removeprefix(PREFIX))
        if not variable.startswith(PREFIX) or len(keys) < 2:
            continue
        table = values
        for key in keys[:-1]:
            nested = table.setdefault(key, {})
            if not isinstance(nested, dict):
                nested = table[key] = {}
            table = nested
        table[keys[-1]] = _split(keys, environ[variable])
        origins[keys] = variable
    return origins


def _key_path(text: str) -> tuple[str, ...]:
    """Return the key path that a name gives, in which the names of variables keep their case."""
    names = text.split("__")
    keys = tuple(map(str.lower, names))
    environment = ("environments", *keys[1:2])
    for table in ((*environment, "env"), (*environment, "secrets"), ("smoke", "env")):
        if len(keys) > len(table) and keys[: len(table)] == table:
            return (*table, "__".join(names[len(table) :]))
    return keys


def _split(keys: tuple[str, ...], text: str) -> str | list[str]:
    """Return the value of a variable; those of lists have commas, and an empty one has no items."""
    if (keys[0], keys[-1]) not in _LISTS:
        return text
    return text.split(",") if text else []
