"""The joined image: an app image and a model in one image, made without an engine.

The digest of a joined image is a pure function of the app image and the model's layer. The layer
is inserted where the Dockerfile has `LABEL twinship.model=here`, or else on top. Below the code it
stays the same when the code changes, so that engines and nodes need not pull it again.
Sources: OCI image spec 1.1, manifest.md and config.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from deploy.cache import Cache
from deploy.errors import BuildFailed
from deploy.image import layer
from deploy.image.manifest import (
    MODEL_KEY,
    MOUNT_KEY,
    REVISION_KEY,
    parse_config,
    parse_image_manifest,
    put_config,
    put_image_manifest,
)
from deploy.records import AppImage, Descriptor, Image, ModelLayer

MARKER = "twinship.model=here"
MAX_LAYERS = 125
"""How many layers an engine with overlay2 unpacks."""


class _Position(NamedTuple):
    """The place of the model's layer among the layers, and among the entries of the history."""

    layer: int
    history: int


def join_image(app: AppImage, model: ModelLayer, mount_path: str, cache: Cache) -> Image:
    """Join an app image and a model into one image; only JSON is read and written.

    Args:
        app: its image manifest and config are in the cache.
        model: the model's layer; its bytes need not be in the cache.
        mount_path: the folder in the container for which the layer was made.
        cache: gets the joined image's config and image manifest.

    Raises:
        BlobCorrupt: the app image's manifest or config is damaged or not in the cache.
        BuildFailed: the image would have more layers than engines take.
    """
    manifest = parse_image_manifest(cache.read(app.manifest.digest))
    app_config = parse_config(cache.read(manifest.config.digest))
    position = _find_position(app_config)
    labels = _create_labels(app, model)
    joined_config = _join_config(app_config, app, model, labels, position)
    _drop_volume(joined_config["config"], mount_path)
    config = put_config(joined_config, cache)
    layers = list(manifest.layers)
    layers.insert(position.layer, describe_layer(model))
    _require_few_layers(len(layers), app)
    annotations = labels | {MOUNT_KEY: mount_path}
    joined = put_image_manifest(config, tuple(layers), annotations, cache)
    return Image(app=app, layer=model, manifest=joined, config=config.digest)


def _require_few_layers(count: int, app: AppImage) -> None:
    """Refuse an image that could be pushed, but that no engine could unpack."""
    if count > MAX_LAYERS:
        raise BuildFailed(
            f"the image has too many layers: {count} with the model, and engines take {MAX_LAYERS}",
            on=f"{app.name} {app.commit}",
            next="join steps of the Dockerfile (each RUN, COPY and ADD is a layer), "
            "or take a base image with fewer",
        )


def create_model_image(model: ModelLayer, mount_path: str, cache: Cache) -> Descriptor:
    """Write an image of nothing but the model to the cache; a registry finds the layer by it."""
    config = {
        # A model is the same on every platform; the specification requires both keys.
        "architecture": "unknown",
        "os": "unknown",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [model.digest]},
    }
    annotations = _create_model_labels(model) | {MOUNT_KEY: mount_path}
    layers = (describe_layer(model),)
    return put_image_manifest(put_config(config, cache), layers, annotations, cache)


def describe_layer(model: ModelLayer) -> Descriptor:
    """Return the entry of a model's layer in an image manifest."""
    return Descriptor(media_type=layer.MEDIA_TYPE, digest=model.digest, size=model.size)


def _join_config(
    config: dict[str, Any],
    app: AppImage,
    model: ModelLayer,
    labels: Mapping[str, str],
    position: _Position,
) -> dict[str, Any]:
    diff_ids = list(config["rootfs"]["diff_ids"])
    diff_ids.insert(position.layer, model.digest)
    history = list(config.get("history") or [])
    history.insert(position.history, _create_history_entry(config, model))
    container = dict(config.get("config") or {})
    container["Labels"] = {**(container.get("Labels") or {}), **labels}
    container["Env"] = [*(container.get("Env") or ()), *_create_environment(app, model)]
    kept = ("architecture", "os", "variant", "created", "author")
    return {key: config[key] for key in kept if key in config} | {
        "config": container,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
    }


def _drop_volume(container: dict[str, Any], path: str) -> None:
    """Take a folder out of the volumes that the Dockerfile declares.

    Engines copy what such a folder has into a new volume for each container.
    """
    volumes = container.get("Volumes")
    if volumes:
        container["Volumes"] = {
            name: value
            for name, value in volumes.items()
            if PurePosixPath(name) != PurePosixPath(path)
        }


def _create_history_entry(config: Mapping[str, Any], model: ModelLayer) -> dict[str, str]:
    return {
        "created": config.get("created", "1970-01-01T00:00:00Z"),
        "created_by": f"twinship join {model.model}",
    }


def _create_environment(app: AppImage, model: ModelLayer) -> tuple[str, ...]:
    """Return the variables by which the application knows its own version."""
    return (
        f"TWINSHIP_COMMIT={app.commit.full}",
        f"TWINSHIP_APP_DIGEST={app.manifest.digest}",
        f"TWINSHIP_MODEL_NAME={model.model.name}",
        f"TWINSHIP_MODEL_VERSION={model.model.version}",
        f"TWINSHIP_MODEL_DIGEST={model.model.digest}",
    )


def _create_labels(app: AppImage, model: ModelLayer) -> dict[str, str]:
    return {
        "org.opencontainers.image.title": app.name,
        "org.opencontainers.image.version": f"{app.commit}-{model.model.version}",
        REVISION_KEY: app.commit.full,
        "dev.twinship.app.digest": app.manifest.digest,
    } | _create_model_labels(model)


def _create_model_labels(model: ModelLayer) -> dict[str, str]:
    return {
        f"{MODEL_KEY}.name": model.model.name,
        f"{MODEL_KEY}.version": model.model.version,
        f"{MODEL_KEY}.digest": model.model.digest,
    }


def _find_position(config: Mapping[str, Any]) -> _Position:
    """Return the place of the model: after the marker in the history, or else on top."""
    history = config.get("history") or []
    depth = 0
    for index, entry in enumerate(history):
        if MARKER in entry.get("created_by", "").replace('"', "").replace("'", ""):
            return _Position(depth, index + 1)
        depth += not entry.get("empty_layer", False)
    return _Position(len(config["rootfs"]["diff_ids"]), len(history))
