"""The folder of an application, its git repository, and the inputs that are read of it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from deploy.settings.reading import Settings
from deploy.source.inputs import Inputs, pack_build_context, read_inputs

PLATFORM = "linux/amd64"
BASE = f"debian:trixie-slim@sha256:{'0' * 64}"


def settings(*patterns: str, **build: Any) -> Settings:
    """Return the settings of an application with these files."""
    return Settings.model_validate(
        {
            "app": {"name": "classifier", "files": patterns or ("app/**",)},
            "model": {"name": "imagenet"},
            "image": {"base": BASE, **build},
            "environments": {"local": {}},
        }
    )


def git(folder: Path, *arguments: str) -> str:
    """Run git and return its output."""
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def write(folder: Path, **files: str) -> None:
    """Write files; two underscores in a name are a slash, one is a dot."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def commit_all(folder: Path, message: str = "change") -> str:
    """Commit all files; return the revision."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
    return git(folder, "rev-parse", "HEAD")


def read(folder: Path, *patterns: str, **build: Any) -> Inputs:
    """Return the inputs of an application."""
    return read_inputs(folder, settings(*patterns, **build), PLATFORM)


def pack(inputs: Inputs, *wheels: Path) -> bytes:
    """Return the bytes of the build context."""
    with pack_build_context(inputs, wheels) as context:
        return context.read()
