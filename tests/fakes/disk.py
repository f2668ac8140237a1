"""A disk without space, as the kernel shows it to a process that writes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def fill_disk(folder: Path) -> None:
    """Let writes to the open files of this process below a folder find no space."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if descriptor.readlink().is_relative_to(folder):
                with Path("/dev/full").open("wb") as full:
                    os.dup2(full.fileno(), int(descriptor.name))
