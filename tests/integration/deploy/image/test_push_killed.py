"""A push that is killed: nothing can be pulled, and the next push completes it."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.cache import Cache
from deploy.clients.oci.client import HttpRegistry
from deploy.image import tags
from deploy.image.join import join_image
from deploy.image.push import push_image
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
from deploy.image.push import push_image
from deploy.cache import Cache
from deploy.clients.oci.client import HttpRegistry
from deploy.records import Image

class Display(progress.QuietDisplay):
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
    image = Image.from_json(joined)
    cache = Cache(Path(root))
    push_image(image, repository, HttpRegistry(host), cache, mount_path="/model")
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Return a cache."""
    return Cache(tmp_path_factory.mktemp("killed"))


@pytest.fixture(scope="module")
def joined(cache: Cache) -> Image:
    """Return an image with a large model."""
    block = hashlib.shake_256(b"weights").digest(1 << 20)
    with cache.writer() as writer:
        for number in range(MEBIBYTES):
            writer.write(number.to_bytes(8, "big") + block[8:])
        stored = writer.commit()
    model = ModelLayer(model=halves.model(cache).model, digest=stored, size=writer.size)
    return join_image(halves.app(cache), model, halves.MOUNT, cache)


@pytest.mark.parametrize("moment", [10, 100, 190])
def test_a_push_that_is_killed_leaves_no_manifest_and_the_next_completes_it(
    registry_host: str, cache: Cache, joined: Image, moment: int
) -> None:
    """It is killed at the first chunk of the layer, in the middle, or at the last one."""
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
    names = (tags.app_tag(joined.app.key), tags.model_tag(joined.layer.model), joined.digest)
    assert [remote.get_manifest(repository, name) for name in names] == [None, None, None]
    assert not remote.has_blob(repository, joined.layer.digest)

    push_image(joined, repository, remote, cache, mount_path=halves.MOUNT)
    assert remote.get_manifest(repository, joined.digest) == cache.read(joined.digest)
    with remote.download(repository, joined.layer.digest) as stored:
        content_hash = hashlib.sha256()
        while chunk := stored.read(1 << 20):
            content_hash.update(chunk)
    assert f"sha256:{content_hash.hexdigest()}" == joined.layer.digest
