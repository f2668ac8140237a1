"""The Docker configuration of this user: `config.json`, and the folder in which it is.

Source: Docker CLI, "Docker CLI configuration file (config.json) properties".
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

log = logging.getLogger(__name__)

_FILE = "config.json"
_PLUGINS = "cli-plugins"
_HELPER = "docker-credential-"
# A configuration without any login has the SDK read the user's own file again, with its helpers.
_NO_LOGIN: dict[str, Any] = {"auths": {"none.invalid": {}}}


@dataclass(frozen=True)
class DockerConfiguration:
    """The Docker configuration of this user.

    Attributes:
        folder: the folder that DOCKER_CONFIG names, or `~/.docker`.
        content: what `config.json` says; empty if it is missing or cannot be read.
    """

    folder: Path
    content: Mapping[str, Any]

    @classmethod
    def read(cls) -> Self:
        """Return the configuration as it is now; as for Docker, an unreadable one is empty."""
        named = os.environ.get("DOCKER_CONFIG")
        folder = Path(named or os.path.expanduser("~/.docker"))  # noqa: PTH111 - Path's raises for a user without a home folder
        try:
            content = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            content = {}
        except (OSError, ValueError) as error:
            _warn(f"{folder / _FILE} cannot be read, so it is not used: {error}")
            content = {}
        return cls(folder, content if isinstance(content, dict) else {})

    @property
    def file(self) -> Path:
        """The path of `config.json`, which may be missing."""
        return self.folder / _FILE

    @property
    def current_context(self) -> str:
        """The context that it chooses; empty if it chooses none."""
        return str(self.content.get("currentContext") or "")

    def missing_helpers(self) -> tuple[str, ...]:
        """Return the credential helpers that it names and that are not on the PATH."""
        named = {self.content.get("credsStore"), *self._helpers_by_registry().values()}
        programs = (f"{_HELPER}{name}" for name in named if isinstance(name, str) and name)
        return tuple(sorted(program for program in programs if shutil.which(program) is None))

    def _helpers_by_registry(self) -> dict[str, Any]:
        found = self.content.get("credHelpers")
        return found if isinstance(found, dict) else {}

    @contextmanager
    def as_folder(self) -> Iterator[Path]:
        """Yield a folder with this configuration, for programs and libraries; then remove it.

        It has no builders and contexts, what they write stays in it, and helpers that are missing
        are left out: a request that needs none of their logins succeeds without them.
        """
        missing = self.missing_helpers()
        with tempfile.TemporaryDirectory(prefix="twinship-docker-") as name:
            folder = Path(name)
            if missing:
                _warn(
                    f"{', '.join(missing)}, named by {self.file}, is not on the PATH: "
                    "going on without its logins"
                )
                (folder / _FILE).write_text(json.dumps(self._without(missing)), encoding="utf-8")
            elif self.content:
                (folder / _FILE).symlink_to(self.file.absolute())
            if (self.folder / _PLUGINS).is_dir():
                (folder / _PLUGINS).symlink_to((self.folder / _PLUGINS).absolute())
            yield folder

    def _without(self, helpers: tuple[str, ...]) -> dict[str, Any]:
        """Return the content without those helpers."""
        content = dict(self.content)
        if f"{_HELPER}{content.get('credsStore')}" in helpers:
            del content["credsStore"]
        content["credHelpers"] = {
            registry: name
            for registry, name in self._helpers_by_registry().items()
            if f"{_HELPER}{name}" not in helpers
        }
        return content if content.get("auths") else content | _NO_LOGIN


@cache
def _warn(text: str) -> None:
    """Log a warning, once in a process."""
    log.warning("%s", text)
