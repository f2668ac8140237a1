"""App images, models and joined images of a few bytes whose digests never change."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from deploy.cache import Cache
from deploy.image.build import create_app_image
from deploy.image.join import join_image
from deploy.image.manifest import CONFIG_TYPE, GZIP_LAYER_TYPE, parse_image_manifest
from deploy.image.push import push_image
from deploy.records import AppImage, Commit, Descriptor, Image, Model, ModelLayer, Release
from tests.fakes.registry import MemoryRegistry

REPOSITORY = "team/classifier"
MOUNT = "/model"
COMMIT = Commit(revision="5" * 40, dirty=False)
BASE = b"base"
LIBRARIES = b"libraries"
CODE = b"code"
WEIGHTS = b"weights"
MARKER = {"created_by": "LABEL twinship.model=here", "empty_layer": True}


def digest(data: bytes) -> str:
    """Return the digest of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def config(
    *layers: bytes, history: tuple[dict[str, Any], ...] = (), **values: Any
) -> dict[str, Any]:
    """Return the config of an image of those layers."""
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["serve"], "Labels": {"kept": "yes"}},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        "history": list(history),
        **values,
    }


def history() -> tuple[dict[str, Any], ...]:
    """Return the history of base, libraries and code, with the marker below the code."""
    user = {"created_by": "USER 10001", "empty_layer": True}
    return (
        {"created_by": "base"},
        user,
        {"created_by": "COPY libraries"},
        MARKER,
        {"created_by": "COPY code"},
    )


def store_layer(data: bytes, cache: Cache) -> Descriptor:
    """Store a layer in bytes that do not depend on the version of a compressor."""
    compressed = b"\x1f\x8b" + data
    return Descriptor(
        media_type=GZIP_LAYER_TYPE, digest=cache.put(compressed), size=len(compressed)
    )


def app(
    cache: Cache, code: bytes = CODE, app_config: dict[str, Any] | None = None, key: str = "k1"
) -> AppImage:
    """Return an app image of base, libraries and code, in the cache."""
    layers = (BASE, LIBRARIES, code)
    data = json.dumps(app_config or config(*layers, history=history())).encode()
    stored_config = Descriptor(media_type=CONFIG_TYPE, digest=cache.put(data), size=len(data))
    return create_app_image(
        "classifier",
        key,
        COMMIT,
        stored_config,
        tuple(store_layer(layer, cache) for layer in layers),
        cache,
    )


def model(cache: Cache, weights: bytes = WEIGHTS, version: str = "1") -> ModelLayer:
    """Return a model's layer, in the cache."""
    identity = Model(name="imagenet", version=version, digest=digest(weights + b" manifest"))
    return ModelLayer(model=identity, digest=cache.put(weights), size=len(weights))


def join(cache: Cache, code: bytes = CODE, weights: bytes = WEIGHTS) -> Image:
    """Return an image of base, libraries, weights and code whose layers are in the cache."""
    return join_image(app(cache, code, key=code.hex()), model(cache, weights), MOUNT, cache)


def push(
    image: Image,
    remote: MemoryRegistry,
    cache: Cache,
    *mount_sources: str,
    repository: str = REPOSITORY,
) -> Release:
    """Push an image."""
    return push_image(
        image, repository, remote, cache, mount_path=MOUNT, mount_sources=mount_sources
    )


def list_digests(manifest: bytes) -> set[str]:
    """Return the digests in an image manifest."""
    stored_config, layers, _ = parse_image_manifest(manifest)
    return {stored_config.digest, *(layer.digest for layer in layers)}
