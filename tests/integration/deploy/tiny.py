"""A tiny application and its models for a real engine: a few lines of Perl, which Debian has."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, cast

from deploy.archive import pack_files
from deploy.cache import Cache
from deploy.clients.docker.client import DockerEngine
from deploy.clients.docker.protocol import Spec
from deploy.image import layer
from deploy.image.build import create_app_image
from deploy.image.export import export_image
from deploy.records import AppImage, Commit, Model, ModelLayer
from tests.fakes.halves import digest

LABEL = "dev.twinship.test"
PORT = 8080
MOUNT = "/model"

DOCKERFILE = """ARG BASE
FROM $BASE
COPY below /srv/below
ENV GREETING=hello
USER 10001:10001
WORKDIR /srv
LABEL twinship.model=here
COPY serve.pl /srv/serve.pl
CMD ["perl", "serve.pl"]
"""

SERVER = r"""# {stamp}
use strict; use IO::Socket::INET; $| = 1;
open(my $file, '<', '/model/mode') or die "no model\n";
my $mode = <$file>;
print "serving in mode $mode, as $ENV{{TWINSHIP_MODEL_NAME}} $ENV{{TWINSHIP_MODEL_VERSION}}\n";
die "these weights are broken\n" if $mode eq 'crash';
exit 0 if $mode eq 'once';
my $server = IO::Socket::INET->new(LocalPort => 8080, Listen => 16, ReuseAddr => 1) or die $!;
while (my $client = $server->accept) {{
    my ($method, $path) = split / /, <$client>;
    while (my $line = <$client>) {{ last if $line =~ /^\r?$/ }}
    my $status = $path eq '/readyz' && $mode eq 'never' ? '503 Service Unavailable' : '200 OK';
    my $body = $mode eq 'wrong' ? '{{"animal": "dog"}}' : '{{"animal": "cat"}}';
    my $length = length $body;
    print $client "HTTP/1.1 $status\r\nContent-Length: $length\r\nConnection: close\r\n\r\n$body";
    close $client;
}}
"""


class ImageBuilder(Protocol):
    """A function that builds a context into an image with a tag."""

    def __call__(
        self,
        context: IO[bytes],
        *,
        dockerfile: str,
        args: dict[str, str],
        tag: str,
        on_line: Callable[[str], None],
    ) -> object: ...


@dataclass
class TinyApplication:
    """A maker of such applications under a name of its own, so that all of them can be removed.

    Args:
        engine: builds and runs images.
        base: the image to build from.
        cache: gets the layers.
    """

    engine: DockerEngine
    base: str
    cache: Cache
    name: str = field(default_factory=lambda: f"test-{secrets.token_hex(6)}")

    def app(self, builder: ImageBuilder | None = None, stamp: str = "first") -> AppImage:
        """Build and export the application; another stamp is other code."""
        tag = f"twinship/{self.name}:app-{secrets.token_hex(4)}"
        with _pack(
            {
                "Dockerfile": DOCKERFILE,
                "below": "below the model",
                "serve.pl": SERVER.format(stamp=stamp),
            }
        ) as context:
            (builder or self.engine.build)(
                context,
                dockerfile="Dockerfile",
                args={"BASE": self.base},
                tag=tag,
                on_line=lambda _: None,
            )
        config, layers = export_image(self.engine.save(tag), self.cache, tag)
        commit = Commit(revision=digest(stamp.encode())[7:47], dirty=False)
        return create_app_image(
            self.name, f"{self.name}-{stamp}", commit, config, layers, self.cache
        )

    def model(self, mode: str = "right") -> ModelLayer:
        """Return a model, in the cache, with which the application behaves in that way."""
        data = mode.encode()
        with self.cache.writer() as writer:
            layer.write_layer([layer.Entry(PurePosixPath("model/mode"), len(data), [data])], writer)
            stored = writer.commit()
        return ModelLayer(
            model=Model(name="tiny", version=mode, digest=digest(data)),
            digest=stored,
            size=writer.size,
        )

    def output(self, reference: str) -> str:
        """Return what a container of an image writes until it ends."""
        labels = {LABEL: self.name}
        container = self.engine.create(
            Spec(name=f"{self.name}-{secrets.token_hex(4)}", image=reference, labels=labels)
        )
        try:
            self.engine.start(container.id)
            while self._is_running(container.id):
                time.sleep(0.05)
            return self.engine.logs(container.id, 20)
        finally:
            self.engine.remove(container.id)

    def _is_running(self, container: str) -> bool:
        return any(
            found.running
            for found in self.engine.containers({LABEL: self.name})
            if found.id == container
        )

    @cached_property
    def pulled(self) -> list[str]:
        """The references of pulled images, which are removed too."""
        return []

    def remove(self) -> None:
        """Remove all of it from the engine."""
        self.engine.remove_labelled({LABEL: self.name})
        api = self.engine._api
        tags = [
            tag
            for found in api.images()
            for tag in found["RepoTags"] or ()
            if tag.startswith(f"twinship/{self.name}:")
        ]
        for name in (*self.pulled, *tags):
            api.remove_image(name, force=True)


def _pack(files: dict[str, str]) -> IO[bytes]:
    # BuildKit's command line reads it as its standard input, so it must be a real file.
    target = cast("IO[bytes]", tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
    return pack_files({name: text.encode() for name, text in files.items()}, target)


def create_cache(folder: Path) -> Cache:
    """Return an empty cache below a folder."""
    return Cache(folder / "cache")
