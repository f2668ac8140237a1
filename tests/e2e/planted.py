"""Secrets of Azure that tasks, their files, their images and their processes must not show."""

from __future__ import annotations

import base64
import gzip
import io
import re
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bench.watching import Watcher
from deploy.clients.azure.registry import USER

# Seconds between two looks at the processes.
_LOOK = 0.1
_GZIP = b"\x1f\x8b"
# Each secret that a test sets begins with this word. All others are JSON Web Tokens: of the
# stand-in, of the CI systems and of the cluster. A registry gets one as a password, encoded again.
_SECRETS = (
    rb"planted[-+]",
    rb"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{20,}",
    re.escape(base64.b64encode(f"{USER}:e".encode())[:-4]),
)


class Secrets:
    """Finds the secrets of a test."""

    def __init__(self) -> None:
        # One after the other: a search for one that begins with letters is much faster.
        self._patterns = [re.compile(pattern) for pattern in _SECRETS]

    def add_key(self, path: Path) -> None:
        """Add the private key of a PEM file."""
        line = path.read_bytes().splitlines()[2]
        self._patterns.append(re.compile(re.escape(line)))

    def add(self, secret: str) -> None:
        """Add a secret of another form."""
        self._patterns.append(re.compile(re.escape(secret.encode())))

    def find(self, data: bytes) -> str:
        """Return the first secret with what is around it; empty if there is none."""
        found = next(filter(None, (pattern.search(data) for pattern in self._patterns)), None)
        if found is None:
            return ""
        start = max(0, found.start() - 60)
        return data[start : found.start() + 80].decode("utf-8", "backslashreplace")

    def find_in_folder(self, folder: Path) -> dict[str, str]:
        """Return the secrets in the files below a folder, by their paths."""
        return self._find_in(
            (str(path), path.read_bytes())
            for path in folder.rglob("*")
            if path.is_file() and not path.is_symlink()
        )

    def find_in_container(self, container: str, folder: str) -> dict[str, str]:
        """Return the secrets in the files of a container, also in compressed ones."""
        packed = subprocess.run(
            ["docker", "cp", f"{container}:{folder}", "-"], capture_output=True, check=True
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as files:
            contents = (
                (member.name, opened.read())
                for member in files
                if member.isfile() and (opened := files.extractfile(member))
            )
            return self._find_in(
                (name, gzip.decompress(data) if data.startswith(_GZIP) else data)
                for name, data in contents
            )

    def _find_in(self, contents: Iterator[tuple[str, bytes]]) -> dict[str, str]:
        found = ((name, self.find(data)) for name, data in contents)
        return {name: secret for name, secret in found if secret}


class CommandLines(Watcher):
    """All command lines of this machine, which it looks at while the `with` block lasts.

    Attributes:
        seen: the command lines.
    """

    def __init__(self) -> None:
        super().__init__(_LOOK)
        self.seen: set[bytes] = set()

    def look(self) -> None:
        """Note all command lines of this moment."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            # A process may end meanwhile.
            with suppress(OSError):
                self.seen.add(path.read_bytes())
