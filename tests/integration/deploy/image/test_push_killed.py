"""A push that is killed in the middle of a large layer leaves nothing that can be pulled, and the next one finishes."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.cache import Cache
from deploy.clients.oci.client import HttpRegistry
from deploy.image import join as image
from deploy.image import registry
from deploy.records import Image, ModelLayer
from tests.fakes import halves

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[4]
MEBIBYTES = 200
PUSH = r"""
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

from deploy import progress
from deploy.image import registry
from deploy.cache import Cache
from deploy.clients.oci.client import HttpRegistry
from deploy.records import Image

class Display(progress.Quiet):
    @contextmanager
    def track(self, label, total):
        done = 0
        def advance(count):
            nonlocal done
            done += count
            if done > int(moment):
                os.write(1, f"{done}\n".encode())
                os.kill(os.getpid(), signal.SIGSTOP)
        yield advance

root, host, repository, joined, moment = sys.argv[1:]
with progress.use_display(Display()):
    registry.push(Image.from_json(joined), repository, HttpRegistry(host), Cache(Path(root)), mount="/model")
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """A cache."""
    return Cache(tmp_path_factory.mktemp("killed"))


@pytest.fixture(scope="module")
def joined(cache: Cache) -> Image:
    """An image with a large model."""
    block = hashlib.shake_256(b"weights").digest(1 << 20)
    with cache.writer() as writer:
        for number in range(MEBIBYTES):
            writer.write(number.to_bytes(8, "big") + block[8:])
        kept = writer.commit()
    model = ModelLayer(model=halves.model(cache).model, digest=kept, size=writer.size)
    return image.join(halves.app(cache), model, halves.MOUNT, cache)


@pytest.mark.parametrize("moment", [10, 100, 190])
def test_a_push_that_is_killed_leaves_no_manifest_and_the_next_finishes(
    registry_host: str, cache: Cache, joined: Image, moment: int
) -> None:
    """Whenever it was killed: at the first part of the layer, between parts, or at the last."""
    repository = f"test/{secrets.token_hex(8)}"
    words = [str(cache.root), registry_host, repository, joined.to_json(), str(moment << 20)]
    with subprocess.Popen(
        [sys.executable, "-c", PUSH, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            reached = process.stdout.readline()
        finally:
            process.kill()
    assert int(reached) < MEBIBYTES << 20
    remote = HttpRegistry(registry_host)
    tags = (registry.app_tag(joined.app.key), registry.model_tag(joined.layer.model), joined.digest)
    assert [remote.manifest(repository, tag) for tag in tags] == [None, None, None]
    assert not remote.has(repository, joined.layer.digest)

    registry.push(joined, repository, remote, cache, mount=halves.MOUNT)
    assert remote.manifest(repository, joined.digest) == cache.read(joined.digest)
    with remote.blob(repository, joined.layer.digest) as stored:
        seen = hashlib.sha256()
        while chunk := stored.read(1 << 20):
            seen.update(chunk)
    assert f"sha256:{seen.hexdigest()}" == joined.layer.digest
