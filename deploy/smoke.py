"""Trying an image before anybody depends on it: exactly the joined image runs, and must answer its golden cases."""

from __future__ import annotations

import json
import logging
import tarfile
import time
from collections.abc import Callable, Iterator

from deploy import golden, image, progress
from deploy.blobs import CHUNK, Blobs
from deploy.clients.engine import Engine
from deploy.clients.trial import Trial, Trials
from deploy.entrance import Entrance
from deploy.errors import EngineFailed, SmokeFailed
from deploy.manifest import Expect, Golden, Request
from deploy.records import Descriptor, Image, Verdict

log = logging.getLogger(__name__)

_POLL = 0.05


def load(joined: Image, engine: Engine, blobs: Blobs, bring: Callable[[Descriptor], None]) -> int:
    """Makes the engine hold an image, giving it only the layers that it lacks.

    Args:
        joined: the image; its manifest and config are in the cache.
        engine: where to.
        blobs: the cache.
        bring: fetches a layer that is not in the cache.

    Returns:
        The bytes of the layers that were sent.

    Raises:
        EngineFailed: the engine does not take the image.
    """
    if engine.diff_ids(joined.config) is not None:
        return 0
    config = blobs.read(joined.config)
    ids = image.diff_ids(config)
    _, layers, _ = image.parts(blobs.read(joined.digest))
    held = max((_shared(ids, chain) for chain in engine.chains()), default=0)
    try:
        return _load(config, ids, layers, held, engine, blobs, bring, joined)
    except EngineFailed:
        # An engine that stores images as OCI content cannot take an archive with layers left out.
        if held == 0:
            raise
        return _load(config, ids, layers, 0, engine, blobs, bring, joined)


def _load(
    config: bytes,
    ids: tuple[str, ...],
    layers: tuple[Descriptor, ...],
    held: int,
    engine: Engine,
    blobs: Blobs,
    bring: Callable[[Descriptor], None],
    joined: Image,
) -> int:
    sent = layers[held:]
    for item in sent:
        bring(item)
    total = sum(item.size for item in sent)
    with progress.track("loading into the engine", total) as advance:
        engine.load(_archive(config, ids, dict(zip(ids[held:], sent, strict=True)), blobs, joined, advance))
    if engine.diff_ids(joined.config) is None:
        raise EngineFailed(
            "the engine took the image under another identity", on=joined.config, next="run again; `invoke doctor` checks the engine"
        )
    return total


def _archive(
    config: bytes, ids: tuple[str, ...], sent: dict[str, Descriptor], blobs: Blobs, joined: Image, advance: Callable[[int], None]
) -> Iterator[bytes]:
    """The tar of `docker load`, without the layers that the engine holds already: it finds those by their chain of ids."""
    names = {diff_id: f"{diff_id.removeprefix('sha256:')}.tar" for diff_id in ids}
    config_name = f"{joined.config.removeprefix('sha256:')}.json"
    tag = f"twinship/{joined.app.name}:{joined.digest.removeprefix('sha256:')[:12]}"
    listed = json.dumps([{"Config": config_name, "RepoTags": [tag], "Layers": [names[diff_id] for diff_id in ids]}]).encode()
    for name, data in ((config_name, config), ("manifest.json", listed)):
        yield _header(name, len(data)) + data + bytes(-len(data) % 512)
    for diff_id, item in sent.items():
        yield _header(names[diff_id], item.size)
        with blobs.open(item.digest) as file:
            while chunk := file.read(CHUNK):
                advance(len(chunk))
                yield chunk
        yield bytes(-item.size % 512)
    yield bytes(tarfile.RECORDSIZE)


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
    joined: Image, proof: golden.Proof, trials: Trials, *, port: int, ready: str, within: float, play: golden.Play = golden.play
) -> Verdict:
    """Runs an image that the engine holds and plays its golden cases.

    Args:
        joined: the image.
        proof: the golden cases of its model.
        trials: how a container is run.
        port: where the application listens.
        ready: the path that answers 200 once it can serve.
        within: seconds until then.
        play: asks the container.

    Raises:
        SmokeFailed: it ended, was not ready in time, or answered otherwise than promised; the log's end is in the detail.
    """
    with trials(joined.config, port) as running:
        _wait(running, ready, within, play, on=str(joined.layer.model))
        verdict = play(proof, Entrance(running.url))
        if not verdict.passed:
            raise SmokeFailed(
                f"the image missed {len(verdict.misses)} of {len(verdict.cases)} golden cases",
                on=f"{joined.app.name} {joined.app.commit} with {joined.layer.model}",
                next="nothing was pushed; mend the code or the model, or the golden cases if they promise too much",
                detail=_shown(verdict, running.log()),
            )
    return verdict


def _wait(running: Trial, ready: str, within: float, play: golden.Play, on: str) -> None:
    asked = golden.Proof((Golden(name="ready", request=Request(path=ready), expect=Expect()),), {})
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if play(asked, Entrance(running.url)).passed:
            return
        if not running.alive():
            raise SmokeFailed(
                "the container ended before it was ready",
                on=on,
                next="nothing was pushed; the log shows why",
                detail=_indented(running.log()),
            )
        progress.note(f"waiting for {ready}")
        time.sleep(_POLL)
    raise SmokeFailed(
        f"the container was not ready within {progress.seconds(within)}",
        on=on,
        next="nothing was pushed; see the log",
        detail=_indented(running.log()),
    )


def _shown(verdict: Verdict, log_end: str) -> str:
    misses = "\n".join(f"  {case.name}: {case.problem}" for case in verdict.misses)
    return f"{misses}\n  the container's log ends with:\n{_indented(log_end)}"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines()) or "    (nothing)"
