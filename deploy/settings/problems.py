"""The problems of pipeline.toml in this suite's words, each with its key path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from deploy.nearest import ask, suggest
from deploy.settings.environments import Kinds, target_of
from deploy.text import hide_queries
from deploy.validation import describe

# They name variables, and a secret that stands there by mistake is not shown.
_SECRET_KEYS = ("username", "password", "account_key", "sas", "client_secret")
# The table of an environment whose values are such names.
_SECRET_TABLE = ("secrets",)
# A login before a host without a scheme; `name:tag@sha256:...` is an image.
_LOGIN = re.compile(r"[^\s/'\"]*:[^\s/'\"]*@(?!sha256:)")
_QUOTED = re.compile(r"'([^']+)'")


@dataclass(frozen=True)
class Document:
    """The values of the file and of the variables that override it, before they are settings.

    Args:
        values: the values.
        origins: the variable that has set a value, by its key path.
        kinds: the kinds of environments, by the name in `target`.
        schema: the type of the whole file.
    """

    values: Mapping[str, Any]
    origins: Mapping[tuple[str, ...], str]
    kinds: Kinds
    schema: type[BaseModel]

    def problems(self, error: ValidationError) -> list[str]:
        """Return a line for each problem that pydantic has found, in the order of the keys."""
        return sorted(self._line(problem) for problem in error.errors(include_url=False))

    def _line(self, problem: ErrorDetails) -> str:
        path = self._key_path(problem)
        source = f" (set by {self.origins[path]})" if path in self.origins else ""
        return f"{'.'.join(path)}: {self._explain(problem, path)}{source}"

    def _explain(self, problem: ErrorDetails, path: tuple[str, ...]) -> str:
        sentence = describe(problem)
        if problem["type"] == "union_tag_invalid":
            # The library has the kinds in no order.
            sentence = f"should be one of {', '.join(map(repr, self.kinds))}"
        if problem["type"] == "missing":
            return sentence
        if problem["type"] == "extra_forbidden":
            known = self._known_keys(path[:-1])
            return f"{sentence}; {suggest(path[-1], known)}" if known else sentence
        value = path[-1] if _is_key(problem) else _value_at(self.values, path)
        if problem["type"] == "value_error" and isinstance(value, Mapping) and len(path) > 1:
            return sentence
        question = ask(str(value), _QUOTED.findall(sentence))
        return f"{sentence}{_show(path, value)}{f'; {question}' if question else ''}"

    def _key_path(self, problem: ErrorDetails) -> tuple[str, ...]:
        """Return where in the file a problem is; the kind of an environment is no level of it."""
        location = problem["loc"][:-1] if _is_key(problem) else problem["loc"]
        path = tuple(str(part) for part in location)
        if problem["type"] == "union_tag_invalid":
            return (*path, "target")
        is_nested = path[0:1] == ("environments",) and path[2:3] and path[2] in self.kinds
        return (*path[:2], *path[3:]) if is_nested else path

    def _known_keys(self, path: tuple[str, ...]) -> list[str]:
        """Return the keys that a table of the file knows."""
        table: Any = self.schema
        if path[:1] == ("environments",):
            table = self.kinds.get(target_of(_value_at(self.values, path[:2])))
            path = path[2:]
        for key in path:
            table = _table_of(table, key)
        return list(table.model_fields) if table else []


def _show(path: tuple[str, ...], value: object) -> str:
    """Return a wrong value as the end of a sentence, without what may be a login."""
    if path[2:3] == _SECRET_TABLE or (path[-1:] and path[-1] in _SECRET_KEYS):
        return ""
    if isinstance(value, Mapping) and value:
        return ", not a table"
    return f", not {_LOGIN.sub('…@', hide_queries(repr(value)))}"


def _is_key(problem: ErrorDetails) -> bool:
    """Return whether the problem is the name of a table and not its content."""
    return problem["loc"][-1:] == ("[key]",)


def _value_at(values: Any, path: tuple[str, ...]) -> object:  # noqa: ANN401 - TOML holds anything
    for key in path:
        if not isinstance(values, Mapping) or key not in values:
            return values
        values = values[key]
    return values


def _table_of(table: Any, key: str) -> Any:  # noqa: ANN401 - a type, or None
    """Return the type of the table under a key of a table; None if it holds none."""
    field = table.model_fields.get(key) if table else None
    annotation = field.annotation if field else None
    candidates = (annotation, *getattr(annotation, "__args__", ()))
    return next((item for item in candidates if _is_table(item)), None)


def _is_table(kind: Any) -> bool:  # noqa: ANN401 - a type, or part of one
    return isinstance(kind, type) and issubclass(kind, BaseModel)
