"""The way of an image into an engine: a tar archive for `docker load`.

The archive is an OCI layout, for engines that store images as OCI content, and has the form of
`docker save` too, for all other engines.
Sources: OCI image spec 1.1, image-layout.md; Docker image spec 1.2.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

from deploy import progress
from deploy.archive import create_header, pad
from deploy.cache import CHUNK, Cache
from deploy.clients.docker.protocol import Engine, find_image_id
from deploy.errors import EngineFailed
from deploy.image.manifest import MANIFEST_TYPE, parse_diff_ids, parse_image_manifest
from deploy.records import Descriptor, Image

Layers = tuple[Descriptor, ...]


class LoadedImage(NamedTuple):
    """An image on an engine: its id there, and how many bytes of layers were sent for it."""

    id: str
    sent: int


def load_image(
    joined: Image, engine: Engine, cache: Cache, fetch_blob: Callable[[Descriptor], None]
) -> LoadedImage:
    """Load an image into an engine; only the layers that the engine lacks are sent.

    Args:
        joined: the image; its image manifest and config are in the cache.
        engine: gets the image.
        cache: has the layers, or gets them by `fetch_blob`.
        fetch_blob: fetches a layer into the cache if it is not there.

    Raises:
        EngineFailed: the engine does not accept the image.
    """
    if found := find_image_id(engine, joined):
        return LoadedImage(found, 0)
    diff_ids = parse_diff_ids(cache.read(joined.config))
    layers = parse_image_manifest(cache.read(joined.digest)).layers
    shared = max((_count_shared(diff_ids, chain) for chain in engine.layer_chains()), default=0)
    try:
        loaded = _load(joined, layers, shared, engine, cache, fetch_blob)
    except EngineFailed:
        if shared == 0:
            raise
    else:
        # An engine that stores images as OCI content lists an image only if it has all of it;
        # it may have a layer of that diff id in another compression.
        if shared == 0 or loaded.id == joined.config or diff_ids in engine.layer_chains():
            return loaded
    return _load(joined, layers, 0, engine, cache, fetch_blob)


def _load(
    joined: Image,
    layers: Layers,
    shared: int,
    engine: Engine,
    cache: Cache,
    fetch_blob: Callable[[Descriptor], None],
) -> LoadedImage:
    missing = layers[shared:]
    for item in missing:
        fetch_blob(item)
    total = sum(item.size for item in missing)
    with progress.track("loading into the engine", total) as advance:
        engine.load(_archive(joined, layers, missing, cache, advance))
    found = find_image_id(engine, joined)
    if found is None:
        raise EngineFailed(
            "the engine loaded the image under another id",
            on=joined.digest,
            next="run again; `invoke doctor` checks the engine",
        )
    return LoadedImage(found, total)


def _archive(
    joined: Image,
    layers: Layers,
    missing: Layers,
    cache: Cache,
    advance: Callable[[int], None],
) -> Iterator[bytes]:
    """Yield the tar archive; the engine finds the other layers by their chain of diff ids."""
    for name, data in _create_documents(joined, layers, cache).items():
        yield create_header(name, len(data)) + data + pad(len(data))
    for item in {item.digest: item for item in missing}.values():
        yield create_header(_blob_path(item.digest), item.size)
        with cache.open(item.digest) as file:
            while chunk := file.read(CHUNK):
                advance(len(chunk))
                yield chunk
        yield pad(item.size)
    yield bytes(tarfile.RECORDSIZE)


def _create_documents(joined: Image, layers: Layers, cache: Cache) -> dict[str, bytes]:
    """Return the JSON documents of an image in both forms, by their paths in the archive."""
    tag = f"twinship/{joined.app.name}:{joined.digest.removeprefix('sha256:')[:12]}"
    index = {"schemaVersion": 2, "manifests": [_create_index_entry(joined, tag)]}
    saved = {
        "Config": _blob_path(joined.config),
        "RepoTags": [tag],
        "Layers": [_blob_path(item.digest) for item in layers],
    }
    return {
        "oci-layout": json.dumps({"imageLayoutVersion": "1.0.0"}).encode(),
        "index.json": json.dumps(index).encode(),
        "manifest.json": json.dumps([saved]).encode(),
        _blob_path(joined.digest): cache.read(joined.digest),
        _blob_path(joined.config): cache.read(joined.config),
    }


def _create_index_entry(joined: Image, tag: str) -> dict[str, object]:
    return {
        "mediaType": MANIFEST_TYPE,
        "digest": joined.digest,
        "size": joined.manifest.size,
        "annotations": {
            "io.containerd.image.name": f"docker.io/{tag}",
            "org.opencontainers.image.ref.name": tag.rpartition(":")[2],
        },
    }


def _blob_path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _count_shared(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    """Return how many layers, from the lowest up, two images have in common."""
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count
