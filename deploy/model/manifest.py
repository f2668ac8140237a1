"""The description of a model version: its files by size and sha256, its interface, and the proof that it works.

An author writes `model.toml` beside the files; publishing adds what can be computed and stores it as `manifest.json`, whose
sha256 is the model's digest. Both come from outside, so both are parsed here, at the border, and nowhere else.
docs/03-models.md describes the format.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from deploy.errors import ManifestInvalid
from deploy.records import Model, Name, Record, Version

AUTHORS_FILE = "model.toml"
PUBLISHED_FILE = "manifest.json"
MAX_BYTES = 1 << 20
MAX_BODIES = 64 << 20
LATEST = "latest"
_WHITEOUT = ".wh."

FilePath = Annotated[str, Field(min_length=1, max_length=200)]
_T = TypeVar("_T", bound=Record)
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ModelFile(Record):
    """One file of a model: a plain relative path, its length in bytes, its sha256 in hex."""

    path: FilePath
    size: Annotated[int, Field(ge=0)]
    sha256: Sha256

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, value: str) -> str:
        return require_plain_path(value)


class GoldenRequest(Record):
    """The HTTP request of a golden case; `body` names a file of the model."""

    method: Literal["GET", "POST", "PUT"] = "GET"
    path: Annotated[str, Field(pattern=r"^/[!-~]*$", max_length=2000)]
    headers: dict[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")],
        Annotated[str, Field(pattern=r"^[ -~]*$")],
    ] = Field(default={})
    body: FilePath | None = None


class ExpectedValue(Record):
    """What one place of the JSON answer must hold: `at` is a JSON pointer (RFC 6901); equal, or near within a tolerance."""

    at: Annotated[str, Field(pattern=r"^(/.*)?$")]
    equals: str | int | float | bool | None = None
    near: float | None = None
    tolerance: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _says_one_thing(self) -> ExpectedValue:
        if len({"equals", "near"} & self.model_fields_set) != 1 or (
            "near" in self.model_fields_set and self.near is None
        ):
            raise ValueError("give exactly one of equals and near")
        return self


class ExpectedResponse(Record):
    """The answer that a golden case promises: status, latency budget in milliseconds, a piece of its text, places of its JSON."""

    status: Annotated[int, Field(ge=100, le=599)] = 200
    within_ms: Annotated[float, Field(gt=0)] = 5000.0
    contains: str = ""
    json_: Annotated[tuple[ExpectedValue, ...], Field(alias="json")] = ()


class GoldenCase(Record):
    """A golden case: a request and the answer that proves the model."""

    name: Name
    request: GoldenRequest
    expect: ExpectedResponse


class Interface(Record):
    """How the application feeds the model: `model` is the file with the weights; all else is between author and application.

    What is called `labels` must be a file of the model, too, if there is such a thing.
    """

    model_config = Record.model_config | {"extra": "allow"}

    model: FilePath
    labels: FilePath | None = None


class ModelDescription(Record):
    """What the author says of a model version."""

    name: Name
    version: Version
    format: Literal["onnx", "safetensors", "gguf"]
    interface: Interface
    golden: Annotated[tuple[GoldenCase, ...], Field(min_length=1)]
    metadata: dict[str, Any] = Field(default={})

    @field_validator("version")
    @classmethod
    def _is_no_alias(cls, value: str) -> str:
        if value == LATEST:
            raise ValueError(
                f"{LATEST!r} is what the store calls the version published last; choose another name"
            )
        return value


class ModelManifest(ModelDescription):
    """A published model version: what the author said, and every file by size and sha256."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    files: Annotated[tuple[ModelFile, ...], Field(min_length=1, max_length=10_000)]

    @model_validator(mode="after")
    def _is_whole(self) -> ModelManifest:
        paths = [file.path for file in self.files]
        doubled = (
            {path for path in paths if paths.count(path) > 1}
            if len(set(paths)) < len(paths)
            else set()
        )
        if doubled:
            raise ValueError(f"files names {min(doubled)!r} twice")
        folders = {str(folder) for path in paths for folder in PurePosixPath(path).parents} & set(
            paths
        )
        if folders:
            raise ValueError(f"{min(folders)!r} is a file and the folder of another")
        named = self._bodies | {self.interface.labels, self.weights}
        missing = {path for path in named if path} - set(paths)
        if missing:
            raise ValueError(f"{min(missing)!r} is spoken of but is not among the files")
        return self

    @model_validator(mode="after")
    def _can_be_played(self) -> ModelManifest:
        # All are held in memory while the cases are played.
        if sum(file.size for file in self.files if file.path in self._bodies) > MAX_BODIES:
            raise ValueError(
                f"the bodies of its golden cases have more than {MAX_BODIES} bytes together"
            )
        return self

    @model_validator(mode="after")
    def _can_be_written(self) -> ModelManifest:
        try:
            self.text  # noqa: B018 - free values may be infinite, half a character, or nested without end
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it holds a value that JSON has no form for: {error}") from None
        return self

    @property
    def weights(self) -> str:
        """The file that the format speaks of."""
        return self.interface.model

    @property
    def text(self) -> bytes:
        """The one JSON form, over which the digest is taken."""
        fields = self.model_dump(by_alias=True, mode="json", exclude_unset=True)
        return (
            json.dumps(
                fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
            )
            + "\n"
        ).encode()

    @property
    def model(self) -> Model:
        """The model's identity."""
        return Model(
            name=self.name,
            version=self.version,
            digest=f"sha256:{hashlib.sha256(self.text).hexdigest()}",
        )

    @property
    def ordered(self) -> tuple[ModelFile, ...]:
        """The files in the order of the layer: golden requests first, so that the proof is read without the weights."""
        bodies = self._bodies
        return tuple(sorted(self.files, key=lambda file: (file.path not in bodies, file.path)))

    @property
    def _bodies(self) -> set[str | None]:
        """The files that are sent in golden cases; None stands for a case that sends none."""
        return {case.request.body for case in self.golden}


def parse_description(text: bytes, *, on: str) -> ModelDescription:
    """Reads an author's model.toml; -1 in a shape stands for a free dimension, because TOML has no null.

    Raises:
        ManifestInvalid: it is not TOML, or breaks the format; every problem is listed.
    """
    try:
        values = tomllib.loads(_decoded(text, on))
        _free_dimensions(values.get("interface"))
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(
            f"the model's description is not TOML: {error}", on=on, next="mend that line"
        ) from None
    return validate(ModelDescription, values, on)


def parse_manifest(text: bytes, *, on: str) -> ModelManifest:
    """Reads a stored manifest.json.

    Raises:
        ManifestInvalid: it is too large, not JSON in its one form, or breaks the format; every problem is listed.
    """
    try:
        values = json.loads(_decoded(text, on))
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(
            f"the manifest is not JSON: {error}",
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
            "the manifest is not in its canonical form (sorted keys, no spaces, one newline)",
            on=on,
            next="it was edited by hand; publish the version again under a new number",
        )
    return manifest


def require_plain_path(path: str) -> str:
    """The path itself, if it is relative and stays where it starts.

    Raises:
        ValueError: it is absolute, climbs, is written in a way that systems read differently, or means more than a file in a
            layer (OCI image spec, layer.md, "Whiteouts").
    """
    pure = PurePosixPath(path)
    odd = set(path) & set("\\:\0") or not path.isprintable()
    if (
        pure.is_absolute()
        or odd
        or str(pure) != path
        or ".." in pure.parts
        or path in (".", PUBLISHED_FILE)
    ):
        raise ValueError(f"{path!r} is not a plain relative path")
    if any(part.startswith(_WHITEOUT) for part in pure.parts):
        raise ValueError(
            f"{path!r} would delete files in an image layer: names may not start with {_WHITEOUT!r}"
        )
    return path


def _decoded(text: bytes, on: str) -> str:
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


def _free_dimensions(described: object) -> None:
    """Writes None for -1 in every `shape`, however the author arranged inputs and outputs."""
    if isinstance(described, dict):
        if isinstance(described.get("shape"), list):
            described["shape"] = [None if size == -1 else size for size in described["shape"]]
        _free_dimensions(list(described.values()))
    elif isinstance(described, list):
        for part in described:
            _free_dimensions(part)


def validate(
    kind: type[_T],
    values: object,
    on: str,
    next: str = "mend them; docs/03-models.md describes the format",  # noqa: A002 - as errors call it
) -> _T:
    """A value of that kind.

    Raises:
        ManifestInvalid: the values break the format; every problem is listed.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(map(str, p['loc'])) or 'manifest'}: {p['msg'].removeprefix('Value error, ')}"
            for p in error.errors()
        ]
        raise ManifestInvalid(
            f"the model's description has {len(lines)} problem{'s' if len(lines) > 1 else ''}",
            on=on,
            next=next,
            detail="\n".join(lines),
        ) from None
