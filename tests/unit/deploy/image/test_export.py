"""Exported images: config and layers of `docker save`, stored in the cache."""

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


def create_layer(*names: str, content: bytes = b"content") -> bytes:
    """Return a layer with those files."""
    archive_file = io.BytesIO()
    with tarfile.open(fileobj=archive_file, mode="w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return archive_file.getvalue()


ONE = create_layer("one")
TWO = create_layer("two", content=b"2" * 5000)


def create_stream(*members: Member, chunk: int = 1000) -> Iterator[bytes]:
    """Return a tar archive of those members, in chunks as an engine sends them."""
    archive_file = io.BytesIO()
    with tarfile.open(fileobj=archive_file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type = tarfile.SYMTYPE
                member.linkname = content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    data = archive_file.getvalue()
    return (data[start : start + chunk] for start in range(0, len(data), chunk))


def create_config(*layers: bytes) -> bytes:
    """Return the config of an image of those layers."""
    return json.dumps(config(*layers)).encode()


def create_list(path: str, *layers: str) -> bytes:
    """Return the manifest.json that names a config and layers by path."""
    return json.dumps([{"Config": path, "RepoTags": ["one:two"], "Layers": list(layers)}]).encode()


def create_old_form(*layers: bytes) -> list[Member]:
    """Return the form of old engines, with one folder per layer."""
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
        ("c.json", create_config(*layers)),
        ("manifest.json", create_list("c.json", *paths)),
        ("repositories", b"{}"),
    ]


def blob_path(data: bytes) -> str:
    """Return where an OCI layout has a blob."""
    return f"blobs/sha256/{digest(data).removeprefix('sha256:')}"


def create_oci_layout(compressed: Iterable[bytes], *layers: bytes) -> list[Member]:
    """Return an OCI layout, with the manifest.json that newer engines add."""
    about = create_config(*layers)
    members: list[Member] = [
        ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
        ("index.json", b'{"manifests": []}'),
    ]
    members += [(blob_path(data), data) for data in (about, *compressed)]
    return [*members, ("manifest.json", create_list(blob_path(about), *map(blob_path, compressed)))]


def decompress(item: Descriptor, cache: Cache) -> bytes:
    """Return a layer of the cache without its compression."""
    data = cache.read(item.digest)
    assert (item.media_type, item.size) == (GZIP_LAYER_TYPE, len(data))
    return gzip.decompress(data)


def test_config_and_layers_are_exported_from_the_old_form(cache: Cache) -> None:
    """The layers are compressed and in their order."""
    about, layers = export_image(create_stream(*create_old_form(ONE, TWO)), cache, "one:two")
    assert cache.read(about.digest) == create_config(ONE, TWO)
    assert (about.media_type, about.size) == (CONFIG_TYPE, len(create_config(ONE, TWO)))
    assert [decompress(item, cache) for item in layers] == [ONE, TWO]


def test_config_and_layers_are_exported_from_an_oci_layout(cache: Cache) -> None:
    """The layers of the layout are not compressed."""
    about, layers = export_image(
        create_stream(*create_oci_layout((ONE, TWO), ONE, TWO)), cache, "one:two"
    )
    assert cache.read(about.digest) == create_config(ONE, TWO)
    assert [decompress(item, cache) for item in layers] == [ONE, TWO]


def test_compressed_layers_are_stored_unchanged(cache: Cache) -> None:
    """They keep their digests."""
    compressed = [gzip.compress(ONE, 9), gzip.compress(TWO, 1)]
    _, layers = export_image(
        create_stream(*create_oci_layout(compressed, ONE, TWO)), cache, "one:two"
    )
    assert [item.digest for item in layers] == [digest(data) for data in compressed]
    assert [decompress(item, cache) for item in layers] == [ONE, TWO]


@pytest.mark.parametrize("position", ["before", "after"])
def test_a_layer_may_be_a_link_to_another_layer(cache: Cache, position: str) -> None:
    """Old engines write a layer once, and may write the link first."""
    link: list[Member] = [("1/layer.tar", "../0/layer.tar")]
    real: list[Member] = [("0/layer.tar", ONE)]
    about = create_config(ONE, ONE)
    end: list[Member] = [
        ("c.json", about),
        ("manifest.json", create_list("c.json", "0/layer.tar", "1/layer.tar")),
    ]
    _, layers = export_image(
        create_stream(*(link + real if position == "before" else real + link), *end),
        cache,
        "one:two",
    )
    assert layers[0] == layers[1]
    assert decompress(layers[0], cache) == ONE


def test_the_members_may_have_any_order(cache: Cache) -> None:
    """The manifest.json may be the first member."""
    members = create_oci_layout((ONE, TWO), ONE, TWO)
    _, layers = export_image(create_stream(*reversed(members)), cache, "one:two")
    assert [decompress(item, cache) for item in layers] == [ONE, TWO]


def test_paths_are_normalized(cache: Cache) -> None:
    """A path may begin with a dot."""
    members: list[Member] = [
        ("./a/layer.tar", ONE),
        ("c.json", create_config(ONE)),
        ("manifest.json", create_list("c.json", "a//layer.tar")),
    ]
    _, layers = export_image(create_stream(*members), cache, "one:two")
    assert decompress(layers[0], cache) == ONE


@pytest.mark.parametrize("name", ["{arch}/page.js", "[id]/page.js"])
def test_a_small_layer_that_starts_like_json_is_a_layer(cache: Cache, name: str) -> None:
    """A layer begins with the name of its first file."""
    odd = create_layer(name)
    _, layers = export_image(create_stream(*create_old_form(ONE, odd)), cache, "one:two")
    assert [decompress(item, cache) for item in layers] == [ONE, odd]


def test_the_same_layer_gives_the_same_bytes_in_every_cache(cache: Cache, tmp_path: Path) -> None:
    """The compressed bytes do not depend on the time."""
    other = Cache(tmp_path / "other")
    about, layers = export_image(create_stream(*create_old_form(ONE, TWO)), cache, "x")
    assert export_image(create_stream(*create_old_form(ONE, TWO)), other, "x") == (about, layers)
    assert [cache.read(item.digest)[4:8] for item in layers] == [bytes(4), bytes(4)]


def test_a_layer_that_was_exported_before_is_not_compressed_again(cache: Cache) -> None:
    """It is recognized in other forms and images; a layer that is lost is compressed again."""
    _, before = export_image(create_stream(*create_old_form(ONE, TWO)), cache, "one:two")
    stamps = [cache.path(item.digest).stat().st_mtime_ns for item in before]
    three = create_layer("three")
    _, after = export_image(
        create_stream(*create_oci_layout((ONE, TWO, three), ONE, TWO, three)), cache, "one:two"
    )
    assert after[:2] == before
    assert [cache.path(item.digest).stat().st_mtime_ns for item in before] == stamps
    cache.drop(before[0].digest)
    _, again = export_image(create_stream(*create_old_form(ONE, TWO)), cache, "one:two")
    assert decompress(again[0], cache) == ONE


def test_a_compressed_layer_is_recognized_when_it_is_exported_uncompressed(cache: Cache) -> None:
    """Two engines must not give two layers of the same content."""
    compressed = gzip.compress(ONE, 9)
    export_image(create_stream(*create_oci_layout([compressed], ONE)), cache, "one:two")
    _, layers = export_image(create_stream(*create_old_form(ONE)), cache, "one:two")
    assert [item.digest for item in layers] == [digest(compressed)]


@pytest.mark.parametrize("form", ["compressed", "uncompressed"])
def test_a_layer_of_a_layout_that_was_exported_before_is_not_read_again(
    cache: Cache, form: str
) -> None:
    """Its name is its digest, so that its bytes need not be hashed; a lost layer is read again."""
    layers = [gzip.compress(data) if form == "compressed" else data for data in (ONE, TWO)]
    members = create_oci_layout(layers, ONE, TWO)
    before = export_image(create_stream(*members), cache, "one:two")
    names = {blob_path(data) for data in layers}
    unread = [(name, bytes(len(data)) if name in names else data) for name, data in members]
    assert export_image(create_stream(*unread), cache, "one:two") == before
    cache.drop(before[1][0].digest)
    assert export_image(create_stream(*members), cache, "one:two") == before
    assert decompress(before[1][0], cache) == ONE


def test_uncompressed_layers_are_removed(cache: Cache) -> None:
    """The cache has each layer once."""
    export_image(create_stream(*create_old_form(ONE, TWO)), cache, "one:two")
    assert not cache.path(digest(ONE)).exists()
    assert not cache.path(digest(TWO)).exists()
    assert not list(cache.temporary.iterdir())


def test_the_memory_of_an_export_does_not_depend_on_the_size(cache: Cache) -> None:
    """A layer of 40 MB takes a few megabytes."""
    size = 40 << 20
    block = bytes(1 << 20)
    content_hash = hashlib.sha256()
    for _ in range(size >> 20):
        content_hash.update(block)
    about = json.dumps(
        {
            **config(),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{content_hash.hexdigest()}"]},
        }
    ).encode()
    end = b"".join(
        create_stream(("c.json", about), ("manifest.json", create_list("c.json", "0/layer.tar")))
    )
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


def create_damaged_streams() -> dict[str, bytes]:
    """Return streams that are not in a form of `docker save`."""
    whole = b"".join(create_stream(*create_old_form(ONE, TWO)))
    broken = bytearray(gzip.compress(ONE))
    broken[-6] ^= 255
    return {
        "nothing": b"",
        "no tar": b"Error response from daemon: no such image" * 50,
        "cut in a layer": whole[:6000],
        "cut between members": whole[:1024],
        "no list": b"".join(create_stream(("0/layer.tar", ONE), ("c.json", create_config(ONE)))),
        "an empty list": b"".join(create_stream(("manifest.json", b"[]"))),
        "a list that is none": b"".join(create_stream(("manifest.json", b"{}"))),
        "a list of nothing": b"".join(create_stream(("manifest.json", b"[null]"))),
        "a list that is no JSON": b"".join(create_stream(("manifest.json", b"[{"))),
        "no config": b"".join(
            create_stream(
                ("0/layer.tar", ONE), ("manifest.json", create_list("c.json", "0/layer.tar"))
            )
        ),
        "a config of something else": b"".join(
            create_stream(
                ("0/layer.tar", ONE),
                ("c.json", b"{}"),
                ("manifest.json", create_list("c.json", "0/layer.tar")),
            )
        ),
        "a missing layer": b"".join(
            create_stream(
                ("c.json", create_config(ONE)),
                ("manifest.json", create_list("c.json", "0/layer.tar")),
            )
        ),
        "a link to nowhere": b"".join(
            create_stream(
                ("0/layer.tar", "../1/layer.tar"),
                ("c.json", create_config(ONE)),
                ("manifest.json", create_list("c.json", "0/layer.tar")),
            )
        ),
        "another layer": b"".join(
            create_stream(
                ("0/layer.tar", TWO),
                ("c.json", create_config(ONE)),
                ("manifest.json", create_list("c.json", "0/layer.tar")),
            )
        ),
        "layers in another order": b"".join(
            create_stream(
                ("a", ONE),
                ("b", TWO),
                ("c.json", create_config(ONE, TWO)),
                ("manifest.json", create_list("c.json", "b", "a")),
            )
        ),
        "a compressed layer cut short": b"".join(
            create_stream(*create_oci_layout([gzip.compress(TWO)[:-20]], TWO))
        ),
        "a compressed layer with a wrong sum": b"".join(
            create_stream(*create_oci_layout([bytes(broken)], ONE))
        ),
        "a compressed layer of nonsense": b"".join(
            create_stream(*create_oci_layout([b"\x1f\x8b\x08\x00" + bytes(6) + b"\xff" * 50], ONE))
        ),
        "a compressed layer that is none": b"".join(
            create_stream(*create_oci_layout([b"\x1f\x8bnonsense"], ONE))
        ),
    }


@pytest.mark.parametrize("kind", create_damaged_streams())
def test_a_damaged_stream_is_an_error(cache: Cache, kind: str) -> None:
    """The error has the name of the image, and the cache has no incomplete layer."""
    data = create_damaged_streams()[kind]
    with pytest.raises(EngineFailed) as caught:
        export_image(iter([data] if data else []), cache, "one:two")
    assert caught.value.on == "one:two"
    assert caught.value.exit_code == 75
    assert not list(cache.temporary.iterdir())


def test_a_valid_stream_is_exported_after_a_damaged_one(cache: Cache) -> None:
    """Records of the damaged stream are not used."""
    for data in create_damaged_streams().values():
        with pytest.raises(EngineFailed):
            export_image(iter([data]), cache, "one:two")
    _, layers = export_image(create_stream(*create_old_form(ONE, TWO)), cache, "one:two")
    assert [decompress(item, cache) for item in layers] == [ONE, TWO]


def test_the_error_of_an_engine_that_stops_is_raised(cache: Cache) -> None:
    """It is not replaced by another error."""

    def broken() -> Iterator[bytes]:
        yield from list(create_stream(*create_old_form(ONE, TWO)))[:3]
        raise EngineUnavailable(
            "the container engine stopped answering", on="one:two", next="run again"
        )

    with pytest.raises(EngineUnavailable):
        export_image(broken(), cache, "one:two")
    assert not list(cache.temporary.iterdir())
