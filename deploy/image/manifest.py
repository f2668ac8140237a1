"""The JSON documents of an image: its image manifest and its config.

Sources: OCI image spec 1.1, manifest.md, config.md and annotations.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, TypeAdapter

from deploy.cache import Cache
from deploy.errors import BlobCorrupt
from deploy.platforms import format_platform
from deploy.records import Descriptor, Digest

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
GZIP_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"

MAX_JSON = 4 << 20

# Keys of annotations; some are keys of labels too.
REVISION_KEY = "org.opencontainers.image.revision"
INPUTS_KEY = "dev.twinship.app.key"
MODEL_KEY = "dev.twinship.model"
MOUNT_KEY = "dev.twinship.model.mount"


_ANNOTATIONS = TypeAdapter(dict[str, str])
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


class _RootFs(BaseModel):
    diff_ids: list[Digest]


class _HistoryEntry(BaseModel):
    created_by: str = ""
    empty_layer: bool = False


class _Container(BaseModel):
    Env: list[str] | None = None
    Labels: dict[str, str] | None = None
    Volumes: dict[str, Any] | None = None


class _Config(BaseModel):
    """The part of a config that a join reads or changes."""

    rootfs: _RootFs
    history: list[_HistoryEntry] | None = None
    config: _Container | None = None


class ImageManifest(NamedTuple):
    """An image manifest: the config, the layers from the lowest up, and the annotations."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str]


def parse_image_manifest(data: bytes) -> ImageManifest:
    """Parse an image manifest.

    Raises:
        BlobCorrupt: the bytes are not an image manifest.
    """
    try:
        values = json.loads(data)
        return ImageManifest(
            _parse_descriptor(values["config"]),
            tuple(map(_parse_descriptor, values["layers"])),
            _ANNOTATIONS.validate_python(values.get("annotations") or {}),
        )
    except _MALFORMED as error:
        raise _corrupt("the bytes are not an image manifest", data) from error


def parse_config(data: bytes) -> dict[str, Any]:
    """Parse the config of an image; what a join changes has the types of the specification.

    Raises:
        BlobCorrupt: the bytes are not the config of an image.
    """
    try:
        values: dict[str, Any] = json.loads(data)
        _Config.model_validate(values)
    except _MALFORMED as error:
        raise _corrupt("the bytes are not the config of an image", data) from error
    return values


def _corrupt(what: str, data: bytes) -> BlobCorrupt:
    return BlobCorrupt(
        what,
        on=f"{data[:60]!r}",
        next="see whether an image registry answers at that address, "
        "and who else writes to the repository",
    )


def put_image_manifest(
    config: Descriptor,
    layers: tuple[Descriptor, ...],
    annotations: Mapping[str, str],
    cache: Cache,
) -> Descriptor:
    """Write an image manifest to the cache."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _format_descriptor(config),
        "layers": [_format_descriptor(layer) for layer in layers],
        "annotations": dict(annotations),
    }
    return _put_json(manifest, MANIFEST_TYPE, cache)


def put_config(config: Mapping[str, Any], cache: Cache) -> Descriptor:
    """Write the config of an image to the cache."""
    return _put_json(config, CONFIG_TYPE, cache)


def parse_diff_ids(config: bytes) -> tuple[str, ...]:
    """Return the digests of an image's uncompressed layers, which its config lists."""
    return tuple(parse_config(config)["rootfs"]["diff_ids"])


def parse_platform(config: bytes) -> str:
    """Return the platform that an image's config names, such as `linux/amd64`.

    Raises:
        BlobCorrupt: the bytes are not the config of an image.
    """
    values = parse_config(config)
    try:
        return format_platform(values["os"], values["architecture"], values.get("variant") or "")
    except _MALFORMED as error:
        raise _corrupt("the config of an image names no platform", config) from error


def _parse_descriptor(value: Mapping[str, Any]) -> Descriptor:
    return Descriptor(media_type=value["mediaType"], digest=value["digest"], size=value["size"])


def _format_descriptor(item: Descriptor) -> dict[str, Any]:
    return {"mediaType": item.media_type, "digest": item.digest, "size": item.size}


def _put_json(value: Mapping[str, Any], media_type: str, cache: Cache) -> Descriptor:
    data = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return Descriptor(media_type=media_type, digest=cache.put(data), size=len(data))
