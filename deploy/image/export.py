"""The way of an image out of an engine: the stream of `docker save`, stored as blobs in the cache.

Engines write that stream in one of two forms: the old one with one folder per layer, or the OCI
layout. Both have a manifest.json that names the config and the layers. A layer that was exported
before is recognized by its digest, compressed or not, where the stream names it, and is passed
over; in the old form it is recognized by its diff id, and not compressed again.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import posixpath
import re
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, cast

from deploy import progress
from deploy.cache import CHUNK, Cache
from deploy.errors import BlobCorrupt, EngineFailed
from deploy.image.manifest import CONFIG_TYPE, GZIP_LAYER_TYPE, MAX_JSON, parse_diff_ids
from deploy.records import Descriptor

_GZIP = b"\x1f\x8b"
_LEVEL = 3
_NOTES = "packed"
_DIFF_IDS = "diff-ids"
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_UNREADABLE = (
    tarfile.TarError,
    LookupError,
    ValueError,
    TypeError,
    gzip.BadGzipFile,
    EOFError,
    zlib.error,
    BlobCorrupt,
)


@dataclass
class _Contents:
    """The contents of the stream by path: JSON documents, and the diff ids of layers."""

    documents: dict[str, bytes] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)


def export_image(
    archive: Iterator[bytes], cache: Cache, on: str
) -> tuple[Descriptor, tuple[Descriptor, ...]]:
    """Store an image's config and layers in the cache.

    Args:
        archive: the stream of `docker save`.
        cache: gets the config and the layers.
        on: the image's name, for errors.

    Returns:
        The config, and the layers from the lowest up, compressed by gzip.

    Raises:
        EngineFailed: the stream is not in a form of `docker save`.
        DiskFull: the cache's file system has no space left.
    """
    with progress.track("exporting the app image") as advance:
        try:
            contents = _read_stream(archive, cache, advance)
            saved = json.loads(contents.documents["manifest.json"])[0]
            config = contents.documents[saved["Config"]]
            diff_ids = tuple(_find_layer(path, contents, cache) for path in saved["Layers"])
            expected = parse_diff_ids(config)
        except _UNREADABLE as error:
            raise EngineFailed(
                "the engine exported an image that cannot be read",
                on=on,
                next="run again; `invoke doctor` checks the engine",
            ) from error
    if diff_ids != expected:
        raise EngineFailed(
            "the engine exported other layers than the image's config lists",
            on=on,
            next="run again",
        )
    stored = Descriptor(media_type=CONFIG_TYPE, digest=cache.put(config), size=len(config))
    return stored, tuple(_read_note(diff_id, cache) for diff_id in diff_ids)


def _read_stream(
    archive: Iterator[bytes], cache: Cache, advance: Callable[[int], None]
) -> _Contents:
    """Read the stream once and store its layers in the cache."""
    contents = _Contents()
    links: dict[str, str] = {}
    stream = io.BufferedReader(_ChunkReader(archive, advance), CHUNK)
    with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as members:
        for member in members:
            name = posixpath.normpath(member.name)
            if member.issym():
                target = posixpath.join(posixpath.dirname(name), member.linkname)
                links[name] = posixpath.normpath(target)
            elif member.isreg() and (content := members.extractfile(member)) is not None:
                _read_member(name, member.size, content, contents, cache)
    layers = contents.layers
    layers.update({name: layers[target] for name, target in links.items() if target in layers})
    return contents


def _read_member(
    name: str, size: int, content: IO[bytes], contents: _Contents, cache: Cache
) -> None:
    known = _find_known(name, cache)
    if known:
        contents.layers[name] = known
        return
    start = content.read(2)
    if start[:1] in (b"{", b"[") and size <= MAX_JSON:
        contents.documents[name] = start + content.read()
    elif start:
        contents.layers[name] = _store_layer(start, content, cache)


def _find_known(name: str, cache: Cache) -> str:
    """Return the diff id of a layer of the OCI layout that the cache has; empty if there is none.

    Engines that store OCI content name a layer by the digest of its compressed bytes, others by
    its diff id.
    """
    blob = _BLOB.fullmatch(name)
    if not blob:
        return ""
    digest = f"sha256:{blob[1]}"
    found = (cache.read_note(_DIFF_IDS, digest) or "").strip(), digest
    return next((diff_id for diff_id in found if diff_id and _is_stored(diff_id, cache)), "")


def _find_layer(path: str, contents: _Contents, cache: Cache) -> str:
    """Return the diff id of the layer at a path."""
    name = posixpath.normpath(path)
    if name in contents.layers:
        return contents.layers[name]
    # The name of the first file in a layer may begin like JSON does.
    data = contents.documents[name]
    return _store_layer(data[:2], io.BytesIO(data[2:]), cache)


def _store_layer(start: bytes, content: IO[bytes], cache: Cache) -> str:
    """Store a layer in the cache, compressed, and return its diff id."""
    with cache.writer() as writer:
        writer.write(start)
        while chunk := content.read(CHUNK):
            writer.write(chunk)
        if start == _GZIP:
            return _note_compressed(writer.commit(), cache)
        if _is_stored(writer.digest, cache):
            return writer.digest
        digest = writer.commit()
    try:
        _compress(digest, cache)
    finally:
        cache.drop(digest)
    return digest


def _compress(digest: str, cache: Cache) -> None:
    with cache.open(digest) as source, cache.writer() as target:
        with gzip.GzipFile(
            filename="", mode="wb", compresslevel=_LEVEL, fileobj=cast("IO[bytes]", target), mtime=0
        ) as compressed:
            shutil.copyfileobj(source, compressed, CHUNK)
        _write_note(digest, target.commit(), target.size, cache)


def _note_compressed(digest: str, cache: Cache) -> str:
    """Record a layer that the engine compressed itself, and return its diff id."""
    with cache.open(digest) as source, gzip.open(source) as content:
        diff_id = f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
    _write_note(diff_id, digest, cache.path(digest).stat().st_size, cache)
    cache.write_note(_DIFF_IDS, digest, diff_id)
    return diff_id


def _write_note(diff_id: str, digest: str, size: int, cache: Cache) -> None:
    layer = Descriptor(media_type=GZIP_LAYER_TYPE, digest=digest, size=size)
    cache.write_note(_NOTES, diff_id, layer.to_json())


def _is_stored(diff_id: str, cache: Cache) -> bool:
    layer = Descriptor.from_cache(cache.read_note(_NOTES, diff_id))
    return layer is not None and cache.has(layer.digest, layer.size)


def _read_note(diff_id: str, cache: Cache) -> Descriptor:
    text = cache.read_note(_NOTES, diff_id)
    assert text is not None, "each layer has a note"  # noqa: S101 - an invariant of this module
    return Descriptor.from_json(text)


class _ChunkReader(io.RawIOBase):
    """A readable stream over an iterator of chunks; it counts the bytes."""

    def __init__(self, chunks: Iterator[bytes], advance: Callable[[int], None]) -> None:
        self._chunks = chunks
        self._advance = advance
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - any writable buffer
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._advance(len(chunk))
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
