"""The publication of a model: from its author's directory to a version in a store."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from deploy import progress
from deploy.clients.stores.protocol import Store
from deploy.errors import FileTampered, ManifestInvalid, VersionExists
from deploy.model import manifest, reading
from deploy.model.formats import SIGNATURE_BYTES, require_format
from deploy.model.manifest import ModelDescription, ModelFile, ModelManifest
from deploy.model.versions import blob_path, manifest_path, write_latest_version
from deploy.records import Model

log = logging.getLogger(__name__)


def publish_model(directory: Path, store: Store) -> Model:
    """Publish the model of a directory as a version, and as the latest one.

    To publish the same files again changes nothing.

    Args:
        directory: has model.toml and the files of the model.
        store: gets the version.

    Raises:
        ManifestInvalid: model.toml breaks the format, or a file is a link or is missing.
        FormatMismatch: the weights are not of the format that model.toml names.
        FileTampered: a file changed during the publication; the version is then not published.
        VersionExists: the version is published already, with other bytes.
        StoreUnreachable: the store did not answer.
    """
    new = _create_manifest(directory)
    path = manifest_path(new.name, new.version)
    _refuse_other_bytes(store, path, new)
    for file in new.files:
        _upload(store, directory / file.path, file)
    if not store.create(path, new.text):
        _refuse_other_bytes(store, path, new)
    write_latest_version(new.name, new.version, store)
    log.info("published %s (%s)", new.model, new.model.digest[:19])
    return new.model


def _create_manifest(directory: Path) -> ModelManifest:
    """Return the model manifest: the author's description, and each file's size and digest."""
    source = directory / manifest.AUTHORS_FILE
    values = _read_description(source).model_dump(by_alias=True, exclude_unset=True)
    files = [_measure(directory, path).model_dump() for path in sorted(_list_files(directory))]
    new = reading.validate(ModelManifest, {**values, "schema": 1, "files": files}, on=str(source))
    with (directory / new.weights).open("rb") as weights:
        require_format(new, new.weights, weights.read(SIGNATURE_BYTES))
    return new


def _read_description(source: Path) -> ModelDescription:
    try:
        with source.open("rb") as file:
            text = file.read(manifest.MAX_BYTES + 1)
    except OSError as error:
        raise ManifestInvalid(
            f"the model's description cannot be read: {error.strerror}",
            on=str(source),
            next="docs/03-models.md shows how to write one",
        ) from error
    return reading.parse_description(text, on=str(source))


def _list_files(directory: Path) -> Iterator[str]:
    for path in directory.rglob("*"):
        relative = path.relative_to(directory).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ManifestInvalid(
                "a model may only have plain files and folders",
                on=str(path),
                next="replace the link by the file that it points to",
            )
        if path.is_file() and relative != manifest.AUTHORS_FILE:
            yield relative


def _measure(directory: Path, path: str) -> ModelFile:
    with (directory / path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        values = {"path": path, "size": file.tell(), "sha256": digest}
    return reading.validate(ModelFile, values, on=str(directory / path))


def _refuse_other_bytes(store: Store, path: str, new: ModelManifest) -> None:
    published = store.read(path, manifest.MAX_BYTES)
    if published is not None and published != new.text:
        digest = hashlib.sha256(published).hexdigest()
        raise VersionExists(
            f"{new.name} {new.version} is published already, with other bytes",
            on=f"{store.location}/{path}",
            next="a version never changes: publish under a new version",
            detail=f"  published sha256:{digest}\n  here      {new.model.digest}",
        )


def _upload(store: Store, path: Path, file: ModelFile) -> None:
    """Upload a file, even if the store has one of that name: this repairs a damaged blob."""
    with (
        progress.track(f"publishing {file.path}", file.size) as advance,
        _HashingReader(path, advance) as source,
    ):
        store.upload(blob_path(file), source)
        if source.sha256 != file.sha256:
            raise FileTampered(
                "a file changed during the publication",
                on=str(path),
                next="publish again when no program writes to the folder",
                detail=f"  expected sha256:{file.sha256}\n  actual   sha256:{source.sha256}",
            )


class _HashingReader(io.FileIO):
    """A file that hashes and counts the bytes that are read from it."""

    def __init__(self, path: Path, advance: Callable[[int], None]) -> None:
        super().__init__(path)
        self._hash = hashlib.sha256()
        self._advance = advance

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size) or b""
        self._hash.update(data)
        self._advance(len(data))
        return data

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()
