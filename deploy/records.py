"""The values that stages hand on: frozen, complete when made, and the same as JSON and back.

    Commit ── image.build ──▶ AppImage ─┐
                                        ├─ image.join ──▶ Image ── registry.push ──▶ Release ── rollout.apply ──▶ Rollout
    Model ── model.fetch ──▶ ModelLayer ┘

No field is ever empty until later: what a stage adds is a new record that holds the one before.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(?:[._-][a-z0-9]+)*$", max_length=100)]
VERSION = r"^[A-Za-z0-9_][A-Za-z0-9._+-]*$"
Version = Annotated[str, Field(pattern=VERSION, max_length=100)]


class Record(BaseModel):
    """A frozen value with strict JSON forms; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def to_json(self) -> str:
        """The record as one JSON object, keys in the order of the fields."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Reads a record back.

        Raises:
            pydantic.ValidationError: the text is not this record.
        """
        return cls.model_validate_json(text)

    @classmethod
    def from_cache(cls, text: str | None) -> Self | None:
        """Reads a record that a cache may hold; None if it holds none, or one that is damaged or of another version."""
        try:
            return cls.from_json(text) if text is not None else None
        except ValidationError:
            return None


class Commit(Record):
    """The revision that last changed the files an app image is made of.

    `revision` is a git object name, or "unversioned" where there is no git; `dirty` says that the files differ from it.
    """

    revision: str
    dirty: bool

    def __str__(self) -> str:
        return f"{self.revision[:12]}{'-dirty' if self.dirty else ''}"

    @property
    def full(self) -> str:
        """The whole object name, marked when the files differ from it."""
        return f"{self.revision}{'-dirty' if self.dirty else ''}"


class Descriptor(Record):
    """Bytes in a content-addressed place (OCI image spec, descriptor.md). `size` is in bytes."""

    media_type: str
    digest: Digest
    size: Annotated[int, Field(ge=0)]


class Model(Record):
    """A published model version; `digest` is that of its manifest, which names every file by sha256."""

    name: Name
    version: Version
    digest: Digest

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class ModelLayer(Record):
    """A model in the form in which it is shipped: one uncompressed OCI layer, so `digest` is also its diff id."""

    model: Model
    digest: Digest
    size: Annotated[int, Field(gt=0)]


class AppImage(Record):
    """The application without its model: an OCI image manifest by digest, and the key of the inputs it was built from."""

    name: Name
    key: str
    commit: Commit
    manifest: Descriptor


class Image(Record):
    """An application and a model in one image. `manifest.digest` is a pure function of the two."""

    app: AppImage
    layer: ModelLayer
    manifest: Descriptor
    config: Digest

    @property
    def digest(self) -> str:
        """The digest of the image's manifest."""
        return self.manifest.digest


class Release(Record):
    """An image that a registry holds. `repository` includes the registry's host."""

    image: Image
    repository: str

    @property
    def reference(self) -> str:
        """What is deployed: repository@digest, never a tag."""
        return f"{self.repository}@{self.image.digest}"


class CaseResult(Record):
    """How one golden case went: `problem` is empty for a hit, else expected against actual. Times in milliseconds."""

    name: str
    milliseconds: float
    answer: str
    problem: str = ""


class Verdict(Record):
    """The golden cases as played against one URL."""

    url: str
    cases: tuple[CaseResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every case was a hit."""
        return not self.misses

    @property
    def misses(self) -> tuple[CaseResult, ...]:
        """The cases that were not answered as expected."""
        return tuple(case for case in self.cases if case.problem)


class Attempt(Record):
    """A rollout as it begins: what shall serve where, who asked for it, and when.

    `run` is the address of the CI run that asked for it; empty where a person did.
    """

    id: Annotated[int, Field(gt=0)]
    environment: str
    trigger: Literal["release", "rollback", "promote"]
    release: Release
    by: str
    at: datetime
    url: str
    run: str = ""


class Ending(Record):
    """How an attempt ended, and why if it did not succeed."""

    outcome: Literal["succeeded", "undone", "failed"]
    at: datetime
    why: str = ""


class Rollout(Record):
    """An attempt as the environment's history shows it.

    `ending` is None for an attempt whose end nobody wrote down: it is running still, or its deployer was killed.
    """

    attempt: Attempt
    ending: Ending | None

    @property
    def outcome(self) -> str:
        """`succeeded`, `undone`, `failed`, or `unfinished`."""
        return self.ending.outcome if self.ending else "unfinished"

    @property
    def succeeded(self) -> bool:
        """Whether the release was proven at the front door."""
        return self.outcome == "succeeded"
