"""The images of an engine in memory: it builds, saves, loads, pulls and tags them."""

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
    """Return the digest of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True)
class StoredImage:
    """An image of the engine: its config and its layers."""

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

    @property
    def platform(self) -> str:
        """The platform that its config names."""
        config = json.loads(self.config)
        return f"{config['os']}/{config['architecture']}"


def make_image(
    layers: tuple[bytes, ...], created_by: str = "made in memory", platform: str = "linux/amd64"
) -> StoredImage:
    """Return an image of these layers."""
    system, _, architecture = platform.partition("/")
    config: dict[str, Any] = {
        "architecture": architecture,
        "os": system,
        "config": {"Env": ["PATH=/bin"]},
    }
    config["rootfs"] = {"type": "layers", "diff_ids": list(map(digest, layers))}
    config["history"] = [{"created_by": created_by} for _ in layers]
    return StoredImage(json.dumps(config).encode(), layers)


class FakeImages:
    """The images of an engine.

    Attributes:
        is_stopped: Whether the engine does not answer.
        disk_full: Whether its disk has no space.
        registry: The images that can be pulled, by reference.
        images: The images of the engine, by id.
        names: The ids of images, by name.
        pulled: The pulled references and their logins, in order.
        built: The tags and arguments of builds, in order.
        runs_programs_of: The platforms whose programs a build can run.
        loaded: The layers that each loaded archive had.
    """

    product = "Docker"
    version = "0.0"
    is_local = True
    architecture = "amd64"

    def __init__(self) -> None:
        self.is_stopped = False
        self.disk_full = False
        self.registry: dict[str, StoredImage] = {}
        self.images: dict[str, StoredImage] = {}
        self.names: dict[str, str] = {}
        self.pulled: list[tuple[str, tuple[str, str] | None]] = []
        self.built: list[tuple[str, dict[str, str]]] = []
        self.runs_programs_of = {self._own_platform}
        self.loaded: list[list[str]] = []

    @property
    def _own_platform(self) -> str:
        return f"linux/{self.architecture}"

    def add_image(self, name: str, *layers: bytes, platform: str = "") -> str:
        """Add an image, for the engine's platform if none is given; return its id."""
        content = layers or (f"layer of {name}".encode(),)
        return self._keep(make_image(content, platform=platform or self._own_platform), name)

    def _keep(self, image: StoredImage, name: str = "") -> str:
        self.images[image.id] = image
        if name:
            self.names[name] = image.id
        return image.id

    def _check_running(self) -> None:
        if self.is_stopped:
            raise EngineUnavailable(
                "the container engine stopped answering", on="memory", next="start it"
            )

    def _image(self, name: str) -> StoredImage:
        found = self.images.get(self.names.get(name, name))
        if found is None:
            raise EngineFailed("no such image", on=name, next="pull it")
        return found

    # --- the protocol

    def image_id(self, image: str) -> str | None:
        self._check_running()
        found = self.names.get(image, image)
        return found if found in self.images else None

    def diff_ids(self, image: str) -> tuple[str, ...] | None:
        found = self.image_id(image)
        return self.images[found].diff_ids if found else None

    def platform(self, image: str) -> str | None:
        found = self.image_id(image)
        return self.images[found].platform if found else None

    def layer_chains(self) -> Iterable[tuple[str, ...]]:
        self._check_running()
        return [image.diff_ids for image in self.images.values()]

    def tag(self, image: str, name: str) -> None:
        self._check_running()
        self.names[name] = self._image(image).id

    def pull(
        self,
        reference: str,
        login: tuple[str, str] | None,
        on_line: Callable[[str], None],
        platform: str = "",
    ) -> None:
        self._check_running()
        self.pulled.append((reference, login))
        found = self.registry.get(reference)
        if found is None or found.platform != (platform or self._own_platform):
            raise RegistryNotFound(
                "the registry has no such image", on=reference, next="push it first"
            )
        on_line("Pulling")
        self._keep(found, reference)

    def import_image(self, archive: IO[bytes], name: str, changes: tuple[str, ...]) -> None:
        self._check_running()
        self._keep(make_image((archive.read(),), f"import {changes}"), name)

    def build(
        self,
        context: IO[bytes],
        *,
        dockerfile: str,
        args: Mapping[str, str],
        tag: str,
        platform: str = "",
        on_line: Callable[[str], None],
    ) -> str:
        self._check_running()
        with tarfile.open(fileobj=context) as archive:
            files = {
                member.name: opened.read()
                for member in archive
                if member.isreg() and (opened := archive.extractfile(member))
            }
        self.built.append((tag, dict(args)))
        layers: tuple[bytes, ...] = ()
        for step in _steps(files[dockerfile].decode(), args):
            on_line(" ".join(step))
            if step[0] == "RUN" and platform not in ("", *self.runs_programs_of):
                raise BuildFailed(
                    "the app image did not build",
                    on=dockerfile,
                    next="fix it",
                    detail="  exec /bin/sh: exec format error",
                )
            layers += self._layers_of(step, files, dockerfile)
        if self.disk_full:
            raise DiskFull("the engine has no space left", on=dockerfile, next="free some")
        made = make_image(layers, f"build {tag}", platform or self._own_platform)
        return self._keep(made, tag)

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
                    next="fix it",
                    detail=f"  no {rest[0]}",
                )
            return (b"".join([" ".join(step).encode(), *found]),)
        return (" ".join(step).encode(),) if word == "RUN" else ()

    def save(self, image: str) -> Iterator[bytes]:
        self._check_running()
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
        self._check_running()
        try:
            with tarfile.open(fileobj=io.BytesIO(b"".join(archive))) as opened:
                files = {
                    member.name: found.read()
                    for member in opened
                    if (found := opened.extractfile(member))
                }
        except tarfile.TarError as error:
            raise EngineFailed(
                "the container engine refused the request", on="image", next="see the message"
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
                self._keep(StoredImage(config, layers), name)

    def _layer(self, chain: list[str], sent: bytes | None) -> bytes:
        """Return a layer as sent, or that of an image with the same lower layers."""
        if sent is None:
            sent = next(
                (
                    image.layers[len(chain) - 1]
                    for image in self.images.values()
                    if image.diff_ids[: len(chain)] == tuple(chain)
                ),
                b"",
            )
        if digest(sent) != chain[-1]:
            raise EngineFailed("a layer is missing or damaged", on=chain[-1], next="send it")
        return sent


def _steps(dockerfile: str, args: Mapping[str, str]) -> Iterator[list[str]]:
    """Yield the words of each instruction of a Dockerfile, with its arguments."""
    text = dockerfile.replace("\\\n", " ")
    for name, value in args.items():
        text = text.replace(f"${{{name}}}", value)
    for line in text.splitlines():
        if line.strip() and not line.startswith(("#", "ARG")):
            yield line.split()
