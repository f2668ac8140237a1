"""Images on a real engine and a real registry: built, exported, joined, pushed, pulled and run."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.cache import Cache
from deploy.clients.docker import buildkit
from deploy.clients.docker.client import DockerEngine
from deploy.clients.docker.protocol import find_image_id
from deploy.clients.oci.client import HttpRegistry
from deploy.clients.oci.upload import OpenBlob
from deploy.errors import ReleaseError
from deploy.image import tags
from deploy.image.join import join_image
from deploy.image.load import load_image
from deploy.image.manifest import parse_diff_ids, parse_image_manifest
from deploy.image.pull import fetch_blob
from deploy.image.push import push_image
from deploy.machine.base_image import ensure_base_image
from deploy.progress import Advance
from deploy.records import Descriptor, Image
from deploy.settings.reading import Settings
from tests.integration.deploy.tiny import MOUNT, ImageBuilder, TinyApplication, create_cache
from tests.missing import lacking

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[4]


class CountingRegistry(HttpRegistry):
    """A registry client that records what is sent."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.sent: dict[str, int] = {}

    def upload(
        self, repository: str, digest: str, size: int, opened: OpenBlob, advance: Advance
    ) -> None:
        def counted(count: int) -> None:
            self.sent[digest] = self.sent.get(digest, 0) + count
            advance(count)

        super().upload(repository, digest, size, opened, counted)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Return an empty cache."""
    return create_cache(tmp_path)


@pytest.fixture(scope="module")
def base(engine: DockerEngine) -> str:
    """Return the base image of applications."""
    try:
        return ensure_base_image(engine, Settings.read(ROOT, {}).image)
    except ReleaseError as error:
        lacking(error.what, error.next)


@pytest.fixture
def tiny(engine: DockerEngine, base: str, cache: Cache) -> Iterator[TinyApplication]:
    """Return a maker of tiny applications."""
    image = TinyApplication(engine, base, cache)
    yield image
    image.remove()


@pytest.fixture
def remote(registry_host: str) -> CountingRegistry:
    """Return the registry on this machine."""
    return CountingRegistry(registry_host)


@pytest.fixture
def repository() -> str:
    """Return a repository that no other test uses."""
    return f"test/{secrets.token_hex(8)}"


@pytest.fixture(params=["classic", "buildkit"])
def builder(
    request: pytest.FixtureRequest, engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> ImageBuilder:
    """Return each of the two builders of an engine."""
    if request.param == "classic":
        return engine.build
    if buildkit.find_command() is None:
        # A distribution's own client may have BuildKit built in; newer clients need a plug-in.
        monkeypatch.setenv("PATH", "/usr/bin", prepend=":")
    if buildkit.find_command() is None:
        lacking("the docker command line has no BuildKit", "install docker-buildx")
    return buildkit.build


def push(
    image: Image, repository: str, remote: HttpRegistry, cache: Cache, *mount_sources: str
) -> str:
    """Push an image and return its reference."""
    return push_image(
        image, repository, remote, cache, mount_path=MOUNT, mount_sources=mount_sources
    ).reference


def pull(reference: str, tiny: TinyApplication) -> None:
    """Pull an image into the engine."""
    tiny.pulled.append(reference)
    tiny.engine.pull(reference, None, lambda _: None)


def test_an_image_runs_as_it_was_joined(
    tiny: TinyApplication,
    builder: ImageBuilder,
    remote: CountingRegistry,
    repository: str,
    cache: Cache,
) -> None:
    """With both builders, the pulled image is the joined one, with the model below the code."""
    image = join_image(tiny.app(builder), tiny.model("once"), MOUNT, cache)
    reference = push(image, repository, remote, cache)
    assert reference == f"{remote.host}/{repository}@{image.digest}"
    pull(reference, tiny)
    assert tiny.engine.image_id(reference) == find_image_id(tiny.engine, image)
    ids = parse_diff_ids(cache.read(image.config))
    # An engine that had the layers of the build in another compression does not list them.
    assert tiny.engine.diff_ids(reference) in ((), ids)
    assert ids.index(image.layer.digest) == len(ids) - 2
    assert tiny.output(reference) == "serving in mode once, as tiny once\n"


def test_the_config_of_the_build_is_kept(
    tiny: TinyApplication, builder: ImageBuilder, cache: Cache
) -> None:
    """User, command, folder and environment stay, with both builders."""
    image = join_image(tiny.app(builder), tiny.model(), MOUNT, cache)
    run = json.loads(cache.read(image.config))["config"]
    assert (run["User"], run["Cmd"], run["WorkingDir"]) == (
        "10001:10001",
        ["perl", "serve.pl"],
        "/srv",
    )
    assert "GREETING=hello" in run["Env"]
    assert run["Labels"]["twinship.model"] == "here"


def test_an_image_is_loaded_without_the_layers_of_its_build(
    tiny: TinyApplication, builder: ImageBuilder, cache: Cache
) -> None:
    """The engine of the build gets only model and code, and runs the joined image."""
    image = join_image(tiny.app(builder), tiny.model("once"), MOUNT, cache)

    def fetch(item: Descriptor) -> None:
        assert cache.has(item.digest, item.size)

    _, layers, _ = parse_image_manifest(cache.read(image.digest))
    loaded = load_image(image, tiny.engine, cache, fetch)
    expected = {sum(item.size for item in layers[-2:])}
    if loaded.id != image.config:
        # An engine that stores OCI content has no blobs of what its classic builder has made.
        expected.add(sum(item.size for item in layers))
    assert loaded.sent in expected
    assert load_image(image, tiny.engine, cache, fetch) == (loaded.id, 0)
    assert tiny.output(loaded.id) == "serving in mode once, as tiny once\n"


def test_a_build_of_the_same_files_is_not_compressed_again(
    tiny: TinyApplication, cache: Cache
) -> None:
    """The layers of the second build have the digests of the first."""
    first = tiny.app()
    second = tiny.app()
    assert (
        parse_image_manifest(cache.read(first.manifest.digest))[1]
        == parse_image_manifest(cache.read(second.manifest.digest))[1]
    )


def test_no_blob_is_sent_twice(
    tiny: TinyApplication, remote: CountingRegistry, repository: str, cache: Cache
) -> None:
    """A second push sends nothing, and a push to another repository neither."""
    image = join_image(tiny.app(), tiny.model(), MOUNT, cache)
    push(image, repository, remote, cache)
    assert all(cache.has(digest, count) for digest, count in remote.sent.items())
    _, layers, _ = parse_image_manifest(cache.read(image.digest))
    assert {item.digest for item in layers} <= remote.sent.keys()
    remote.sent.clear()
    push(image, repository, remote, cache)
    push(image, f"{repository}-production", remote, cache, repository)
    assert not remote.sent
    assert remote.get_manifest(f"{repository}-production", image.digest) == cache.read(image.digest)


def test_new_code_does_not_move_the_model_and_the_reverse(
    tiny: TinyApplication, remote: CountingRegistry, repository: str, cache: Cache
) -> None:
    """This holds for the registry and for the engine that pulls."""
    app = tiny.app()
    model = tiny.model("once")
    push(join_image(app, model, MOUNT, cache), repository, remote, cache)
    remote.sent.clear()
    newer = join_image(tiny.app(stamp="second"), model, MOUNT, cache)
    cache.drop(model.digest)
    reference = push(newer, repository, remote, cache)
    layers = {item.digest for item in parse_image_manifest(cache.read(newer.digest))[1]}
    assert len(layers & remote.sent.keys()) == 1
    assert model.digest not in remote.sent
    remote.sent.clear()
    other = tiny.model("right")
    push(join_image(app, other, MOUNT, cache), repository, remote, cache)
    assert max(remote.sent.items(), key=lambda item: item[1])[0] == other.digest
    assert sum(remote.sent.values()) < other.size + 8000
    pull(reference, tiny)
    assert tiny.output(reference) == "serving in mode once, as tiny once\n"


def test_another_machine_finds_app_and_model_in_the_registry(
    tiny: TinyApplication, remote: CountingRegistry, repository: str, cache: Cache, tmp_path: Path
) -> None:
    """It joins them without a build, and fetches only what its engine lacks."""
    app = tiny.app()
    model = tiny.model("once")
    image = join_image(app, model, MOUNT, cache)
    push(image, repository, remote, cache)
    # An engine that stores OCI content has layers in the registry's compression only by a release
    # before, not by a build.
    earlier = join_image(tiny.app(stamp="earlier"), tiny.model(), MOUNT, cache)
    load_image(earlier, tiny.engine, cache, lambda _: None)
    other = create_cache(tmp_path / "other")
    assert tags.find_app(tiny.name, app.key, repository, remote, other) == app
    assert tags.find_layer(model.model, MOUNT, repository, remote) == model
    assert join_image(app, model, MOUNT, other) == image
    fetched: list[str] = []

    def fetch(item: Descriptor) -> None:
        fetched.append(item.digest)
        fetch_blob(item, repository, remote, other)

    loaded = load_image(image, tiny.engine, other, fetch)
    assert fetched[0] == model.digest
    assert len(fetched) == 2
    assert tiny.output(loaded.id) == "serving in mode once, as tiny once\n"
