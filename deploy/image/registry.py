"""What a registry keeps of a release: blobs sent at most once, and tags under which both streams are found again.

    <repository>@sha256:...          a release; nobody deploys a tag
    <repository>:release-<hex>       holds that manifest against clean-ups of untagged ones
    <repository>:app-<key>           the app image made from those inputs
    <repository>:model-<hex>         the layer made from that model

A manifest is put only when all its blobs are there, so a push killed anywhere leaves nothing that can be pulled.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO

from deploy import progress
from deploy.cache import CHUNK, Cache
from deploy.clients.oci.protocol import Registry
from deploy.errors import BlobCorrupt, RegistryError, RegistryNotFound, RegistryRefused
from deploy.image import join as image
from deploy.model import golden
from deploy.records import (
    AppImage,
    Commit,
    Descriptor,
    Image,
    Model,
    ModelLayer,
    Release,
    short_digest,
)

log = logging.getLogger(__name__)

_AT_ONCE = 3
_TAG_LENGTH = 32


def push(
    joined: Image,
    repository: str,
    registry: Registry,
    cache: Cache,
    *,
    mount: str,
    elsewhere: tuple[str, ...] = (),
) -> Release:
    """Makes an image one that the registry holds; sends only what it lacks.

    Args:
        joined: the image; its manifest and config are in the cache, and its layers there or in the registry.
        repository: the path below the registry's host.
        registry: where to.
        cache: the cache.
        mount: the folder that the model is put into.
        elsewhere: other repositories of this registry that may hold some of the blobs.

    Raises:
        RegistryError: as its kinds say.
        BlobCorrupt: a layer that the registry lacks is not in the cache either.
    """
    wanted = [
        (name, content)
        for name, content in _tagged(joined, mount, cache)
        if registry.get_manifest(repository, name) != content
    ]
    lacking = {
        item.digest: item
        for _, content in wanted
        for item in find_missing(content, repository, registry)
    }
    _send(tuple(lacking.values()), repository, registry, cache, elsewhere)
    for name, content in wanted:
        registry.put_manifest(repository, name, content)
    return Release(image=joined, repository=f"{registry.host}/{repository}")


def _tagged(joined: Image, mount: str, cache: Cache) -> tuple[tuple[str, bytes], ...]:
    """The manifests that are kept of an image, each under the tag by which it is found again."""
    model = image.create_model_image(joined.layer, mount, cache)
    return (
        (app_tag(joined.app.key), cache.read(joined.app.manifest.digest)),
        (model_tag(joined.layer.model), cache.read(model.digest)),
        (
            f"release-{joined.digest.removeprefix('sha256:')[:_TAG_LENGTH]}",
            cache.read(joined.digest),
        ),
    )


def find_missing(manifest: bytes, repository: str, registry: Registry) -> tuple[Descriptor, ...]:
    """The blobs of a manifest that the repository lacks."""
    config, layers, _ = image.parse_manifest(manifest)
    unique = tuple({item.digest: item for item in (*layers, config)}.values())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        there = list(pool.map(lambda item: registry.has_blob(repository, item.digest), unique))
    return tuple(item for item, found in zip(unique, there, strict=True) if not found)


def _send(
    lacking: tuple[Descriptor, ...],
    repository: str,
    registry: Registry,
    cache: Cache,
    elsewhere: tuple[str, ...],
) -> None:
    left = [
        item
        for item in lacking
        if not any(registry.mount(repository, item.digest, source) for source in elsewhere)
    ]
    total = sum(item.size for item in left)
    if not left:
        return
    with progress.track("pushing", total) as advance, ThreadPoolExecutor(_AT_ONCE) as pool:

        def send(item: Descriptor) -> None:
            if not cache.has(item.digest, item.size):
                raise BlobCorrupt(
                    "neither the registry nor the cache holds a layer",
                    on=item.digest,
                    next="run `invoke release`, which makes it anew",
                )
            try:
                registry.upload(
                    repository, item.digest, item.size, lambda: cache.open(item.digest), advance
                )
            except RegistryRefused:
                _drop_if_damaged(item, cache)
                raise

        list(pool.map(send, left))
    log.info(
        "push   %s in %s that the registry lacked",
        progress.format_size(total),
        progress.format_count(len(left), "blob"),
    )


def _drop_if_damaged(item: Descriptor, cache: Cache) -> None:
    """Looks whether a refused layer is damaged here: kept, it would be refused again and again."""
    seen = hashlib.sha256()
    with cache.open(item.digest) as file:
        while chunk := file.read(CHUNK):
            seen.update(chunk)
    actual = f"sha256:{seen.hexdigest()}"
    if actual != item.digest:
        cache.drop(item.digest)
        raise BlobCorrupt(
            "a cached layer has other bytes than its name says; it was dropped",
            on=item.digest,
            next="run `invoke release`, which makes it anew",
            detail=f"  actual {actual}",
        )


def app_tag(key: str) -> str:
    """The tag of the app image made from the inputs of that key."""
    return f"app-{key}"


def model_tag(model: Model) -> str:
    """The tag of a model's layer."""
    return f"model-{model.digest.removeprefix('sha256:')[:_TAG_LENGTH]}"


def find_app(
    name: str, key: str, repository: str, registry: Registry, cache: Cache
) -> AppImage | None:
    """The app image made from the inputs of that key, on whatever machine; its JSON is brought into the cache."""
    manifest = registry.get_manifest(repository, app_tag(key))
    if manifest is None:
        return None
    config, _, annotations = image.parse_manifest(manifest)
    if annotations.get(image.KEY) != key:
        return None
    fetch_blob(config, repository, registry, cache)
    full = annotations.get(image.REVISION, "")
    commit = Commit(revision=full.removesuffix("-dirty"), dirty=full.endswith("-dirty"))
    described = Descriptor(
        media_type=image.MANIFEST_TYPE, digest=cache.put(manifest), size=len(manifest)
    )
    return AppImage(name=name, key=key, commit=commit, manifest=described)


def find_layer(model: Model, mount: str, repository: str, registry: Registry) -> ModelLayer | None:
    """The layer of a model, if the registry holds it; its bytes stay there."""
    manifest = registry.get_manifest(repository, model_tag(model))
    if manifest is None:
        return None
    _, layers, annotations = image.parse_manifest(manifest)
    if (
        not layers
        or annotations.get(f"{image.MODEL}.digest") != model.digest
        or annotations.get(image.MOUNT) != mount
    ):
        return None
    return ModelLayer(model=model, digest=layers[0].digest, size=layers[0].size)


def has_release(release: Release, registry: Registry) -> bool:
    """Whether the registry still has the release's manifest."""
    return registry.get_manifest(_path(release), release.image.digest) is not None


def pull_size(release: Release, registry: Registry, cache: Cache) -> int:
    """The bytes that a node pulls at most for a release; its model's alone where the registry cannot tell, or does not answer."""
    digest = release.image.digest
    try:
        cached = cache.has(digest, release.image.manifest.size)
        manifest = cache.read(digest) if cached else registry.get_manifest(_path(release), digest)
        layers = image.parse_manifest(manifest)[1] if manifest else ()
    except RegistryError as error:
        # Taking a release back must not need the registry: its image may be on the nodes still.
        log.info("the size of %s is taken to be its model's: %s", short_digest(digest), error.what)
        layers = ()
    return sum(item.size for item in layers) or release.image.layer.size


def copy(
    release: Release,
    source: Registry,
    repository: str,
    registry: Registry,
    cache: Cache,
    *,
    mount: str,
) -> Release:
    """Makes a release one that another repository or registry holds, byte for byte; what is there already is not sent again.

    Args:
        release: what another environment's registry holds.
        source: that registry.
        repository: where to, below the other registry's host.
        registry: where to.
        cache: the cache; what has to go from registry to registry passes through it.
        mount: the folder that the model is put into.

    Raises:
        RegistryNotFound: the source does not have the release any more.
        RegistryError, BlobCorrupt: as their kinds say.
    """
    path = _path(release)
    joined = release.image
    manifest = source.get_manifest(path, joined.digest)
    if manifest is None:
        raise RegistryNotFound(
            "the release to promote is no longer in its registry",
            on=release.reference,
            next="release that commit again",
        )
    if release.repository == f"{registry.host}/{repository}":
        return release
    cache.put(manifest)
    fetch_app(joined.app, path, source, cache)
    fetch_blob(image.parse_manifest(manifest)[0], path, source, cache)
    beside = (path,) if source.host == registry.host else ()
    for item in find_missing(manifest, repository, registry):
        if not any(registry.mount(repository, item.digest, other) for other in beside):
            fetch_blob(item, path, source, cache)
    return push(joined, repository, registry, cache, mount=mount, elsewhere=beside)


def fetch_app(app: AppImage, repository: str, registry: Registry, cache: Cache) -> None:
    """Brings an app image's manifest and config into the cache, for a join.

    Raises:
        BlobCorrupt: neither place has them.
    """
    if not cache.has(app.manifest.digest, app.manifest.size):
        manifest = registry.get_manifest(repository, app.manifest.digest)
        if manifest is None:
            raise BlobCorrupt(
                "neither the registry nor the cache holds the app image",
                on=app.manifest.digest,
                next="release that commit again",
            )
        cache.put(manifest)
    config, _, _ = image.parse_manifest(cache.read(app.manifest.digest))
    fetch_blob(config, repository, registry, cache)


def fetch_blob(item: Descriptor, repository: str, registry: Registry, cache: Cache) -> None:
    """Brings a blob into the cache, checked.

    Raises:
        BlobCorrupt: the registry's bytes are not those.
        RegistryNotFound: it does not have them.
    """
    if cache.has(item.digest, item.size):
        return
    with (
        registry.download(repository, item.digest) as source,
        cache.writer() as writer,
        progress.track("pulling", item.size) as advance,
    ):
        while writer.size <= item.size and (chunk := source.read(CHUNK)):
            advance(writer.write(chunk))
        if writer.digest != item.digest:
            raise BlobCorrupt(
                "the registry answered with other bytes than were asked for",
                on=f"{registry.host}/{repository}",
                next="the registry's storage is damaged or it lies; push the release again, or use another registry",
                detail=f"  expected {item.digest}\n  actual   {writer.digest}",
            )
        writer.commit()


def read_golden_set(
    model: ModelLayer, repository: str, registry: Registry, cache: Cache
) -> golden.GoldenSet:
    """A model's golden cases, from the cache or from the head of its layer in the registry."""
    with _opened(model, repository, registry, cache) as stream:
        return golden.read_golden_set(model.model, stream)


@contextmanager
def _opened(
    model: ModelLayer, repository: str, registry: Registry, cache: Cache
) -> Iterator[IO[bytes]]:
    here = cache.has(model.digest, model.size)
    stream = cache.open(model.digest) if here else registry.download(repository, model.digest)
    try:
        yield stream
    finally:
        stream.close()


def _path(release: Release) -> str:
    return release.repository.partition("/")[2]
