"""The parsing of model.toml and manifest.json: both come from outside and are validated here."""

from __future__ import annotations

import json
import tomllib
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from deploy.errors import ManifestInvalid
from deploy.model.manifest import MAX_BYTES, ModelDescription, ModelManifest
from deploy.records import Record

_T = TypeVar("_T", bound=Record)


def parse_description(text: bytes, *, on: str) -> ModelDescription:
    """Parse an author's model.toml.

    In a `shape`, -1 stands for a free dimension, because TOML has no null.

    Args:
        text: the content of the file.
        on: the file's name, for errors.

    Raises:
        ManifestInvalid: it is not TOML, or breaks the format; all problems are listed.
    """
    try:
        values = tomllib.loads(_decode(text, on))
        _replace_free_dimensions(values.get("interface"))
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(
            f"the model's description is not TOML: {error}", on=on, next="fix that line"
        ) from None
    return validate(ModelDescription, values, on)


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
        values = json.loads(_decode(text, on))
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


def _decode(text: bytes, on: str) -> str:
    if len(text) > MAX_BYTES:
        raise ManifestInvalid(
            f"the model's description has more than {MAX_BYTES} bytes",
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
        lines = [_format_problem(problem) for problem in error.errors()]
        raise ManifestInvalid(
            f"the model's description has {len(lines)} problem{'s' if len(lines) > 1 else ''}",
            on=on,
            next=next,
            detail="\n".join(lines),
        ) from None


def _format_problem(problem: ErrorDetails) -> str:
    path = ".".join(map(str, problem["loc"])) or "manifest"
    return f"  {path}: {problem['msg'].removeprefix('Value error, ')}"
