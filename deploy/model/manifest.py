"""The model manifest: the files of a model version, its interface, and its golden cases.

An author writes `model.toml` into the folder of the model's files. The publication adds the sizes
and digests of the files and stores the result as `manifest.json`; the sha256 of this file is the
model's digest. Both files come from outside and are parsed in `model/reading.py` only.
docs/03-models.md describes the format.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, FiniteFloat, field_validator, model_validator

from deploy.clients.http import leaves_its_folder
from deploy.records import Model, Name, Record, Version

AUTHORS_FILE = "model.toml"
PUBLISHED_FILE = "manifest.json"
MAX_DESCRIPTION_BYTES = 1 << 20
# A description, and 10,000 files with paths of 200 letters.
MAX_MANIFEST_BYTES = 4 << 20
MAX_BODIES = 64 << 20
LATEST = "latest"
_WHITEOUT = ".wh."
_HOUR_MS = 3_600_000
# By default an infinite number becomes null without an error.
_KEEP_INFINITY = ConfigDict(ser_json_inf_nan="constants")

FilePath = Annotated[str, Field(min_length=1, max_length=200)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ModelFile(Record):
    """One file of a model: a plain relative path, its size in bytes, and its sha256 in hex."""

    path: FilePath
    size: Annotated[int, Field(ge=0)]
    sha256: Sha256

    @field_validator("path")
    @classmethod
    def _require_plain_path(cls, value: str) -> str:
        return require_plain_path(value)


# A proxy on the way acts on these instead of passing them on (RFC 9110, section 7.6.1), or they say
# where a request goes and whose it is. A model must not choose that: some endpoints are reached
# with the deployer's own credentials.
_FORBIDDEN_HEADERS = frozenset(
    {
        "authorization",
        "connection",
        "content-length",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_FORBIDDEN_PREFIXES = ("impersonate-", "x-forwarded-", "x-remote-")


class GoldenRequest(Record):
    """The HTTP request of a golden case; `body` names a file of the model."""

    method: Literal["GET", "POST", "PUT"] = "GET"
    path: Annotated[str, Field(pattern=r"^/[!-~]*$", max_length=2000)]
    headers: dict[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")],
        Annotated[str, Field(pattern=r"^[ -~]*$")],
    ] = Field(default={})
    body: FilePath | None = None

    @field_validator("path")
    @classmethod
    def _require_path_below_endpoint(cls, value: str) -> str:
        if leaves_its_folder(value):
            raise ValueError("the path must not lead out of the application")
        return value

    @field_validator("headers")
    @classmethod
    def _require_own_headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            lower = name.lower()
            if lower in _FORBIDDEN_HEADERS or lower.startswith(_FORBIDDEN_PREFIXES):
                raise ValueError(f"a golden case must not set the header {name}")
        return value


class ExpectedValue(Record):
    """The value that is expected at one place of a JSON response.

    `at` is a JSON pointer (RFC 6901). The value must equal `equals`, or differ from `near` by at
    most `tolerance`.
    """

    at: Annotated[str, Field(pattern=r"^(/.*)?$")]
    equals: str | int | float | bool | None = None
    near: FiniteFloat | None = None
    tolerance: Annotated[FiniteFloat, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _require_one_comparison(self) -> ExpectedValue:
        if len({"equals", "near"} & self.model_fields_set) != 1 or (
            "near" in self.model_fields_set and self.near is None
        ):
            raise ValueError("give exactly one of equals and near")
        return self


class ExpectedResponse(Record):
    """The response that a golden case expects.

    It has a status, a latency limit in milliseconds, a part of the text, and values in the JSON.
    """

    status: Annotated[int, Field(ge=100, le=599)] = 200
    within_ms: Annotated[float, Field(gt=0, le=_HOUR_MS)] = 5000.0
    contains: str = ""
    json_: Annotated[tuple[ExpectedValue, ...], Field(alias="json")] = ()


class GoldenCase(Record):
    """A golden case: a request and the response that is expected from the model."""

    name: Name
    request: GoldenRequest
    expect: ExpectedResponse


class Interface(Record):
    """The interface between the model and the application.

    `model` is the file with the weights, and `labels`, which is optional, is a file of the model
    too. Author and application agree on all other keys.
    """

    model_config = Record.model_config | _KEEP_INFINITY | {"extra": "allow"}

    model: FilePath
    labels: FilePath | None = None


class ModelDescription(Record):
    """The description of a model version by its author."""

    model_config = Record.model_config | _KEEP_INFINITY

    name: Name
    version: Version
    format: Literal["onnx", "safetensors", "gguf"]
    interface: Interface
    golden: Annotated[tuple[GoldenCase, ...], Field(min_length=1)]
    metadata: dict[str, Any] = Field(default={})

    @field_validator("version")
    @classmethod
    def _refuse_alias(cls, value: str) -> str:
        if value == LATEST:
            raise ValueError(
                f"{LATEST!r} means the version that was published last; choose another name"
            )
        return value

    @model_validator(mode="after")
    def _require_json_form(self) -> Self:
        try:
            # Free values may be infinite, half a character, or nested without end.
            size = len(_format_canonical_json(self))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"a value cannot be written as JSON: {error}") from None
        if size > MAX_MANIFEST_BYTES:
            raise ValueError(
                f"as JSON it has {size} bytes, and at most {MAX_MANIFEST_BYTES} can be read: "
                "shorten the paths, or pack small files into larger ones"
            )
        return self

    @property
    def weights(self) -> str:
        """The path of the file that has the weights, in the format that `format` names."""
        return self.interface.model

    @property
    def body_paths(self) -> frozenset[str]:
        """The files that golden cases send."""
        return frozenset(case.request.body for case in self.golden if case.request.body)

    @property
    def used_paths(self) -> frozenset[str]:
        """The files that the description names."""
        labels = self.interface.labels
        return self.body_paths | {self.weights} | ({labels} if labels else set())


class AuthorsDescription(ModelDescription):
    """The content of model.toml: the description, and what only its publication needs.

    `include` names files and folders that are published although they are hidden.
    """

    include: tuple[FilePath, ...] = ()

    @model_validator(mode="after")
    def _require_tolerances(self) -> Self:
        # A published version without a tolerance stays readable, so that it can serve again.
        for case in self.golden:
            for value in case.expect.json_:
                if value.near is not None and "tolerance" not in value.model_fields_set:
                    raise ValueError(
                        f"golden case {case.name}, {value.at}: near needs a tolerance, "
                        "because processors add numbers in different orders"
                    )
        return self


class ModelManifest(ModelDescription):
    """A published model version: the author's description, and the size and sha256 of each file."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    files: Annotated[tuple[ModelFile, ...], Field(min_length=1, max_length=10_000)]

    @model_validator(mode="after")
    def _require_unique_paths(self) -> ModelManifest:
        counts = Counter(file.path for file in self.files)
        repeated = [path for path, count in counts.items() if count > 1]
        if repeated:
            raise ValueError(f"files names {min(repeated)!r} twice")
        parents = {
            path[:end] for path in counts for end, letter in enumerate(path) if letter == "/"
        }
        folders = parents & counts.keys()
        if folders:
            raise ValueError(f"{min(folders)!r} is a file and the folder of another")
        return self

    @model_validator(mode="after")
    def _require_all_files(self) -> ModelManifest:
        missing = self.used_paths - {file.path for file in self.files}
        if missing:
            raise ValueError(f"{min(missing)!r} is used but is not one of the files")
        return self

    @model_validator(mode="after")
    def _limit_bodies(self) -> ModelManifest:
        # All bodies are in memory while the golden cases are played.
        bodies = self.body_paths
        if sum(file.size for file in self.files if file.path in bodies) > MAX_BODIES:
            raise ValueError(
                f"the request bodies of the golden cases have more than {MAX_BODIES} bytes in total"
            )
        return self

    @property
    def text(self) -> bytes:
        """The canonical JSON form, of which the digest is computed."""
        return _format_canonical_json(self)

    @property
    def model(self) -> Model:
        """The model's identity."""
        return Model(
            name=self.name,
            version=self.version,
            digest=f"sha256:{hashlib.sha256(self.text).hexdigest()}",
        )

    @property
    def files_in_layer_order(self) -> tuple[ModelFile, ...]:
        """The files in the order of the layer: request bodies first, weights later.

        The golden cases can therefore be read without the weights.
        """
        bodies = self.body_paths
        return tuple(sorted(self.files, key=lambda file: (file.path not in bodies, file.path)))


def _format_canonical_json(description: ModelDescription) -> bytes:
    fields = description.model_dump(by_alias=True, mode="json", exclude_unset=True)
    text = json.dumps(
        fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return f"{text}\n".encode()


def require_plain_path(path: str) -> str:
    """Return the path if it is relative and stays inside its folder.

    Raises:
        ValueError: it is absolute, has `..`, is one that systems read differently, or is not a
            plain file in a layer (OCI image spec, layer.md, "Whiteouts").
    """
    pure = PurePosixPath(path)
    has_odd_letters = set(path) & set("\\:\0") or not path.isprintable()
    if (
        pure.is_absolute()
        or has_odd_letters
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
