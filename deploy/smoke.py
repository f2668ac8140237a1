"""Trying an image before anybody depends on it: exactly the joined image runs, and must answer its golden cases."""

from __future__ import annotations

import json
import logging
import tarfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from deploy import progress
from deploy.cache import CHUNK, Cache
from deploy.clients.docker.container import StartContainer, ThrowawayContainer
from deploy.clients.docker.protocol import Engine, find_image_id
from deploy.clients.http import Endpoint
from deploy.errors import EngineFailed, SmokeFailed
from deploy.image import join as image
from deploy.model import golden
from deploy.model.manifest import ExpectedResponse, GoldenCase, GoldenRequest
from deploy.records import Descriptor, Image, Verdict

log = logging.getLogger(__name__)

_POLL = 0.05


class LoadedImage(NamedTuple):
    """An image on an engine: the id by which that holds it, and the bytes of the layers that were sent for it."""

    id: str
    sent: int


def load(
    joined: Image, engine: Engine, cache: Cache, bring: Callable[[Descriptor], None]
) -> LoadedImage:
    """Makes the engine hold an image, giving it only the layers that it lacks.

    Args:
        joined: the image; its manifest and config are in the cache.
        engine: where to.
        cache: the cache.
        bring: fetches a layer that is not in the cache.

    Raises:
        EngineFailed: the engine does not take the image.
    """
    if found := find_image_id(engine, joined):
        return LoadedImage(found, 0)
    ids = image.diff_ids(cache.read(joined.config))
    _, layers, _ = image.parse_manifest(cache.read(joined.digest))
    shared = max((_shared(ids, chain) for chain in engine.layer_chains()), default=0)
    try:
        loaded = _load(layers, shared, engine, cache, bring, joined)
    except EngineFailed:
        if shared == 0:
            raise
    else:
        # An engine that keeps images as OCI content lists whole ones only: it may hold a layer that was packed in another way.
        if shared == 0 or loaded.id == joined.config or ids in engine.layer_chains():
            return loaded
    return _load(layers, 0, engine, cache, bring, joined)


def _load(
    layers: tuple[Descriptor, ...],
    shared: int,
    engine: Engine,
    cache: Cache,
    bring: Callable[[Descriptor], None],
    joined: Image,
) -> LoadedImage:
    sent = layers[shared:]
    for item in sent:
        bring(item)
    total = sum(item.size for item in sent)
    with progress.track("loading into the engine", total) as advance:
        engine.load(_archive(layers, sent, cache, joined, advance))
    found = find_image_id(engine, joined)
    if found is None:
        raise EngineFailed(
            "the engine took the image under another identity",
            on=joined.digest,
            next="run again; `invoke doctor` checks the engine",
        )
    return LoadedImage(found, total)


def _archive(
    layers: tuple[Descriptor, ...],
    sent: tuple[Descriptor, ...],
    cache: Cache,
    joined: Image,
    advance: Callable[[int], None],
) -> Iterator[bytes]:
    """A tar for `docker load`, without the layers that the engine holds already: it finds those by their chain of ids.

    It is an OCI layout, for engines that keep images as OCI content, and `docker save`'s own form, for all others.
    Sources: OCI image spec 1.1, image-layout.md; Docker image spec 1.2.
    """
    for name, data in _documents(layers, cache, joined).items():
        yield _header(name, len(data)) + data + bytes(-len(data) % 512)
    for item in {item.digest: item for item in sent}.values():
        yield _header(_path(item.digest), item.size)
        with cache.open(item.digest) as file:
            while chunk := file.read(CHUNK):
                advance(len(chunk))
                yield chunk
        yield bytes(-item.size % 512)
    yield bytes(tarfile.RECORDSIZE)


def _documents(layers: tuple[Descriptor, ...], cache: Cache, joined: Image) -> dict[str, bytes]:
    """What describes an image, in both forms, by its path in the tar."""
    tag = f"twinship/{joined.app.name}:{joined.digest.removeprefix('sha256:')[:12]}"
    named = {
        "io.containerd.image.name": f"docker.io/{tag}",
        "org.opencontainers.image.ref.name": tag.rpartition(":")[2],
    }
    manifest = {
        "mediaType": image.MANIFEST_TYPE,
        "digest": joined.digest,
        "size": joined.manifest.size,
        "annotations": named,
    }
    saved = {
        "Config": _path(joined.config),
        "RepoTags": [tag],
        "Layers": [_path(item.digest) for item in layers],
    }
    return {
        "oci-layout": json.dumps({"imageLayoutVersion": "1.0.0"}).encode(),
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode(),
        "manifest.json": json.dumps([saved]).encode(),
        _path(joined.digest): cache.read(joined.digest),
        _path(joined.config): cache.read(joined.config),
    }


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.PAX_FORMAT)


def _shared(ids: tuple[str, ...], chain: tuple[str, ...]) -> int:
    """How many layers, from the lowest up, two images have in common."""
    count = 0
    for left, right in zip(ids, chain, strict=False):
        if left != right:
            break
        count += 1
    return count


def check(
    joined: Image,
    held_as: str,
    proof: golden.GoldenSet,
    trials: StartContainer,
    *,
    port: int,
    ready: str,
    within: float,
    play: golden.Play = golden.play,
) -> Verdict:
    """Runs an image that the engine holds and plays its golden cases.

    Args:
        joined: the image.
        held_as: its id on the engine.
        proof: the golden cases of its model.
        trials: how a container is run.
        port: where the application listens.
        ready: the path that answers 200 once it can serve.
        within: seconds until then.
        play: asks the container.

    Raises:
        SmokeFailed: it ended, was not ready in time, or answered otherwise than promised; the log's end is in the detail.
    """
    with trials(held_as, port) as running:
        _wait(running, ready, within, play, on=str(joined.layer.model))
        verdict = play(proof, Endpoint(running.url))
        if not verdict.passed:
            raise SmokeFailed(
                f"the image missed {len(verdict.misses)} of {len(verdict.cases)} golden cases",
                on=f"{joined.app.name} {joined.app.commit} with {joined.layer.model}",
                next="nothing was pushed; mend the code or the model, or the golden cases if they promise too much",
                detail=_shown(verdict, running.read_log()),
            )
    return verdict


def _wait(
    running: ThrowawayContainer, ready: str, within: float, play: golden.Play, on: str
) -> None:
    asked = golden.GoldenSet(
        (GoldenCase(name="ready", request=GoldenRequest(path=ready), expect=ExpectedResponse()),),
        {},
    )
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if play(asked, Endpoint(running.url)).passed:
            return
        if not running.is_running():
            raise SmokeFailed(
                "the container ended before it was ready",
                on=on,
                next="nothing was pushed; the log shows why",
                detail=_indented(running.read_log()),
            )
        progress.report(f"waiting for {ready}")
        time.sleep(_POLL)
    raise SmokeFailed(
        f"the container was not ready within {progress.format_seconds(within)}",
        on=on,
        next="nothing was pushed; see the log",
        detail=_indented(running.read_log()),
    )


def _shown(verdict: Verdict, log_end: str) -> str:
    misses = "\n".join(f"  {case.name}: {case.problem}" for case in verdict.misses)
    return f"{misses}\n  the container's log ends with:\n{_indented(log_end)}"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines()) or "    (nothing)"
