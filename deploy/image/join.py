"""Images: the app image, built only when its inputs change, and the join of an app image and a model without an engine.

The digest of a joined image is a pure function of its two halves. The model layer goes where the Dockerfile says
`LABEL twinship.model=here`, else on top: below the code, a new code layer leaves the model's bytes where they are in every
engine and on every node. Sources: OCI image spec 1.1, manifest.md, config.md and annotations.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from deploy.cache import Cache
from deploy.errors import BlobCorrupt
from deploy.image import layer
from deploy.records import AppImage, Commit, Descriptor, Image, ModelLayer, Record
from deploy.source import Inputs

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
GZIP_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"

REVISION = "org.opencontainers.image.revision"
KEY = "dev.twinship.app.key"
MODEL = "dev.twinship.model"
MOUNT = "dev.twinship.model.mount"
MARKER = "twinship.model=here"


class BuildRecord(Record):
    """An app image and the inputs it was built from, as this machine remembers them."""

    image: AppImage
    inputs: dict[str, str]


def find_built(name: str, inputs: Inputs, cache: Cache) -> AppImage | None:
    """The app image that this machine made for that application from exactly these inputs, if its manifest is still here."""
    known = BuildRecord.from_cache(cache.read_note(_notes(name), inputs.key))
    return (
        known.image
        if known and cache.has(known.image.manifest.digest, known.image.manifest.size)
        else None
    )


def why_build(name: str, inputs: Inputs, cache: Cache) -> str:
    """Why these inputs need a build, in a few words."""
    last = BuildRecord.from_cache(cache.latest_note(_notes(name)))
    if last is None:
        return f"this machine has not built {name} yet"
    return inputs.describe_changes(last.inputs) or "the cache has lost the image"


def remember(image: AppImage, inputs: Inputs, cache: Cache) -> None:
    """Keeps what was made from which inputs."""
    cache.write_note(
        _notes(image.name), inputs.key, BuildRecord(image=image, inputs=inputs.by_name).to_json()
    )


def _notes(name: str) -> str:
    """Where the images of one application are noted: others are built on the same machine, some from the same files."""
    return f"apps-{name}"


def create_app_image(
    name: str,
    key: str,
    commit: Commit,
    config: Descriptor,
    layers: tuple[Descriptor, ...],
    cache: Cache,
) -> AppImage:
    """An app image from its parts, which are in the cache; writes its manifest there."""
    annotations = {REVISION: commit.full, KEY: key}
    return AppImage(
        name=name,
        key=key,
        commit=commit,
        manifest=_put(_manifest(config, layers, annotations), MANIFEST_TYPE, cache),
    )


def join(app: AppImage, model: ModelLayer, mount: str, cache: Cache) -> Image:
    """Joins an app image and a model into one image; only JSON is read and written.

    Args:
        app: its manifest and config are in the cache.
        model: the model's layer; its bytes need not be here.
        mount: the folder that the layer puts the model into.
        cache: the cache.

    Raises:
        BlobCorrupt: the app image's manifest or config is not in the cache, or damaged.
    """
    manifest = json.loads(cache.read(app.manifest.digest))
    config = json.loads(cache.read(manifest["config"]["digest"]))
    depth, entry = _place(config)
    described = Descriptor(media_type=layer.MEDIA_TYPE, digest=model.digest, size=model.size)
    labels = _labels(app, model)
    config = _joined_config(config, app, model, labels, depth, entry)
    layers = [_descriptor(value) for value in manifest["layers"]]
    layers.insert(depth, described)
    config_blob = _put(config, CONFIG_TYPE, cache)
    joined = _put(
        _manifest(config_blob, tuple(layers), labels | {MOUNT: mount}), MANIFEST_TYPE, cache
    )
    return Image(app=app, layer=model, manifest=joined, config=config_blob.digest)


def create_model_image(model: ModelLayer, mount: str, cache: Cache) -> Descriptor:
    """An image of nothing but the model, under which a registry remembers its layer; writes its JSON to the cache."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [model.digest]},
    }
    described = Descriptor(media_type=layer.MEDIA_TYPE, digest=model.digest, size=model.size)
    annotations = _model_labels(model) | {MOUNT: mount}
    return _put(
        _manifest(_put(config, CONFIG_TYPE, cache), (described,), annotations), MANIFEST_TYPE, cache
    )


def parse_manifest(manifest: bytes) -> tuple[Descriptor, tuple[Descriptor, ...], dict[str, str]]:
    """A manifest's config, layers and annotations.

    Raises:
        BlobCorrupt: it is not the manifest of an image.
    """
    try:
        values = json.loads(manifest)
        return (
            _descriptor(values["config"]),
            tuple(map(_descriptor, values["layers"])),
            dict(values.get("annotations") or {}),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BlobCorrupt(
            "what should be an image's manifest is something else",
            on=f"{manifest[:60]!r}",
            next="see whether an image registry answers at that address, and who else writes to the repository",
        ) from error


def diff_ids(config: bytes) -> tuple[str, ...]:
    """The layers of an image as its config names them: by the digest of their uncompressed bytes."""
    return tuple(json.loads(config)["rootfs"]["diff_ids"])


def _joined_config(
    config: dict[str, Any],
    app: AppImage,
    model: ModelLayer,
    labels: Mapping[str, str],
    depth: int,
    entry: int,
) -> dict[str, Any]:
    ids = list(config["rootfs"]["diff_ids"])
    ids.insert(depth, model.digest)
    history = list(config.get("history") or [])
    history.insert(
        entry,
        {
            "created": config.get("created", "1970-01-01T00:00:00Z"),
            "created_by": f"twinship join {model.model}",
        },
    )
    run = dict(config.get("config") or {})
    run["Labels"] = {**(run.get("Labels") or {}), **labels}
    run["Env"] = [
        *(run.get("Env") or ()),
        *(f"{key}={value}" for key, value in _identity(app, model).items()),
    ]
    known = ("architecture", "os", "variant", "created", "author")
    return {key: config[key] for key in known if key in config} | {
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": ids},
        "history": history,
    }


def _identity(app: AppImage, model: ModelLayer) -> dict[str, str]:
    """What a container can know of itself."""
    return {
        "TWINSHIP_COMMIT": app.commit.full,
        "TWINSHIP_APP_DIGEST": app.manifest.digest,
        "TWINSHIP_MODEL_NAME": model.model.name,
        "TWINSHIP_MODEL_VERSION": model.model.version,
        "TWINSHIP_MODEL_DIGEST": model.model.digest,
    }


def _labels(app: AppImage, model: ModelLayer) -> dict[str, str]:
    return {
        "org.opencontainers.image.title": app.name,
        "org.opencontainers.image.version": f"{app.commit}-{model.model.version}",
        REVISION: app.commit.full,
        "dev.twinship.app.digest": app.manifest.digest,
    } | _model_labels(model)


def _model_labels(model: ModelLayer) -> dict[str, str]:
    return {
        f"{MODEL}.name": model.model.name,
        f"{MODEL}.version": model.model.version,
        f"{MODEL}.digest": model.model.digest,
    }


def _place(config: Mapping[str, Any]) -> tuple[int, int]:
    """Where the model goes: its index among the layers, and among the history's entries."""
    history = config.get("history") or []
    depth = 0
    for index, entry in enumerate(history):
        if MARKER in entry.get("created_by", "").replace('"', "").replace("'", ""):
            return depth, index + 1
        depth += not entry.get("empty_layer", False)
    return len(config["rootfs"]["diff_ids"]), len(history)


def _manifest(
    config: Descriptor, layers: tuple[Descriptor, ...], annotations: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _written(config),
        "layers": [_written(item) for item in layers],
        "annotations": dict(annotations),
    }


def _written(item: Descriptor) -> dict[str, Any]:
    return {"mediaType": item.media_type, "digest": item.digest, "size": item.size}


def _descriptor(value: Mapping[str, Any]) -> Descriptor:
    return Descriptor(media_type=value["mediaType"], digest=value["digest"], size=value["size"])


def _put(value: Mapping[str, Any], media_type: str, cache: Cache) -> Descriptor:
    data = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return Descriptor(media_type=media_type, digest=cache.put(data), size=len(data))
