"""Images that are loaded into an engine: only the layers that it lacks are sent."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from deploy.cache import Cache
from deploy.clients.docker.protocol import Engine
from deploy.errors import EngineFailed
from deploy.image.join import join_image
from deploy.image.load import load_image
from deploy.image.manifest import MANIFEST_TYPE, parse_diff_ids, parse_image_manifest
from deploy.records import Descriptor, Image
from tests.fakes import halves
from tests.fakes.halves import BASE, CODE, LIBRARIES, MOUNT, WEIGHTS, digest

Held = tuple[bytes, ...]


class Found(NamedTuple):
    """What an archive says of its image: paths in it, of which one's digest is to be the image's id, and its name."""

    id: str
    config: str
    layers: list[str]
    tag: str


Reader = Callable[[Mapping[str, bytes]], Found]


def saved(files: Mapping[str, bytes]) -> Found:
    """Reads an archive as engines do that keep images as layers."""
    (listed,) = json.loads(files["manifest.json"])
    return Found(listed["Config"], listed["Config"], listed["Layers"], *listed["RepoTags"])


def laid_out(files: Mapping[str, bytes]) -> Found:
    """Reads an archive as engines do that keep images as OCI content."""
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (listed,) = json.loads(files["index.json"])["manifests"]
    manifest = files[at(listed["digest"])]
    assert (digest(manifest), len(manifest), listed["mediaType"]) == (
        listed["digest"],
        listed["size"],
        MANIFEST_TYPE,
    )
    config, layers, _ = parse_image_manifest(manifest)
    tag = listed["annotations"]["io.containerd.image.name"]
    assert tag.endswith(f":{listed['annotations']['org.opencontainers.image.ref.name']}")
    return Found(
        at(listed["digest"]),
        at(config.digest),
        [at(item.digest) for item in layers],
        tag.removeprefix("docker.io/"),
    )


READERS = pytest.mark.parametrize("reads", [saved, laid_out])


def at(named: str) -> str:
    """Where an OCI layout has the bytes of a digest."""
    return f"blobs/{named.replace(':', '/')}"


def unpacked(data: bytes) -> bytes:
    """A layer as it was before it was packed."""
    return data.removeprefix(b"\x1f\x8b")


class LoadingEngine:
    """As much of an engine as loading needs: it knows images by their chains, and takes archives with layers left out.

    Attributes:
        reads: the form of an archive that it reads.
        takes: whether an archive may leave out layers that it holds.
        renames: whether it makes other images of what it is given.
        packs: whether it has packed its own layers in another way, and so lists no image of which some were left out.
        loaded: the layers in each archive that came.
        tags: the names that images were given.
    """

    def __init__(
        self,
        *held: Held,
        reads: Reader = saved,
        takes: bool = True,
        renames: bool = False,
        packs: bool = False,
    ) -> None:
        self.images = {
            f"held-{number}": tuple(map(digest, chain)) for number, chain in enumerate(held)
        }
        self.reads = reads
        self.takes = takes
        self.renames = renames
        self.packs = packs
        self.unlisted: set[str] = set()
        self.loaded: list[list[bytes]] = []
        self.tags: list[str] = []

    def image_id(self, image: str) -> str | None:
        return image if image in self.images else None

    def chains(self) -> Iterable[tuple[str, ...]]:
        return [chain for name, chain in self.images.items() if name not in self.unlisted]

    def load(self, archive: Iterable[bytes]) -> None:
        with tarfile.open(fileobj=io.BytesIO(b"".join(archive))) as opened:
            files = {
                member.name: opened.extractfile(member).read()  # type: ignore[union-attr]
                for member in opened
                if member.isreg()
            }
        found = self.reads(files)
        self.loaded.append(
            [
                unpacked(data)
                for name, data in files.items()
                if name.startswith("blobs/") and not data.startswith(b"{")
            ]
        )
        ids = parse_diff_ids(files[found.config])
        for count, (name, diff_id) in enumerate(zip(found.layers, ids, strict=True)):
            held = any(chain[: count + 1] == ids[: count + 1] for chain in self.images.values())
            if name not in files and not (held and self.takes):
                raise EngineFailed(
                    "the container engine refused what it was asked",
                    on=name,
                    next="send all layers",
                )
            if name in files and digest(unpacked(files[name])) != diff_id:
                raise EngineFailed("the layer is another", on=name, next="send that layer")
        self.tags.append(found.tag)
        name = "renamed" if self.renames else digest(files[found.id])
        self.images[name] = ids
        self.unlisted = self.unlisted - {name} | (
            {name} if self.packs and not files.keys() >= {*found.layers} else set()
        )


def as_engine(fake: LoadingEngine) -> Engine:
    """The fake as what it stands for, of which it has only a part."""
    return fake  # type: ignore[return-value]


def nothing(item: Descriptor) -> None:
    """Is told when something must be brought, which must not be."""
    raise AssertionError(item)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache."""
    return Cache(tmp_path / "cache")


@pytest.fixture
def joined(cache: Cache) -> Image:
    """An image of base, libraries, weights and code."""
    return join_image(halves.app(cache), halves.model(cache), MOUNT, cache)


@READERS
@pytest.mark.parametrize(
    ("held", "sent"),
    [
        ((), [BASE, LIBRARIES, WEIGHTS, CODE]),
        (((BASE,),), [LIBRARIES, WEIGHTS, CODE]),
        (((BASE, LIBRARIES, CODE),), [WEIGHTS, CODE]),
        (((BASE,), (BASE, LIBRARIES, WEIGHTS, b"other code"), (b"x",)), [CODE]),
        (((LIBRARIES, WEIGHTS, CODE),), [BASE, LIBRARIES, WEIGHTS, CODE]),
        (((BASE, LIBRARIES, WEIGHTS, CODE),), []),
        (((BASE, LIBRARIES, WEIGHTS, CODE, b"more"),), []),
    ],
)
def test_only_layers_that_the_engine_lacks_are_sent(
    cache: Cache, joined: Image, held: tuple[Held, ...], sent: list[bytes], reads: Reader
) -> None:
    """It finds the others by the chain of all layers below them; a layer above another one is another to it."""
    engine = LoadingEngine(*held, reads=reads)
    told = load_image(joined, as_engine(engine), cache, lambda _: None)
    assert engine.loaded == [sent]
    assert engine.images[told.id] == parse_diff_ids(cache.read(joined.config))
    assert told.sent == sum(len(data) + (0 if data == WEIGHTS else 2) for data in sent)


def test_an_image_is_known_by_what_the_engine_keeps(cache: Cache, joined: Image) -> None:
    """By its config where that is layers, and by its manifest where it is OCI content."""
    for reads, known in ((saved, joined.config), (laid_out, joined.digest)):
        assert (
            load_image(joined, as_engine(LoadingEngine(reads=reads)), cache, lambda _: None).id
            == known
        )


@READERS
def test_an_image_that_the_engine_holds_is_not_sent(
    cache: Cache, joined: Image, reads: Reader
) -> None:
    """Not even its config."""
    engine = LoadingEngine(reads=reads)
    first = load_image(joined, as_engine(engine), cache, lambda _: None)
    assert load_image(joined, as_engine(engine), cache, nothing) == (first.id, 0)
    assert len(engine.loaded) == 1


def test_only_what_is_sent_is_brought_to_the_cache(cache: Cache, joined: Image) -> None:
    """A layer that the engine holds already may be far away."""
    _, layers, _ = parse_image_manifest(cache.read(joined.digest))
    data = {layer.digest: cache.read(layer.digest) for layer in layers}
    for layer in layers:
        cache.drop(layer.digest)
    brought: list[str] = []

    def bring(item: Descriptor) -> None:
        brought.append(item.digest)
        cache.put(data[item.digest])

    load_image(joined, as_engine(LoadingEngine((BASE, LIBRARIES, b"old weights"))), cache, bring)
    assert brought == [layer.digest for layer in layers[2:]]


def test_an_engine_that_takes_no_gaps_gets_the_whole_image(cache: Cache, joined: Image) -> None:
    """One that keeps images as OCI content may lack layers of an image that it holds; all bytes are told as sent."""
    engine = LoadingEngine((BASE, LIBRARIES), reads=laid_out, takes=False)
    told = load_image(joined, as_engine(engine), cache, lambda _: None)
    assert engine.loaded == [[WEIGHTS, CODE], [BASE, LIBRARIES, WEIGHTS, CODE]]
    assert told.sent == sum(map(len, (BASE, LIBRARIES, WEIGHTS, CODE))) + 2 * 3


def test_an_image_is_made_whole_where_layers_of_the_engine_are_packed_in_another_way(
    cache: Cache, joined: Image
) -> None:
    """Else it would run, but be on no list of images."""
    engine = LoadingEngine((BASE, LIBRARIES), reads=laid_out, packs=True)
    told = load_image(joined, as_engine(engine), cache, lambda _: None)
    assert engine.loaded == [[WEIGHTS, CODE], [BASE, LIBRARIES, WEIGHTS, CODE]]
    assert told.id == joined.digest
    assert parse_diff_ids(cache.read(joined.config)) in list(engine.chains())


def test_an_engine_that_takes_nothing_is_told(cache: Cache, joined: Image) -> None:
    """The whole image is not sent twice."""

    class Refusing(LoadingEngine):
        def load(self, archive: Iterable[bytes]) -> None:
            super().load(archive)
            raise EngineFailed(
                "the container engine refused what it was asked", on="image", next="see the message"
            )

    engine = Refusing()
    with pytest.raises(EngineFailed, match="refused"):
        load_image(joined, as_engine(Refusing(renames=True)), cache, lambda _: None)
    with pytest.raises(EngineFailed, match="refused"):
        load_image(joined, as_engine(engine), cache, lambda _: None)
    assert len(engine.loaded) == 1


def test_an_engine_that_makes_another_image_of_it_is_told(cache: Cache, joined: Image) -> None:
    """What is tried must be exactly what was joined."""
    with pytest.raises(EngineFailed, match="another id") as caught:
        load_image(joined, as_engine(LoadingEngine(renames=True)), cache, lambda _: None)
    assert caught.value.on == joined.digest


@READERS
def test_a_loaded_image_has_a_name_that_people_recognise(
    cache: Cache, joined: Image, reads: Reader
) -> None:
    """The application and the start of the digest."""
    engine = LoadingEngine(reads=reads)
    load_image(joined, as_engine(engine), cache, lambda _: None)
    assert engine.tags == [f"twinship/classifier:{joined.digest.removeprefix('sha256:')[:12]}"]
