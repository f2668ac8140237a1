"""The published versions of models in a store.

    blobs/sha256/<hex>                       each file, named by the digest of its bytes
    models/<name>/<version>/manifest.json    the model manifest, written once, after its files
    models/<name>/latest.json                the version that was published last

A version never changes: its model manifest is created and never replaced, and its files are named
by their digests. Two deployers can therefore publish at once, and a publication that is killed
leaves nothing that can be taken for a version.
"""

from __future__ import annotations

import json
import re

from pydantic import ValidationError

from deploy.clients.stores.protocol import Store
from deploy.errors import ManifestInvalid, ModelUnknown, StoreUnreachable
from deploy.model.manifest import (
    LATEST,
    MAX_MANIFEST_BYTES,
    PUBLISHED_FILE,
    ModelFile,
    ModelManifest,
)
from deploy.model.reading import parse_model_manifest
from deploy.records import VERSION, Model, Record, Version

_MAX_LATEST = 1 << 20


class BrokenVersion(Record):
    """A published version that cannot be read, and why."""

    name: str
    version: str
    problem: str


class _Latest(Record):
    version: Version


def blob_path(file: ModelFile) -> str:
    """Return where a store keeps the bytes of a file."""
    return f"blobs/sha256/{file.sha256}"


def manifest_path(name: str, version: str) -> str:
    """Return where a store keeps the model manifest of a version."""
    return f"models/{name}/{version}/{PUBLISHED_FILE}"


def _latest_path(name: str) -> str:
    return f"models/{name}/{LATEST}.json"


def list_versions(name: str, store: Store) -> tuple[Model | BrokenVersion, ...]:
    """Return the published versions of a model, sorted by name; none if there is no such model.

    A version that cannot be read does not hide the others.
    """
    found = (_find_version(name, version, store) for version in store.folders(f"models/{name}"))
    return tuple(item for item in found if item is not None)


def _find_version(name: str, version: str, store: Store) -> Model | BrokenVersion | None:
    try:
        manifest = _read_manifest(name, version, store)
    except (ManifestInvalid, StoreUnreachable) as error:
        return BrokenVersion(name=name, version=version, problem=error.what)
    return manifest.model if manifest else None


def find_other_version(name: str, failed: str, store: Store) -> str:
    """Return a version that can be read, other than one that failed; empty if there is none.

    It is the last by name; those before it are not read.
    """
    for version in reversed(store.folders(f"models/{name}")):
        if version != failed and isinstance(_find_version(name, version, store), Model):
            return version
    return ""


def find_latest_version(name: str, store: Store) -> str | None:
    """Return the version that was published last, or None if there is no such model.

    Raises:
        ManifestInvalid: the store's record of the latest version is damaged.
    """
    path = _latest_path(name)
    text = store.read(path, _MAX_LATEST)
    if text is None:
        return None
    try:
        return _Latest.from_json(text).version
    except ValidationError:
        raise ManifestInvalid(
            "the record of the latest version cannot be read",
            on=f"{store.location}/{path}",
            next="publish a version again; this replaces the record",
        ) from None


def write_latest_version(name: str, version: str, store: Store) -> None:
    """Record a version as the one that was published last."""
    store.replace(_latest_path(name), json.dumps({"version": version}).encode())


def resolve_version(name: str, version: str, store: Store) -> Model:
    """Return the identity of a version; only here is the word `latest` resolved.

    Raises:
        ModelUnknown: the store has no such model or version.
        ManifestInvalid: the model manifest breaks the format, or is that of another version.
    """
    return read_model_manifest(name, version, store).model


def read_model_manifest(name: str, version: str, store: Store) -> ModelManifest:
    """Return the model manifest of a published version.

    Raises:
        ModelUnknown: the store has no such model or version.
        ManifestInvalid: the model manifest breaks the format, or is that of another version.
    """
    number = find_latest_version(name, store) if version == LATEST else version
    manifest = _read_manifest(name, number, store) if number else None
    if manifest is None:
        known = ", ".join(store.folders(f"models/{name}")) or "none"
        raise ModelUnknown(
            f"the store has no {name} {version}",
            on=store.location,
            next=f"publish it, or choose a version of the store: {known}",
        )
    return manifest


def _read_manifest(name: str, version: str, store: Store) -> ModelManifest | None:
    """Return the model manifest of a version, or None if there is no such version."""
    path = manifest_path(name, version)
    is_valid = re.fullmatch(VERSION, version)
    text = store.read(path, MAX_MANIFEST_BYTES) if is_valid else None
    if text is None:
        return None
    manifest = parse_model_manifest(text, on=f"{store.location}/{path}")
    if (manifest.name, manifest.version) != (name, version):
        raise ManifestInvalid(
            f"the model manifest is that of {manifest.model}",
            on=f"{store.location}/{path}",
            next="publish the version again",
        )
    return manifest
