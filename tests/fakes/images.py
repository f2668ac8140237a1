"""What an engine in memory knows of images: enough to build, save, load, pull and name them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from deploy.archive import pack_files
from deploy.errors import BuildFailed, DiskFull, EngineFailed, EngineUnavailable, RegistryNotFound


def digest(data: bytes) -> str:
    """The digest of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True)
class Held:
    """An image that the engine holds: its config, and its layers by diff id."""

    config: bytes
    layers: tuple[bytes, ...]

    @property
    def id(self) -> str:
        """The digest of its config."""
        return digest(self.config)

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The digests of its layers."""
        return tuple(map(digest, self.layers))


def image_of(layers: tuple[bytes, ...], said: str = "made in memory") -> Held:
    """An image of those layers."""
    config: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"]},
    }
    config["rootfs"] = {"type": "layers", "diff_ids": list(map(digest, layers))}
    config["history"] = [{"created_by": said} for _ in layers]
    return Held(json.dumps(config).encode(), layers)


class FakeImages:
    """The images of an engine.

    Attributes:
        gone: whether the engine has stopped answering.
        full: whether its disk is.
        registry: images that can be pulled, by reference.
    """

    version = "0.0"
    local = True
    architecture = "amd64"

    def __init__(self) -> None:
        self.gone = False
        self.full = False
        self.registry: dict[str, Held] = {}
        self.held: dict[str, Held] = {}
        self.names: dict[str, str] = {}
        self.pulled: list[tuple[str, tuple[str, str] | None]] = []
        self.built: list[tuple[str, dict[str, str]]] = []
        self.loaded: list[list[str]] = []

    def hold_image(self, name: str, *layers: bytes) -> str:
        """Has the engine hold an image under a name; its id."""
        return self._keep(image_of(layers or (f"layer of {name}".encode(),)), name)

    def _keep(self, image: Held, name: str = "") -> str:
        self.held[image.id] = image
        if name:
            self.names[name] = image.id
        return image.id

    def _asked(self) -> None:
        if self.gone:
            raise EngineUnavailable(
                "the container engine stopped answering", on="memory", next="start it"
            )

    def _image(self, name: str) -> Held:
        found = self.held.get(self.names.get(name, name))
        if found is None:
            raise EngineFailed("no such image", on=name, next="pull it")
        return found

    # --- the protocol

    def image_id(self, image: str) -> str | None:
        self._asked()
        found = self.names.get(image, image)
        return found if found in self.held else None

    def diff_ids(self, image: str) -> tuple[str, ...] | None:
        found = self.image_id(image)
        return self.held[found].diff_ids if found else None

    def chains(self) -> Iterable[tuple[str, ...]]:
        self._asked()
        return [image.diff_ids for image in self.held.values()]

    def tag(self, image: str, name: str) -> None:
        self._asked()
        self.names[name] = self._image(image).id

    def pull(
        self, reference: str, login: tuple[str, str] | None, said: Callable[[str], None]
    ) -> None:
        self._asked()
        self.pulled.append((reference, login))
        if reference not in self.registry:
            raise RegistryNotFound(
                "the registry has no such image", on=reference, next="push it first"
            )
        said("Pulling")
        self._keep(self.registry[reference], reference)

    def import_image(self, archive: IO[bytes], name: str, changes: tuple[str, ...]) -> None:
        self._asked()
        self._keep(image_of((archive.read(),), f"import {changes}"), name)

    def build(
        self,
        context: IO[bytes],
        *,
        dockerfile: str,
        args: Mapping[str, str],
        tag: str,
        said: Callable[[str], None],
    ) -> str:
        self._asked()
        with tarfile.open(fileobj=context) as archive:
            files = {
                member.name: opened.read()
                for member in archive
                if (opened := archive.extractfile(member))
            }
        self.built.append((tag, dict(args)))
        layers: tuple[bytes, ...] = ()
        for step in _steps(files[dockerfile].decode(), args):
            said(" ".join(step))
            layers += self._layers_of(step, files, dockerfile)
        if self.full:
            raise DiskFull("the engine has no space left", on=dockerfile, next="free some")
        return self._keep(image_of(layers, f"build {tag}"), tag)

    def _layers_of(
        self, step: list[str], files: Mapping[str, bytes], dockerfile: str
    ) -> tuple[bytes, ...]:
        word, *rest = step
        if word == "FROM":
            return () if rest == ["scratch"] else self._image(rest[0]).layers
        if word == "COPY":
            found = [
                data
                for name, data in sorted(files.items())
                if name == rest[0] or name.startswith(f"{rest[0]}/")
            ]
            if not found:
                raise BuildFailed(
                    "the app image did not build",
                    on=dockerfile,
                    next="mend it",
                    detail=f"  no {rest[0]}",
                )
            return (b"".join([" ".join(step).encode(), *found]),)
        return (" ".join(step).encode(),) if word == "RUN" else ()

    def save(self, image: str) -> Iterator[bytes]:
        self._asked()
        found = self._image(image)
        names = [f"{index}/layer.tar" for index in range(len(found.layers))]
        listed = [{"Config": "config.json", "RepoTags": [image], "Layers": names}]
        members = {
            "config.json": found.config,
            **dict(zip(names, found.layers, strict=True)),
            "manifest.json": json.dumps(listed).encode(),
        }
        yield pack_files(members).read()

    def load(self, archive: Iterable[bytes]) -> None:
        self._asked()
        try:
            with tarfile.open(fileobj=io.BytesIO(b"".join(archive))) as opened:
                files = {
                    member.name: found.read()
                    for member in opened
                    if (found := opened.extractfile(member))
                }
        except tarfile.TarError as error:
            raise EngineFailed(
                "the container engine refused what it was asked", on="image", next="see the message"
            ) from error
        for listed in json.loads(files.get("manifest.json", b"[]")):
            config = files[listed["Config"]]
            ids = json.loads(config)["rootfs"]["diff_ids"]
            layers = tuple(
                self._layer(ids[: index + 1], files.get(name))
                for index, name in enumerate(listed["Layers"])
            )
            self.loaded.append([name for name in listed["Layers"] if name in files])
            for name in listed["RepoTags"] or [""]:
                self._keep(Held(config, layers), name)

    def _layer(self, chain: list[str], sent: bytes | None) -> bytes:
        """A layer as sent, else as an image has it that starts with the same chain."""
        if sent is None:
            sent = next(
                (
                    image.layers[len(chain) - 1]
                    for image in self.held.values()
                    if image.diff_ids[: len(chain)] == tuple(chain)
                ),
                b"",
            )
        if digest(sent) != chain[-1]:
            raise EngineFailed("a layer is missing or damaged", on=chain[-1], next="send it")
        return sent


def _steps(dockerfile: str, args: Mapping[str, str]) -> Iterator[list[str]]:
    """The instructions of a Dockerfile, each as its words, arguments filled in."""
    text = dockerfile.replace("\\\n", " ")
    for name, value in args.items():
        text = text.replace(f"${{{name}}}", value)
    for line in text.splitlines():
        if line.strip() and not line.startswith(("#", "ARG")):
            yield line.split()
