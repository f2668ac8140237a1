"""Taking an image out of an engine: the stream of `docker save`, turned into OCI blobs in the cache.

Engines write that stream in two shapes, the old one with a folder a layer and the OCI layout; both hold a manifest.json
that names config and layers. A layer that was exported before is recognised by its diff id and not compressed again.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import posixpath
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

from deploy import progress
from deploy.cache import CHUNK, Cache
from deploy.errors import EngineFailed
from deploy.image.join import CONFIG_TYPE, GZIP_LAYER_TYPE, diff_ids
from deploy.records import Descriptor

_GZIP = b"\x1f\x8b"
_LEVEL = 3
_MAX_JSON = 4 << 20


def export_image(
    archive: Iterator[bytes], cache: Cache, on: str
) -> tuple[Descriptor, tuple[Descriptor, ...]]:
    """Keeps an image's config and layers in the cache.

    Args:
        archive: what the engine streams.
        cache: the cache.
        on: the image's name, for errors.

    Returns:
        The config, and the layers from the lowest up, gzip-compressed.

    Raises:
        EngineFailed: the stream is not what `docker save` writes.
        DiskFull: the cache has no room.
    """
    documents: dict[str, bytes] = {}
    layers: dict[str, str] = {}
    with progress.track("exporting the app image") as advance:
        try:
            _scan(archive, cache, documents, layers, advance)
            listed = json.loads(documents["manifest.json"])[0]
            config = documents[listed["Config"]]
            ids = [
                _found(posixpath.normpath(path), layers, documents, cache)
                for path in listed["Layers"]
            ]
            promised = diff_ids(config)
        except (
            tarfile.TarError,
            LookupError,
            ValueError,
            TypeError,
            gzip.BadGzipFile,
            EOFError,
            zlib.error,
        ) as error:
            raise EngineFailed(
                "the engine exported an image that cannot be read",
                on=on,
                next="run again; `invoke doctor` checks the engine",
            ) from error
    if tuple(ids) != promised:
        raise EngineFailed(
            "the engine exported other layers than the image's config names",
            on=on,
            next="run again",
        )
    described = Descriptor(media_type=CONFIG_TYPE, digest=cache.put(config), size=len(config))
    return described, tuple(_noted(digest, cache) for digest in ids)


def _scan(
    archive: Iterator[bytes],
    cache: Cache,
    documents: dict[str, bytes],
    layers: dict[str, str],
    advance: Callable[[int], None],
) -> None:
    """Reads the stream once; fills in the JSON documents by path, and the layers' diff ids by path."""
    links: dict[str, str] = {}
    stream = io.BufferedReader(_Joined(archive, advance), CHUNK)
    with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as members:
        for member in members:
            name = posixpath.normpath(member.name)
            if member.issym():
                links[name] = posixpath.normpath(
                    posixpath.join(posixpath.dirname(name), member.linkname)
                )
            content = members.extractfile(member) if member.isreg() else None
            if content is None:
                continue
            start = content.read(2)
            if start[:1] in (b"{", b"[") and member.size <= _MAX_JSON:
                documents[name] = start + content.read()
            elif member.size > 2 or start:
                layers[name] = _layer(start, content, cache)
    layers.update({name: layers[target] for name, target in links.items() if target in layers})


def _found(path: str, layers: dict[str, str], documents: dict[str, bytes], cache: Cache) -> str:
    """The diff id of the layer at a path; a small layer whose first file is named like the start of JSON was taken for a document."""
    return (
        layers[path]
        if path in layers
        else _layer(documents[path][:2], io.BytesIO(documents[path][2:]), cache)
    )


def _layer(start: bytes, content: IO[bytes], cache: Cache) -> str:
    """Keeps one layer, compressed; returns its diff id."""
    with cache.writer() as raw:
        raw.write(start)
        while chunk := content.read(CHUNK):
            raw.write(chunk)
        if start == _GZIP:
            return _unpacked(raw.commit(), cache)
        if _known(raw.digest, cache):
            return raw.digest
        digest = raw.commit()
    try:
        _compress(digest, cache)
    finally:
        cache.drop(digest)
    return digest


def _compress(digest: str, cache: Cache) -> None:
    with cache.open(digest) as source, cache.writer() as target:
        with gzip.GzipFile(
            filename="", mode="wb", compresslevel=_LEVEL, fileobj=cast("IO[bytes]", target), mtime=0
        ) as packed:
            shutil.copyfileobj(source, packed, CHUNK)
        _note(digest, target.commit(), target.size, cache)


def _unpacked(digest: str, cache: Cache) -> str:
    """The diff id of a layer that came compressed, and is kept as it came."""
    seen = hashlib.sha256()
    with cache.open(digest) as source, gzip.open(source) as content:
        while chunk := content.read(CHUNK):
            seen.update(chunk)
    diff_id = f"sha256:{seen.hexdigest()}"
    _note(diff_id, digest, cache.path(digest).stat().st_size, cache)
    return diff_id


def _note(diff_id: str, digest: str, size: int, cache: Cache) -> None:
    cache.write_note(
        "packed",
        diff_id,
        Descriptor(media_type=GZIP_LAYER_TYPE, digest=digest, size=size).to_json(),
    )


def _known(diff_id: str, cache: Cache) -> bool:
    found = Descriptor.from_cache(cache.read_note("packed", diff_id))
    return found is not None and cache.has(found.digest, found.size)


def _noted(diff_id: str, cache: Cache) -> Descriptor:
    text = cache.read_note("packed", diff_id)
    assert text is not None, "every layer of the stream was noted when it was read"  # noqa: S101 - an invariant of this module
    return Descriptor.from_json(text)


class _Joined(io.RawIOBase):
    """An iterator of chunks as a readable stream."""

    def __init__(self, chunks: Iterator[bytes], advance: Callable[[int], None]) -> None:
        self._chunks = chunks
        self._advance = advance
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - any writable buffer
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._advance(len(chunk))
            self._left = memoryview(chunk)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count
