"""The publication of a model: from its author's directory to a version in a store."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from deploy import progress
from deploy.cache import CHUNK
from deploy.clients.stores.protocol import Store
from deploy.errors import FileTampered, ManifestInvalid, VersionExists
from deploy.model import reading
from deploy.model.directory import is_below, list_directory
from deploy.model.formats import FormatCheck
from deploy.model.manifest import (
    AUTHORS_FILE,
    MAX_DESCRIPTION_BYTES,
    MAX_MANIFEST_BYTES,
    AuthorsDescription,
    ModelFile,
    ModelManifest,
)
from deploy.model.versions import blob_path, manifest_path, write_latest_version
from deploy.records import Model, short_digest

log = logging.getLogger(__name__)

_SHOWN = 5


def publish_model(directory: Path, store: Store, *, name: str = "") -> Model:
    """Publish the model of a directory as a version, and as the latest one.

    To publish the same files again changes nothing.

    Args:
        directory: has model.toml and the files of the model.
        store: gets the version.
        name: the name that the model must have; empty for any.

    Raises:
        ManifestInvalid: model.toml breaks the format or has another name, or a file is a link or
            is missing.
        FormatMismatch: the weights are not of the format that model.toml names, or a file is a
            pickle, or a pointer of Git LFS.
        FileTampered: a file changed during the publication; the version is then not published.
        VersionExists: the version is published already, with other bytes.
        StoreUnreachable: the store did not answer.
    """
    description = _read_description(directory)
    if name:
        _require_name(name, description, directory)
    new = _create_manifest(directory, description)
    path = manifest_path(new.name, new.version)
    _refuse_other_bytes(store, path, new)
    log.info(
        "model  %s, %s, %s",
        new.model,
        progress.format_count(len(new.files), "file"),
        progress.format_size(sum(file.size for file in new.files)),
    )
    _upload_files(store, directory, new)
    if not store.create(path, new.text):
        _refuse_other_bytes(store, path, new)
    write_latest_version(new.name, new.version, store)
    log.info("published %s (%s)", new.model, short_digest(new.model.digest))
    return new.model


def _read_description(directory: Path) -> AuthorsDescription:
    source = directory / AUTHORS_FILE
    try:
        with source.open("rb") as file:
            text = file.read(MAX_DESCRIPTION_BYTES + 1)
    except OSError as error:
        raise ManifestInvalid(
            f"the model's description cannot be read: {error.strerror}",
            on=str(source),
            next="docs/03-models.md shows how to write one",
        ) from error
    return reading.parse_description(text, on=str(source))


def _require_name(name: str, description: AuthorsDescription, directory: Path) -> None:
    if description.name != name:
        raise ManifestInvalid(
            f"the model is named {description.name!r}, and this application serves {name!r}",
            on=str(directory / AUTHORS_FILE),
            next="correct `name` there, or in [model] of pipeline.toml; "
            "`--new-name` publishes it as it is",
        )


def _create_manifest(directory: Path, description: AuthorsDescription) -> ModelManifest:
    """Return the model manifest: the author's description, and each file's size and digest."""
    files = [_measure(directory, path, description) for path in _list_files(directory, description)]
    values = description.model_dump(by_alias=True, exclude_unset=True, exclude={"include"})
    values |= {"schema": 1, "files": [file.model_dump() for file in files]}
    return reading.validate(ModelManifest, values, on=str(directory / AUTHORS_FILE))


def _list_files(directory: Path, description: AuthorsDescription) -> tuple[str, ...]:
    included = {name.rstrip("/") for name in description.include}
    listing = list_directory(directory, description.used_paths | included)
    if listing.left_out:
        log.info(
            "left out, because they are hidden and `include` in model.toml does not name them: %s",
            _shorten(listing.left_out),
        )
    missing = [name for name in included if not any(is_below(path, name) for path in listing.files)]
    if missing:
        raise ManifestInvalid(
            f"`include` names {min(missing)!r}, which is not there",
            on=str(directory / AUTHORS_FILE),
            next="correct the name, or take it out",
        )
    return listing.files


def _shorten(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _measure(directory: Path, path: str, description: AuthorsDescription) -> ModelFile:
    digest = hashlib.sha256()
    size = 0
    check = FormatCheck(description, path)
    with (directory / path).open("rb") as file:
        while data := file.read(CHUNK):
            digest.update(data)
            check.add(data)
            size += len(data)
    check.require()
    values = {"path": path, "size": size, "sha256": digest.hexdigest()}
    return reading.validate(ModelFile, values, on=str(directory / path))


def _refuse_other_bytes(store: Store, path: str, new: ModelManifest) -> None:
    published = store.read(path, MAX_MANIFEST_BYTES)
    if published is not None and published != new.text:
        digest = hashlib.sha256(published).hexdigest()
        raise VersionExists(
            f"{new.name} {new.version} is published already, with other bytes",
            on=f"{store.location}/{path}",
            next="a version never changes: publish under a new version",
            detail=f"  published sha256:{digest}\n  here      {new.model.digest}",
        )


def _upload_files(store: Store, directory: Path, new: ModelManifest) -> None:
    # Files with the same bytes are one blob.
    files = {file.sha256: file for file in new.files}.values()
    total = sum(file.size for file in files)
    with progress.track(f"publishing {new.model}", total) as advance:
        for file in files:
            _upload(store, directory / file.path, file, advance)


def _upload(store: Store, path: Path, file: ModelFile, advance: Callable[[int], None]) -> None:
    """Upload a file, even if the store has one of that name: this repairs a damaged blob."""
    with _HashingReader(path, advance) as source:
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
