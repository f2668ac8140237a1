"""The way of a model from a store to the cache, as the layer in which it is pushed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from deploy import progress
from deploy.cache import Cache
from deploy.clients.stores.protocol import Store
from deploy.errors import FileTampered
from deploy.image import layer
from deploy.model.formats import FormatCheck
from deploy.model.layer_check import remember_checked
from deploy.model.manifest import PUBLISHED_FILE, ModelFile, ModelManifest
from deploy.model.versions import blob_path, read_model_manifest
from deploy.records import Model, ModelLayer


def fetch_layer(model: Model, store: Store, cache: Cache, mount_path: str) -> ModelLayer:
    """Fetch a model into the cache, as the layer in which it is pushed.

    The files are read once, and the memory that this takes does not depend on their sizes.

    Args:
        model: a resolved version.
        store: has the version.
        cache: gets the layer; after an error, no part of the layer is left in it.
        mount_path: the absolute path of the model's folder in the container.

    Raises:
        ManifestInvalid, FileTampered, FormatMismatch: the store has other files than those that
            were published.
        StoreUnreachable: the store did not answer.
        DiskFull: the cache's file system has no space left.
    """
    cached = find_cached_layer(model, cache, mount_path)
    if cached and cache.has(cached.digest, cached.size):
        return cached
    manifest = _read_resolved_manifest(model, store)
    root = PurePosixPath(mount_path.strip("/"))
    total = sum(file.size for file in manifest.files)
    with cache.writer() as writer, progress.track(f"fetching {model}", total) as advance:
        layer.write_layer(_layer_entries(manifest, store, root, advance), writer)
        fetched = ModelLayer(model=model, digest=writer.commit(), size=writer.size)
    remember_checked(fetched, cache, mount_path)
    remember_layer(fetched, cache, mount_path)
    return fetched


def find_cached_layer(model: Model, cache: Cache, mount_path: str) -> ModelLayer | None:
    """Return what the cache records of a model's layer, even if its bytes are not in the cache."""
    return ModelLayer.from_cache(cache.read_note("layers", _note_name(model, mount_path)))


def remember_layer(layer: ModelLayer, cache: Cache, mount_path: str) -> None:
    """Record a model's layer in the cache; its bytes may be in a registry only."""
    cache.write_note("layers", _note_name(layer.model, mount_path), layer.to_json())


def _note_name(model: Model, mount_path: str) -> str:
    return f"{model.digest}{mount_path}"


def _read_resolved_manifest(model: Model, store: Store) -> ModelManifest:
    manifest = read_model_manifest(model.name, model.version, store)
    if manifest.model != model:
        raise FileTampered(
            f"the model manifest of {model} has changed since it was resolved",
            on=store.location,
            next="a version must never change; find out who wrote to the store",
            detail=f"  expected {model.digest}\n  actual   {manifest.model.digest}",
        )
    return manifest


def _layer_entries(
    manifest: ModelManifest, store: Store, root: PurePosixPath, advance: Callable[[int], None]
) -> Iterator[layer.Entry]:
    yield layer.Entry(root / PUBLISHED_FILE, len(manifest.text), [manifest.text])
    for file in manifest.files_in_layer_order:
        chunks = _read_verified(manifest, file, store, advance)
        yield layer.Entry(root / file.path, file.size, chunks)


def _read_verified(
    manifest: ModelManifest, file: ModelFile, store: Store, advance: Callable[[int], None]
) -> Iterator[bytes | memoryview]:
    """Yield a file's bytes as they arrive; at the end, raise an error if they are wrong.

    Reading ends early if the file is longer than its model manifest says.
    """
    digest = hashlib.sha256()
    size = 0
    check = FormatCheck(manifest, file.path)
    for chunk in _open_file(manifest, file, store):
        check.add(chunk)
        digest.update(chunk)
        size += len(chunk)
        if size > file.size:
            break
        advance(len(chunk))
        yield chunk
    if (size, digest.hexdigest()) != (file.size, file.sha256):
        read = f"more than {file.size}" if size > file.size else str(size)
        raise FileTampered(
            "a file of the model is not the one that was published",
            on=_describe_place(manifest, file, store),
            next="find out who wrote to the store; publish the model again under a new version",
            detail=f"  expected {file.size} bytes, sha256:{file.sha256}\n"
            f"  actual   {read} bytes, sha256:{digest.hexdigest()}",
        )
    check.require()


def _open_file(
    manifest: ModelManifest, file: ModelFile, store: Store
) -> Iterator[bytes | memoryview]:
    chunks = store.stream(blob_path(file))
    if chunks is None:
        raise FileTampered(
            "a file of the model is missing",
            on=_describe_place(manifest, file, store),
            next="publish the version again",
            detail=f"  expected sha256:{file.sha256}",
        )
    return chunks


def _describe_place(manifest: ModelManifest, file: ModelFile, store: Store) -> str:
    return f"{store.location}: {file.path} of {manifest.model}"
