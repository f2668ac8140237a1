"""Images that are loaded into an engine: only the layers that it lacks are sent."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import pytest

from deploy.cache import Cache
from deploy.clients.docker.protocol import Engine
from deploy.errors import EngineFailed
from deploy.image.load import load_image
from deploy.image.manifest import MANIFEST_TYPE, parse_diff_ids, parse_image_manifest
from deploy.records import Descriptor, Image
from tests.fakes.halves import BASE, CODE, LIBRARIES, WEIGHTS, digest

Chain = tuple[bytes, ...]


class Contents(NamedTuple):
    """The image of an archive: the path whose digest is its id, config, layers, and name."""

    id: str
    config: str
    layers: list[str]
    tag: str


Reader = Callable[[Mapping[str, bytes]], Contents]


def read_saved(files: Mapping[str, bytes]) -> Contents:
    """Read an archive as engines do that store images as layers."""
    (entry,) = json.loads(files["manifest.json"])
    return Contents(entry["Config"], entry["Config"], entry["Layers"], *entry["RepoTags"])


def read_layout(files: Mapping[str, bytes]) -> Contents:
    """Read an archive as engines do that store images as OCI content."""
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads(files["index.json"])["manifests"]
    manifest = files[blob_path(entry["digest"])]
    assert (digest(manifest), len(manifest), entry["mediaType"]) == (
        entry["digest"],
        entry["size"],
        MANIFEST_TYPE,
    )
    config, layers, _ = parse_image_manifest(manifest)
    tag = entry["annotations"]["io.containerd.image.name"]
    assert tag.endswith(f":{entry['annotations']['org.opencontainers.image.ref.name']}")
    return Contents(
        blob_path(entry["digest"]),
        blob_path(config.digest),
        [blob_path(item.digest) for item in layers],
        tag.removeprefix("docker.io/"),
    )


READERS = pytest.mark.parametrize("reads", [read_saved, read_layout])


def blob_path(digest_text: str) -> str:
    """Return where an OCI layout has a blob."""
    return f"blobs/{digest_text.replace(':', '/')}"


def decompress(data: bytes) -> bytes:
    """Return a layer without its compression."""
    return data.removeprefix(b"\x1f\x8b")


class LoadingEngine:
    """An engine that can only load images: it knows images by their chains of diff ids.

    Attributes:
        reads: the form of an archive that it reads.
        takes: whether an archive may lack layers that the engine has.
        renames: whether it gives images another id.
        packs: whether it compressed its own layers differently, and lists no image that lacks some.
        loaded: the layers of each archive.
        tags: the names of the images.
    """

    def __init__(
        self,
        *present: Chain,
        reads: Reader = read_saved,
        takes: bool = True,
        renames: bool = False,
        packs: bool = False,
    ) -> None:
        self.images = {
            f"present-{number}": tuple(map(digest, chain)) for number, chain in enumerate(present)
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

    def layer_chains(self) -> Iterable[tuple[str, ...]]:
        return [chain for name, chain in self.images.items() if name not in self.unlisted]

    def load(self, archive: Iterable[bytes]) -> None:
        with tarfile.open(fileobj=io.BytesIO(b"".join(archive))) as opened:
            files = {
                member.name: opened.extractfile(member).read()  # type: ignore[union-attr]  # a file
                for member in opened
                if member.isreg()
            }
        contents = self.reads(files)
        self.loaded.append(
            [
                decompress(data)
                for name, data in files.items()
                if name.startswith("blobs/") and not data.startswith(b"{")
            ]
        )
        ids = parse_diff_ids(files[contents.config])
        for count, (name, diff_id) in enumerate(zip(contents.layers, ids, strict=True)):
            present = any(chain[: count + 1] == ids[: count + 1] for chain in self.images.values())
            if name not in files and not (present and self.takes):
                raise EngineFailed(
                    "the container engine refused what it was asked",
                    on=name,
                    next="send all layers",
                )
            if name in files and digest(decompress(files[name])) != diff_id:
                raise EngineFailed("the layer is another", on=name, next="send that layer")
        self.tags.append(contents.tag)
        name = "renamed" if self.renames else digest(files[contents.id])
        self.images[name] = ids
        self.unlisted = self.unlisted - {name} | (
            {name} if self.packs and not files.keys() >= {*contents.layers} else set()
        )


def as_engine(fake: LoadingEngine) -> Engine:
    """Return the fake as an engine, of which it has a part only."""
    return fake  # type: ignore[return-value]  # a part of an engine


def refuse_fetch(item: Descriptor) -> None:
    """Fail, because no layer may be fetched."""
    raise AssertionError(item)


@READERS
@pytest.mark.parametrize(
    ("present", "sent"),
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
    cache: Cache, joined: Image, present: tuple[Chain, ...], sent: list[bytes], reads: Reader
) -> None:
    """The engine finds a layer by its diff id and those of all layers below it."""
    engine = LoadingEngine(*present, reads=reads)
    loaded = load_image(joined, as_engine(engine), cache, lambda _: None)
    assert engine.loaded == [sent]
    assert engine.images[loaded.id] == parse_diff_ids(cache.read(joined.config))
    assert loaded.sent == sum(len(data) + (0 if data == WEIGHTS else 2) for data in sent)


def test_the_id_of_an_image_depends_on_the_engine(cache: Cache, joined: Image) -> None:
    """It is the digest of the config, or that of the image manifest for OCI content."""
    for reads, image_id in ((read_saved, joined.config), (read_layout, joined.digest)):
        assert (
            load_image(joined, as_engine(LoadingEngine(reads=reads)), cache, lambda _: None).id
            == image_id
        )


@READERS
def test_an_image_that_the_engine_has_is_not_sent(
    cache: Cache, joined: Image, reads: Reader
) -> None:
    """Not even its config is sent."""
    engine = LoadingEngine(reads=reads)
    first = load_image(joined, as_engine(engine), cache, lambda _: None)
    assert load_image(joined, as_engine(engine), cache, refuse_fetch) == (first.id, 0)
    assert len(engine.loaded) == 1


def test_only_layers_that_are_sent_are_fetched(cache: Cache, joined: Image) -> None:
    """A layer that the engine has may be in the registry only."""
    _, layers, _ = parse_image_manifest(cache.read(joined.digest))
    data = {layer.digest: cache.read(layer.digest) for layer in layers}
    for layer in layers:
        cache.drop(layer.digest)
    fetched: list[str] = []

    def fetch(item: Descriptor) -> None:
        fetched.append(item.digest)
        cache.put(data[item.digest])

    load_image(joined, as_engine(LoadingEngine((BASE, LIBRARIES, b"old weights"))), cache, fetch)
    assert fetched == [layer.digest for layer in layers[2:]]


def test_an_engine_that_needs_all_layers_gets_the_whole_image(cache: Cache, joined: Image) -> None:
    """An engine may lack layers of an image that it lists; all sent bytes are counted."""
    engine = LoadingEngine((BASE, LIBRARIES), reads=read_layout, takes=False)
    loaded = load_image(joined, as_engine(engine), cache, lambda _: None)
    assert engine.loaded == [[WEIGHTS, CODE], [BASE, LIBRARIES, WEIGHTS, CODE]]
    assert loaded.sent == sum(map(len, (BASE, LIBRARIES, WEIGHTS, CODE))) + 2 * 3


def test_an_engine_with_other_compression_gets_the_whole_image(cache: Cache, joined: Image) -> None:
    """Otherwise the engine would run the image but not list it."""
    engine = LoadingEngine((BASE, LIBRARIES), reads=read_layout, packs=True)
    loaded = load_image(joined, as_engine(engine), cache, lambda _: None)
    assert engine.loaded == [[WEIGHTS, CODE], [BASE, LIBRARIES, WEIGHTS, CODE]]
    assert loaded.id == joined.digest
    assert parse_diff_ids(cache.read(joined.config)) in list(engine.layer_chains())


def test_an_engine_that_refuses_the_image_is_an_error(cache: Cache, joined: Image) -> None:
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


def test_an_engine_that_gives_another_id_is_an_error(cache: Cache, joined: Image) -> None:
    """The tested image must be the joined one."""
    with pytest.raises(EngineFailed, match="another id") as caught:
        load_image(joined, as_engine(LoadingEngine(renames=True)), cache, lambda _: None)
    assert caught.value.on == joined.digest


@READERS
def test_a_loaded_image_has_a_readable_name(cache: Cache, joined: Image, reads: Reader) -> None:
    """It has the application and the start of the digest."""
    engine = LoadingEngine(reads=reads)
    load_image(joined, as_engine(engine), cache, lambda _: None)
    assert engine.tags == [f"twinship/classifier:{joined.digest.removeprefix('sha256:')[:12]}"]
