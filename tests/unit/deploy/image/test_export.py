"""The stream of `docker save` becomes blobs of the cache, whichever shape it has."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from deploy.cache import Cache
from deploy.errors import EngineFailed, EngineUnavailable
from deploy.image.export import export_image
from deploy.image.manifest import CONFIG_TYPE, GZIP_LAYER_TYPE
from deploy.records import Descriptor
from tests.fakes.halves import config, digest

Member = tuple[str, bytes | str]
"""A path and its bytes, or where a link there leads."""


def layer(*names: str, content: bytes = b"content") -> bytes:
    """A layer with those files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


ONE = layer("one")
TWO = layer("two", content=b"2" * 5000)


def stream(*members: Member, chunk: int = 1000) -> Iterator[bytes]:
    """A tar of those members, in pieces as an engine sends them."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type = tarfile.SYMTYPE
                member.linkname = content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    data = packed.getvalue()
    return (data[start : start + chunk] for start in range(0, len(data), chunk))


def described(*layers: bytes) -> bytes:
    """The config of an image of those layers."""
    return json.dumps(config(*layers)).encode()


def listed(path: str, *layers: str) -> bytes:
    """The manifest.json that names a config and layers by path."""
    return json.dumps([{"Config": path, "RepoTags": ["one:two"], "Layers": list(layers)}]).encode()


def old_shape(*layers: bytes) -> list[Member]:
    """A folder a layer, and what else old engines write."""
    members: list[Member] = []
    for number, data in enumerate(layers):
        members += [
            (f"{number}/VERSION", b"1.0"),
            (f"{number}/json", b'{"id": "x"}'),
            (f"{number}/layer.tar", data),
        ]
    paths = [f"{number}/layer.tar" for number in range(len(layers))]
    return [
        *members,
        ("c.json", described(*layers)),
        ("manifest.json", listed("c.json", *paths)),
        ("repositories", b"{}"),
    ]


def blob_path(data: bytes) -> str:
    """Where the OCI layout keeps bytes."""
    return f"blobs/sha256/{digest(data).removeprefix('sha256:')}"


def new_shape(kept: Iterable[bytes], *layers: bytes) -> list[Member]:
    """An OCI layout with the layers as they are kept, and the manifest.json that newer engines add."""
    about = described(*layers)
    members: list[Member] = [
        ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
        ("index.json", b'{"manifests": []}'),
    ]
    members += [(blob_path(data), data) for data in (about, *kept)]
    return [*members, ("manifest.json", listed(blob_path(about), *map(blob_path, kept)))]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache."""
    return Cache(tmp_path / "cache")


def unpacked(item: Descriptor, cache: Cache) -> bytes:
    """A layer's bytes, from its compressed form in the cache."""
    data = cache.read(item.digest)
    assert (item.media_type, item.size) == (GZIP_LAYER_TYPE, len(data))
    return gzip.decompress(data)


def test_the_old_shape_gives_config_and_layers(cache: Cache) -> None:
    """From the lowest layer up, each compressed."""
    about, layers = export_image(stream(*old_shape(ONE, TWO)), cache, "one:two")
    assert cache.read(about.digest) == described(ONE, TWO)
    assert (about.media_type, about.size) == (CONFIG_TYPE, len(described(ONE, TWO)))
    assert [unpacked(item, cache) for item in layers] == [ONE, TWO]


def test_the_oci_layout_gives_config_and_layers(cache: Cache) -> None:
    """Also with layers that are not compressed."""
    about, layers = export_image(stream(*new_shape((ONE, TWO), ONE, TWO)), cache, "one:two")
    assert cache.read(about.digest) == described(ONE, TWO)
    assert [unpacked(item, cache) for item in layers] == [ONE, TWO]


def test_layers_that_come_compressed_are_kept_as_they_come(cache: Cache) -> None:
    """Their digests stay, whatever compressed them."""
    kept = [gzip.compress(ONE, 9), gzip.compress(TWO, 1)]
    _, layers = export_image(stream(*new_shape(kept, ONE, TWO)), cache, "one:two")
    assert [item.digest for item in layers] == [digest(data) for data in kept]
    assert [unpacked(item, cache) for item in layers] == [ONE, TWO]


@pytest.mark.parametrize("position", ["before", "after"])
def test_a_layer_that_is_a_link_is_the_one_it_leads_to(cache: Cache, position: str) -> None:
    """Old engines write the same layer once, and may name it before it comes."""
    link: list[Member] = [("1/layer.tar", "../0/layer.tar")]
    real: list[Member] = [("0/layer.tar", ONE)]
    about = described(ONE, ONE)
    end: list[Member] = [
        ("c.json", about),
        ("manifest.json", listed("c.json", "0/layer.tar", "1/layer.tar")),
    ]
    _, layers = export_image(
        stream(*(link + real if position == "before" else real + link), *end), cache, "one:two"
    )
    assert layers[0] == layers[1]
    assert unpacked(layers[0], cache) == ONE


def test_the_list_may_come_first(cache: Cache) -> None:
    """The order of the stream does not matter."""
    members = new_shape((ONE, TWO), ONE, TWO)
    _, layers = export_image(stream(*reversed(members)), cache, "one:two")
    assert [unpacked(item, cache) for item in layers] == [ONE, TWO]


def test_paths_may_be_spelt_in_more_than_one_way(cache: Cache) -> None:
    """A leading dot means nothing."""
    members: list[Member] = [
        ("./a/layer.tar", ONE),
        ("c.json", described(ONE)),
        ("manifest.json", listed("c.json", "a//layer.tar")),
    ]
    _, layers = export_image(stream(*members), cache, "one:two")
    assert unpacked(layers[0], cache) == ONE


@pytest.mark.parametrize("name", ["{arch}/page.js", "[id]/page.js"])
def test_a_small_layer_that_starts_like_json_is_a_layer(cache: Cache, name: str) -> None:
    """The name of its first file decides how it starts."""
    odd = layer(name)
    _, layers = export_image(stream(*old_shape(ONE, odd)), cache, "one:two")
    assert [unpacked(item, cache) for item in layers] == [ONE, odd]


def test_the_same_layer_gives_the_same_bytes_in_every_cache(cache: Cache, tmp_path: Path) -> None:
    """No time enters the compressed form."""
    other = Cache(tmp_path / "other")
    about, layers = export_image(stream(*old_shape(ONE, TWO)), cache, "x")
    assert export_image(stream(*old_shape(ONE, TWO)), other, "x") == (about, layers)
    assert [cache.read(item.digest)[4:8] for item in layers] == [bytes(4), bytes(4)]


def test_a_layer_that_was_exported_before_is_not_compressed_again(cache: Cache) -> None:
    """Also if it came in the other shape, or in another image; one that the cache has lost is."""
    _, before = export_image(stream(*old_shape(ONE, TWO)), cache, "one:two")
    stamps = [cache.path(item.digest).stat().st_mtime_ns for item in before]
    three = layer("three")
    _, after = export_image(
        stream(*new_shape((ONE, TWO, three), ONE, TWO, three)), cache, "one:two"
    )
    assert after[:2] == before
    assert [cache.path(item.digest).stat().st_mtime_ns for item in before] == stamps
    cache.drop(before[0].digest)
    _, again = export_image(stream(*old_shape(ONE, TWO)), cache, "one:two")
    assert unpacked(again[0], cache) == ONE


def test_a_layer_that_came_compressed_is_recognised_when_it_comes_plain(cache: Cache) -> None:
    """So that two engines do not make two layers of one."""
    kept = gzip.compress(ONE, 9)
    export_image(stream(*new_shape([kept], ONE)), cache, "one:two")
    _, layers = export_image(stream(*old_shape(ONE)), cache, "one:two")
    assert [item.digest for item in layers] == [digest(kept)]


def test_nothing_is_left_of_the_uncompressed_layers(cache: Cache) -> None:
    """The cache holds each layer once."""
    export_image(stream(*old_shape(ONE, TWO)), cache, "one:two")
    assert not cache.path(digest(ONE)).exists()
    assert not cache.path(digest(TWO)).exists()
    assert not list(cache.temporary.iterdir())


def test_memory_does_not_grow_with_a_layer(cache: Cache) -> None:
    """A layer of 40 MB passes through in a few."""
    size = 40 << 20
    block = bytes(1 << 20)
    seen = hashlib.sha256()
    for _ in range(size >> 20):
        seen.update(block)
    about = json.dumps(
        {**config(), "rootfs": {"type": "layers", "diff_ids": [f"sha256:{seen.hexdigest()}"]}}
    ).encode()
    end = b"".join(stream(("c.json", about), ("manifest.json", listed("c.json", "0/layer.tar"))))
    member = tarfile.TarInfo("0/layer.tar")
    member.size = size

    def large() -> Iterator[bytes]:
        yield member.tobuf()
        for _ in range(size >> 20):
            yield block
        yield end

    tracemalloc.start()
    try:
        _, layers = export_image(large(), cache, "one:two")
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()
    assert len(layers) == 1


# --- streams that are not what they should be


def damaged() -> dict[str, bytes]:
    """Streams that no sound engine sends."""
    whole = b"".join(stream(*old_shape(ONE, TWO)))
    broken = bytearray(gzip.compress(ONE))
    broken[-6] ^= 255
    return {
        "nothing": b"",
        "no tar": b"Error response from daemon: no such image" * 50,
        "cut in a layer": whole[:6000],
        "cut between members": whole[:1024],
        "no list": b"".join(stream(("0/layer.tar", ONE), ("c.json", described(ONE)))),
        "an empty list": b"".join(stream(("manifest.json", b"[]"))),
        "a list that is none": b"".join(stream(("manifest.json", b"{}"))),
        "a list of nothing": b"".join(stream(("manifest.json", b"[null]"))),
        "a list that is no JSON": b"".join(stream(("manifest.json", b"[{"))),
        "no config": b"".join(
            stream(("0/layer.tar", ONE), ("manifest.json", listed("c.json", "0/layer.tar")))
        ),
        "a config of something else": b"".join(
            stream(
                ("0/layer.tar", ONE),
                ("c.json", b"{}"),
                ("manifest.json", listed("c.json", "0/layer.tar")),
            )
        ),
        "a missing layer": b"".join(
            stream(("c.json", described(ONE)), ("manifest.json", listed("c.json", "0/layer.tar")))
        ),
        "a link to nowhere": b"".join(
            stream(
                ("0/layer.tar", "../1/layer.tar"),
                ("c.json", described(ONE)),
                ("manifest.json", listed("c.json", "0/layer.tar")),
            )
        ),
        "another layer": b"".join(
            stream(
                ("0/layer.tar", TWO),
                ("c.json", described(ONE)),
                ("manifest.json", listed("c.json", "0/layer.tar")),
            )
        ),
        "layers in another order": b"".join(
            stream(
                ("a", ONE),
                ("b", TWO),
                ("c.json", described(ONE, TWO)),
                ("manifest.json", listed("c.json", "b", "a")),
            )
        ),
        "a compressed layer cut short": b"".join(
            stream(*new_shape([gzip.compress(TWO)[:-20]], TWO))
        ),
        "a compressed layer with a wrong sum": b"".join(stream(*new_shape([bytes(broken)], ONE))),
        "a compressed layer of nonsense": b"".join(
            stream(*new_shape([b"\x1f\x8b\x08\x00" + bytes(6) + b"\xff" * 50], ONE))
        ),
        "a compressed layer that is none": b"".join(stream(*new_shape([b"\x1f\x8bnonsense"], ONE))),
    }


@pytest.mark.parametrize("kind", damaged())
def test_a_damaged_stream_is_told(cache: Cache, kind: str) -> None:
    """As a failure of the engine, on that image, and no half layer is left under a name."""
    data = damaged()[kind]
    with pytest.raises(EngineFailed) as caught:
        export_image(iter([data] if data else []), cache, "one:two")
    assert caught.value.on == "one:two"
    assert caught.value.exit_code == 75
    assert not list(cache.temporary.iterdir())


def test_after_a_damaged_stream_a_sound_one_is_exported(cache: Cache) -> None:
    """Nothing that was learned from the first is believed."""
    for data in damaged().values():
        with pytest.raises(EngineFailed):
            export_image(iter([data]), cache, "one:two")
    _, layers = export_image(stream(*old_shape(ONE, TWO)), cache, "one:two")
    assert [unpacked(item, cache) for item in layers] == [ONE, TWO]


def test_an_engine_that_stops_in_mid_stream_is_told_as_such(cache: Cache) -> None:
    """Its own error comes through."""

    def broken() -> Iterator[bytes]:
        yield from list(stream(*old_shape(ONE, TWO)))[:3]
        raise EngineUnavailable(
            "the container engine stopped answering", on="one:two", next="run again"
        )

    with pytest.raises(EngineUnavailable):
        export_image(broken(), cache, "one:two")
    assert not list(cache.temporary.iterdir())
