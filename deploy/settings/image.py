"""The tables [image] and [image.wheels] of pipeline.toml."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from deploy.settings.table import Table

DEBIAN = (
    "debian:trixie-slim@sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f"
)
_DEBIAN = re.compile(r"(?:^|/)debian:([a-z]+)(?:-slim)?@")

Platform = Literal[
    "",
    "linux/amd64",
    "linux/arm64",
    "linux/arm/v7",
    "linux/arm/v6",
    "linux/386",
    "linux/ppc64le",
    "linux/riscv64",
    "linux/s390x",
]
Pinned = Annotated[str, Field(pattern=r"^[a-z0-9][\w.:/-]*@sha256:[0-9a-f]{64}$")]


class Wheels(Table):
    """Locked Python dependencies, which are downloaded on this machine.

    So the build needs no package index and no credential.
    """

    requirements: str
    python: Annotated[str, Field(pattern=r"^3\.\d+$")]


class ImageBuild(Table):
    """How the app image is built, and for which platform; empty for that of the engine.

    `base` is pulled by digest. If it cannot be pulled, it is made from Debian's packages, provided
    that it is Debian's own image or `suite` names a release of Debian. The proxy and the local
    registry are installed on `parts_base`, or on `base` if that is Debian.
    """

    dockerfile: str = "Dockerfile"
    platform: Platform = ""
    base: Pinned = DEBIAN
    suite: Annotated[str, Field(pattern=r"^[a-z]*$")] = ""
    parts_base: Pinned | None = None
    builder: Literal["auto", "classic", "buildkit"] = "auto"
    wheels: Wheels | None = None

    @property
    def debian(self) -> str:
        """The release of Debian that can replace the base; empty if none can."""
        own = _DEBIAN.search(self.base)
        return self.suite or (own[1] if own else "")

    @property
    def for_parts(self) -> ImageBuild:
        """The same settings for the image of the proxy and the registry, which the engine runs."""
        if self.parts_base:
            return ImageBuild(base=self.parts_base)
        return self.model_copy(update={"platform": ""}) if self.debian else ImageBuild(base=DEBIAN)
