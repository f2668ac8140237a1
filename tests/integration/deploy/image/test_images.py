"""One image on its whole way, with a real engine and a real registry: built, exported, joined, pushed, pulled, run."""

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
from deploy.clients.oci.bodies import Advance
from deploy.clients.oci.client import HttpRegistry
from deploy.clients.oci.upload import OpenBlob
from deploy.errors import ReleaseError
from deploy.image import registry
from deploy.image.join import join_image
from deploy.image.load import load_image
from deploy.image.manifest import parse_diff_ids, parse_image_manifest
from deploy.image.pull import fetch_blob
from deploy.machine import services
from deploy.records import Descriptor, Image
from deploy.settings.reading import Settings
from tests.integration.conftest import lacking
from tests.integration.deploy.tiny import MOUNT, Builder, Tiny, local_cache

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[4]


class Counting(HttpRegistry):
    """A registry that remembers what was sent to it."""

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
    """An empty cache."""
    return local_cache(tmp_path)


@pytest.fixture(scope="module")
def base(engine: DockerEngine) -> str:
    """The image that applications are built from."""
    try:
        return services.ensure_base_image(engine, Settings.read(ROOT, {}).image)
    except ReleaseError as error:
        lacking(error.what, error.next)


@pytest.fixture
def tiny(engine: DockerEngine, base: str, cache: Cache) -> Iterator[Tiny]:
    """A tiny application."""
    made = Tiny(engine, base, cache)
    yield made
    made.remove()


@pytest.fixture
def remote(registry_host: str) -> Counting:
    """The registry on this machine."""
    return Counting(registry_host)


@pytest.fixture
def repository() -> str:
    """A repository that nobody else knows."""
    return f"test/{secrets.token_hex(8)}"


@pytest.fixture(params=["classic", "buildkit"])
def builder(
    request: pytest.FixtureRequest, engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> Builder:
    """Each of the two builders of an engine."""
    if request.param == "classic":
        return engine.build
    if buildkit.find_command() is None:
        # A distribution's own client may have BuildKit where a newer one, first on the path, has it as a plug-in only.
        monkeypatch.setenv("PATH", "/usr/bin", prepend=":")
    if buildkit.find_command() is None:
        lacking("the docker command line has no BuildKit", "install docker-buildx")
    return buildkit.build


def push(made: Image, repository: str, remote: HttpRegistry, cache: Cache, *elsewhere: str) -> str:
    """Pushes an image; returns what is deployed of it."""
    return registry.push(
        made, repository, remote, cache, mount_path=MOUNT, mount_sources=elsewhere
    ).reference


def pull(reference: str, tiny: Tiny) -> None:
    """Has the engine pull an image."""
    tiny.pulled.append(reference)
    tiny.engine.pull(reference, None, lambda _: None)


def test_an_image_runs_as_it_was_joined(
    tiny: Tiny, builder: Builder, remote: Counting, repository: str, cache: Cache
) -> None:
    """Whichever builder made the application: pulled by its digest it is the joined image, with the model below the code."""
    made = join_image(tiny.app(builder), tiny.model("once"), MOUNT, cache)
    reference = push(made, repository, remote, cache)
    assert reference == f"{remote.host}/{repository}@{made.digest}"
    pull(reference, tiny)
    assert tiny.engine.image_id(reference) == find_image_id(tiny.engine, made)
    ids = parse_diff_ids(cache.read(made.config))
    assert tiny.engine.diff_ids(reference) == ids
    assert ids.index(made.layer.digest) == len(ids) - 2
    assert tiny.output(reference) == "serving in mode once, as tiny once\n"


def test_the_config_of_the_build_is_kept(tiny: Tiny, builder: Builder, cache: Cache) -> None:
    """User, command, folder and environment come through, whichever builder wrote them."""
    made = join_image(tiny.app(builder), tiny.model(), MOUNT, cache)
    run = json.loads(cache.read(made.config))["config"]
    assert (run["User"], run["Cmd"], run["WorkingDir"]) == (
        "10001:10001",
        ["perl", "serve.pl"],
        "/srv",
    )
    assert "GREETING=hello" in run["Env"]
    assert run["Labels"]["twinship.model"] == "here"


def test_an_image_is_loaded_without_the_layers_of_its_build(
    tiny: Tiny, builder: Builder, cache: Cache
) -> None:
    """The engine that built the application gets model and code, and runs exactly the joined image."""
    made = join_image(tiny.app(builder), tiny.model("once"), MOUNT, cache)

    def bring(item: Descriptor) -> None:
        assert cache.has(item.digest, item.size)

    _, layers, _ = parse_image_manifest(cache.read(made.digest))
    loaded = load_image(made, tiny.engine, cache, bring)
    assert loaded.sent == sum(item.size for item in layers[-2:])
    assert load_image(made, tiny.engine, cache, bring) == (loaded.id, 0)
    assert tiny.output(loaded.id) == "serving in mode once, as tiny once\n"


def test_a_build_of_the_same_files_is_not_compressed_again(tiny: Tiny, cache: Cache) -> None:
    """The layers of the second build are those of the first, by their digests."""
    first = tiny.app()
    second = tiny.app()
    assert (
        parse_image_manifest(cache.read(first.manifest.digest))[1]
        == parse_image_manifest(cache.read(second.manifest.digest))[1]
    )


def test_nothing_is_sent_twice(tiny: Tiny, remote: Counting, repository: str, cache: Cache) -> None:
    """Each blob goes over once, whole; the second push sends nothing, and into another repository neither."""
    made = join_image(tiny.app(), tiny.model(), MOUNT, cache)
    push(made, repository, remote, cache)
    assert all(cache.has(digest, count) for digest, count in remote.sent.items())
    _, layers, _ = parse_image_manifest(cache.read(made.digest))
    assert {item.digest for item in layers} <= remote.sent.keys()
    remote.sent.clear()
    push(made, repository, remote, cache)
    push(made, f"{repository}-production", remote, cache, repository)
    assert not remote.sent
    assert remote.manifest(f"{repository}-production", made.digest) == cache.read(made.digest)


def test_new_code_moves_no_byte_of_the_model_and_the_reverse(
    tiny: Tiny, remote: Counting, repository: str, cache: Cache
) -> None:
    """Neither to the registry, nor to the engine that pulls."""
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


def test_another_machine_finds_both_halves_in_the_registry(
    tiny: Tiny, remote: Counting, repository: str, cache: Cache, tmp_path: Path
) -> None:
    """It joins them to the same image without building anything, and brings what its engine lacks."""
    app = tiny.app()
    model = tiny.model("once")
    made = join_image(app, model, MOUNT, cache)
    push(made, repository, remote, cache)
    other = local_cache(tmp_path / "other")
    assert registry.find_app(tiny.name, app.key, repository, remote, other) == app
    assert registry.find_layer(model.model, MOUNT, repository, remote) == model
    assert join_image(app, model, MOUNT, other) == made
    brought: list[str] = []

    def bring(item: Descriptor) -> None:
        brought.append(item.digest)
        fetch_blob(item, repository, remote, other)

    loaded = load_image(made, tiny.engine, other, bring)
    assert brought[0] == model.digest
    assert len(brought) == 2
    assert tiny.output(loaded.id) == "serving in mode once, as tiny once\n"
