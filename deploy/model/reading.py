"""The parsing of model.toml and manifest.json: both come from outside and are validated here."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from deploy.errors import ManifestInvalid
from deploy.model.manifest import (
    MAX_DESCRIPTION_BYTES,
    MAX_MANIFEST_BYTES,
    AuthorsDescription,
    ModelManifest,
)
from deploy.progress import format_count
from deploy.records import Record
from deploy.validation import describe_at

_T = TypeVar("_T", bound=Record)
_MAX_PROBLEMS = 20
_MAX_SHOWN = 300
# The time that the library takes grows with the square of the number of parts.
_DEEP_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){100}""")


def parse_description(text: bytes, *, on: str) -> AuthorsDescription:
    """Parse an author's model.toml.

    In a `shape`, -1 stands for a free dimension, because TOML has no null.

    Args:
        text: the content of the file.
        on: the file's name, for errors.

    Raises:
        ManifestInvalid: it is not TOML, or breaks the format; all problems are listed.
    """
    try:
        values = _parse_toml(_decode(text, MAX_DESCRIPTION_BYTES, on))
        _replace_free_dimensions(values.get("interface"))
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(
            f"the model's description cannot be read as TOML: {error}", on=on, next="fix that line"
        ) from None
    return validate(AuthorsDescription, values, on)


def _parse_toml(text: str) -> dict[str, Any]:
    if _DEEP_KEY.search(text):
        raise ValueError("a key has more than 100 parts")
    return tomllib.loads(text)


def parse_model_manifest(text: bytes, *, on: str) -> ModelManifest:
    """Parse a stored model manifest (manifest.json).

    Args:
        text: the content of the file.
        on: the file's name, for errors.

    Raises:
        ManifestInvalid: it is too large, is not canonical JSON, or breaks the format; all problems
            are listed.
    """
    try:
        values = json.loads(_decode(text, MAX_MANIFEST_BYTES, on))
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(
            f"the model manifest is not JSON: {error}",
            on=on,
            next="publish the version again under a new number",
        ) from None
    manifest = validate(
        ModelManifest,
        values,
        on,
        next="find out who wrote it; publish the model again under a new version",
    )
    if manifest.text != text:
        raise ManifestInvalid(
            "the model manifest is not canonical JSON (sorted keys, no spaces, one newline)",
            on=on,
            next="it was edited by hand; publish the version again under a new number",
        )
    return manifest


def _decode(text: bytes, limit: int, on: str) -> str:
    if len(text) > limit:
        raise ManifestInvalid(
            f"the model's description has more than {limit} bytes",
            on=on,
            next="keep large data in files of the model",
        )
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ManifestInvalid(
            f"the model's description is not UTF-8: {error.reason}", on=on, next="save it as UTF-8"
        ) from None


def _replace_free_dimensions(value: object) -> None:
    """Replace -1 by None in each `shape`, at any depth."""
    if isinstance(value, dict):
        if isinstance(value.get("shape"), list):
            value["shape"] = [None if size == -1 else size for size in value["shape"]]
        _replace_free_dimensions(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            _replace_free_dimensions(item)


def validate(
    kind: type[_T],
    values: object,
    on: str,
    next: str = "fix them; docs/03-models.md describes the format",  # noqa: A002 - as errors call it
) -> _T:
    """Return the values as a record of that kind.

    Raises:
        ManifestInvalid: the values break the format; all problems are listed.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = _own_problems(error.errors(include_url=False, include_input=False))
        raise ManifestInvalid(
            f"the model's description has {format_count(len(problems), 'problem')}",
            on=on,
            next=next,
            detail="\n".join(_format_problems(problems)),
        ) from None


def _own_problems(problems: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Return the problems without those of lists that seem empty because an item has a problem."""
    places = {problem["loc"] for problem in problems}
    parents = {place[:end] for place in places for end in range(len(place))}
    return [item for item in problems if item["type"] != "too_short" or item["loc"] not in parents]


def _format_problems(problems: Sequence[ErrorDetails]) -> Iterator[str]:
    """Yield a line for each of the first problems; a hostile description can have a million."""
    for problem in problems[:_MAX_PROBLEMS]:
        line = f"  {describe_at(problem, 'manifest')}"
        yield line if len(line) <= _MAX_SHOWN else f"{line[:_MAX_SHOWN]}..."
    if len(problems) > _MAX_PROBLEMS:
        yield f"  and {len(problems) - _MAX_PROBLEMS} more"
