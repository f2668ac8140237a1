"""Joined images, which depend on the app image and the model only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.cache import Cache
from deploy.errors import BlobCorrupt, BuildFailed
from deploy.image.build import create_app_image
from deploy.image.join import MAX_LAYERS, create_model_image, join_image
from deploy.image.manifest import parse_diff_ids, parse_image_manifest, parse_platform
from deploy.records import AppImage, Commit, Image
from tests.fakes import halves
from tests.fakes.halves import BASE, CODE, LIBRARIES, MARKER, MOUNT, WEIGHTS, digest

GOLDEN = "sha256:e0f998837959396a2c46eaf0b0d68cf01a95935852d90dd6fb771c79fa9ace98"


def join_documents(
    cache: Cache, app_config: dict[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the image manifest and the config of a joined image."""
    image = join_image(halves.app(cache, app_config=app_config), halves.model(cache), MOUNT, cache)
    manifest = json.loads(cache.read(image.digest))
    config = json.loads(cache.read(image.config))
    assert manifest["config"]["digest"] == image.config
    return manifest, config


def create_marked_config(created_by: str) -> dict[str, Any]:
    """Return the config of an app image with a marker in that form."""
    before = {"created_by": "base"}
    after = {"created_by": "COPY code"}
    entries = (
        before,
        {"created_by": "COPY libraries"},
        {**MARKER, "created_by": created_by},
        after,
    )
    return halves.config(BASE, LIBRARIES, CODE, history=entries)


def create_deep_app(cache: Cache, count: int) -> AppImage:
    """Return an app image of so many layers."""
    layers = tuple(b"%d" % number for number in range(count))
    app = halves.app(cache, app_config=halves.config(*layers))
    config = parse_image_manifest(cache.read(app.manifest.digest)).config
    stored = tuple(halves.store_layer(layer, cache) for layer in layers)
    return create_app_image(app.name, app.key, app.commit, config, stored, cache)


def test_an_image_has_as_many_layers_as_engines_take(cache: Cache) -> None:
    """With one more the error has their number; such an image could be pushed, but not run."""
    model = halves.model(cache)
    image = join_image(create_deep_app(cache, MAX_LAYERS - 1), model, MOUNT, cache)
    assert len(parse_image_manifest(cache.read(image.digest)).layers) == MAX_LAYERS
    with pytest.raises(BuildFailed, match="126 with the model, and engines take 125"):
        join_image(create_deep_app(cache, MAX_LAYERS), model, MOUNT, cache)


# --- the digest


def test_the_digest_of_a_joined_image_never_changes(cache: Cache) -> None:
    """Another digest would make each environment pull and start all images again."""
    image = join_image(halves.app(cache), halves.model(cache), MOUNT, cache)
    assert image.digest == GOLDEN


def test_the_same_inputs_give_the_same_image_in_another_cache(cache: Cache, tmp_path: Path) -> None:
    """The image does not depend on the folder or the time."""
    other = Cache(tmp_path / "other")
    first, second = (
        join_image(halves.app(cache), halves.model(cache), MOUNT, cache) for cache in (cache, other)
    )
    assert first == second
    assert cache.read(first.digest) == other.read(second.digest)


def test_the_digest_depends_on_each_input(cache: Cache) -> None:
    """Another code, model, version or mount path gives another image."""
    app = halves.app(cache)
    model = halves.model(cache)
    image = {
        join_image(app, model, MOUNT, cache).digest,
        join_image(halves.app(cache, b"other code"), model, MOUNT, cache).digest,
        join_image(app, halves.model(cache, b"other weights"), MOUNT, cache).digest,
        join_image(app, halves.model(cache, version="2"), MOUNT, cache).digest,
        join_image(app, model, "/other", cache).digest,
    }
    assert len(image) == 5


def test_the_bytes_of_the_model_are_not_needed(cache: Cache) -> None:
    """A model that only the registry has can be joined."""
    app = halves.app(cache)
    model = halves.model(cache)
    cache.drop(model.digest)
    assert join_image(app, model, MOUNT, cache).layer == model


def test_an_app_image_that_the_cache_has_lost_is_an_error(cache: Cache) -> None:
    """Its image manifest and its config are needed."""
    app = halves.app(cache)
    model = halves.model(cache)
    cache.drop(json.loads(cache.read(app.manifest.digest))["config"]["digest"])
    with pytest.raises(BlobCorrupt):
        join_image(app, model, MOUNT, cache)
    cache.drop(app.manifest.digest)
    with pytest.raises(BlobCorrupt):
        join_image(app, model, MOUNT, cache)


# --- where the model goes


@pytest.mark.parametrize(
    "created_by",
    [
        "/bin/sh -c #(nop)  LABEL twinship.model=here",
        "LABEL twinship.model=here",
        'LABEL "twinship.model"="here"',
        "LABEL twinship.model='here' other=label",
    ],
)
def test_the_model_is_inserted_at_the_marker(cache: Cache, created_by: str) -> None:
    """The label may have any form that a builder writes."""
    manifest, config = join_documents(cache, create_marked_config(created_by))
    ids = [digest(layer) for layer in (BASE, LIBRARIES, WEIGHTS, CODE)]
    assert config["rootfs"]["diff_ids"] == ids
    assert [layer["digest"] == digest(WEIGHTS) for layer in manifest["layers"]] == [
        False,
        False,
        True,
        False,
    ]
    assert [entry["created_by"] for entry in config["history"]][2:] == [
        created_by,
        "twinship join imagenet@1",
        "COPY code",
    ]


def test_without_a_marker_the_model_is_on_top(cache: Cache) -> None:
    """This holds without a history too."""
    for history in (({"created_by": "COPY all"},) * 3, ()):
        manifest, config = join_documents(
            cache, halves.config(BASE, LIBRARIES, CODE, history=history)
        )
        assert config["rootfs"]["diff_ids"][-1] == digest(WEIGHTS)
        assert manifest["layers"][-1]["digest"] == digest(WEIGHTS)
        assert [entry["created_by"] for entry in config["history"]][
            -1
        ] == "twinship join imagenet@1"


def test_a_config_without_history_is_joined(cache: Cache) -> None:
    """Some builders write no history, or null."""
    config_without_history = halves.config(BASE, LIBRARIES, CODE)
    del config_without_history["history"]
    for app_config in (config_without_history, config_without_history | {"history": None}):
        _, config = join_documents(cache, app_config)
        assert config["rootfs"]["diff_ids"][-1] == digest(WEIGHTS)


def test_the_history_has_an_entry_for_every_layer(cache: Cache) -> None:
    """Tools need it to show which step made which layer."""
    _, config = join_documents(cache)
    filled = [entry for entry in config["history"] if not entry.get("empty_layer")]
    assert len(filled) == len(config["rootfs"]["diff_ids"]) == 4
    assert [entry["created_by"] for entry in filled] == [
        "base",
        "COPY libraries",
        "twinship join imagenet@1",
        "COPY code",
    ]


def test_the_model_is_not_compressed_and_other_layers_do_not_change(cache: Cache) -> None:
    """Weights hardly get smaller by compression."""
    app = halves.app(cache)
    before = json.loads(cache.read(app.manifest.digest))["layers"]
    manifest, _ = join_documents(cache)
    model = manifest["layers"].pop(2)
    assert manifest["layers"] == before
    assert model == {
        "mediaType": "application/vnd.oci.image.layer.v1.tar",
        "digest": digest(WEIGHTS),
        "size": len(WEIGHTS),
    }


# --- what the image says of itself


def test_the_config_of_the_app_image_is_kept(cache: Cache) -> None:
    """The joined image runs as the app image does, and keeps its date and author."""
    run = {
        "User": "10001",
        "Cmd": ["serve"],
        "Env": ["PATH=/bin", "A=b=c"],
        "WorkingDir": "/srv",
        "StopSignal": "SIGTERM",
    }
    values = {
        "config": run,
        "created": "2026-01-02T03:04:05Z",
        "author": "ada",
        "variant": "v8",
        "architecture": "arm64",
    }
    _, config = join_documents(
        cache, halves.config(BASE, LIBRARIES, CODE, history=halves.history(), **values)
    )
    assert {key: config["config"][key] for key in run if key != "Env"} == {
        key: value for key, value in run.items() if key != "Env"
    }
    assert config["config"]["Env"][:2] == run["Env"]
    assert {key: config[key] for key in values if key != "config"} == {
        key: value for key, value in values.items() if key != "config"
    }
    assert config["history"][4]["created"] == "2026-01-02T03:04:05Z"


def test_the_builders_own_keys_are_removed(cache: Cache) -> None:
    """The container of the last build step is not part of the image."""
    app_config = halves.config(
        BASE,
        LIBRARIES,
        CODE,
        container="abc",
        container_config={"Hostname": "builder"},
        docker_version="20",
    )
    _, config = join_documents(cache, app_config)
    assert not {"container", "container_config", "docker_version"} & config.keys()


def test_the_environment_of_a_container_has_its_version(cache: Cache) -> None:
    """Commit, app image and model follow the variables of the app image."""
    app = halves.app(cache)
    _, config = join_documents(cache)
    assert config["config"]["Env"] == [
        "PATH=/bin",
        f"TWINSHIP_COMMIT={'5' * 40}",
        f"TWINSHIP_APP_DIGEST={app.manifest.digest}",
        "TWINSHIP_MODEL_NAME=imagenet",
        "TWINSHIP_MODEL_VERSION=1",
        f"TWINSHIP_MODEL_DIGEST={digest(WEIGHTS + b' manifest')}",
    ]


def test_labels_and_annotations_name_the_app_and_the_model(cache: Cache) -> None:
    """The labels of the app image stay, and tools know the standard keys."""
    app = halves.app(cache)
    manifest, config = join_documents(cache)
    labels = {
        "org.opencontainers.image.title": "classifier",
        "org.opencontainers.image.version": "555555555555-1",
        "org.opencontainers.image.revision": "5" * 40,
        "dev.twinship.app.digest": app.manifest.digest,
        "dev.twinship.model.name": "imagenet",
        "dev.twinship.model.version": "1",
        "dev.twinship.model.digest": digest(WEIGHTS + b" manifest"),
    }
    assert config["config"]["Labels"] == {"kept": "yes", **labels}
    assert manifest["annotations"] == {**labels, "dev.twinship.model.mount": MOUNT}


def test_an_app_image_without_labels_or_environment_is_joined(cache: Cache) -> None:
    """Some builders write null for an empty value."""
    for run in ({"Labels": None, "Env": None}, {}, None):
        _, config = join_documents(cache, halves.config(BASE, LIBRARIES, CODE, config=run))
        assert config["config"]["Labels"]["dev.twinship.model.name"] == "imagenet"
        assert len(config["config"]["Env"]) == 5


def test_the_folder_of_the_model_is_no_volume(cache: Cache) -> None:
    """An engine would copy the model for each container; other volumes stay."""
    volumes: dict[str, dict[str, str]] = {"/model/": {}, "/var/cache/app": {}, "/model/below": {}}
    about = halves.config(BASE, LIBRARIES, CODE)
    about["config"]["Volumes"] = volumes
    _, config = join_documents(cache, about)
    assert set(config["config"]["Volumes"]) == {"/var/cache/app", "/model/below"}
    assert "Volumes" not in join_documents(cache, halves.config(BASE, LIBRARIES, CODE))[1]["config"]


def test_an_uncommitted_change_is_visible(cache: Cache) -> None:
    """It is in the label and in the environment."""
    app = halves.app(cache).model_copy(update={"commit": Commit(revision="5" * 40, dirty=True)})
    image = join_image(app, halves.model(cache), MOUNT, cache)
    config = json.loads(cache.read(image.config))
    assert config["config"]["Labels"]["org.opencontainers.image.revision"] == f"{'5' * 40}-dirty"
    assert f"TWINSHIP_COMMIT={'5' * 40}-dirty" in config["config"]["Env"]


# --- the model alone


def test_the_image_of_a_model_names_its_layer_and_its_mount_path(cache: Cache) -> None:
    """It needs no bytes of the model, and depends on the model and the mount path only."""
    model = halves.model(cache)
    cache.drop(model.digest)
    image = create_model_image(model, MOUNT, cache)
    config, layers, annotations = parse_image_manifest(cache.read(image.digest))
    assert [layer.digest for layer in layers] == [model.digest]
    assert parse_diff_ids(cache.read(config.digest)) == (model.digest,)
    assert annotations["dev.twinship.model.digest"] == model.model.digest
    assert annotations["dev.twinship.model.mount"] == MOUNT
    assert parse_platform(cache.read(config.digest)) == "unknown/unknown"
    assert create_model_image(model, MOUNT, cache) == image
    others = {
        create_model_image(model, "/other", cache).digest,
        create_model_image(halves.model(cache, version="2"), MOUNT, cache).digest,
    }
    assert len(others | {image.digest}) == 3


def test_a_joined_image_is_the_same_after_json(cache: Cache) -> None:
    """One CI step can pass it to the next."""
    image = join_image(halves.app(cache), halves.model(cache), MOUNT, cache)
    assert Image.from_json(image.to_json()) == image
