"""The images and services beside the application: the base image, the proxy's image, the local registry.

Each is used if it is there, pulled if it can be, and made from Debian's packages if not.
"""

from __future__ import annotations

import hashlib
import io
import logging
import socket
import tarfile
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from deploy import progress
from deploy.clients import debian
from deploy.clients.docker import DockerEngine
from deploy.clients.engine import Container, Spec
from deploy.clients.oci import HttpRegistry
from deploy.errors import BaseUnavailable, PartMissing, PlatformError, PortTaken, RegistryError, ReleaseError
from deploy.settings import ImageBuild

log = logging.getLogger(__name__)

PART = "dev.twinship.part"
REGISTRY = "twinship-registry"
_FILES = Path(__file__).parent / "machine"
_REGISTRY_WITHIN = 20.0
_REGISTRY_PORT = 5000


def base(engine: DockerEngine, build: ImageBuild) -> str:
    """The base image: by its digest where it can be pulled, else a stand-in of the same content made from packages.

    Returns:
        The reference to build from.

    Raises:
        BaseUnavailable: neither works here.
    """
    made = stand_in(build)
    for reference in (build.base, made):
        if engine.image_id(reference):
            return reference
    refused = _pulled(engine, build.base)
    if refused is None:
        return build.base
    log.info("%s cannot be pulled: making the same from Debian's packages", build.base.partition("@")[0])
    try:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "base.tar"
            debian.make_base(build.suite, target)
            with target.open("rb") as archive:
                engine.import_image(archive, made, ('CMD ["bash"]',))
    except PlatformError as error:
        raise BaseUnavailable(
            "the base image can neither be pulled nor made here",
            on=build.base,
            next="give the engine access to a registry that has it, or run once on Debian",
            detail=f"  pulling: {refused.detail.strip() or refused.what}\n  making: {error}",
        ) from error
    return made


def stand_in(build: ImageBuild) -> str:
    """The name of the base image that is made here where the real one cannot be pulled."""
    return f"twinship/base:{build.suite}"


def _pulled(engine: DockerEngine, reference: str) -> ReleaseError | None:
    log.info("pulling %s", reference.partition("@")[0])
    try:
        engine.pull(reference, None, progress.note)
    except ReleaseError as error:
        return error
    return None


def image(engine: DockerEngine, build: ImageBuild) -> str:
    """The image of the proxy and the local registry; it is built if the engine lacks it.

    Raises:
        BaseUnavailable, BuildFailed: it cannot be.
    """
    files = {path.name: path.read_bytes() for path in sorted(_FILES.iterdir()) if path.is_file()}
    key = hashlib.sha256(b"".join(name.encode() + data for name, data in files.items()) + build.base.encode()).hexdigest()[:12]
    tag = f"twinship/parts:{key}"
    if engine.image_id(tag) is None:
        log.info("building the image of the proxy and the local registry")
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        context.seek(0)
        engine.build(context, dockerfile="Dockerfile", args={"BASE": base(engine, build)}, tag=tag, said=progress.note)
    return tag


def registry(engine: DockerEngine, build: ImageBuild, host: str) -> None:
    """Makes sure that a registry answers at a loopback address; one that is there already is used.

    Raises:
        PortTaken: something else listens there.
        PlatformError, ImageError: it cannot be started.
    """
    if registry_answers(host):
        return
    port = int(host.rpartition(":")[2])
    name = REGISTRY if port == _REGISTRY_PORT else f"{REGISTRY}-{port}"
    existing = [container for container in engine.containers({PART: "registry"}) if container.name == name]
    if not existing:
        require_free("127.0.0.1", port)
        log.info("starting a local registry on %s", host)
        existing = [_created_registry(engine, build, name, port)]
    engine.start(existing[0].id)
    deadline = time.monotonic() + _REGISTRY_WITHIN
    while not registry_answers(host):
        if time.monotonic() > deadline:
            raise PartMissing(
                "the local registry did not come up", on=host, next=f"see `docker logs {name}`", detail=engine.logs(existing[0].id, 10)
            )
        time.sleep(0.1)


def _created_registry(engine: DockerEngine, build: ImageBuild, name: str, port: int) -> Container:
    labels = {PART: "registry"}
    engine.volume(name, labels)
    return engine.create(
        Spec(
            name=name,
            image=image(engine, build),
            labels=labels,
            command=("docker-registry", "serve", "/etc/docker/registry/config.yml"),
            network="bridge",
            ports={_REGISTRY_PORT: ("127.0.0.1", port)},
            volumes={name: ("/var/lib/registry", False)},
            restart=True,
        )
    )


def registry_answers(host: str) -> bool:
    """Whether an OCI registry listens there."""
    with suppress(RegistryError):
        HttpRegistry(host).ping()
        return True
    return False


def is_loopback(host: str) -> bool:
    """Whether a registry's host is this machine."""
    return host.rpartition(":")[0] in ("127.0.0.1", "localhost")


def require_free(address: str, port: int) -> None:
    """Makes sure that nobody listens on a port.

    Raises:
        PortTaken: somebody does.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise PortTaken(
                "another program listens on the port",
                on=f"{address}:{port}",
                next=f"stop it (`ss -ltnp sport = :{port}` names it), or set another port in pipeline.toml",
            ) from error
