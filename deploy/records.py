"""The records that stages pass on: frozen, complete from the start, and the same after JSON.

    Commit ── build ──▶ AppImage ───┐
                                    ├─ join ──▶ Image ── push ──▶ Release ── deploy ──▶ Rollout
    Model ── fetch ──▶ ModelLayer ──┘

No field is filled in later: a stage returns a new record, which has the records before it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(?:[._-][a-z0-9]+)*$", max_length=100)]
# A part of a tag (OCI distribution specification 1.1, "Pulling manifests").
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]
VERSION = r"^[A-Za-z0-9_][A-Za-z0-9._+-]*$"
Trigger = Literal["release", "rollback", "promote"]
_SHORT = len("sha256:") + 12
Version = Annotated[str, Field(pattern=VERSION, max_length=100)]


def short_digest(digest: str) -> str:
    """Return the head of a digest, for people: `sha256:` and twelve digits."""
    return digest[:_SHORT]


class Record(BaseModel):
    """A frozen value with a strict JSON form; unknown fields are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), defer_build=True
    )

    def to_json(self) -> str:
        """Return the record as a JSON object, with its keys in the order of the fields."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the record of a JSON object.

        Raises:
            pydantic.ValidationError: the text is not a record of this class.
        """
        return cls.model_validate_json(text)

    @classmethod
    def from_cache(cls, text: str | bytes | None) -> Self | None:
        """Return the record of a text, or None if there is no text or it is not of this class."""
        try:
            return cls.from_json(text) if text is not None else None
        except ValidationError:
            return None


class Commit(Record):
    """The commit that last changed the inputs of an app image.

    Attributes:
        revision: a git object name, or "unversioned" without git.
        dirty: whether the files differ from that commit.
    """

    revision: str
    dirty: bool

    def __str__(self) -> str:
        return f"{self.revision[:12]}{'-dirty' if self.dirty else ''}"

    @property
    def full(self) -> str:
        """The whole object name, followed by `-dirty` if the files differ from that commit."""
        return f"{self.revision}{'-dirty' if self.dirty else ''}"


class Descriptor(Record):
    """A blob by its digest, with its size in bytes (OCI image spec, descriptor.md)."""

    media_type: str
    digest: Digest
    size: Annotated[int, Field(ge=0)]


class Model(Record):
    """A published model version; `digest` is the digest of its model manifest."""

    name: Name
    version: Version
    digest: Digest

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class ModelLayer(Record):
    """A model as one uncompressed OCI layer; its `digest` is its diff id too."""

    model: Model
    digest: Digest
    size: Annotated[int, Field(gt=0)]


class AppImage(Record):
    """The application without a model: its image manifest, and the key of its inputs."""

    name: Name
    key: Key
    commit: Commit
    manifest: Descriptor


class Image(Record):
    """An application and a model in one image; its digest is a pure function of the two."""

    app: AppImage
    layer: ModelLayer
    manifest: Descriptor
    config: Digest

    @property
    def digest(self) -> str:
        """The digest of the image manifest."""
        return self.manifest.digest


class Release(Record):
    """An image in a registry; `repository` begins with the registry's host."""

    image: Image
    repository: str

    @property
    def reference(self) -> str:
        """The image that is deployed, as repository@digest and never by a tag."""
        return f"{self.repository}@{self.image.digest}"


class CaseResult(Record):
    """The result of a golden case.

    Attributes:
        name: the name of the golden case.
        milliseconds: how long the response took.
        answer: the response in short.
        problem: how the response differs from the expected one; empty if it does not.
    """

    name: str
    milliseconds: float
    answer: str
    problem: str = ""


class Verdict(Record):
    """The results of the golden cases at one URL."""

    url: str
    cases: tuple[CaseResult, ...]

    @property
    def passed(self) -> bool:
        """Whether each response was the expected one."""
        return not self.misses

    @property
    def misses(self) -> tuple[CaseResult, ...]:
        """The results of the cases with a wrong response, or none."""
        return tuple(case for case in self.cases if case.problem)


class Attempt(Record):
    """The start of a rollout: of which release, where, by whom, and when.

    `run` is the URL of the CI run that started it; empty if a person did.
    """

    id: Annotated[int, Field(gt=0)]
    environment: str
    trigger: Trigger
    release: Release
    by: str
    at: datetime
    url: str
    run: str = ""


class Exit(Record):
    """The end of a process: its exit code, when it ended, and why if that is known.

    The reason is a word of Kubernetes, such as `OOMKilled`; empty if there is no other than the
    code.
    """

    code: int
    at: datetime | None = None
    reason: str = ""

    def __str__(self) -> str:
        return f"exit code {self.code}{f' ({self.reason})' if self.reason else ''}"


class LogLine(Record):
    """A line that a replica or the proxy wrote: who, when, and what."""

    source: str
    at: datetime
    text: str


class Evidence(Record):
    """What is kept of a failed attempt, in a form that can be shown.

    Attributes:
        misses: how the responses to golden cases differed from the expected ones, by case.
        log: the last lines of its replicas.
    """

    misses: dict[str, str] = {}
    log: tuple[LogLine, ...] = ()


class Ending(Record):
    """The end of an attempt, and the reason if it did not succeed.

    `evidence` is None after a success, and in records of versions that kept none.
    """

    outcome: Literal["succeeded", "undone", "failed"]
    at: datetime
    why: str = ""
    evidence: Evidence | None = None

    @model_serializer(mode="wrap")
    def _leave_out_missing(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write a success as versions without evidence do, which can read it."""
        fields: dict[str, Any] = serialize(self)
        return {key: value for key, value in fields.items() if value is not None}


class Rollout(Record):
    """An attempt in the history of an environment.

    `ending` is None while the attempt runs, and if its deployer was killed.
    """

    attempt: Attempt
    ending: Ending | None

    @property
    def outcome(self) -> str:
        """`succeeded`, `undone`, `failed`, or `unfinished`."""
        return self.ending.outcome if self.ending else "unfinished"

    @property
    def succeeded(self) -> bool:
        """Whether the release passed its golden cases at the endpoint."""
        return self.outcome == "succeeded"
