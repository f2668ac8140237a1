"""The errors of a release, each with what happened, on what, what to do next, and an exit code of its own.

    ReleaseError
    ├── SettingsInvalid 2        pipeline.toml or an override is wrong
    ├── InputMissing 3           a stage was called before the stage that feeds it
    ├── SourceUnreadable 10      the code's revision or files cannot be read
    ├── ModelError
    │   ├── ModelUnknown 20      no such model or version in the store
    │   ├── ManifestInvalid 21   the model's description is not what the format asks for
    │   ├── FileTampered 22      a file is missing, or has another size or sha256 than the manifest says
    │   ├── FormatMismatch 23    a file is not of the format that the manifest names
    │   ├── VersionExists 24     this version is published already, with other bytes
    │   ├── StoreUnreachable 25  the store could not be asked
    │   └── SampleUnavailable 26 the sample model could not be made
    ├── ImageError
    │   ├── BuildFailed 30       the Dockerfile did not build
    │   ├── BaseUnavailable 31   the base image can neither be pulled nor made
    │   └── WheelsUnavailable 32 the locked dependencies could not be downloaded
    ├── SmokeFailed 40           the image gave wrong answers, or none
    ├── RegistryError
    │   ├── RegistryUnreachable 50   no answer, after retries
    │   ├── RegistryDenied 51        401 or 403
    │   ├── RegistryNotFound 52      the repository, manifest or blob is not there
    │   ├── RegistryRefused 53       any other refusal: 413, 416, 429 without end, 5xx without end
    │   └── BlobCorrupt 54           bytes do not have the digest they are named by
    ├── RolloutError
    │   ├── GoldenMiss 60        wrong answers at the front door; the previous release was put back
    │   ├── RolloutFailed 61     a replica crashed or never became ready; the previous release was put back
    │   ├── UndoFailed 62        the previous release could not be put back
    │   ├── RolloutLocked 63     another deployer is at work
    │   ├── ReleaseUnknown 64    history has no such release, or none to go back to
    │   ├── VerifyFailed 65      what serves now gives wrong answers, or none
    │   └── CanaryAborted 66     the canary was worse than what serves, or somebody gave it up
    ├── ClusterError
    │   ├── ClusterUnknown 80        no kubeconfig, or no such context in it
    │   ├── ClusterUnreachable 81    no answer from the API server, after retries
    │   ├── ClusterLogin 82          the API server does not know who asks (401)
    │   ├── ClusterForbidden 83      it does, and does not let them (403)
    │   ├── NamespaceMissing 84      the namespace is not there
    │   ├── FieldConflict 85         somebody else owns a field that a manifest sets
    │   └── ClusterRefused 86        any other refusal: an invalid object, a quota, a failing server
    └── PlatformError
        ├── EngineUnavailable 70 no container engine answers
        ├── EngineDenied 71      the engine is there, but this user may not use it
        ├── PortTaken 72         another program listens on the port
        ├── PartMissing 73       a program is missing and cannot be installed here
        ├── DiskFull 74          no space is left
        ├── EngineFailed 75      the engine refused what it was asked
        └── FileRefused 76       the operating system refused a file or folder

Errors of other libraries stop at `deploy/clients/`, where they are chained to one of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar


class ReleaseError(Exception):
    """A release stopped for a reason that its user can read and act on.

    Args:
        what: what happened, as a sentence without its full stop.
        on: the thing it happened to (a file, a key path, a container, a URL without credentials).
        next: what to do about it.
        detail: lines that show it (a log's end, expected against actual), may be empty.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, on: str, next: str, detail: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.on = on
        self.next = next
        self.detail = detail

    def __str__(self) -> str:
        shown = f"{self.what} ({self.on})" if self.on else self.what
        return f"{shown}\n{self.detail.rstrip()}" if self.detail else shown


class SettingsInvalid(ReleaseError):
    """The configuration has problems; all of them are in the detail, one a line."""

    exit_code = 2


class InputMissing(ReleaseError):
    """A stage needs a record that an earlier stage writes, and it was not there."""

    exit_code = 3


class SourceUnreadable(ReleaseError):
    """The code's revision or files could not be read."""

    exit_code = 10


class ModelError(ReleaseError):
    """Something is wrong with a model or its store."""


class ModelUnknown(ModelError):
    """The store holds no such model or version."""

    exit_code = 20


class ManifestInvalid(ModelError):
    """A model's description breaks the format."""

    exit_code = 21


class FileTampered(ModelError):
    """A model file is missing, or is not the one that the manifest describes."""

    exit_code = 22


class FormatMismatch(ModelError):
    """A model file is of another format than the manifest names."""

    exit_code = 23


class VersionExists(ModelError):
    """A version was published already with other bytes; versions never change."""

    exit_code = 24


class StoreUnreachable(ModelError):
    """The model store could not be asked."""

    exit_code = 25


class SampleUnavailable(ModelError):
    """The sample model could not be made."""

    exit_code = 26


class ImageError(ReleaseError):
    """An image could not be made."""


class BuildFailed(ImageError):
    """The engine could not build the Dockerfile."""

    exit_code = 30


class BaseUnavailable(ImageError):
    """The base image could neither be pulled nor made."""

    exit_code = 31


class WheelsUnavailable(ImageError):
    """The locked dependencies could not be downloaded for the build."""

    exit_code = 32


class SmokeFailed(ReleaseError):
    """A joined image did not answer its golden cases as the model promises."""

    exit_code = 40


class RegistryError(ReleaseError):
    """An image registry did not do what it was asked.

    `transient` says that asking again may help; `retry_after` is how many seconds the registry wants to be left alone, if it said.
    """

    transient: bool = False
    retry_after: str = ""


class RegistryUnreachable(RegistryError):
    """The registry gave no answer, and retries did not help."""

    exit_code = 50


class RegistryDenied(RegistryError):
    """The registry refused the login or the permission."""

    exit_code = 51


class RegistryNotFound(RegistryError):
    """The registry has no such repository, manifest or blob."""

    exit_code = 52


class RegistryRefused(RegistryError):
    """The registry refused the request for good."""

    exit_code = 53


class BlobCorrupt(RegistryError):
    """Bytes were found that do not have the digest they are named by."""

    exit_code = 54


class RolloutError(ReleaseError):
    """A release could not be rolled out."""


class GoldenMiss(RolloutError):
    """The new release answered wrongly at the front door, and was taken back."""

    exit_code = 60


class RolloutFailed(RolloutError):
    """A replica of the new release crashed or never became ready; it was taken back."""

    exit_code = 61


class UndoFailed(RolloutError):
    """The previous release could not be put back."""

    exit_code = 62


class RolloutLocked(RolloutError):
    """Another deployer is at work on this environment."""

    exit_code = 63


class ReleaseUnknown(RolloutError):
    """The environment's history has no such release."""

    exit_code = 64


class VerifyFailed(RolloutError):
    """What serves now did not answer its golden cases as the model promises."""

    exit_code = 65


class CanaryAborted(RolloutError):
    """A canary was given up: it did worse than what serves, or somebody asked for it."""

    exit_code = 66


class ClusterError(ReleaseError):
    """A cluster did not do what it was asked."""


class ClusterUnknown(ClusterError):
    """There is no kubeconfig, it cannot be read, or it has no such context."""

    exit_code = 80


class ClusterUnreachable(ClusterError):
    """The API server gave no answer, and retries did not help."""

    exit_code = 81


class ClusterLogin(ClusterError):
    """The API server did not accept the credentials, or they have expired."""

    exit_code = 82


class ClusterForbidden(ClusterError):
    """The account may not do what a release needs; the detail has the rule to add."""

    exit_code = 83


class NamespaceMissing(ClusterError):
    """The cluster has no such namespace."""

    exit_code = 84


class FieldConflict(ClusterError):
    """A field that a manifest sets is owned by somebody else, who is named; `owners` has them by the field's path."""

    exit_code = 85
    owners: Mapping[str, str] = MappingProxyType({})


class ClusterRefused(ClusterError):
    """The API server refused an object or a request for good."""

    exit_code = 86


class PlatformError(ReleaseError):
    """Something that a release needs on this machine is not as it should be."""


class EngineUnavailable(PlatformError):
    """No container engine answered."""

    exit_code = 70


class EngineDenied(PlatformError):
    """The container engine answered, but this user may not use it."""

    exit_code = 71


class PortTaken(PlatformError):
    """Another program listens on a port that the release needs."""

    exit_code = 72


class PartMissing(PlatformError):
    """A program is missing on this machine and cannot be installed from here."""

    exit_code = 73


class DiskFull(PlatformError):
    """No space is left where something had to be written."""

    exit_code = 74


class EngineFailed(PlatformError):
    """The container engine refused or failed a request."""

    exit_code = 75


class FileRefused(PlatformError):
    """The operating system refused a file or a folder."""

    exit_code = 76
