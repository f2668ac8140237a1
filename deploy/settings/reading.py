"""The reading of pipeline.toml: one frozen value, or all problems at once, each with its key path.

Environment variables override the file: `TWINSHIP_<SECTION>__<KEY>`, with a double underscore for
each level of nesting, for example `TWINSHIP_ENVIRONMENTS__LOCAL__REPLICAS=3`. Nothing here reads a
secret: settings name the variables that hold secrets.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError, create_model, field_validator

from deploy.errors import SettingsInvalid
from deploy.progress import format_count
from deploy.records import Name
from deploy.settings.app import App
from deploy.settings.environments import (
    KINDS,
    AnyEnvironment,
    Environment,
    Kinds,
    known_keys,
    target_of,
    union_of,
)
from deploy.settings.image import ImageBuild, Wheels
from deploy.settings.model import ModelSource
from deploy.settings.table import Table
from deploy.text import hide_queries

PREFIX = "TWINSHIP_"
FILE = "pipeline.toml"
# They name variables, and a password that stands there by mistake is not shown.
_SECRET_KEYS = ("username", "password")
# A login before a host without a scheme; `name:tag@sha256:...` is an image.
_LOGIN = re.compile(r"[^\s/'\"]*:[^\s/'\"]*@(?!sha256:)")
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
    image: ImageBuild
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
            known = ", ".join(self.environments)
            raise SettingsInvalid(
                f"no environment is named {name!r}",
                on=FILE,
                next=f"choose one of: {known}; or add [environments.{name}]",
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
            problems = sorted(_problems(error, values, origins, kinds))
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
            next="run in the folder of the application, or see docs/04-your-own-app.md",
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
        keys = tuple(variable.removeprefix(PREFIX).lower().split("__"))
        if not variable.startswith(PREFIX) or len(keys) < 2:
            continue
        table = values
        for key in keys[:-1]:
            nested = table.setdefault(key, {})
            if not isinstance(nested, dict):
                nested = table[key] = {}
            table = nested
        text = environ[variable]
        table[keys[-1]] = _split(keys, text)
        origins[keys] = variable
    return origins


def _split(keys: tuple[str, ...], text: str) -> str | list[str]:
    """Return the value of a variable; those of lists have commas, and an empty one has no items."""
    if (keys[0], keys[-1]) not in _LISTS:
        return text
    return text.split(",") if text else []


def _problems(
    error: ValidationError,
    values: Mapping[str, Any],
    origins: Mapping[tuple[str, ...], str],
    kinds: Kinds,
) -> Iterable[str]:
    for problem in error.errors(include_url=False):
        path = _key_path(problem["loc"], kinds)
        kind = problem["type"]
        message = problem["msg"].removeprefix("Value error, ")
        if kind == "union_tag_invalid":
            path = (*path, "target")
            message = f"Input should be {' or '.join(map(repr, kinds))}"
        key = ".".join(path)
        source = f" (set by {origins[path]})" if path in origins else ""
        if kind == "extra_forbidden":
            yield f"{key}: unknown key{_suggest_key(path, values, kinds)}{source}"
        elif kind == "missing":
            yield f"{key}: missing"
        elif (
            kind == "value_error" and isinstance(_value_at(values, path), Mapping) and len(path) > 1
        ):
            yield f"{key}: {message}"
        elif path:
            yield f"{key}: {message}{_show_value(path, _value_at(values, path))}{source}"
        else:
            yield message


def _key_path(location: tuple[int | str, ...], kinds: Kinds) -> tuple[str, ...]:
    """Return where in the file a problem is; the kind of an environment is no level of the file."""
    path = tuple(str(part) for part in location)
    return (
        (*path[:2], *path[3:])
        if path[0:1] == ("environments",) and path[2:3] and path[2] in kinds
        else path
    )


def _value_at(values: Any, path: tuple[str, ...]) -> object:  # noqa: ANN401 - TOML holds anything
    for key in path:
        if not isinstance(values, Mapping) or key not in values:
            return values
        values = values[key]
    return values


def _show_value(path: tuple[str, ...], value: object) -> str:
    """Return a wrong value as the end of a sentence, without what may be a login."""
    if path[-1] in _SECRET_KEYS:
        return ""
    if isinstance(value, Mapping) and value:
        return ", not a table"
    return f", not {_LOGIN.sub('…@', hide_queries(repr(value)))}"


def _suggest_key(path: tuple[str, ...], values: Mapping[str, Any], kinds: Kinds) -> str:
    known = _known_keys(path[:-1], values, kinds)
    near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known here: {', '.join(sorted(known))}" if known else ""


def _known_keys(path: tuple[str, ...], values: Mapping[str, Any], kinds: Kinds) -> list[str]:
    tables: dict[str, type[Table]] = {"app": App, "model": ModelSource, "image": ImageBuild}
    if not path:
        return list(Settings.model_fields)
    if path[:2] == ("image", "wheels"):
        return list(Wheels.model_fields)
    if path[0] == "environments":
        kind = kinds.get(target_of(_value_at(values, path[:2])))
        return known_keys(kind, *path[2:])
    return list(tables[path[0]].model_fields) if path[0] in tables else []
