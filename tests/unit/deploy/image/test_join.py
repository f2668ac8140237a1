"""The join of an app image and a model: what it gives depends on the two halves and on nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.cache import Cache
from deploy.errors import BlobCorrupt
from deploy.image.join import create_model_image, join_image
from deploy.image.manifest import parse_diff_ids, parse_image_manifest
from deploy.records import Commit, Image
from tests.fakes import halves
from tests.fakes.halves import BASE, CODE, LIBRARIES, MARKER, MOUNT, WEIGHTS, digest

GOLDEN = "sha256:e0f998837959396a2c46eaf0b0d68cf01a95935852d90dd6fb771c79fa9ace98"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache."""
    return Cache(tmp_path / "cache")


def joined(
    cache: Cache, described: dict[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest and config of a join."""
    made = join_image(halves.app(cache, described=described), halves.model(cache), MOUNT, cache)
    manifest = json.loads(cache.read(made.digest))
    config = json.loads(cache.read(made.config))
    assert manifest["config"]["digest"] == made.config
    return manifest, config


def marked(created_by: str) -> dict[str, Any]:
    """The config of an app image with a marker that is written so."""
    before = {"created_by": "base"}
    after = {"created_by": "COPY code"}
    entries = (
        before,
        {"created_by": "COPY libraries"},
        {**MARKER, "created_by": created_by},
        after,
    )
    return halves.config(BASE, LIBRARIES, CODE, history=entries)


# --- the digest


def test_the_digest_of_a_join_never_changes(cache: Cache) -> None:
    """The same halves give this digest on any machine and with any later version of this code, or every release would move again."""
    made = join_image(halves.app(cache), halves.model(cache), MOUNT, cache)
    assert made.digest == GOLDEN


def test_the_same_halves_give_the_same_image_in_another_cache(cache: Cache, tmp_path: Path) -> None:
    """Neither the place nor the time enters it."""
    other = Cache(tmp_path / "other")
    first, second = (
        join_image(halves.app(cache), halves.model(cache), MOUNT, cache) for cache in (cache, other)
    )
    assert first == second
    assert cache.read(first.digest) == other.read(second.digest)


def test_each_half_decides_over_the_digest(cache: Cache) -> None:
    """Other code, another model, another version of the same bytes, or another mount is another image."""
    app = halves.app(cache)
    model = halves.model(cache)
    made = {
        join_image(app, model, MOUNT, cache).digest,
        join_image(halves.app(cache, b"other code"), model, MOUNT, cache).digest,
        join_image(app, halves.model(cache, b"other weights"), MOUNT, cache).digest,
        join_image(app, halves.model(cache, version="2"), MOUNT, cache).digest,
        join_image(app, model, "/elsewhere", cache).digest,
    }
    assert len(made) == 5


def test_the_model_need_not_be_here(cache: Cache) -> None:
    """Only JSON is read, so a model that the registry holds is joined without its bytes."""
    app = halves.app(cache)
    model = halves.model(cache)
    cache.drop(model.digest)
    assert join_image(app, model, MOUNT, cache).layer == model


def test_an_app_image_that_the_cache_has_lost_is_told(cache: Cache) -> None:
    """The manifest is needed, and the config."""
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
def test_the_model_goes_where_the_dockerfile_says(cache: Cache, created_by: str) -> None:
    """Below the code, however the builder writes the label: classic, BuildKit, with quotes, among others."""
    manifest, config = joined(cache, marked(created_by))
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


def test_without_the_marker_the_model_goes_on_top(cache: Cache) -> None:
    """Also when nothing is known of how the image was made."""
    for history in (({"created_by": "COPY all"},) * 3, ()):
        manifest, config = joined(cache, halves.config(BASE, LIBRARIES, CODE, history=history))
        assert config["rootfs"]["diff_ids"][-1] == digest(WEIGHTS)
        assert manifest["layers"][-1]["digest"] == digest(WEIGHTS)
        assert [entry["created_by"] for entry in config["history"]][
            -1
        ] == "twinship join imagenet@1"


def test_a_config_without_history_is_joined(cache: Cache) -> None:
    """Some builders leave it out, or write null."""
    without = halves.config(BASE, LIBRARIES, CODE)
    del without["history"]
    for described in (without, without | {"history": None}):
        _, config = joined(cache, described)
        assert config["rootfs"]["diff_ids"][-1] == digest(WEIGHTS)


def test_the_history_has_an_entry_for_every_layer(cache: Cache) -> None:
    """As the specification asks, so that tools can tell which step made which layer."""
    _, config = joined(cache)
    filled = [entry for entry in config["history"] if not entry.get("empty_layer")]
    assert len(filled) == len(config["rootfs"]["diff_ids"]) == 4
    assert [entry["created_by"] for entry in filled] == [
        "base",
        "COPY libraries",
        "twinship join imagenet@1",
        "COPY code",
    ]


def test_the_model_is_a_plain_tar_and_the_other_layers_stay_as_they_were(cache: Cache) -> None:
    """Weights do not compress; what was compressed before is not touched."""
    app = halves.app(cache)
    before = json.loads(cache.read(app.manifest.digest))["layers"]
    manifest, _ = joined(cache)
    model = manifest["layers"].pop(2)
    assert manifest["layers"] == before
    assert model == {
        "mediaType": "application/vnd.oci.image.layer.v1.tar",
        "digest": digest(WEIGHTS),
        "size": len(WEIGHTS),
    }


# --- what the image says of itself


def test_the_config_of_the_app_image_is_kept(cache: Cache) -> None:
    """All that decides how it runs, and what says when and by whom it was made."""
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
    _, config = joined(
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


def test_what_only_the_builder_knew_is_left_behind(cache: Cache) -> None:
    """The container of the last build step is not part of the image."""
    described = halves.config(
        BASE,
        LIBRARIES,
        CODE,
        container="abc",
        container_config={"Hostname": "builder"},
        docker_version="20",
    )
    _, config = joined(cache, described)
    assert not {"container", "container_config", "docker_version"} & config.keys()


def test_a_container_can_know_what_it_is(cache: Cache) -> None:
    """Commit, app image and model are in its environment, after the app's own variables."""
    app = halves.app(cache)
    _, config = joined(cache)
    assert config["config"]["Env"] == [
        "PATH=/bin",
        f"TWINSHIP_COMMIT={'5' * 40}",
        f"TWINSHIP_APP_DIGEST={app.manifest.digest}",
        "TWINSHIP_MODEL_NAME=imagenet",
        "TWINSHIP_MODEL_VERSION=1",
        f"TWINSHIP_MODEL_DIGEST={digest(WEIGHTS + b' manifest')}",
    ]


def test_labels_and_annotations_name_both_halves(cache: Cache) -> None:
    """The labels of the app image stay; tools that know the standard names find them."""
    app = halves.app(cache)
    manifest, config = joined(cache)
    said = {
        "org.opencontainers.image.title": "classifier",
        "org.opencontainers.image.version": "555555555555-1",
        "org.opencontainers.image.revision": "5" * 40,
        "dev.twinship.app.digest": app.manifest.digest,
        "dev.twinship.model.name": "imagenet",
        "dev.twinship.model.version": "1",
        "dev.twinship.model.digest": digest(WEIGHTS + b" manifest"),
    }
    assert config["config"]["Labels"] == {"kept": "yes", **said}
    assert manifest["annotations"] == {**said, "dev.twinship.model.mount": MOUNT}


def test_an_image_without_labels_or_environment_gets_them(cache: Cache) -> None:
    """Builders write null for nothing."""
    for run in ({"Labels": None, "Env": None}, {}, None):
        _, config = joined(cache, halves.config(BASE, LIBRARIES, CODE, config=run))
        assert config["config"]["Labels"]["dev.twinship.model.name"] == "imagenet"
        assert len(config["config"]["Env"]) == 5


def test_an_uncommitted_change_shows(cache: Cache) -> None:
    """In the revision, wherever it is written."""
    app = halves.app(cache).model_copy(update={"commit": Commit(revision="5" * 40, dirty=True)})
    made = join_image(app, halves.model(cache), MOUNT, cache)
    config = json.loads(cache.read(made.config))
    assert config["config"]["Labels"]["org.opencontainers.image.revision"] == f"{'5' * 40}-dirty"
    assert f"TWINSHIP_COMMIT={'5' * 40}-dirty" in config["config"]["Env"]


# --- the model alone


def test_the_image_of_a_model_alone_names_its_layer_and_where_it_goes(cache: Cache) -> None:
    """It is the same on any machine, needs no bytes of the model, and differs by model and by mount."""
    model = halves.model(cache)
    cache.drop(model.digest)
    made = create_model_image(model, MOUNT, cache)
    config, layers, annotations = parse_image_manifest(cache.read(made.digest))
    assert [layer.digest for layer in layers] == [model.digest]
    assert parse_diff_ids(cache.read(config.digest)) == (model.digest,)
    assert annotations["dev.twinship.model.digest"] == model.model.digest
    assert annotations["dev.twinship.model.mount"] == MOUNT
    assert create_model_image(model, MOUNT, cache) == made
    others = {
        create_model_image(model, "/other", cache).digest,
        create_model_image(halves.model(cache, version="2"), MOUNT, cache).digest,
    }
    assert len(others | {made.digest}) == 3


def test_a_joined_image_is_the_same_as_json_and_back(cache: Cache) -> None:
    """So that one CI step can hand it to the next."""
    made = join_image(halves.app(cache), halves.model(cache), MOUNT, cache)
    assert Image.from_json(made.to_json()) == made
