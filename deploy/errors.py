"""The errors of a release: each says what happened, to what, and what to do next.

Each leaf of this tree has an exit code.

    ReleaseError
    ├── SettingsInvalid 2        pipeline.toml or an override is wrong
    ├── InputMissing 3           a stage was called before the stage that writes its input
    ├── SourceUnreadable 10      the code's revision or files cannot be read
    ├── ModelError
    │   ├── ModelUnknown 20      the store has no such model or version
    │   ├── ManifestInvalid 21   a model's description or manifest breaks the format
    │   ├── FileTampered 22      a file is missing, or does not have its size or sha256
    │   ├── FormatMismatch 23    a file is not of the format that the model manifest names
    │   ├── VersionExists 24     this version is published already, with other bytes
    │   ├── StoreUnreachable 25  the store did not answer
    │   └── SampleUnavailable 26 the sample model cannot be made
    ├── ImageError
    │   ├── BuildFailed 30       the Dockerfile cannot be built
    │   ├── BaseUnavailable 31   the base image can neither be pulled nor made
    │   └── WheelsUnavailable 32 the locked dependencies cannot be downloaded
    ├── SmokeFailed 40           the image gave wrong responses, or none
    ├── RegistryError
    │   ├── RegistryUnreachable 50   no response, after retries
    │   ├── RegistryDenied 51        401 or 403
    │   ├── RegistryNotFound 52      there is no such repository, image manifest or blob
    │   ├── RegistryRefused 53       other refusals: 413, 416, and 429 or 5xx after retries
    │   └── BlobCorrupt 54           bytes do not have their digest
    ├── RolloutError
    │   ├── GoldenMiss 60        wrong responses at the endpoint; the previous release was restored
    │   ├── RolloutFailed 61     a replica did not become ready; the previous release was restored
    │   ├── UndoFailed 62        the previous release could not be restored
    │   ├── RolloutLocked 63     another deployer holds the lock
    │   ├── ReleaseUnknown 64    the history has no such release, or none for a rollback
    │   ├── VerifyFailed 65      the serving release gives wrong responses, or none
    │   ├── CanaryAborted 66     the canary was worse than the serving release, or was aborted
    │   └── NotServing 67        fewer replicas serve than should, or no client reaches them
    ├── ClusterError
    │   ├── ClusterUnknown 80        no kubeconfig, or no such context in it
    │   ├── ClusterUnreachable 81    no response from the API server, after retries
    │   ├── ClusterLogin 82          the API server does not accept the credentials (401)
    │   ├── ClusterForbidden 83      the account lacks a permission (403)
    │   ├── NamespaceMissing 84      the cluster has no such namespace
    │   ├── FieldConflict 85         another manager owns a field of an object template
    │   └── ClusterRefused 86        other refusals: an invalid object, a quota, a failing server
    ├── PlatformError
    │   ├── EngineUnavailable 70 no container engine answers
    │   ├── EngineDenied 71      this user may not use the container engine
    │   ├── PortTaken 72         another program listens on the port
    │   ├── PartMissing 73       a program is missing and cannot be installed here
    │   ├── DiskFull 74          no space is left
    │   ├── EngineFailed 75      the engine refused or failed a request
    │   └── FileRefused 76       the operating system refused a file or folder
    └── InternalError 99         a fault of this program, which nothing else explains

`deploy/clients/` catches the errors of other libraries and chains them to one of these.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar


class ReleaseError(Exception):
    """A failure of a release that its user can understand and act on.

    Args:
        what: what happened, as a sentence without its full stop.
        on: to what it happened (a file, a key path, a container, a URL without credentials).
        next: what the user can do.
        detail: lines that show the failure (the end of a log, expected and actual values), or "".
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, on: str, next: str, detail: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.on = on
        self.next = next
        self.detail = detail

    def __str__(self) -> str:
        text = f"{self.what} ({self.on})" if self.on else self.what
        return f"{text}\n{self.detail.rstrip()}" if self.detail else text


class SettingsInvalid(ReleaseError):
    """Problems of the configuration; the detail has one line for each."""

    exit_code = 2


class InputMissing(ReleaseError):
    """A record that a stage needs is missing, because an earlier stage has not written it."""

    exit_code = 3


class SourceUnreadable(ReleaseError):
    """A failure to read the code's revision or files."""

    exit_code = 10


class ModelError(ReleaseError):
    """A failure of a model or of its store."""


class ModelUnknown(ModelError):
    """A model or version that the store does not have."""

    exit_code = 20


class ManifestInvalid(ModelError):
    """A model's description or manifest that breaks the format."""

    exit_code = 21


class FileTampered(ModelError):
    """A model file that is missing, or is not the one in the model manifest."""

    exit_code = 22


class FormatMismatch(ModelError):
    """A model file that is not of the format in the model manifest."""

    exit_code = 23


class VersionExists(ModelError):
    """A version that is published already with other bytes; versions never change."""

    exit_code = 24


class StoreUnreachable(ModelError):
    """A model store that does not answer."""

    exit_code = 25


class SampleUnavailable(ModelError):
    """A sample model that cannot be made."""

    exit_code = 26


class ImageError(ReleaseError):
    """An image that cannot be made."""


class BuildFailed(ImageError):
    """A Dockerfile that the engine cannot build."""

    exit_code = 30


class BaseUnavailable(ImageError):
    """A base image that can neither be pulled nor made."""

    exit_code = 31


class WheelsUnavailable(ImageError):
    """Locked dependencies that cannot be downloaded for the build."""

    exit_code = 32


class SmokeFailed(ReleaseError):
    """A joined image that does not pass the golden cases of its model."""

    exit_code = 40


class RegistryError(ReleaseError):
    """A failure of an image registry.

    Attributes:
        transient: whether a retry may help.
        retry_after: the registry's `Retry-After` header, or "".
    """

    transient: bool = False
    retry_after: str = ""


class RegistryUnreachable(RegistryError):
    """A registry that does not answer, even after retries."""

    exit_code = 50


class RegistryDenied(RegistryError):
    """A login or permission that the registry refuses."""

    exit_code = 51


class RegistryNotFound(RegistryError):
    """A repository, image manifest or blob that the registry does not have."""

    exit_code = 52


class RegistryRefused(RegistryError):
    """A request that the registry refuses for another reason."""

    exit_code = 53


class BlobCorrupt(RegistryError):
    """Bytes that do not have the digest by which they are named."""

    exit_code = 54


class RolloutError(ReleaseError):
    """A release that cannot be rolled out."""


class GoldenMiss(RolloutError):
    """Wrong responses of the new release at the endpoint; the rollout was undone.

    Attributes:
        misses: how the responses differed from the expected ones, by golden case.
    """

    exit_code = 60
    misses: Mapping[str, str] = MappingProxyType({})


class RolloutFailed(RolloutError):
    """A replica of the new release that crashed or was never ready; the rollout was undone."""

    exit_code = 61


class UndoFailed(RolloutError):
    """A previous release that could not be restored."""

    exit_code = 62


class RolloutLocked(RolloutError):
    """An environment whose lock another deployer holds."""

    exit_code = 63


class ReleaseUnknown(RolloutError):
    """A release that the environment's history does not have."""

    exit_code = 64


class VerifyFailed(RolloutError):
    """A serving release that does not pass the golden cases of its model."""

    exit_code = 65


class CanaryAborted(RolloutError):
    """A canary that was worse than the serving release, or that was aborted by a person."""

    exit_code = 66


class NotServing(RolloutError):
    """A release of which fewer replicas serve than should, or which no client reaches."""

    exit_code = 67


class ClusterError(ReleaseError):
    """A failure of a cluster."""


class ClusterUnknown(ClusterError):
    """A kubeconfig that is missing or unreadable, or that lacks the context."""

    exit_code = 80


class ClusterUnreachable(ClusterError):
    """An API server that does not answer, even after retries."""

    exit_code = 81


class ClusterLogin(ClusterError):
    """Credentials that the API server does not accept, or that have expired."""

    exit_code = 82


class ClusterForbidden(ClusterError):
    """A permission that the account lacks; the detail has the rule to add."""

    exit_code = 83


class NamespaceMissing(ClusterError):
    """A namespace that the cluster does not have."""

    exit_code = 84


class FieldConflict(ClusterError):
    """A field of an object template that another manager owns.

    Attributes:
        owners: the managers by the field's path.
    """

    exit_code = 85
    owners: Mapping[str, str] = MappingProxyType({})


class ClusterRefused(ClusterError):
    """An object or request that the API server refuses for another reason."""

    exit_code = 86


class PlatformError(ReleaseError):
    """A failure of the machine on which the release runs."""


class EngineUnavailable(PlatformError):
    """A container engine that does not answer."""

    exit_code = 70


class EngineDenied(PlatformError):
    """A container engine that this user may not use."""

    exit_code = 71


class PortTaken(PlatformError):
    """A port that the release needs and on which another program listens."""

    exit_code = 72


class PartMissing(PlatformError):
    """A program that is missing on this machine and cannot be installed by a release."""

    exit_code = 73


class DiskFull(PlatformError):
    """A disk, or a quota of it, on which no space is left."""

    exit_code = 74


class EngineFailed(PlatformError):
    """A request that the container engine refused or failed."""

    exit_code = 75


class FileRefused(PlatformError):
    """A file or folder that the operating system refused."""

    exit_code = 76


class InternalError(ReleaseError):
    """A fault of this program; a file has its trace."""

    exit_code = 99


def is_disk_full(error: OSError) -> bool:
    """Return whether a file system, or the user's quota on it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def disk_full_error(place: str) -> DiskFull:
    """Return the error of a full disk.

    Args:
        place: the file or folder for which there was no space.
    """
    return DiskFull(
        "no space is left on the disk",
        on=place,
        next="free some space and run again; complete files are kept",
    )


def format_log_tail(text: str) -> str:
    """Return the end of a log as indented lines, for the detail of an error."""
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines()) or "    (nothing)"
