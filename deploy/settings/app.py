"""The table [app] of pipeline.toml."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from deploy.records import Name
from deploy.settings.table import Port, Table


class App(Table):
    """The application: its name, and the files of its image.

    `files` are glob patterns relative to pipeline.toml. The container listens on `port`, and
    answers 200 at the path `ready` once it can serve. A request of one of the paths `idempotent`
    has the same effect if it is executed twice, whatever its method is.
    """

    name: Name
    files: tuple[str, ...] = ("app/**",)
    port: Port = 8080
    ready: Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./~?=&%+-]*$")] = "/readyz"
    idempotent: tuple[Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./~-]*$")], ...] = ()
